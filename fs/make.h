/*
 * mkdir(2) and rmdir(2), without FUSE: domains that somebody attaches and detaches, and folders that the toucher makes and removes once
 * more for those who watch. Called by fs/ops.c.
 */
#ifndef FS_MAKE_H
#define FS_MAKE_H

#include "fs/face.h"

/* Who asks, and whether that is our own toucher. */
struct asker {
	struct who who;
	struct request request;
	bool toucher;
};

/* Makes @name in the folder @parent. Returns 0 and what it is now, or -errno. */
int make_folder(struct face *face, const struct asker *asker, uint64_t parent, const char *name,
		struct place *made);
/* Removes it. Returns 0 or -errno. */
int remove_folder(struct face *face, const struct asker *asker, uint64_t parent, const char *name);

#endif
