/*
 * The set of domains: how they begin and how all of them end. Used by main(); what a domain does is in domain.c.
 */
#include "jobs/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uthash.h>
#include <utlist.h>
#include "jobs/delegation.h"
#include "jobs/delete.h"
#include "jobs/domain_link.h"
#include "jobs/engine.h"
#include "jobs/events.h"
#include "jobs/folder.h"
#include "jobs/history.h"
#include "jobs/journal.h"
#include "jobs/policy.h"
#include "jobs/event_store.h"
#include "jobs/resume.h"

enum {
	SETTLE_MS = 3000, /* a monitor that hangs keeps nobody from the others */
	DISMISS_MS = 1000, /* how long the end waits for jobs that are being dismissed */
};

static uint64_t count_life(struct journal *handover)
{
	const char *text = journal_get(handover, "lives");
	uint64_t lives = text ? strtoull(text, NULL, 10) + 1 : 1;
	char now[24];

	snprintf(now, sizeof(now), "%llu", (unsigned long long)lives);
	journal_put(handover, "lives", now);
	return lives;
}

/* Found, or made. */
static uint64_t mount_number(struct journal *handover)
{
	const char *text = journal_get(handover, "number");
	uint64_t number = 0;
	char made[20];

	if (text)
		return strtoull(text, NULL, 16);
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = uv_hrtime();
	snprintf(made, sizeof(made), "%016llx", (unsigned long long)number);
	journal_put(handover, "number", made);
	return number;
}

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
	model->handover = settings->handover ? settings->handover : journal_new();
	model->journal = settings->journal ? settings->journal : model->handover;
	model->mount_number = mount_number(model->handover);
	model->lives = count_life(model->handover);
	history_begin(model);
	stamps_init(model->stamps);
	metrics_init(&model->metrics);
	uv_timer_init(loop, &model->settle_timer);
	model->settle_timer.data = model;
	return model;
}

struct domain *model_find_domain(struct model *model, const char *name)
{
	struct domain *domain;

	HASH_FIND(by_name, model->by_name, name, strlen(name), domain);
	return domain;
}

/* A monitor serves one client: two domains at it would keep each other out. */
static struct domain *find_address(struct model *model, const char *address)
{
	struct domain *domain;

	HASH_FIND(by_address, model->by_address, address, strlen(address), domain);
	return domain;
}

/* Several may run the same command: of those the table has one, which nobody looks for. */
void model_address_set(struct domain *domain)
{
	struct model *model = domain->model;

	if (*domain->address && !find_address(model, domain->address))
		HASH_ADD_KEYPTR(by_address, model->by_address, domain->address,
				strlen(domain->address), domain);
}

void model_address_clear(struct domain *domain)
{
	if (find_address(domain->model, domain->address) == domain)
		HASH_DELETE(by_address, domain->model->by_address, domain);
}

static void table_add(struct model *model, struct domain *domain)
{
	HASH_ADD_KEYPTR(by_name, model->by_name, domain->name, strlen(domain->name), domain);
	model_address_set(domain);
}

static void table_drop(struct model *model, struct domain *domain)
{
	model_address_clear(domain);
	HASH_DELETE(by_name, model->by_name, domain);
}

char *model_may_add(struct model *model, const struct source *source, const struct domain *but)
{
	struct domain *named = model_find_domain(model, source->name), *other;
	char *address = source_address(source), *reason = NULL;

	/* Of a command nobody knows whom it reaches. */
	other = source->kind == SOURCE_EXEC ? NULL : find_address(model, address);
	free(address);
	if (other && other != but) {
		if (asprintf(&reason, "the domain %s has this monitor already", other->name) < 0)
			abort();
	} else if (named && named != but) {
		reason = strdup("two sources have this name; put another in front: NAME=SOURCE");
	}
	return reason;
}

static void show_domain(struct domain *domain)
{
	struct model *model = domain->model;

	DL_APPEND(model->domains, domain);
	table_add(model, domain);
	model->watcher->added(model->watcher_data, domain, NULL);
	stamp_touch(&model->stamps[TOPIC_LISTING]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_LISTING);
	event_store_begin(model, domain, NULL);
	event_plain(domain, NULL, "domain-added", NULL);
	resume_keep_domain(domain);
	domain_start(domain);
}

struct domain *model_take_over(struct model *model, const struct source *source)
{
	struct domain *domain = domain_new(model, source);

	DL_APPEND(model->domains, domain);
	table_add(model, domain);
	model->watcher->added(model->watcher_data, domain, NULL);
	return domain;
}

/* Out of sight: what is left of it is stopped, and freed when that is over. */
static void leave(struct domain *domain)
{
	domain->link->removed = true;
	DL_APPEND(domain->model->leaving, domain);
	model_stop_step(domain->model);
}

static int refuse(char **error, const struct source *source, const char *reason)
{
	if (asprintf(error, "%s: %s", source->name, reason) < 0)
		abort();
	return -EEXIST;
}

int model_add(struct model *model, const struct source *source, char **error)
{
	struct domain *domain;
	const char *reason = NULL;
	char *taken;
	int status;

	if (source->kind == SOURCE_DIR)
		return folder_add(model, source->path, error);
	taken = model_may_add(model, source, NULL);
	if (taken) {
		status = refuse(error, source, taken);
		free(taken);
		return status;
	}
	domain = domain_new(model, source);
	if (!model->watcher->may_add(model->watcher_data, domain, NULL, &reason)) {
		leave(domain);
		return refuse(error, source, reason);
	}
	show_domain(domain);
	return 0;
}

void model_remove(struct domain *domain, const char *reason)
{
	struct model *model = domain->model;

	while (domain->disks)
		disk_remove(domain->disks);
	op_list_end(&domain->ops, -ENODEV, "the domain is gone");
	event_plain(domain, NULL, "domain-removed", reason);
	resume_drop_domain(domain);
	folders_domain_removed(domain);
	policy_forget_domain(domain);
	delegation_forget(domain);
	model->watcher->removed(model->watcher_data, domain, NULL);
	DL_DELETE(model->domains, domain);
	table_drop(model, domain);
	stamp_touch(&model->stamps[TOPIC_LISTING]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_LISTING);
	domain_settle(domain);
	delete_step(model);
	leave(domain);
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

	if (!folders_settled(model))
		return false;
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

/* Goes on with stopping it. True if nothing of it can be reached any more. */
static bool stop_domain(struct domain *domain)
{
	if (domain->engine)
		engine_stop(domain->engine);
	if (domain->engine && !engine_is_stopped(domain->engine))
		return false;
	domain_stop(domain);
	return domain_is_stopped(domain);
}

/* Those that were removed. */
static void stop_leaving(struct model *model)
{
	struct domain *domain, *next;

	DL_FOREACH_SAFE(model->leaving, domain, next) {
		if (!stop_domain(domain))
			continue;
		DL_DELETE(model->leaving, domain);
		domain_free(domain);
	}
}

void model_stop_step(struct model *model)
{
	struct domain *domain;
	bool over = true;

	stop_leaving(model);
	/* A job between finalize and dismiss endangers its QEMU (docs/architecture.md): a moment for it. */
	if (!model->stopping ||
	    (is_dismissing(model) && uv_is_active((uv_handle_t *)&model->settle_timer)))
		return;
	DL_FOREACH(model->domains, domain)
		over &= stop_domain(domain);
	if (over && !model->leaving && folders_stop(model) &&
	    !uv_is_closing((uv_handle_t *)&model->settle_timer)) {
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

	HASH_CLEAR(by_name, model->by_name);
	HASH_CLEAR(by_address, model->by_address);
	DL_FOREACH_SAFE(model->domains, domain, next)
		domain_free(domain);
	folders_free(model);
	event_log_clear(&model->log);
	metrics_clear(&model->metrics);
	if (model->journal != model->handover)
		journal_free(model->journal);
	journal_free(model->handover);
	policy_free(model->policy);
	free(model->engine_error);
	free(model);
}
