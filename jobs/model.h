/*
 * The whole model: the domains, the mount-wide log, and the one who is told of changes. Made and freed by fs/main.c; everything
 * in it runs on the loop it was given.
 */
#ifndef JOBS_MODEL_H
#define JOBS_MODEL_H

#include <uv.h>
#include "jobs/domain.h"
#include "jobs/metrics.h"
#include "jobs/source.h"

struct model_settings {
	unsigned timeout_ms; /* deadline of every QMP command */
	const char *
		runtime_dir; /* where engines have their sockets; NULL: /run/blockjobfs, or blockjobfs in XDG_RUNTIME_DIR */
	const char *image_format; /* format of `image:` sources; NULL: what qemu-img says */
	const char *qemu_img, *storage_daemon; /* programs; NULL: as found in PATH */
	struct journal *
		journal; /* what earlier lives have left, and this one leaves; the model's from then on; NULL: as long as @handover lasts */
	struct journal *
		handover; /* the same of what only matters to the next life on the same mount (jobs/resume.h); NULL: there will be none */
};

/* @disk is NULL where the domain itself is meant; both NULL: the mount. The callbacks must not change the model. */
struct model_watcher {
	void (*added)(void *data, struct domain *domain, struct disk *disk);
	/* It is still whole, and gone when this has returned. */
	void (*removed)(void *data, struct domain *domain, struct disk *disk);
	void (*changed)(void *data, struct domain *domain, struct disk *disk, enum topic topic);
	/* A line for the log of the daemon. */
	void (*log)(void *data, const char *line);
	/*
	 * True if the folder may be shown; false and *@reason (static) if not, because its id would be another one's. Asked before
	 * `added`.
	 */
	bool (*may_add)(void *data, struct domain *domain, struct disk *disk, const char **reason);
};

struct model {
	uv_loop_t *loop;
	struct model_settings settings;
	const struct model_watcher *watcher;
	void *watcher_data;
	struct journal *journal; /* what outlives the daemon */
	struct journal *handover; /* what outlives the server as long as the mount is there */
	uint64_t lives; /* servers of this mount, with this one */
	uint64_t mount_number; /* that no other mount has; the same in all lives of its server */
	uint64_t history_number; /* of the last thing that was put there by jobs/history.c ... */
	size_t history_bytes; /* ... and how much of it there is */
	struct policy *policy; /* what others than the mount's owner may do */
	struct domain *domains; /* in the order they were given or found */
	struct domain *by_name, *by_address; /* the same, by these (jobs/model.c) */
	size_t open_domains; /* that are not stopped yet, those that leave included */
	bool deletions_wait; /* some, until all domains are known (jobs/delete.c) */
	unsigned turns; /* jobs/turns.c */
	struct domain_link *turns_waiting;
	struct domain *leaving; /* removed, and not to be freed yet */
	struct folder *folders; /* of `dir:` sources, in the order they were given */
	struct event_log log;
	uint64_t seq; /* of the last event */
	struct stamp stamps[TOPIC_COUNT];
	struct metrics metrics;
	struct op *ops; /* in flight on the mount itself */
	struct op *ops_by_id;
	uint64_t last_op;
	bool resuming; /* what is added now an earlier life of the mount has shown */
	bool stopping;
	/* model_settle() and model_stop() */
	void (*settled)(void *data, const char *error);
	void *settled_data;
	char *engine_error; /* why an engine could not be started at the beginning */
	void (*stopped)(void *data);
	void *stopped_data;
	uv_timer_t settle_timer;
};

/* @watcher must outlive the model and may be NULL-free in every member; @data is handed to it. */
struct model *model_new(uv_loop_t *loop, const struct model_settings *settings,
			const struct model_watcher *watcher, void *data);
/* Only after model_stop() has called back and the loop has run its closing callbacks. */
void model_free(struct model *model);

/*
 * Adds the domain of @source and starts to connect; of a folder, those of the sockets in it, as they come. Returns 0, or -EEXIST and
 * *@error (malloc'ed) if its name or its monitor is another one's.
 */
int model_add(struct model *model, const struct source *source, char **error);
/* A domain as an earlier life has left it, which nobody is told of, and which does not begin to connect yet (jobs/resume.h). */
struct domain *model_take_over(struct model *model, const struct source *source);
/*
 * Takes the domain out, at any moment: a live job gets its last word (lost), operations in flight end with -ENODEV, disks and domain
 * are told as removed, and @domain is not to be used any more. Its memory goes when the loop has run all that may still reach it.
 * @reason: for the event.
 */
void model_remove(struct domain *domain, const char *reason);
/* Why the source may not be added: the reason, malloc'ed; NULL: it may. @but: a domain that does not count, or NULL. */
char *model_may_add(struct model *model, const struct source *source, const struct domain *but);

/*
 * Calls @settled once, from the loop, when the first attempt of every domain has come to something (connected with its disks, busy,
 * or failed), at the latest after 3 s. @error is not NULL if the engine of an image could not be started: one line for a stranger.
 */
void model_settle(struct model *model, void (*settled)(void *data, const char *error), void *data);

/*
 * Ends all: operations in flight (-ESHUTDOWN), live jobs of engines (aborted, with a line in the log), engines, links. Jobs in other
 * QEMUs run on. Calls @stopped once, from the loop.
 */
void model_stop(struct model *model, void (*stopped)(void *data), void *data);

/* Completes @op when the figures of all live jobs are fresh, or after a moment (jobs/refresh_all.c). */
void model_refresh(struct op *op);

struct domain *model_find_domain(struct model *model, const char *name);

#endif
