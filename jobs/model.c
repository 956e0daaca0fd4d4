/*
 * The set of domains: how they begin and how all of them end. Used by main(); what a domain does is in domain.c.
 */
#include "jobs/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/delete.h"
#include "jobs/domain_link.h"
#include "jobs/engine.h"
#include "jobs/events.h"
#include "jobs/journal.h"
#include "jobs/policy.h"

enum {
	SETTLE_MS = 3000, /* a monitor that hangs keeps nobody from the others */
	DISMISS_MS = 1000, /* how long the end waits for jobs that are being dismissed */
};

struct model *model_new(uv_loop_t *loop, const struct model_settings *settings,
			const struct model_watcher *watcher, void *data)
{
	struct model *model = calloc(1, sizeof(*model));

	if (!model)
		abort();
	model->loop = loop;
	model->settings = *settings;
	model->watcher = watcher;
	model->watcher_data = data;
	model->policy = policy_new();
	model->journal = settings->journal ? settings->journal : journal_new();
	stamps_init(model->stamps);
	metrics_init(&model->metrics);
	uv_timer_init(loop, &model->settle_timer);
	model->settle_timer.data = model;
	return model;
}

struct domain *model_find_domain(struct model *model, const char *name)
{
	struct domain *domain;

	DL_FOREACH(model->domains, domain)
		if (!strcmp(domain->name, name))
			return domain;
	return NULL;
}

int model_add(struct model *model, const struct source *source, char **error)
{
	struct domain *domain;
	const char *reason = "two sources have this name; put another in front: NAME=SOURCE";

	if (model_find_domain(model, source->name)) {
		if (asprintf(error, "%s: %s", source->name, reason) < 0)
			abort();
		return -EEXIST;
	}
	domain = domain_new(model, source);
	DL_APPEND(model->domains, domain);
	if (!model->watcher->may_add(model->watcher_data, domain, NULL, &reason)) {
		if (asprintf(error, "%s: %s", source->name, reason) < 0)
			abort();
		return -EEXIST;
	}
	model->watcher->added(model->watcher_data, domain, NULL);
	stamp_touch(&model->stamps[TOPIC_LISTING]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_LISTING);
	event_plain(domain, NULL, "domain-added", NULL);
	domain_start(domain);
	return 0;
}

/* --- the beginning --- */

static void settled(struct model *model, const char *error)
{
	void (*callback)(void *data, const char *error) = model->settled;

	model->settled = NULL;
	uv_timer_stop(&model->settle_timer);
	callback(model->settled_data, error);
}

static bool all_settled(const struct model *model)
{
	const struct domain *domain;

	DL_FOREACH(model->domains, domain)
		if (!domain->link->settled)
			return false;
	return true;
}

static void settle_timeout(uv_timer_t *timer)
{
	settled(timer->data, NULL);
}

void model_domain_settled(struct model *model, const char *error)
{
	if (error && !model->engine_error)
		model->engine_error = strdup(error);
	if (model->settled && (error || all_settled(model)))
		settled(model, error);
	delete_step(model);
}

static bool has_engines(const struct model *model)
{
	const struct domain *domain;

	DL_FOREACH(model->domains, domain)
		if (domain->engine && !domain->link->settled)
			return true;
	return false;
}

/* An engine that has not come up by now is given its time: without it there is nothing to show, or an error to tell. */
static void settle_patience(uv_timer_t *timer)
{
	struct model *model = timer->data;

	if (has_engines(model))
		uv_timer_start(timer, settle_timeout, model->settings.timeout_ms, 0);
	else
		settled(model, NULL);
}

static void settle_now(uv_timer_t *timer)
{
	struct model *model = timer->data;

	settled(model, model->engine_error);
}

void model_settle(struct model *model, void (*callback)(void *data, const char *error), void *data)
{
	model->settled = callback;
	model->settled_data = data;
	if (model->engine_error || all_settled(model))
		uv_timer_start(&model->settle_timer, settle_now, 0, 0);
	else
		uv_timer_start(&model->settle_timer, settle_patience, SETTLE_MS, 0);
}

/* --- the end --- */

static void end_operations(struct model *model)
{
	const char *reason = "blockjobfs is shutting down";
	struct domain *domain;
	struct disk *disk;

	op_list_end(&model->ops, -ESHUTDOWN, reason);
	DL_FOREACH(model->domains, domain) {
		op_list_end(&domain->ops, -ESHUTDOWN, reason);
		DL_FOREACH(domain->disks, disk)
			op_list_end(&disk->ops, -ESHUTDOWN, reason);
	}
}

static bool is_dismissing(const struct model *model)
{
	const struct domain *domain;

	DL_FOREACH(model->domains, domain)
		if (!domain->engine && domain->link->ready && domain->link->finalizing)
			return true;
	return false;
}

static void timer_closed(uv_handle_t *handle)
{
	struct model *model = handle->data;

	model->stopped(model->stopped_data);
}

void model_stop_step(struct model *model)
{
	struct domain *domain;
	bool over = true;

	/* A job between finalize and dismiss endangers its QEMU (docs/architecture.md): a moment for it. */
	if (!model->stopping ||
	    (is_dismissing(model) && uv_is_active((uv_handle_t *)&model->settle_timer)))
		return;
	DL_FOREACH(model->domains, domain) {
		if (domain->engine)
			engine_stop(domain->engine);
		if (!domain->engine || engine_is_stopped(domain->engine))
			domain_stop(domain);
		else
			over = false;
	}
	DL_FOREACH(model->domains, domain)
		over &= domain_is_stopped(domain);
	if (over && !uv_is_closing((uv_handle_t *)&model->settle_timer)) {
		journal_stop(model->journal);
		uv_close((uv_handle_t *)&model->settle_timer, timer_closed);
	}
}

static void dismiss_timeout(uv_timer_t *timer)
{
	model_stop_step(timer->data);
}

void model_stop(struct model *model, void (*stopped)(void *data), void *data)
{
	model->stopping = true;
	model->settled = NULL;
	model->stopped = stopped;
	model->stopped_data = data;
	end_operations(model);
	uv_timer_start(&model->settle_timer, dismiss_timeout, is_dismissing(model) ? DISMISS_MS : 0,
		       0);
}

void model_free(struct model *model)
{
	struct domain *domain, *next;

	DL_FOREACH_SAFE(model->domains, domain, next)
		domain_free(domain);
	event_log_clear(&model->log);
	metrics_clear(&model->metrics);
	journal_free(model->journal);
	policy_free(model->policy);
	free(model->engine_error);
	free(model);
}
