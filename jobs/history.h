/*
 * The finished jobs of a disk: the last of them are kept, in memory and in the journal, so that the daemon's next life shows them, and
 * the final word of the last one. The number of the chain's generation is kept in the same way.
 *
 *	history/DOMAIN/DISK/SLOT	NUMBER LINE, where NUMBER rises with everything that is put here
 *	chain/DOMAIN/DISK		NUMBER {"generation":N,"hash":H}, the hash 0 once the disk was unplugged
 *
 * Disks that are gone for good leave theirs behind: when all of it together has become too much, the oldest goes.
 */
#ifndef JOBS_HISTORY_H
#define JOBS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>

struct disk;
struct model;

enum {
	HISTORY_LINE_MAX =
		16 << 10, /* of a job with a longer line the images released are left out */
	HISTORY_BYTES_MAX = 32 << 20, /* of all disks together, in the journal ... */
	HISTORY_DOMAIN_MAX =
		8 << 20, /* ... and of a domain's: a hostile one must not push out all others' */
};

/* After the journal was opened: what is in it is counted. */
void history_begin(struct model *model);
/*
 * The disk is new to this life: takes over its finished jobs, and shows the last one's final word, if there were any; and the number of
 * its chain.
 */
void history_load(struct disk *disk);
/* The disk's job has ended. */
void history_add(struct disk *disk);
/* True if the end of that job is known already. */
bool history_has(const struct disk *disk, const char *job);
/* The chain is another one: its generation has risen. */
void history_keep_generation(const struct disk *disk);
/* The disk is gone: one that is plugged in by the same name is another one, with the same history. */
void history_unplugged(const struct disk *disk);
void history_clear(struct disk *disk);
/* A domain's last trace is to go: one of the same name is another one. */
void history_forget(struct model *model, const char *domain);

#endif
