/*
 * Watching for a socket's file; see socket_watch.h. The folder that is watched is the nearest parent of the path that exists: events in
 * it that are about another name cost a comparison.
 */
#include "jobs/socket_watch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	/* Folders that come and go while we look. Events come for all that happens after the last look. */
	LOOKS_MAX = 100,
};

struct socket_watch {
	uv_fs_event_t event;
	char *path; /* absolute */
	char *folder; /* watched; NULL: none */
	bool wanted;
	void (*changed)(void *data);
	void (*closed)(void *data);
	void *data;
};

static void on_event(uv_fs_event_t *event, const char *name, int what, int status);

/* "/run/vm" of "/run/vm/web1.qmp", "/" of "/run"; in place. False: there is none. */
static bool cut_last(char *path)
{
	char *slash = strrchr(path, '/');

	if (!slash || !strcmp(path, "/"))
		return false;
	while (slash > path && slash[-1] == '/')
		slash--;
	slash[slash == path] = 0;
	return true;
}

static void disarm(struct socket_watch *watch)
{
	uv_fs_event_stop(&watch->event);
	free(watch->folder);
	watch->folder = NULL;
}

/* What the path goes on with below the folder: *@length bytes. */
static const char *next_name(const struct socket_watch *watch, size_t *length)
{
	const char *rest = watch->path + strlen(watch->folder);

	rest += strspn(rest, "/");
	*length = strcspn(rest, "/");
	return rest;
}

/* Watches the nearest folder; false: that is not the one which the file is, or will be, in. */
static bool arm(struct socket_watch *watch)
{
	char *folder = strdup(watch->path);
	bool nearest = true;
	int error = UV_ENOENT;

	disarm(watch);
	while (cut_last(folder)) {
		error = uv_fs_event_start(&watch->event, on_event, folder, 0);
		if (error != UV_ENOENT && error != UV_ENOTDIR)
			break;
		nearest = false;
	}
	if (error)
		free(folder);
	else
		watch->folder = folder;
	return nearest;
}

/* The same, and looks whether the next folder has come meanwhile. */
static void arm_nearest(struct socket_watch *watch)
{
	for (int i = 0; i < LOOKS_MAX && !arm(watch) && watch->folder; i++) {
		size_t length;
		const char *name = next_name(watch, &length);
		char *next = strndup(watch->path, (size_t)(name - watch->path) + length);
		bool there = access(next, F_OK) == 0;

		free(next);
		if (!there)
			break;
	}
}

/* The folder's own name stands for what happens to itself: it is moved or removed. */
static bool is_folder_itself(const struct socket_watch *watch, const char *name)
{
	const char *slash = strrchr(watch->folder, '/');

	return slash && !strcmp(slash + 1, name);
}

static void on_event(uv_fs_event_t *event, const char *name, int what, int status)
{
	struct socket_watch *watch = event->data;
	size_t length;
	const char *wanted;
	bool is_next;

	if (status || !name || !watch->folder)
		return;
	wanted = next_name(watch, &length);
	is_next = strlen(name) == length && !memcmp(name, wanted, length);
	if (is_next && !wanted[length]) {
		watch->changed(watch->data);
	} else if (is_next || is_folder_itself(watch, name)) {
		arm_nearest(watch);
		/* The file may have come together with its folder. */
		if (access(watch->path, F_OK) == 0)
			watch->changed(watch->data);
	}
}

void socket_watch_start(struct socket_watch *watch)
{
	if (watch->wanted)
		return;
	watch->wanted = true;
	arm_nearest(watch);
}

void socket_watch_stop(struct socket_watch *watch)
{
	watch->wanted = false;
	disarm(watch);
}

struct socket_watch *socket_watch_new(uv_loop_t *loop, const char *path,
				      void (*changed)(void *data), void *data)
{
	struct socket_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		abort();
	watch->path = strdup(path);
	watch->changed = changed;
	watch->data = data;
	uv_fs_event_init(loop, &watch->event);
	watch->event.data = watch;
	return watch;
}

static void handle_closed(uv_handle_t *handle)
{
	struct socket_watch *watch = handle->data;
	void (*closed)(void *data) = watch->closed;
	void *data = watch->data;

	free(watch->path);
	free(watch);
	closed(data);
}

void socket_watch_close(struct socket_watch *watch, void (*closed)(void *data))
{
	watch->closed = closed;
	disarm(watch);
	uv_close((uv_handle_t *)&watch->event, handle_closed);
}
