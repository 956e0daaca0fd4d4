/*
 * The reaper of an exec: command: a process between the daemon and the command, that leaves nothing of the command behind.
 *
 *	daemon ── reaper (blockjobfs --reaper COMMAND) ── /bin/sh -c COMMAND ── whatever that starts
 *
 * Its descriptors: 0, 1, 2 are the command's; 3 is its line to the daemon, on which nothing is ever written. When the line ends, since
 * the daemon lets go or is dead, or when the command has ended, or at SIGTERM, it terminates all that the command has started (TERM, and
 * KILL after a moment), and exits as the command did: with its status, or by its signal.
 */
#ifndef QMP_REAPER_H
#define QMP_REAPER_H

#define REAPER_OPTION "--reaper"

enum {
	REAPER_LINE = 3,
	REAPER_TERM_MS = 500, /* from TERM to KILL */
	REAPER_KILL_MS =
		2000, /* what is still there then is another user's, or stuck in the kernel: it is left */
};

/* Called first thing by main(): a process that was started as a reaper is one, and does not return. */
void reaper_run_if_asked(int argc, char **argv);

#endif
