/*
 * What a folder of sockets is made of. Private to folder.c and folder_watch.c.
 */
#ifndef JOBS_FOLDER_PRIVATE_H
#define JOBS_FOLDER_PRIVATE_H

#include <errno.h>
#include <stdbool.h>
#include <uthash.h>
#include <uv.h>
#include "jobs/folder.h"
#include "jobs/folder_scan.h"

enum {
	BLIND_MS = 5000, /* two looks are at most so far apart where something cannot be watched */
};

/* A socket in the folder. */
struct entry {
	char *file;
	struct file_identity identity;
	struct domain *domain; /* NULL: none */
	char *refused; /* why, as it was told; NULL: it has not been refused */
	bool waits; /* until a domain goes */
	bool detached; /* by rmdir: not before another socket is there */
	bool seen; /* by the look that is being taken over */
	bool carried; /* an earlier life of the mount has found it, and this one has not looked yet */
	bool gone; /* the file is */
	UT_hash_handle hh; /* by file; in the order they were found */
};

struct watch {
	uv_fs_event_t event;
	struct folder *folder;
	struct waypoint point;
	int error; /* 0: it works */
	bool stale; /* what is watched may be another folder by now */
	bool wanted; /* by the look that is being taken over */
	struct watch *prev, *next;
};

struct folder {
	struct model *model;
	char *path;
	char *real; /* without links in it, NULL: not there */
	struct watch *watches;
	struct entry *entries;
	struct scan *scan; /* under way, or NULL */
	uint64_t scanned; /* when the last one began, by uv_now(); 0: none has */
	bool look_again; /* something has changed since */
	bool known; /* a look has counted */
	bool settled; /* and all that it found has a domain, or has been refused */
	char *trouble; /* what the log was told of the folder itself; NULL: nothing */
	uv_timer_t later; /* the next look */
	uv_timer_t turn; /* goes on with the entries */
	unsigned handles; /* open */
	bool stopping;
	struct folder *prev, *next;
};

/* True if the error means that there are no sockets, and not that they cannot be seen. */
static inline bool is_absence(int error)
{
	return error == -ENOENT || error == -ENOTDIR || error == -ELOOP;
}

/* --- folder.c --- */
/* A line for the daemon's log, with the folder's name in front. */
void folder_tell(struct folder *folder, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* NULL: no socket of that name has been found. */
struct entry *folder_find_entry(const struct folder *folder, const char *file);

/* --- folder_watch.c --- */
/* Watches what @scan has found on the way. True if something was not watched yet: another look is due. */
bool folder_set_watches(struct folder *folder, const struct scan *scan);
/* True if what happens next may not be told by any event. @error: of the look. */
bool folder_is_blind(const struct folder *folder, int error);
void folder_watch_end(struct watch *watch);

#endif
