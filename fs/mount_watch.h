/*
 * Watching the kernel's list of mounts for the end of ours. The toucher holds the file system alive by a mount of its own, which is in no
 * list (fs/toucher_main.c), so that "umount" is never told that it is busy; so we have to notice ourselves that it was unmounted.
 */
#ifndef FS_MOUNT_WATCH_H
#define FS_MOUNT_WATCH_H

#include <uv.h>

struct mount_watch;

/*
 * Begins to watch for the mount at @mountpoint, which must be there. @gone is called at most once, from the loop, when no mount of its
 * file system is left in our list. NULL: the list cannot be watched.
 */
struct mount_watch *mount_watch_start(uv_loop_t *loop, const char *mountpoint,
				      void (*gone)(void *data), void *data);
/* It frees itself when the loop has run its closing callback. NULL is ignored. */
void mount_watch_stop(struct mount_watch *watch);

#endif
