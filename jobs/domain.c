/*
 * One domain: its link to QEMU, reconnects, the state word, and events handed to those who deal with them. Made by the model; sends
 * no command but query-status.
 */
#include "jobs/domain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/delegation.h"
#include "jobs/delete.h"
#include "jobs/domain_link.h"
#include "jobs/engine.h"
#include "jobs/events.h"
#include "jobs/folder.h"
#include "jobs/make_image.h"
#include "jobs/policy.h"
#include "jobs/resume.h"

const char *const domain_state_words[DOMAIN_STATE_COUNT] = {
	[DOMAIN_DISCONNECTED] = "disconnected",
	[DOMAIN_CONNECTING] = "connecting",
	[DOMAIN_BUSY] = "busy",
	[DOMAIN_CONNECTED] = "connected",
};

/* --- what others see --- */

void domain_changed(struct domain *domain, enum topic topic)
{
	struct model *model = domain->model;

	if (domain->link->removed)
		return; /* on its way out */
	stamp_touch(&domain->stamps[topic]);
	model->watcher->changed(model->watcher_data, domain, NULL, topic);
}

bool domain_is_busy(const struct domain *domain)
{
	const struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (disk_is_busy(disk))
			return true;
	return false;
}

void domain_log(struct domain *domain, const char *format, ...)
{
	struct text *line = text_new();
	va_list arguments;

	text_printf(line, "%s: ", domain->name);
	va_start(arguments, format);
	text_vprintf(line, format, arguments);
	va_end(arguments);
	domain->model->watcher->log(domain->model->watcher_data, text_bytes(line));
	text_free(line);
}

/* Sets `error`. True if it was another one. */
static bool keep_link_error(struct domain *domain, const char *reason)
{
	struct domain_link *link = domain->link;
	char *error = NULL;

	if (!reason && !link->link_error)
		return false; /* what is there is the refusal of a command */
	if (reason && asprintf(&error, "%s\n", reason) < 0)
		abort();
	link->link_error = reason != NULL;
	if (error && domain->error && !strcmp(error, domain->error)) {
		free(error);
		return false;
	}
	free(domain->error);
	domain->error = error;
	resume_keep_error(&(struct target){ .model = domain->model, .domain = domain });
	domain_changed(domain, TOPIC_ERROR);
	return true;
}

void domain_set_link_error(struct domain *domain, const char *reason)
{
	/* That an engine which was left by an earlier life is dead is no news: another one is on its way. */
	bool coming_up = domain->engine && !domain->link->settled;
	bool ending = domain->model->stopping || domain->link->removed;

	if (keep_link_error(domain, reason) && reason && !ending && !coming_up)
		domain_log(domain, "%s", reason);
}

void domain_set_state(struct domain *domain, enum domain_state state, const char *reason)
{
	enum domain_state before = domain_shown_state(domain);

	if (state == domain->state)
		return;
	domain->state = state;
	/* Until the first attempt has come to something it is as it was before the server was started anew. */
	if (domain->link->resuming && (state == DOMAIN_CONNECTING || state == DOMAIN_CONNECTED))
		return;
	domain_changed(domain, TOPIC_STATE);
	if (domain->link->removed)
		return; /* domain-removed was its last event */
	if (state == DOMAIN_CONNECTED)
		event_plain(domain, NULL, "domain-connected", NULL);
	else if (before == DOMAIN_CONNECTED)
		event_plain(domain, NULL, "domain-disconnected", reason);
	resume_over(domain);
	resume_keep_state(domain);
	if (before == DOMAIN_CONNECTING)
		delete_step(domain->model);
}

void domain_settle(struct domain *domain)
{
	if (domain->link->settled)
		return;
	domain->link->settled = true;
	if (domain->link->resuming) {
		/* It was there before the server was started anew, and does not answer any more. */
		resume_over(domain);
		domain_changed(domain, TOPIC_STATE);
		resume_keep_state(domain);
		event_plain(domain, NULL, "domain-disconnected", domain->error);
	}
	model_domain_settled(domain->model, NULL);
}

void domain_synced(struct domain *domain)
{
	domain->link->synced = true;
	reconnect_synced(domain);
	domain_set_link_error(domain, NULL);
	domain_set_state(domain, DOMAIN_CONNECTED, NULL);
	resume_over(domain);
	domain_settle(domain);
}

void domain_engine_failed(struct domain *domain, const char *reason)
{
	bool first = !domain->link->settled;

	domain->link->settled = true;
	domain_set_state(domain, DOMAIN_DISCONNECTED, reason);
	if (!first) {
		domain_set_link_error(domain, reason);
		return;
	}
	keep_link_error(domain, reason); /* main() says it, and ends */
	model_domain_settled(domain->model, reason);
}

/* --- the run state --- */

static void run_state_known(void *data, const struct qmp_error *error, const char *text)
{
	struct domain *domain = data;

	if (error || (domain->run_state && !strcmp(domain->run_state, text)))
		return;
	free(domain->run_state);
	domain->run_state = source_escape_name(text); /* one word, whatever the peer sends */
	resume_keep_state(domain);
	domain_changed(domain, TOPIC_STATE);
}

static void ask_run_state(struct domain *domain)
{
	if (qmp_has(domain->link->features, QMP_HAS_QUERY_STATUS))
		qmp_query_run_state(domain->link->qmp, run_state_known, domain);
}

/* --- the link --- */

static void features_known(void *data, const struct qmp_error *error, struct qmp_features features)
{
	struct domain *domain = data;
	struct domain_link *link = domain->link;

	domain_turn_over(domain);
	if (error) {
		/* Without it nothing can be asked. A hang is over some day: the link is made anew then. */
		if (error->code != -EHOSTDOWN && link->qmp) {
			qmp_link_close(link->qmp);
			domain_link_closed(domain, error->code, error->text);
		}
		return;
	}
	link->features = features;
	link->ready = true;
	link->gone = false;
	ask_run_state(domain);
	domain_sync(domain);
	make_image_connected(domain);
}

static void link_ready(void *owner)
{
	struct domain *domain = owner;

	domain->model->metrics.connects++;
	domain_turn(domain);
}

void domain_learn(struct domain *domain)
{
	qmp_query_features(domain->link->qmp, features_known, domain);
}

/* Somebody is there: a socket has taken us, a command runs. As long as nobody is, `disconnected` stays, with its reason. */
static void link_reached(void *owner)
{
	struct domain *domain = owner;

	if (domain->state == DOMAIN_DISCONNECTED)
		domain_set_state(domain, DOMAIN_CONNECTING, NULL);
}

static void link_busy(void *owner)
{
	struct domain *domain = owner;

	domain_set_state(domain, DOMAIN_BUSY, NULL);
	if (domain->transport == QMP_EXEC)
		domain_set_link_error(domain,
				      "the command is silent: it has not reached the monitor "
				      "yet, or that serves another client");
	else
		domain_set_link_error(domain,
				      "the monitor does not greet: it probably serves another "
				      "client; QEMU can be given a second one (-qmp)");
	domain_settle(domain);
}

/* Something happened to a job that we do not know: somebody else's has begun, or has changed a chain. */
static void foreign_event(struct domain *domain, const struct qmp_event *event)
{
	static const char *const telling[] = { "created", "running",   "ready",
					       "pending", "concluded", "null" };

	for (size_t i = 0; event->status && i < sizeof(telling) / sizeof(*telling); i++)
		if (!strcmp(event->status, telling[i]))
			domain_sync(domain);
}

static void job_event(struct domain *domain, const struct qmp_event *event)
{
	struct disk *disk = domain_find_job(domain, event->job);

	if (!disk) {
		foreign_event(domain, event);
		return;
	}
	finish_job_event(disk, event);
	if (event->kind == QMP_EVENT_BLOCK_JOB_ERROR &&
	    !uv_is_active((uv_handle_t *)&domain->link->burst))
		uv_timer_start(&domain->link->burst, domain_burst_over, ERROR_BURST_MS, 0);
}

static void link_event(void *owner, const struct qmp_event *event)
{
	struct domain *domain = owner;

	if (!domain->link->ready || domain->link->removed)
		return; /* the first sync finds what is true */
	if (event->job && make_image_event(domain, event))
		return;
	if (event->job)
		job_event(domain, event);
	else if (event->kind == QMP_EVENT_RUN_STATE || event->kind == QMP_EVENT_SHUTDOWN)
		ask_run_state(domain);
	else if (event->kind == QMP_EVENT_DEVICES)
		domain_sync(domain);
}

static bool qemu_is_gone(int code)
{
	return code == -ECONNREFUSED || code == -ENOENT;
}

static void jobs_after_loss(struct domain *domain, int code)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk) {
		if (!disk_is_busy(disk))
			continue;
		finish_link_lost(disk);
		/* Nobody listens on the socket any more: no connection will tell more. */
		if (qemu_is_gone(code))
			finish_job_gone(disk);
	}
	domain->link->finalizing = 0;
}

void domain_retry_in(struct domain *domain, unsigned ms)
{
	struct domain_link *link = domain->link;

	if (!link->stopping)
		uv_timer_start(&link->retry, domain_retry, ms, 0);
}

void domain_link_closed(struct domain *domain, int code, const char *reason)
{
	struct domain_link *link = domain->link;
	bool was_synced = link->synced;

	link->qmp = NULL;
	domain_turn_over(domain);
	link->gone = qemu_is_gone(code);
	link->ready = link->synced = link->syncing = link->sync_again = link->refresh_soon = false;
	free(domain->run_state);
	domain->run_state = NULL;
	domain_set_link_error(domain, reason);
	/* A socket whose queue of clients is full: they wait for the one that it serves. */
	domain_set_state(domain, code == -EAGAIN ? DOMAIN_BUSY : DOMAIN_DISCONNECTED, reason);
	refresh_link_lost(domain);
	make_image_link_lost(domain);
	jobs_after_loss(domain, code);
	if (domain->engine && engine_link_closed(domain->engine, code))
		return; /* the engine tries its next way of coming up */
	if (!domain->engine)
		domain_settle(domain); /* an engine is coming up, or says that it does not */
	if (domain->folder)
		folder_link_ended(domain->folder, code); /* the socket may have gone before */
	reconnect_lost(domain, was_synced);
}

static void link_answered(void *owner, const char *command, uint64_t ns, bool failed)
{
	struct domain *domain = owner;

	metrics_command(&domain->model->metrics, command, ns, failed);
}

static void link_closed(void *owner, int code, const char *reason)
{
	domain_link_closed(owner, code, reason);
}

void domain_part_closed(struct domain *domain)
{
	struct model *model = domain->model;

	if (domain_is_stopped(domain))
		model->open_domains--;
	/* At the end of all, looking through all of them for each of them would take its time. */
	if (!model->stopping || domain->link->removed || !model->open_domains)
		model_stop_step(model);
}

static void link_gone(void *owner)
{
	struct domain *domain = owner;

	domain->link->connections--;
	if (!domain->link->connections && domain->link->connect_later)
		domain_connect(domain);
	domain_part_closed(domain);
}

static const struct qmp_link_handlers link_handlers = {
	.reached = link_reached,
	.ready = link_ready,
	.busy = link_busy,
	.event = link_event,
	.closed = link_closed,
	.answered = link_answered,
	.gone = link_gone,
};

void domain_connect(struct domain *domain)
{
	struct domain_link *link = domain->link;
	struct qmp_address address = { domain->transport, domain->socket };

	if (link->qmp || link->stopping || !domain->socket)
		return;
	/* What is owed by an old connection must not be taken for an answer of the new one. */
	link->connect_later = link->connections > 0;
	if (link->connect_later)
		return;
	link->connections++;
	reconnect_attempt(domain);
	link->qmp = qmp_link_open(domain->model->loop, &address, domain->model->settings.timeout_ms,
				  &link_handlers, domain);
}

bool domain_is_remote(const struct domain *domain)
{
	return domain->transport != QMP_UNIX;
}

/* --- timers --- */

void domain_retry(uv_timer_t *timer)
{
	struct domain *domain = timer->data;

	if (domain->link->ready)
		domain_sync(domain);
	else
		domain_connect(domain);
}

void domain_retry_sync(struct domain *domain)
{
	domain_retry_in(domain, 1000);
}

void domain_burst_over(uv_timer_t *timer)
{
	struct domain *domain = timer->data;
	struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (job_is_live(disk->job))
			finish_tell_errors(disk);
}

/* --- beginning and end --- */

enum {
	TIMERS = 8,
};

static void timers_of(struct domain_link *link, uv_timer_t *timers[TIMERS])
{
	uv_timer_t *all[TIMERS] = { &link->retry,      &link->burst, &link->tick,
				    &link->deadline,   &link->pace,  &link->patience,
				    &link->turn_timer, &link->look };

	memcpy(timers, all, sizeof(all));
}

static void open_timers(struct domain *domain)
{
	uv_timer_t *timers[TIMERS];

	timers_of(domain->link, timers);
	for (int i = 0; i < TIMERS; i++) {
		uv_timer_init(domain->model->loop, timers[i]);
		timers[i]->data = domain;
	}
	domain->link->timers = TIMERS;
}

static void set_address(struct domain *domain, const struct source *source)
{
	free(domain->address);
	free(domain->socket);
	domain->address = source_address(source);
	domain->socket = NULL;
	domain->transport = source->kind == SOURCE_TCP	  ? QMP_TCP
			    : source->kind == SOURCE_EXEC ? QMP_EXEC
							  : QMP_UNIX;
	domain->link->laid_out = false;
	domain->link->gone = source->kind == SOURCE_NONE; /* nobody there who could use an image */
	domain->state = source->kind == SOURCE_NONE ? DOMAIN_DISCONNECTED : DOMAIN_CONNECTING;
	if (source->kind == SOURCE_IMAGE)
		domain->engine = engine_new(domain, source->path);
	else if (source->path)
		domain->socket = strdup(source->path);
}

struct domain *domain_new(struct model *model, const struct source *source)
{
	struct domain *domain = calloc(1, sizeof(*domain));

	if (!domain || !(domain->link = calloc(1, sizeof(*domain->link))))
		abort();
	domain->model = model;
	model->open_domains++;
	domain->link->domain = domain;
	domain->name = strdup(source->name);
	stamps_init(domain->stamps);
	policy_read_domain(domain);
	delegation_read(domain);
	open_timers(domain);
	domain->folder = source->folder;
	domain->link->fresh = source->fresh;
	set_address(domain, source);
	return domain;
}

void domain_set_source(struct domain *domain, const struct source *source)
{
	struct domain_link *link = domain->link;

	domain_turn_over(domain);
	if (link->qmp) {
		qmp_link_close(link->qmp);
		domain_link_closed(domain, -ECANCELED, "another address was written");
	}
	uv_timer_stop(&link->retry);
	reconnect_close(domain);
	while (domain->disks)
		disk_remove(domain->disks);
	sync_free(link);
	model_address_clear(domain);
	set_address(domain, source);
	model_address_set(domain);
	domain_set_link_error(domain, NULL);
	resume_keep_domain(domain);
	domain_changed(domain, TOPIC_ADDRESS);
	domain_changed(domain, TOPIC_STATE);
}

void domain_start(struct domain *domain)
{
	reconnect_begin(domain);
	if (domain->engine) {
		engine_start(domain->engine);
	} else if (domain->link->fresh) {
		domain_retry_in(domain, FRESH_SOCKET_MS);
	} else if (domain->socket) {
		domain_connect(domain);
	} else {
		keep_link_error(domain, "it has no address yet: write one, such as "
					"unix:/run/vm/web1.qmp, to `address`");
		domain_settle(domain);
	}
}

static void timer_closed(uv_handle_t *handle)
{
	struct domain *domain = handle->data;

	if (!--domain->link->timers)
		domain_part_closed(domain);
}

void domain_stop(struct domain *domain)
{
	struct domain_link *link = domain->link;
	uv_timer_t *timers[TIMERS];

	if (link->stopping)
		return;
	link->stopping = true;
	domain_turn_over(domain);
	if (link->qmp)
		qmp_link_close(link->qmp);
	link->qmp = NULL;
	link->ready = link->synced = false;
	reconnect_close(domain);
	make_image_link_lost(domain);
	timers_of(link, timers);
	for (int i = 0; i < TIMERS; i++)
		uv_close((uv_handle_t *)timers[i], timer_closed);
}

bool domain_is_stopped(const struct domain *domain)
{
	const struct domain_link *link = domain->link;

	return link->timers == 0 && link->watches == 0 && link->connections == 0;
}

void domain_free(struct domain *domain)
{
	struct disk *disk, *next;

	DL_FOREACH_SAFE(domain->disks, disk, next)
		disk_free(disk);
	if (domain->engine)
		engine_free(domain->engine);
	refresh_give_up(domain);
	sync_free(domain->link);
	event_log_clear(&domain->log);
	free(domain->link->not_shown);
	free(domain->link);
	free(domain->name);
	free(domain->address);
	free(domain->socket);
	free(domain->run_state);
	free(domain->error);
	free(domain->verbs);
	delegation_free(domain);
	free(domain);
}
