/*
 * The FUSE session in the loop: its descriptor, readable means requests. Made by fs/main.c; by tests on
 * one end of a socket pair. Requests are served by fs/ops.c. What a later life needs of it is in fs/kept.h.
 */
#ifndef FS_SESSION_H
#define FS_SESSION_H

#include <uv.h>
#include "fs/face.h"

struct fuse_args;
struct session;

/* Both are called from the loop, outside of requests, at most once. */
struct session_handlers {
	void (*ready)(void *data); /* the kernel's INIT has been answered: the tree can be read */
	void (*ended)(
		void *data); /* unmounted by somebody else; session_end() is still to be called */
};

/*
 * Reads libfuse's options in @args. Returns NULL and *@error, one line (malloc'ed), if one is wrong.
 * @face and @handlers are borrowed until session_free().
 */
struct session *session_new(uv_loop_t *loop, struct face *face, const struct fuse_args *args,
			    const struct session_handlers *handlers, void *data, char **error);
/* Mounts and begins to serve. Returns 0, or -1 and *@error, one line (malloc'ed). */
int session_mount(struct session *session, const char *mountpoint, char **error);
/* The descriptor of the mount, for whoever keeps it. */
int session_fd(const struct session *session);
/*
 * Goes on to serve the mount of an earlier life, with its descriptor, from now on the session's, and with what that life has kept (face->files.kept): libfuse is told INIT as
 * the kernel has told it then, and what had been taken and not answered the kernel is asked to send again. A kernel that cannot (before 6.9;
 * or @resend is false) has it answered with EIO. If INIT has not come yet, it is as after session_mount(); else `ready` is not called. Returns 0 or -errno.
 */
int session_take_over(struct session *session, int fd, const char *mountpoint, bool resend);
/* Serves what comes in on @fd instead of a mount: messages as from /dev/fuse. Takes @fd. */
int session_serve(struct session *session, int fd);
/* Unmounts, if it is mounted, and serves no more. */
void session_end(struct session *session);
/* After session_end(), when the loop has run its closing callbacks. NULL is ignored. */
void session_free(struct session *session);

#endif
