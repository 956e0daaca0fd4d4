/*
 * The keeper as the server sees it: when it dies the server starts another one, with all that the dead one held. Used by fs/main.c.
 */
#ifndef FS_KEEPER_WATCH_H
#define FS_KEEPER_WATCH_H

#include <uv.h>

enum {
	KEEPER_WATCH_MAX = 4,
};

struct keeper_watch;

struct keeper_held {
	const char *name;
	int fd; /* borrowed; -1: there is none */
};

struct keeper_watch_settings {
	char **argv; /* the command line */
	const char *folder; /* that it is relative to */
	const char *mountpoint;
	struct keeper_held held[KEEPER_WATCH_MAX];
};

/* NULL: we have not been started by a keeper. @settings is copied; what it points to is borrowed. */
struct keeper_watch *keeper_watch_start(uv_loop_t *loop,
					const struct keeper_watch_settings *settings);
/* From now on it may die. NULL is ignored. It frees itself. */
void keeper_watch_stop(struct keeper_watch *watch);

#endif
