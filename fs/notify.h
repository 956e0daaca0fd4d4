/*
 * Telling those who watch files (inotify): what has changed is collected here, and touched through the mount by the toucher, at most
 * once in a while a file; folders that come and go are made and removed there once more. Fed by the model's watcher, asked by
 * fs/ops.c what to make of the toucher's own requests. poll(2) does not come through here.
 */
#ifndef FS_NOTIFY_H
#define FS_NOTIFY_H

#include <uv.h>
#include "fs/files.h"

struct notify;
struct face;

enum {
	NOTIFY_AFTER_MS = 2, /* after the change: who has caused it or waits for it comes first */
	NOTIFY_MS = 10, /* two notices of a file are at least so far apart */
	NOTIFY_PROGRESS_MS = 1000, /* and of `progress`, while its job is live ... */
	/*
	 * ... or more, so that there are no more than so many of them a second: a touch is half a dozen requests, and whether anybody
	 * watches is not known. Measured by make bench: 1 % of a core.
	 */
	NOTIFY_PROGRESS_A_SECOND = 20,
	NOTIFY_STUCK_MS =
		2000, /* a toucher that has not answered for so long is given up for a new one */
};

struct notify *notify_new(uv_loop_t *loop, struct face *face, const char *mountpoint);
/* The mount is there: from now on changes are told. */
void notify_start(struct notify *notify);
/* Nobody is told any more: the toucher ends. notify_stop() is still to be called. */
void notify_quiet(struct notify *notify);
/* No more notices; the toucher ends. */
void notify_stop(struct notify *notify);
/* After notify_stop(), when the loop has run its closing callbacks. NULL is ignored. */
void notify_free(struct notify *notify);

/* @topic of the domain, of its disk, or of the mount has changed. May be called anywhere: nothing is told before the loop turns. */
void notify_changed(struct notify *notify, struct domain *domain, struct disk *disk,
		    enum topic topic);
/* The link @name in the domain's by-source has come, or is about to go. */
void notify_link(struct notify *notify, const struct domain *domain, const char *name, bool added);
/* The folder of this generation (fs/node.h) has come, or is about to go. */
void notify_folder(struct notify *notify, const struct domain *domain, const struct disk *disk,
		   uint64_t generation, bool added);

/* True if no folder that has come or goes is still to be made or removed for those who watch. */
bool notify_folders_are_told(const struct notify *notify);

/* A user has made the domain's folder himself: what is still to be told of an earlier one of that name would be taken for its end. */
void notify_folder_made(struct notify *notify, const struct domain *domain);

/* --- the toucher's own requests --- */

/* @again: the request was sent to an earlier life, whose touchers count, too: they are dead by now, or about to be. */
bool notify_is_toucher(const struct notify *notify, pid_t pid, bool again);
enum notify_folder {
	FOLDER_OTHER, /* not what the toucher is at: as for everybody */
	FOLDER_ADDED, /* about to be made: not there yet */
	FOLDER_REMOVED, /* about to be removed: still there */
};
/*
 * What @name below the node @parent is for the toucher; *@node and *@generation are those of one that is being removed, or that a disk
 * which is being removed lies in: the domain may have gone with it.
 */
enum notify_folder notify_toucher_sees(struct notify *notify, uint64_t parent, const char *name,
				       uint64_t *node, uint64_t *generation);
/* True if the node is of a folder that is gone for all but the toucher. */
bool notify_toucher_walks(struct notify *notify, uint64_t node);

#endif
