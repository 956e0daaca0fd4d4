/*
 * The model across two lives of the server on one mount. Whoever uses the tree does not notice that its server was killed; so the next one begins with
 * what the last one showed: its domains, their disks, chains, jobs, errors and events, without asking any QEMU, and goes on from there as after a
 * connection that was lost for a moment.
 *
 * What is kept for that is in model->handover, a journal in shared memory (jobs/journal_memory.h), under these keys:
 *
 *	domain/DOMAIN			where its monitor is
 *	state/DOMAIN			the words of `state`
 *	shown/DOMAIN/DISK		a disk: its identity and chain
 *	live/DOMAIN/DISK		its live job (jobs/job_record.h)
 *	error/DOMAIN, error/DOMAIN/DISK	the text of `error`
 *	event/SEQ, log/...		events (jobs/event_store.h)
 *	request/NUMBER			commands under way (jobs/request.h)
 *	node/DOMAIN..., removed		generations of inodes (fs/node.h)
 *
 * What happened is told first and kept second. A server that is killed in between tells it again, which is rare and does no harm; the other way
 * round nobody would ever hear of it.
 */
#ifndef JOBS_RESUME_H
#define JOBS_RESUME_H

#include "jobs/model.h"

/* The domain is there, or its address is another one. */
void resume_keep_domain(const struct domain *domain);
/* The same before it has gone over to @address. */
void resume_keep_address(const struct domain *domain, const char *address);
/* What `state` shows is another word. */
void resume_keep_state(const struct domain *domain);
void resume_drop_domain(const struct domain *domain);
/* The disk is there, or its chain is another one. */
void resume_keep_disk(const struct disk *disk);
void resume_drop_disk(const struct disk *disk);
/* The text of `error` of the target is another one. */
void resume_keep_error(const struct target *target);

/* Instead of model_add() for each source: what the last life of this mount had. Before anything is served. */
void model_resume(struct model *model);

/* The domain is connected again, or will not be at once: those who have waited for that (op->resumed) go on. Does nothing at any other time. */
void resume_over(struct domain *domain);

#endif
