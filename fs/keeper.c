/*
 * The keeper; see fs/keeper.h. Run by fs/main.c as a process of its own.
 */
#include "fs/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>
#include "fs/background.h"
#include "fs/command_line.h"
#include "fs/held.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/store.h"
#include "fs/store_socket.h"

enum {
	SIGNALS = 5,
	/*
	 * A life has failed if it never served, or crashed soon after it did. A request may be to blame, which the kernel sends again to each life: so
	 * after some such lives what was under way is answered with an error. One that somebody else has killed is not to blame.
	 */
	SOON_MS = 10000,
	FAILURES_AT_ONCE = 3, /* the next life begins at once, and is sent what was under way */
	FAILURES_MOST = 10, /* there is no use in one more */
	PAUSE_MS = 100, /* doubled with each failure */
	UPGRADE_MS =
		10000, /* what a new program has for its rehearsal, and again until it serves */
};

struct keeper;

/* A process, which may have been started by the keeper before us. */
struct child {
	struct keeper *keeper;
	pid_t pid;
	int pidfd;
	bool reaped; /* and this is how it ended */
	int status;
	uv_poll_t poll;
};

struct keeper {
	char **argv; /* the command line */
	char *folder; /* that it is relative to */
	char *program; /* our own path, for an upgrade; NULL: not known */
	bool in_terminal; /* a hang-up is its end */
	int parent; /* as of background_begin(); -1 */
	uv_loop_t loop;
	uv_signal_t signals[SIGNALS];
	uv_timer_t next; /* the next life */
	uv_timer_t patience; /* with an upgrade */
	uv_timer_t becoming; /* the new program, in a moment */
	int notify; /* where the server says things */
	uv_poll_t notify_poll;
	struct held held;
	char *mountpoint; /* as the server has told it; NULL: nothing is mounted yet */
	struct child *server, *rehearsal; /* NULL: there is none */
	uint64_t began; /* when the server did, by uv_now() */
	bool ready; /* it serves */
	bool ever_ready; /* one has served */
	bool upgrading; /* the next server is the new program, or this one is and does not serve yet */
	bool stopping; /* the server ends by itself, or we were told to end it */
	bool server_ending; /* it has begun to */
	unsigned failures; /* lives that have failed, in a row */
	int status; /* ours, at the end */
};

static void start_server(struct keeper *keeper);

static void end(struct keeper *keeper, int status)
{
	if (keeper->rehearsal)
		kill(keeper->rehearsal->pid, SIGKILL);
	keeper->status = status;
	uv_stop(&keeper->loop);
}

/* Rather no mount than a dead one. What is there may be another one by now. */
static void unmount(const struct keeper *keeper)
{
	if (keeper->mountpoint)
		mount_undo(keeper->mountpoint, held_find(&keeper->held, KEEPER_FUSE));
}

/* There will be no server any more. */
static void give_up(struct keeper *keeper, int status)
{
	unmount(keeper);
	end(keeper, status);
}

/* --- processes --- */

/* What a server finds there: who keeps, and what has been kept. */
static void set_environment(const struct keeper *keeper)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getppid());
	setenv(KEEPER_PID, pid, 1);
	if (keeper->failures >= FAILURES_AT_ONCE)
		setenv(KEEPER_RESEND, "0", 1);
	held_pass(&keeper->held);
}

static void child_closed(uv_handle_t *handle)
{
	struct child *child = handle->data;

	close(child->pidfd);
	free(child);
}

static void hear(struct keeper *keeper);
static void server_ended(struct keeper *keeper, int status);
static void rehearsed(struct keeper *keeper, int status);

/* Ours, and those of dead servers: where the machine's first process does not care for orphans nobody else would. */
static void reap(struct keeper *keeper)
{
	struct child *children[] = { keeper->server, keeper->rehearsal };
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < 2; i++) {
			if (!children[i] || children[i]->pid != pid)
				continue;
			children[i]->reaped = true;
			children[i]->status = status;
		}
	}
}

static void on_child_ended(uv_poll_t *poll, int poll_status, int events)
{
	struct child *child = poll->data;
	struct keeper *keeper = child->keeper;
	int status;

	reap(keeper);
	/* What it has said before it died is in the socket yet. */
	if (child == keeper->server)
		hear(keeper);
	/* One that was another keeper's child: how it ended is not known, but whether it meant to. */
	status = child->reaped ? child->status : keeper->stopping ? 0 : SIGKILL;
	uv_close((uv_handle_t *)poll, child_closed);
	if (child == keeper->server) {
		keeper->server = NULL;
		server_ended(keeper, status);
	} else if (child == keeper->rehearsal) {
		keeper->rehearsal = NULL;
		rehearsed(keeper, status);
	}
}

/* NULL: there is no such process (any more). */
static struct child *watch(struct keeper *keeper, pid_t pid)
{
	struct child *child = calloc(1, sizeof(*child));

	if (!child)
		abort();
	child->keeper = keeper;
	child->pid = pid;
	child->pidfd = pidfd_open(pid, 0);
	if (child->pidfd < 0) {
		free(child);
		return NULL;
	}
	uv_poll_init(&keeper->loop, &child->poll, child->pidfd);
	child->poll.data = child;
	uv_poll_start(&child->poll, UV_READABLE, on_child_ended);
	return child;
}

static const int signal_numbers[SIGNALS] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD };

/* A signal that comes before the program is there is for it, and not for the loop's handlers, which the child has a useless copy of. */
static void forget_handlers(void)
{
	sigset_t none;

	for (int i = 0; i < SIGNALS; i++)
		signal(signal_numbers[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static struct child *start(struct keeper *keeper, const char *program, bool rehearse)
{
	char **line = command_line_new(keeper->argv, KEEPER_SERVE, NULL, keeper->folder);
	struct child *child;
	sigset_t all, before;
	pid_t pid;

	fflush(NULL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0) {
		forget_handlers();
		set_environment(keeper);
		if (rehearse)
			setenv(KEEPER_REHEARSE, "1", 1);
		execv(program, line);
		log_line("%s cannot be run: %s", program, strerror(errno));
		_exit(EXIT_FAILURE);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	free(line);
	child = pid < 0 ? NULL : watch(keeper, pid);
	if (pid > 0 && !child) {
		kill(pid, SIGKILL); /* nobody would notice its end, nor that there is one already */
		waitpid(pid, NULL, 0);
	}
	return child;
}

static void on_next_life(uv_timer_t *timer)
{
	start_server(timer->data);
}

static void start_server(struct keeper *keeper)
{
	const char *program = keeper->upgrading ? keeper->program : OWN_PROGRAM;

	keeper->ready = false;
	keeper->began = uv_now(&keeper->loop);
	keeper->server = start(keeper, program, false);
	if (!keeper->server) {
		log_line("no server can be started: %s", strerror(errno));
		uv_timer_start(&keeper->next, on_next_life, PAUSE_MS, 0);
	}
}

/* --- upgrade --- */

/* The new program has not kept its time. */
static void on_too_slow(uv_timer_t *timer)
{
	struct keeper *keeper = timer->data;

	if (keeper->rehearsal)
		kill(keeper->rehearsal->pid, SIGKILL);
	else if (keeper->server && !keeper->ready)
		kill(keeper->server->pid, SIGKILL);
}

/* First a rehearsal, while the old server serves: a program that cannot be run, or does not understand what is there, is found out by it. */
static void upgrade(struct keeper *keeper)
{
	if (!keeper->server || !keeper->ready || keeper->upgrading || keeper->rehearsal ||
	    uv_is_active((uv_handle_t *)&keeper->becoming) || keeper->stopping)
		return;
	if (!keeper->program)
		log_line("the path of this program is not known: it cannot be replaced");
	else if (!(keeper->rehearsal = start(keeper, keeper->program, true)))
		log_line("%s cannot be tried: %s", keeper->program, strerror(errno));
	else
		uv_timer_start(&keeper->patience, on_too_slow, UPGRADE_MS, 0);
}

static void rehearsed(struct keeper *keeper, int status)
{
	uv_timer_stop(&keeper->patience);
	if (status || !keeper->server || keeper->stopping) {
		log_line("%s does not come up, and the server stays as it is", keeper->program);
		return;
	}
	keeper->upgrading = true;
	/* What is under way is sent to the next one: a server may be killed at any moment. */
	kill(keeper->server->pid, SIGKILL);
}

/* @how: SIG_BLOCK, or SIG_UNBLOCK when they are listened to. */
static void hold_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (int i = 0; i < SIGNALS; i++)
		sigaddset(&set, signal_numbers[i]);
	sigprocmask(how, &set, NULL);
}

/* The new program serves: the keeper becomes it, too. Signals that came before on_ready() held them were heard since; later ones wait for it. */
static void become_new(uv_timer_t *timer)
{
	struct keeper *keeper = timer->data;
	char pid[16], **line;

	if (keeper->stopping || !keeper->server || !keeper->ready) {
		log_line("the keeper stays the old one");
		hold_signals(SIG_UNBLOCK);
		return;
	}
	snprintf(pid, sizeof(pid), "%d", keeper->server->pid);
	line = command_line_new(keeper->argv, KEEPER_ADOPT, pid, keeper->folder);
	held_keep(&keeper->held, KEEPER_EAR, keeper->notify);
	set_environment(keeper);
	if (keeper->mountpoint)
		setenv(KEEPER_MOUNTPOINT, keeper->mountpoint, 1);
	execv(keeper->program, line);
	log_line("%s cannot be run: %s; the keeper stays the old one", keeper->program,
		 strerror(errno));
	hold_signals(SIG_UNBLOCK);
	unsetenv(KEEPER_MOUNTPOINT);
	free(line);
}

/* --- what the server says --- */

static void on_ready(struct keeper *keeper)
{
	int parent = keeper->parent;

	keeper->ready = true;
	if (!keeper->ever_ready)
		store_say("READY=1");
	keeper->ever_ready = true;
	keeper->parent = -1;
	if (parent >= 0 && background_ready(parent) < 0)
		kill(keeper->server->pid, SIGTERM); /* nobody wants the mount any more */
	if (keeper->upgrading) {
		keeper->upgrading = false;
		uv_timer_stop(&keeper->patience);
		hold_signals(SIG_BLOCK);
		uv_timer_start(&keeper->becoming, become_new, 1, 0);
	}
}

static void on_line(struct keeper *keeper, const char *line, int fd)
{
	if (!strcmp(line, "READY=1")) {
		on_ready(keeper);
	} else if (!strcmp(line, "STOPPING=1")) {
		keeper->stopping = keeper->server_ending = true;
	} else if (fd >= 0 && !strncmp(line, "FDNAME=", 7)) {
		held_keep(&keeper->held, line + 7, fd);
	}
}

static void on_message(struct keeper *keeper, struct store_message *message)
{
	size_t prefix = strlen(KEEPER_MOUNTED);
	char *rest, *line;

	if (!strncmp(message->text, KEEPER_MOUNTED, prefix)) {
		free(keeper->mountpoint);
		keeper->mountpoint = strdup(message->text + prefix); /* newlines included */
		return;
	}
	for (line = strtok_r(message->text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		on_line(keeper, line, message->fd);
}

static void hear(struct keeper *keeper)
{
	struct store_message message;

	while (store_socket_hear(keeper->notify, &message)) {
		if (keeper->server && message.pid == keeper->server->pid)
			on_message(keeper, &message);
		if (message.fd >= 0)
			close(message.fd);
	}
}

static void on_notify(uv_poll_t *poll, int status, int events)
{
	hear(poll->data);
}

/* Returns 0 or -errno. */
static int listen_for(struct keeper *keeper)
{
	int ends[2], status;

	if (keeper->notify < 0) {
		status = store_socket_pair(ends);
		if (status)
			return status;
		keeper->notify = ends[STORE_EAR];
		held_keep(&keeper->held, STORE_VOICE, ends[STORE_MOUTH]);
		close(ends[STORE_MOUTH]);
	}
	uv_poll_init(&keeper->loop, &keeper->notify_poll, keeper->notify);
	keeper->notify_poll.data = keeper;
	return uv_poll_start(&keeper->notify_poll, UV_READABLE, on_notify);
}

/* --- the end of a life --- */

static bool has_crashed(int status)
{
	return !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
}

static void next_life(struct keeper *keeper, int status)
{
	uint64_t lived = uv_now(&keeper->loop) - keeper->began;
	unsigned pause = 0;

	if (!keeper->ready || (has_crashed(status) && lived < SOON_MS))
		keeper->failures++;
	else
		keeper->failures = 0;
	if (WIFSIGNALED(status))
		log_line("the server was killed by signal %d; it is started again",
			 WTERMSIG(status));
	else
		log_line("the server has ended with status %d; it is started again",
			 WEXITSTATUS(status));
	if (keeper->failures >= FAILURES_MOST) {
		log_line("%u times in a row the server has failed: %s is unmounted",
			 keeper->failures,
			 keeper->mountpoint ? keeper->mountpoint : "what it served");
		give_up(keeper, EXIT_FAILURE);
		return;
	}
	if (keeper->failures > FAILURES_AT_ONCE)
		pause = (unsigned)PAUSE_MS << (keeper->failures - FAILURES_AT_ONCE - 1);
	if (pause)
		uv_timer_start(&keeper->next, on_next_life, pause, 0);
	else
		start_server(keeper);
}

/*
 * The server's, if it has ended by itself or failed to. Else we were told to end it, and it died before it listened, after it did, or on its own:
 * what we were told is done all the same, and that is no failure.
 */
static int status_at_end(const struct keeper *keeper, int status)
{
	bool terminated = WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;

	if (WIFSIGNALED(status) && !terminated)
		log_line("the server was killed by signal %d when it was to end", WTERMSIG(status));
	if (keeper->ever_ready && (terminated || !keeper->server_ending))
		return EXIT_SUCCESS;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

static void server_ended(struct keeper *keeper, int status)
{
	if (keeper->stopping || (WIFEXITED(status) && !WEXITSTATUS(status))) {
		unmount(keeper); /* if it has not done that itself */
		end(keeper, status_at_end(keeper, status));
	} else if (!keeper->ever_ready) {
		if (WIFSIGNALED(status))
			log_line("the server was killed by signal %d before it was ready",
				 WTERMSIG(status));
		give_up(keeper, EXIT_FAILURE);
	} else if (keeper->upgrading && !keeper->ready) {
		log_line("%s has come to nothing: back to what it was to replace", keeper->program);
		keeper->upgrading = false;
		uv_timer_stop(&keeper->patience);
		start_server(keeper);
	} else if (keeper->upgrading) {
		start_server(keeper);
		uv_timer_start(&keeper->patience, on_too_slow, UPGRADE_MS, 0);
	} else {
		next_life(keeper, status);
	}
}

/* --- signals --- */

static void on_signal(uv_signal_t *handle, int number)
{
	struct keeper *keeper = handle->data;

	if (number == SIGCHLD) {
		reap(keeper);
		return;
	}
	if (number == SIGUSR1 || (number == SIGHUP && !keeper->in_terminal)) {
		upgrade(keeper);
		return;
	}
	keeper->stopping = true;
	uv_timer_stop(&keeper->next);
	if (keeper->server)
		kill(keeper->server->pid, SIGTERM);
	else
		give_up(keeper, EXIT_SUCCESS);
}

static void start_signals(struct keeper *keeper)
{
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < SIGNALS; i++) {
		uv_signal_init(&keeper->loop, &keeper->signals[i]);
		keeper->signals[i].data = keeper;
		uv_signal_start(&keeper->signals[i], on_signal, signal_numbers[i]);
	}
	hold_signals(SIG_UNBLOCK);
}

/* --- life --- */

static void begin(struct keeper *keeper)
{
	held_reserve();
	prctl(PR_SET_NAME, "blockjobfs-keep");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	uv_loop_init(&keeper->loop);
	uv_timer_init(&keeper->loop, &keeper->next);
	uv_timer_init(&keeper->loop, &keeper->patience);
	uv_timer_init(&keeper->loop, &keeper->becoming);
	keeper->next.data = keeper->patience.data = keeper->becoming.data = keeper;
	start_signals(keeper);
}

static int run(struct keeper *keeper)
{
	if (!keeper->server && !keeper->ever_ready)
		end(keeper, EXIT_FAILURE);
	else
		uv_run(&keeper->loop, UV_RUN_DEFAULT);
	if (keeper->parent >= 0)
		background_failed(keeper->parent, ""); /* the server has said why */
	return keeper->status;
}

int keeper_main(char **argv, const char *folder, int parent)
{
	static struct keeper keeper = { .notify = -1 };
	int status;

	keeper.argv = argv;
	keeper.folder = (char *)folder;
	keeper.parent = parent;
	keeper.in_terminal = parent < 0 && isatty(STDIN_FILENO);
	keeper.program = own_path();
	begin(&keeper);
	status = listen_for(&keeper);
	if (status < 0) {
		log_line("the server cannot be listened to: %s", strerror(-status));
		return EXIT_FAILURE;
	}
	start_server(&keeper);
	return run(&keeper);
}

/* What the keeper before us has held. */
static void take_over(struct keeper *keeper)
{
	static const char *const names[] = { KEEPER_FUSE, KEEPER_SESSION, KEEPER_MODEL, KEEPER_LOCK,
					     STORE_VOICE };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int fd = store_take(names[i]);

		if (fd < 0)
			continue;
		held_keep(&keeper->held, names[i], fd);
		close(fd);
	}
	keeper->notify = fcntl(store_take(KEEPER_EAR), F_DUPFD_CLOEXEC, HELD_FROM);
}

int keeper_adopt_main(char **argv, pid_t server)
{
	static struct keeper keeper = { .parent = -1, .ready = true, .ever_ready = true };
	const char *mountpoint = getenv(KEEPER_MOUNTPOINT);

	keeper.folder = strdup(argv[0]);
	argv[0] = "blockjobfs";
	keeper.argv = argv;
	keeper.mountpoint = mountpoint ? strdup(mountpoint) : NULL;
	unsetenv(KEEPER_MOUNTPOINT);
	keeper.program = own_path();
	take_over(&keeper);
	begin(&keeper);
	keeper.began = uv_now(&keeper.loop);
	if (keeper.notify < 0 || listen_for(&keeper) < 0)
		return EXIT_FAILURE;
	keeper.server = watch(&keeper, server);
	if (!keeper.server)
		server_ended(&keeper, SIGKILL);
	return run(&keeper);
}
