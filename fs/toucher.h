/*
 * The toucher: a process of its own that writes to files of our mount, because only a write through the mount makes the
 * kernel raise inotify events. It must not be the daemon: a process that is killed while it waits for itself to serve a request can
 * never end (the kernel keeps both). It holds no descriptor but its end of a socket pair, has no capability but
 * CAP_DAC_OVERRIDE (if the daemon has it), and ends with it.
 *
 * One order a line: "t PATH" (touch), "m PATH" (mkdir), "r PATH" (rmdir), "s PATH" (symlink), "u PATH" (unlink), PATH below the mount point. Each is answered by one byte,
 * in order, whatever became of it. Used by fs/notify.c; this file knows processes, not what is told.
 */
#ifndef FS_TOUCHER_H
#define FS_TOUCHER_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct toucher;

struct toucher_handlers {
	/* The oldest order that was not answered yet is. */
	void (*answered)(void *data, struct toucher *toucher);
	/* It has died: orders not answered may or may not have been carried out. The toucher frees itself afterwards. */
	void (*died)(void *data, struct toucher *toucher);
};

/* Starts the process. Returns NULL if it cannot be started. @handlers outlive it. */
struct toucher *toucher_start(uv_loop_t *loop, const char *mountpoint,
			      const struct toucher_handlers *handlers, void *data);
pid_t toucher_pid(const struct toucher *toucher);
/* Queues one order, for toucher_send(). @path must have no newline. */
void toucher_order(struct toucher *toucher, char what, const char *path);
/* Sends what is queued. */
void toucher_send(struct toucher *toucher);
/*
 * Takes the answers that are there. It answers before it goes on to the next order, so what it asks of the file system is about the
 * oldest order that is not answered then.
 */
void toucher_catch_up(struct toucher *toucher);
/* Ends it, and waits for nothing. `died` is called when it is gone, unless toucher_silence() was called. */
void toucher_kill(struct toucher *toucher);
/* No more callbacks. */
void toucher_silence(struct toucher *toucher);

/* True if a toucher of ours opens files whatever their modes and owners are: we have CAP_DAC_OVERRIDE. */
bool toucher_overrides(void);

/* The process itself: main() of `blockjobfs --toucher MOUNTPOINT`. Returns its exit status. */
int toucher_main(const char *mountpoint);

#endif
