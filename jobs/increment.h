/*
 * A pull in increments: QEMU streams in short steps, and between them the job is paused, so that it never runs on unwatched. Private to
 * jobs/: called by jobs/pull.c to begin and to go on, by jobs/refresh.c with each look at the job, and by jobs/steer.c.
 */
#ifndef JOBS_INCREMENT_H
#define JOBS_INCREMENT_H

#include <uv.h>
#include "jobs/op.h"

struct command;
struct disk;
struct domain_link;
struct job;

/* What block-stream is to be given as the limit for a job whose first increment is @increment bytes, if the user wants @speed. */
int64_t increment_first_limit(int64_t increment, int64_t speed);
/* Right after block-stream was sent for a job with a mark: holds it, so that it takes its first step. */
void increment_begin(struct disk *disk);
/* `pull` on a disk with a live job of ours that was started with increment=. Completes @op. */
void increment_continue(struct op *op, const struct command *command);
/* The figures are QEMU's: goes on, if there is something to be done and nothing is under way. */
void increment_go(struct disk *disk);
/* The user has paused the job, or goes on, or wants another speed: what is shown may be another state now. */
void increment_steered(struct disk *disk);
/* The domain's timer `pace`: the time of somebody's next step has come. */
void increment_pace(uv_timer_t *timer);

#endif
