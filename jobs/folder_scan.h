/*
 * A look at a folder: which sockets are in it, and which folders decide what its path means. Done in the work pool, since looking at
 * files may block. Used by jobs/folder.c.
 */
#ifndef JOBS_FOLDER_SCAN_H
#define JOBS_FOLDER_SCAN_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>
#include <uv.h>

enum {
	FOLDER_SOCKETS_MAX = 1 << 16, /* of a folder; more are left out, the last by name */
};

/* Which file it is. */
struct file_identity {
	dev_t device;
	ino_t inode;
	struct timespec made; /* inode numbers are given to others when a file has gone */
};

struct found_socket {
	char *file; /* its name in the folder */
	struct file_identity identity;
};

/* A folder on the way, and the name in it that the way goes on by; NULL: the end of it, where every name counts. */
struct waypoint {
	char *path; /* without links in it */
	char *child;
	struct file_identity identity;
};

struct scan {
	uv_work_t work;
	char *path; /* what was looked at */
	char *real; /* the same without links in it; NULL: it is not there */
	struct waypoint *way; /* from / on, as far as they are there */
	size_t way_length;
	struct found_socket *sockets; /* by name */
	size_t socket_count;
	bool too_many; /* some were left out */
	int error; /* 0, or why the folder could not be read: -ENOENT, -EACCES, ... */
	void (*done)(struct scan *scan);
	void *data;
};

/* Starts a look; @done is called from the loop, and is to end with scan_free(). */
struct scan *scan_start(uv_loop_t *loop, const char *path, void (*done)(struct scan *scan),
			void *data);
void scan_free(struct scan *scan);
/* True if a socket of this name counts: not one that is there for a moment only, under a name of its maker's. */
bool scan_is_fit(const char *file);
bool identity_is(const struct file_identity *a, const struct file_identity *b);

#endif
