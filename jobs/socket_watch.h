/*
 * Being told when the file at a path is made, replaced or changed, by inotify, whether or not its folder exists yet. Used by a domain for
 * its monitor's socket while it is not connected.
 */
#ifndef JOBS_SOCKET_WATCH_H
#define JOBS_SOCKET_WATCH_H

#include <uv.h>

struct socket_watch;

/*
 * Calls @changed from the loop, maybe more than once for one change. What cannot be watched (a folder that may not be listed, too many
 * watches, a file system of another host) is not told of.
 */
struct socket_watch *socket_watch_new(uv_loop_t *loop, const char *path,
				      void (*changed)(void *data), void *data);
/* Both may be repeated. A watch that is stopped costs nothing. */
void socket_watch_start(struct socket_watch *watch);
void socket_watch_stop(struct socket_watch *watch);
/* @closed is called from the loop; the watch is gone then. */
void socket_watch_close(struct socket_watch *watch, void (*closed)(void *data));

#endif
