/*
 * deadline=SECONDS of a starting command: a job that is neither ready nor done by then is given up, and has failed. A command that takes it
 * has the key in its row, and that is all: jobs/start.c calls the rest.
 */
#ifndef JOBS_DEADLINE_H
#define JOBS_DEADLINE_H

#include <stdbool.h>
#include <uv.h>

struct command;
struct disk;
struct domain;
struct job;
struct op;

/* Keeps the command's deadline with the op. Refuses @op, and returns false, if it makes no sense. */
bool deadline_read(struct op *op, const struct command *command);
/* The time runs for the disk's new job, from now on. */
void deadline_begin(struct disk *disk, const struct op *op);
/* The same for a job that an earlier life has started, with what it has written down. */
void deadline_adopt(struct disk *disk);
/* The job's figures are QEMU's as of now; @ready: it is, or was. Gives it up if its time is over. */
void deadline_look(struct disk *disk, bool ready);
/* It is over: if it was given up here, it has failed for that. */
void deadline_end(struct job *job);
/* The domain's timer `deadline`. */
void deadline_due(uv_timer_t *timer);

#endif
