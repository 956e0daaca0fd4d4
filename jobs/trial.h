/*
 * The first moment of a job that QEMU may accept and fail at once, as it does with a copy whose target is of the wrong size. Its write is
 * answered when QEMU has shown the job once, asked right after it had accepted it: one that is over by then, with an error, was
 * refused, and is not in the history. One that fails later shows as failed. Private to jobs/.
 */
#ifndef JOBS_TRIAL_H
#define JOBS_TRIAL_H

#include <stdbool.h>
#include "qmp/command.h"

struct disk;

/* Instead of start_answered(), for a job with `trial` set. */
void trial_answered(void *data, const struct qmp_error *error);
/* QEMU shows the job so. */
void trial_look(struct disk *disk, const struct qmp_job_info *info);
/* The job is over. True: it was refused, and there is none any more. */
bool trial_ended(struct disk *disk);

#endif
