/*
 * The list of images that a commit is to delete once it has completed: fixed, with the identity of each file, when the commit is
 * accepted. It belongs to the job, is shown in `job`, and lies in the job's record, so that the daemon's next life has it, too.
 * Who makes and who carries it out: jobs/delete.c.
 */
#ifndef JOBS_DELETION_H
#define JOBS_DELETION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp_value;
struct text;

/* A file that is to be deleted, and no other one that may have its name by then. */
struct doomed {
	char *path;
	uint64_t device, inode;
	int64_t born_ns; /* inode numbers are used again; -1: the file system does not tell */
	bool deleted;
};

struct deletion {
	struct doomed *images;
	size_t count;
	bool begun; /* some of it may have been carried out, by an earlier life perhaps */
	bool waits; /* for domains that have not been heard of yet */
	bool over; /* every image has been deleted, or it was told why not */
};

struct deletion *deletion_new(size_t count);
void deletion_free(struct deletion *deletion);

/*
 * Fills in what @image->path is now, without following a link. Returns 0, -errno, or -EINVAL and *@reason (static) if it is nothing
 * that may be deleted. May block.
 */
int doomed_look(struct doomed *image, const char **reason);
/* True if the two are the same file. */
bool doomed_is(const struct doomed *image, const struct doomed *other);

/* Into and out of a job's record. NULL: nothing is to be deleted. */
void deletion_put(struct text *record, const struct deletion *deletion);
struct deletion *deletion_take(const struct qmp_value *record);

#endif
