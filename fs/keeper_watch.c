/*
 * Watching over the keeper; see fs/keeper_watch.h. The first one is our parent, the ones after it are our children.
 */
#include "fs/keeper_watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>
#include "fs/command_line.h"
#include "fs/keeper.h"
#include "fs/log.h"
#include "fs/store.h"
#include "fs/store_socket.h"

enum {
	PAUSE_MS = 200, /* one that cannot be started is not tried without end at once */
	SOON_MS = 1000,
};

struct keeper_watch {
	uv_loop_t *loop;
	struct keeper_watch_settings settings;
	uv_poll_t parent; /* the first one */
	int pidfd; /* of it; -1 */
	uv_process_t process; /* a later one */
	uv_timer_t later;
	uint64_t started; /* when the last one was, by uv_now() */
	unsigned handles; /* open */
	bool stopped;
};

static void start_keeper(struct keeper_watch *watch);

static void handle_closed(uv_handle_t *handle)
{
	struct keeper_watch *watch = handle->data;

	if (handle == (uv_handle_t *)&watch->parent)
		close(watch->pidfd);
	if (--watch->handles == 0)
		free(watch);
}

static void on_parent_gone(uv_poll_t *poll, int status, int events)
{
	struct keeper_watch *watch = poll->data;

	uv_close((uv_handle_t *)poll, handle_closed);
	log_line("the keeper is gone; another one is started");
	start_keeper(watch);
}

static void on_later(uv_timer_t *timer)
{
	start_keeper(timer->data);
}

/* The handle of one that has gone is closed: it can be used again. */
static void process_closed(uv_handle_t *handle)
{
	struct keeper_watch *watch = handle->data;

	if (!watch->stopped) {
		unsigned pause = uv_now(watch->loop) - watch->started < SOON_MS ? PAUSE_MS : 0;

		uv_timer_start(&watch->later, on_later, pause, 0);
	}
	handle_closed(handle);
}

static void on_keeper_gone(uv_process_t *process, int64_t status, int signal)
{
	log_line("the keeper is gone; another one is started");
	uv_close((uv_handle_t *)process, process_closed);
}

static void set_environment(const struct keeper_watch *watch, const char *names, int count)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", count);
	setenv("LISTEN_FDS", number, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	setenv(KEEPER_MOUNTPOINT, watch->settings.mountpoint, 1);
}

static void clear_environment(void)
{
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv(KEEPER_MOUNTPOINT);
}

static int spawn(struct keeper_watch *watch, char **arguments, const int ends[2])
{
	uv_stdio_container_t stdio[3 + 2 + KEEPER_WATCH_MAX];
	char names[256] = KEEPER_EAR ":" STORE_VOICE;
	uv_process_options_t options = {
		.exit_cb = on_keeper_gone,
		.file = OWN_PROGRAM,
		.args = arguments,
		.cwd = "/",
		.flags = UV_PROCESS_DETACHED,
		.stdio = stdio,
	};
	int count = 0, status;

	for (; count < 3; count++)
		stdio[count] = (uv_stdio_container_t){ .flags = UV_INHERIT_FD, .data.fd = count };
	for (int i = 0; i < 2; i++)
		stdio[count++] =
			(uv_stdio_container_t){ .flags = UV_INHERIT_FD, .data.fd = ends[i] };
	for (int i = 0; i < KEEPER_WATCH_MAX; i++) {
		const struct keeper_held *held = &watch->settings.held[i];
		size_t length = strlen(names);

		if (!held->name || held->fd < 0)
			continue;
		snprintf(names + length, sizeof(names) - length, ":%s", held->name);
		stdio[count++] =
			(uv_stdio_container_t){ .flags = UV_INHERIT_FD, .data.fd = held->fd };
	}
	options.stdio_count = count;
	set_environment(watch, names, count - 3);
	status = uv_spawn(watch->loop, &watch->process, &options);
	clear_environment();
	return status;
}

static void start_keeper(struct keeper_watch *watch)
{
	int ends[2] = { -1, -1 }, status = store_socket_pair(ends);
	bool tried = status == 0;
	char **arguments, pid[16];

	watch->started = uv_now(watch->loop);
	snprintf(pid, sizeof(pid), "%d", getpid());
	arguments =
		command_line_new(watch->settings.argv, KEEPER_ADOPT, pid, watch->settings.folder);
	watch->handles++;
	if (tried)
		status = spawn(watch, arguments, ends);
	free(arguments);
	if (tried)
		close(ends[STORE_EAR]);
	if (status == 0) {
		store_is_behind(ends[STORE_MOUTH]);
		return;
	}
	if (tried)
		close(ends[STORE_MOUTH]);
	log_line("no keeper can be started: %s", uv_strerror(status));
	if (tried)
		uv_close((uv_handle_t *)&watch->process, process_closed);
	else
		watch->handles--;
	uv_timer_start(&watch->later, on_later, PAUSE_MS * 10, 0);
}

struct keeper_watch *keeper_watch_start(uv_loop_t *loop,
					const struct keeper_watch_settings *settings)
{
	const char *keeper = getenv(KEEPER_PID);
	struct keeper_watch *watch;

	if (!keeper)
		return NULL;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		abort();
	watch->loop = loop;
	watch->settings = *settings;
	uv_timer_init(loop, &watch->later);
	watch->later.data = watch->process.data = watch;
	watch->handles = 1;
	watch->pidfd = getppid() == atol(keeper) ? pidfd_open(getppid(), 0) : -1;
	unsetenv(KEEPER_PID);
	if (watch->pidfd < 0) {
		start_keeper(watch); /* it has died since */
		return watch;
	}
	uv_poll_init(loop, &watch->parent, watch->pidfd);
	watch->parent.data = watch;
	watch->handles++;
	uv_poll_start(&watch->parent, UV_READABLE, on_parent_gone);
	return watch;
}

void keeper_watch_stop(struct keeper_watch *watch)
{
	if (!watch)
		return;
	watch->stopped = true;
	uv_close((uv_handle_t *)&watch->later, handle_closed);
	if (uv_is_active((uv_handle_t *)&watch->parent))
		uv_close((uv_handle_t *)&watch->parent, handle_closed);
	if (uv_is_active((uv_handle_t *)&watch->process))
		uv_close((uv_handle_t *)&watch->process, process_closed);
}
