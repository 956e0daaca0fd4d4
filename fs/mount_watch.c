/*
 * The end of our mount, seen in /proc/self/mountinfo; see fs/mount_watch.h. The kernel tells by POLLPRI that the list has changed.
 */
#include "fs/mount_watch.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include "fs/mount.h"

struct mount_watch {
	uv_poll_t poll;
	int fd;
	char device[32]; /* MAJOR:MINOR of the file system */
	void (*gone)(void *data);
	void *data;
};

static void on_change(uv_poll_t *poll, int status, int events)
{
	struct mount_watch *watch = poll->data;

	if (mount_is_listed(watch->device))
		return;
	uv_poll_stop(poll);
	watch->gone(watch->data);
}

struct mount_watch *mount_watch_start(uv_loop_t *loop, const char *mountpoint,
				      void (*gone)(void *data), void *data)
{
	struct mount_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		abort();
	watch->gone = gone;
	watch->data = data;
	watch->fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (watch->fd < 0 || !mount_device(mountpoint, watch->device, sizeof(watch->device))) {
		if (watch->fd >= 0)
			close(watch->fd);
		free(watch);
		return NULL;
	}
	uv_poll_init(loop, &watch->poll, watch->fd);
	watch->poll.data = watch;
	uv_poll_start(&watch->poll, UV_PRIORITIZED, on_change);
	return watch;
}

static void closed(uv_handle_t *handle)
{
	struct mount_watch *watch = handle->data;

	close(watch->fd);
	free(watch);
}

void mount_watch_stop(struct mount_watch *watch)
{
	if (watch)
		uv_close((uv_handle_t *)&watch->poll, closed);
}
