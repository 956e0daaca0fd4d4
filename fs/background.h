/*
 * Going to the background: the command returns when the tree can be read, or with one line that says why
 * not. Used by fs/main.c and fs/keeper.c.
 */
#ifndef FS_BACKGROUND_H
#define FS_BACKGROUND_H

/*
 * Forks. The child, in its own session, returns with the descriptor that it has to tell its parent by. The
 * parent never returns: it ends with the status 0 when told that all is ready, else with 1 and the line
 * it was told. Returns -errno if it cannot be done.
 */
int background_begin(void);
/*
 * The child: ready. Its standard descriptors go to /dev/null, its log to syslog. Returns 0, or -1: the parent
 * has gone (Ctrl-C), nobody wants the mount any more. Closes @fd.
 */
int background_ready(int fd);
/* Standard descriptors to /dev/null, the log to syslog, and out of the folder in which it was started. */
void background_detach(void);
/* The child: it comes to nothing. @error: "": it has been said on standard error. Closes @fd. */
void background_failed(int fd, const char *error);

#endif
