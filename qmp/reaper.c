/*
 * The process that keeps an exec: command; see reaper.h. Run by main(), and started by transport_exec.c, of which it knows nothing else.
 *
 * It is a child subreaper: whoever of the command's processes loses its parent becomes the reaper's child, also one that has made a
 * session of its own. A pid of a child that was not waited for cannot become somebody else's, so killing children never hits a
 * stranger; and when they are dead, their children are ours.
 */
#include "qmp/reaper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	TOLD_MAX = 256, /* more children than that are not asked, but killed */
};

struct reaper {
	pid_t shell;
	bool shell_ended;
	int status; /* as of wait(2) */
	int signals; /* signalfd */
	pid_t told[TOLD_MAX]; /* children that were sent TERM */
	size_t told_count;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- the command --- */

static void become_command(const char *command, pid_t reaper, const sigset_t *mask)
{
	setsid();
	/* Should the reaper be killed. What the shell has started is on its own then. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != reaper)
		_exit(127);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	dprintf(STDERR_FILENO, "/bin/sh: %s\n", strerror(errno));
	_exit(127);
}

/* Only the command may hold its own ends, or nobody would see them close. */
static void let_go_of_standard(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd < 3; fd++)
		if (null < 0 || dup2(null, fd) < 0)
			close(fd);
	if (null > STDERR_FILENO)
		close(null);
}

/* --- who is left --- */

/* The parent of @pid; -1: there is no such process. */
static pid_t parent_of(const char *pid)
{
	char path[64], line[512], *end;
	ssize_t length;
	int fd, parent = -1;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	length = read(fd, line, sizeof(line) - 1);
	close(fd);
	if (length <= 0)
		return -1;
	line[length] = 0;
	/* "12 (a name) S 11 ...": the name may have anything in it. */
	end = strrchr(line, ')');
	if (!end || sscanf(end + 1, " %*c %d", &parent) != 1)
		return -1;
	return parent;
}

/* True if @pid has had its TERM: it gets one only, since a second one often means haste. */
static bool was_told(struct reaper *reaper, pid_t pid)
{
	for (size_t i = 0; i < reaper->told_count; i++)
		if (reaper->told[i] == pid)
			return true;
	if (reaper->told_count == TOLD_MAX)
		return true;
	reaper->told[reaper->told_count++] = pid;
	return false;
}

/* Sends @number to every child, and to the group that it leads, if it leads one. */
static void signal_children(struct reaper *reaper, int number)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid <= 0 || parent_of(entry->d_name) != getpid() ||
		    (number == SIGTERM && was_told(reaper, pid)))
			continue;
		if (getpgid(pid) != pid || kill(-pid, number) < 0)
			kill(pid, number);
	}
	if (proc)
		closedir(proc);
}

/* Waits for whoever has ended. False: there are no children any more. */
static bool reap(struct reaper *reaper)
{
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid == 0)
			return true;
		if (pid < 0 && errno != EINTR)
			return false;
		if (pid == reaper->shell) {
			reaper->shell_ended = true;
			reaper->status = status;
		}
	}
}

/* Sleeps until a child has ended, the line has, a signal has come, or @ms are over (-1: never). */
static bool sleep_until(struct reaper *reaper, bool watch_line, int ms)
{
	struct pollfd fds[] = {
		{ .fd = reaper->signals, .events = POLLIN },
		{ .fd = watch_line ? REAPER_LINE : -1, .events = POLLIN },
	};
	struct signalfd_siginfo info;
	bool asked = false;

	if (poll(fds, 2, ms) < 0)
		return false;
	while (read(reaper->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		asked |= info.ssi_signo != SIGCHLD;
	return asked || fds[1].revents;
}

/* True if nobody is left within @ms. */
static bool terminate(struct reaper *reaper, int number, int ms)
{
	int64_t end = now_ms() + ms, left;

	signal_children(reaper, number);
	while (reap(reaper)) {
		left = end - now_ms();
		if (left <= 0)
			return false;
		/* A child's children come to us when it has ended. */
		sleep_until(reaper, false, left < 20 ? (int)left : 20);
		signal_children(reaper, number);
	}
	return true;
}

/* --- its life --- */

static void end_as(int status)
{
	struct rlimit no_core = { 0, 0 };
	sigset_t none;

	if (WIFSIGNALED(status)) {
		setrlimit(RLIMIT_CORE, &no_core);
		sigemptyset(&none);
		signal(WTERMSIG(status), SIG_DFL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		raise(WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

static int watch_signals(sigset_t *before)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, before);
	return signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
}

static __attribute__((noreturn)) void keep(const char *command)
{
	struct reaper reaper = { 0 };
	pid_t self = getpid();
	sigset_t before;

	fcntl(REAPER_LINE, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	reaper.signals = watch_signals(&before);
	reaper.shell = fork();
	if (reaper.shell == 0)
		become_command(command, self, &before);
	if (reaper.shell < 0)
		dprintf(STDERR_FILENO, "fork: %s\n", strerror(errno));
	let_go_of_standard();
	while (reaper.shell > 0 && reap(&reaper) && !reaper.shell_ended)
		if (sleep_until(&reaper, true, -1))
			break;
	if (!terminate(&reaper, SIGTERM, REAPER_TERM_MS))
		terminate(&reaper, SIGKILL, REAPER_KILL_MS);
	if (reaper.shell <= 0 || !reaper.shell_ended)
		_exit(127);
	end_as(reaper.status);
	_exit(127);
}

void reaper_run_if_asked(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], REAPER_OPTION))
		keep(argv[2]);
}
