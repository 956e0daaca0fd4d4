/*
 * What the journal holds of a disk's live job: whatever QEMU cannot tell the daemon's next life. It is written before the start
 * command is sent, again whenever something in it changes, and dropped when the final word is out.
 */
#ifndef JOBS_JOB_RECORD_H
#define JOBS_JOB_RECORD_H

struct disk;
struct job;

/* Writes the disk's job as it is now. Jobs of others, and those that are over, are not written. */
void job_record_write(const struct disk *disk);
/* Fills in what an earlier life has written of @job, by its id; nothing if it has not. */
void job_record_read(const struct disk *disk, struct job *job);
/* The job is over, or was never started. */
void job_record_drop(const struct disk *disk, const struct job *job);

#endif
