/*
 * Events for the next life of the server: each line that is in a log, once, under event/SEQ, as "DOMAIN<tab>DISK<tab>line"; and under log/..., for each log, what it has
 * dropped ("bytes lines seq": how much, and the first event that it may have). Private to jobs/.
 */
#ifndef JOBS_EVENT_STORE_H
#define JOBS_EVENT_STORE_H

#include "jobs/model.h"

/* A log begins: the model's (both NULL), a domain's, a disk's. */
void event_store_begin(struct model *model, const struct domain *domain, const struct disk *disk);
void event_store_end(struct model *model, const struct domain *domain, const struct disk *disk);
/* The line (with its newline), the model's latest event, has been put into the logs that it belongs to, which may have dropped others for it. */
void event_store_add(struct model *model, const struct domain *domain, const struct disk *disk,
		     const char *line);
/* Fills the logs of a model whose domains and disks are there as they were. */
void event_store_load(struct model *model);

/* True if the disk's log has an event of that name about the job @id; the latest of the names in @names (ended by NULL) is *@latest. */
bool event_log_has_job(const struct event_log *log, const char *id, const char *const *names,
		       const char **latest);

#endif
