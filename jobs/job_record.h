/*
 * What the journal holds of a job of ours: whatever QEMU cannot tell the daemon's next life. It is written before the start
 * command is sent, again whenever something in it changes, with the job's end before job-dismiss is sent, and dropped when the final
 * word is in the history. The key is job/ID: the job is found by what QEMU calls it, whatever its domain is called by then.
 */
#ifndef JOBS_JOB_RECORD_H
#define JOBS_JOB_RECORD_H

#include <stdbool.h>

struct disk;
struct domain;
struct job;
struct model;
struct qmp_job_info;

/* Writes the disk's job as it is now. Jobs of others, and those that are over, are not written. */
void job_record_write(const struct disk *disk);
/* Fills in what an earlier life has written of @job, by its id; nothing if it has not. */
void job_record_read(const struct disk *disk, struct job *job);
/* The job is over, or was never started. */
void job_record_drop(const struct disk *disk, const struct job *job);
/* QEMU shows that the job is concluded. Its disk may not be known yet, and it is to be dismissed now. */
void job_record_end(const struct domain *domain, const struct qmp_job_info *info);
/*
 * Calls @each for every job that an earlier life has left on a disk that @domain has now, with @job (its own) made from the record.
 * @started: it is known that QEMU had it. False if some had to be passed over, since their disks have other jobs now.
 */
bool job_record_each(struct domain *domain,
		     void (*each)(struct disk *disk, struct job *job, bool started));
/*
 * For the next life on the same mount, which must show it before it has asked anybody: the disk's live job, whoever has started it, under
 * live/DOMAIN/DISK in model->handover. Written with every change that `status` or `job` shows.
 */
void job_record_hand_over(const struct disk *disk);
/* It is over, and all has been told. */
void job_record_lay_down(const struct disk *disk);
/* The disk, whose history and log are there, gets the live job that was handed over. True if one was. */
bool job_record_pick_up(struct disk *disk);
/* The domain is gone for good. */
void job_record_forget(struct model *model, const char *domain);

#endif
