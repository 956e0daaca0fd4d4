/*
 * One disk of a domain: its backing chain, its current or last job, its history, its last error and its log. A disk is created and
 * removed by its domain (jobs/inventory.c); everybody else finds it there and keeps no pointer across the loop's turns.
 */
#ifndef JOBS_DISK_H
#define JOBS_DISK_H

#include "jobs/event_log.h"
#include "jobs/job.h"
#include "jobs/topic.h"
#include "qmp/layout.h"

enum {
	DISK_HISTORY_MAX = 64, /* finished jobs that are remembered */
};

struct disk {
	/* What each of a thousand is looked at for lies together, in as few lines of the cache as can be. */
	struct domain *domain;
	char *name; /* the folder's name, escaped; stays as long as the disk */
	struct job *job; /* the live or the last one; NULL: never had one */
	struct op *ops; /* what is in flight on this disk */
	struct disk *prev, *next;
	bool progress_due; /* who watches `progress` waits to be told already (fs/notify.c) */
	char *identity; /* what the disk is recognised by in a new layout: qdev, drive or node name */
	struct qmp_image *chain; /* active image first */
	size_t depth;
	char *source_name; /* the active image's path as a name that a folder can bear; NULL: no image */
	char *file_node; /* that the active image's format lies on; NULL: not known */
	uint64_t generation; /* rises with every change of the chain */
	char *error; /* text of `error`; NULL: empty */
	char *history[DISK_HISTORY_MAX]; /* JSON lines with their newline, oldest first */
	size_t history_count;
	size_t history_slot; /* where the journal keeps the next one */
	struct stamp stamps[TOPIC_COUNT];
	const char *told_status,
		*told_type; /* the word of `status`, and the job's type, when TOPIC_JOB last changed */
	struct event_log log;
	bool going_over_sent; /* QEMU has been told to put an overlay on it, and has not answered */
	bool going_over; /* an overlay is being put on it, or may have been: its chain is not known for certain */
	bool listed; /* QEMU's last layout has it (jobs/inventory.c) */
};

static inline bool disk_is_busy(const struct disk *disk)
{
	return job_is_live(disk->job);
}

/* The word of `status`: the live state, the last final one, or idle. Static. */
const char *disk_status(const struct disk *disk);

/* What the disk has now nobody needs to be told of as a change: it has just been made. */
void disk_is_told(struct disk *disk);

/*
 * Says that @topic of the disk has changed: stamps it and tells the watcher. With TOPIC_JOB that is TOPIC_STATUS too, if the word
 * is another one; and TOPIC_STATUS of the mount, whose table of jobs has both, if the word or the job's type is.
 */
void disk_changed(struct disk *disk, enum topic topic);

/*
 * Completes @op (a read) when the figures of the disk's live job are QEMU's from after this call; at once if no job is live.
 * -ETIMEDOUT or -EHOSTDOWN if QEMU does not tell.
 */
void disk_refresh(struct op *op);

/* Completes @op (a read) when no job is live on its disk: at once if none is. */
void disk_wait(struct op *op);

struct command;
/* The commands. Each completes @op, now or later, exactly once. */
void disk_pull(struct op *op, const struct command *command);
void disk_commit(struct op *op, const struct command *command);
void disk_copy(struct op *op, const struct command *command);
void disk_backup(struct op *op, const struct command *command);
void disk_snapshot(struct op *op, const struct command *command);
void disk_pivot(struct op *op, const struct command *command);
void disk_finish(struct op *op, const struct command *command);
void disk_speed(struct op *op, const struct command *command);
void disk_pause(struct op *op, const struct command *command);
void disk_abort(struct op *op, const struct command *command);

#endif
