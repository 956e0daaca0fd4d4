/*
 * Events: what is told in the `events` files. Each event is one JSON object on a line, written to the logs of the disk, its domain and the
 * mount. The words are those of INTERFACE, section 4.
 */
#ifndef JOBS_EVENTS_H
#define JOBS_EVENTS_H

#include "jobs/domain.h"

struct qmp_value;

/* Events without more than their name: disk-added, domain-connected, ... @disk may be NULL. @reason may be NULL. */
void event_plain(struct domain *domain, struct disk *disk, const char *event, const char *reason);
/* An event of the disk's job: job-started, job-paused, job-ready, ... */
void event_job(struct disk *disk, const char *event);
/* job-error: @count failed requests since the last such event. */
void event_job_error(struct disk *disk, const char *operation, const char *action, uint64_t count);
/* increment-done: the disk's job is parked, with cur, end and its mark. */
void event_increment_done(struct disk *disk);
/* The final event of the disk's job, with cur, end, error, result, released. */
void event_job_ended(struct disk *disk);
/* @errno_name: "EBUSY"; the domain or the disk may be NULL. */
void event_refused(const struct target *target, const struct who *by, const char *errno_name,
		   const char *reason);
/* A commit's `delete`: the image is deleted; or it is not, for this reason. */
void event_image(struct disk *disk, const char *path, const char *reason);
/* A socket of a folder gets no domain, which would be called @name. */
void event_domain_refused(struct model *model, const char *name, const char *folder,
			  const char *file, const char *reason);
void event_chain_changed(struct disk *disk);
/* The line of `history` for the disk's job, which has ended; with its newline, malloc'ed. */
char *event_history_line(const struct disk *disk);

/* "2026-11-20T22:01:47.123456Z" into @out. */
void event_format_time(char out[32], struct timespec time);

#endif
