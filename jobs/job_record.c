/*
 * Jobs in the journal. A new property of a job that must survive the daemon is a line in put() and a line in take().
 */
#include "jobs/job_record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/deadline.h"
#include "jobs/deletion.h"
#include "jobs/disk.h"
#include "jobs/domain_link.h"
#include "jobs/event_store.h"
#include "jobs/events.h"
#include "jobs/history.h"
#include "jobs/journal.h"
#include "jobs/json.h"
#include "jobs/model.h"
#include "qmp/value.h"

enum {
	UNKNOWN_MAX = 100, /* records that a domain gets of jobs that none was known of */
	ID_BYTES_MAX = 200,
	ERROR_BYTES_MAX = 4096,
	CHAIN_BYTES_MAX =
		1 << 20, /* of paths: without them `released` is what can be found out later */
};

#define PREFIX "job/"

static char *key_of(const char *id)
{
	char *key;

	if (asprintf(&key, PREFIX "%s", id) < 0)
		abort();
	return key;
}

/* --- the chain as it was when the job began --- */

static void put_chain(struct text *record, const struct job *job)
{
	size_t bytes = 0;

	for (size_t i = 0; i < job->before_count; i++)
		bytes += strlen(job->before_paths[i]);
	if (bytes > CHAIN_BYTES_MAX)
		return;
	json_texts(record, "chain", job->before_paths, job->before_count);
	json_texts(record, "nodes", job->before_nodes, job->before_count);
}

static void take_chain(struct job *job, const struct qmp_value *record)
{
	const struct qmp_value *paths = qmp_value_get(record, "chain");
	const struct qmp_value *nodes = qmp_value_get(record, "nodes");
	size_t count = qmp_value_count(paths);

	if (!count)
		return;
	job_forget_chain(job);
	job->before_paths = calloc(count + 1, sizeof(*job->before_paths));
	job->before_nodes = calloc(count + 1, sizeof(*job->before_nodes));
	if (!job->before_paths || !job->before_nodes)
		abort();
	job->before_count = count;
	for (size_t i = 0; i < count; i++) {
		const char *node = qmp_value_text(qmp_value_item(nodes, i), NULL, "");

		job->before_paths[i] = strdup(qmp_value_text(qmp_value_item(paths, i), NULL, ""));
		job->before_nodes[i] = *node ? strdup(node) : NULL;
	}
}

/* --- its end --- */

static void put_end(struct text *record, const struct job *job)
{
	json_open(record, "end", '{');
	json_flag(record, "cancelled", job->cancelled);
	json_text(record, "error", job->error);
	json_number(record, "offset", job->offset);
	json_number(record, "length", job->length);
	json_close(record, '}');
}

static void take_end(struct job *job, const struct qmp_value *end)
{
	const char *error = qmp_value_text(end, "error", NULL);

	if (!qmp_value_is_object(end))
		return;
	job->outcome_known = true;
	job->cancelled = qmp_value_flag(end, "cancelled", false);
	free(job->error);
	job->error = error ? strdup(error) : NULL;
	job->offset = qmp_value_number(end, "offset", 0);
	job->length = qmp_value_number(end, "length", 0);
}

/* --- all of it --- */

/* What is mostly so is not written: take() knows. */
static void put_flag(struct text *record, const char *key, bool flag)
{
	if (flag)
		json_flag(record, key, true);
}

static void put_number(struct text *record, const char *key, int64_t number)
{
	if (number)
		json_number(record, key, number);
}

/* @disk is NULL if it is not known, and who has asked for the job then may not be. The record is left open. */
static struct text *put(const char *domain, const char *disk, const struct job *job)
{
	struct text *record = json_new();

	json_text(record, "id", job->id);
	json_text(record, "domain", domain);
	if (disk)
		json_text(record, "disk", disk);
	json_text(record, "type", job->type);
	if (job->by.uid != (uid_t)-1) {
		json_number(record, "uid", job->by.uid);
		json_number(record, "gid", job->by.gid);
		json_number(record, "pid", job->by.pid);
	}
	json_number(record, "started", job->started.tv_sec);
	json_number(record, "started-ns", job->started.tv_nsec);
	json_number(record, "speed", job->speed);
	put_flag(record, "pivot", job->pivot_wanted);
	put_flag(record, "pivot-asked", job->pivot_asked);
	json_flag(record, "seen", job->told);
	if (job->flush_error)
		json_text(record, "flush-error", job->flush_error);
	put_chain(record, job);
	deletion_put(record, job->deletion);
	if (job->deadline_s) {
		json_number(record, "deadline-s", job->deadline_s);
		json_number(record, "deadline", job->deadline.tv_sec);
		json_flag(record, "deadline-struck", job->deadline_struck);
	}
	put_number(record, "increment", job->increment);
	put_number(record, "mark", job->mark);
	put_flag(record, "paused", job->user_paused);
	put_number(record, "continued-by", (int64_t)job->continued_by);
	if (job->on_error)
		json_text(record, "on-error", job->on_error);
	if (job->dest) {
		json_text(record, "dest", job->dest);
		json_text(record, "dest-format", job->dest_format);
	}
	if (job->outcome_known)
		put_end(record, job);
	return record;
}

static void take_text(char **kept, const struct qmp_value *record, const char *key)
{
	const char *text = qmp_value_text(record, key, NULL);

	if (!text)
		return;
	free(*kept);
	*kept = strdup(text);
}

static void take(struct job *job, const struct qmp_value *record)
{
	const char *type = job_type_known(qmp_value_text(record, "type", ""));

	if (strcmp(type, "unknown"))
		job->type = type; /* QEMU does not tell an active commit from another */
	job->by.uid = (uid_t)qmp_value_number(record, "uid", job->by.uid);
	job->by.gid = (gid_t)qmp_value_number(record, "gid", job->by.gid);
	job->by.pid = (pid_t)qmp_value_number(record, "pid", job->by.pid);
	job->started.tv_sec = qmp_value_number(record, "started", job->started.tv_sec);
	job->started.tv_nsec = qmp_value_number(record, "started-ns", job->started.tv_nsec);
	job->speed = qmp_value_number(record, "speed", job->speed);
	job->pivot_wanted = qmp_value_flag(record, "pivot", false);
	job->reconnected = true;
	job->begun = qmp_value_flag(record, "seen", false);
	job->pivot_asked = qmp_value_flag(record, "pivot-asked", false);
	take_text(&job->flush_error, record, "flush-error");
	take_chain(job, record);
	deletion_free(job->deletion);
	job->deletion = deletion_take(record);
	job->deadline_s = qmp_value_number(record, "deadline-s", 0);
	job->deadline.tv_sec = qmp_value_number(record, "deadline", 0);
	job->deadline_struck = qmp_value_flag(record, "deadline-struck", false);
	job->increment = qmp_value_number(record, "increment", 0);
	job->mark = qmp_value_number(record, "mark", 0);
	job->user_paused = qmp_value_flag(record, "paused", false);
	job->continued_by = (uint64_t)qmp_value_number(record, "continued-by", 0);
	take_text(&job->on_error, record, "on-error");
	take_text(&job->dest, record, "dest");
	take_text(&job->dest_format, record, "dest-format");
	take_end(job, qmp_value_get(record, "end"));
}

static void write_record(const struct domain *domain, const char *disk, const struct job *job)
{
	struct text *record = put(domain->name, disk, job);
	char *key = key_of(job->id);

	json_close(record, '}');
	journal_put(domain->model->journal, key, text_bytes(record));
	free(key);
	text_free(record);
}

void job_record_write(const struct disk *disk)
{
	if (job_is_live(disk->job) && disk->job->ours)
		write_record(disk->domain, disk->name, disk->job);
}

static struct qmp_value *find(const struct domain *domain, const char *id)
{
	char *key = key_of(id);
	const char *text = journal_get(domain->model->journal, key);
	struct qmp_value *record = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;

	free(key);
	return record;
}

void job_record_read(const struct disk *disk, struct job *job)
{
	struct qmp_value *record = find(disk->domain, job->id);

	if (record)
		take(job, record);
	qmp_value_free(record);
}

void job_record_drop(const struct disk *disk, const struct job *job)
{
	char *key = key_of(job->id);

	journal_drop(disk->domain->model->journal, key);
	free(key);
}

/* A peer may show jobs that look like ours, and new ones with each look. */
static bool may_be_kept(const struct domain *domain, const struct qmp_job_info *info)
{
	return strlen(info->id) <= ID_BYTES_MAX &&
	       (!info->error || strlen(info->error) <= ERROR_BYTES_MAX) &&
	       domain->link->unknown_records++ < UNKNOWN_MAX;
}

void job_record_end(const struct domain *domain, const struct qmp_job_info *info)
{
	struct qmp_value *record = find(domain, info->id);
	struct job *job;

	if (!record && !may_be_kept(domain, info))
		return;
	job = job_new(info->id, job_type_word(info->type));
	job->by.uid = (uid_t)-1;
	take(job, record);
	job->told = job->outcome_known = true;
	job->cancelled = info->error && !strcmp(info->error, strerror(ECANCELED));
	free(job->error);
	job->error = info->error && !job->cancelled ? strdup(info->error) : NULL;
	job->offset = info->offset;
	job->length = info->length;
	write_record(domain, qmp_value_text(record, "disk", NULL), job);
	job_free(job);
	qmp_value_free(record);
}

/* --- jobs that an earlier life has left --- */

struct ids {
	const char *domain;
	char **ids;
	size_t count;
};

static void collect(void *data, const char *key, const char *text)
{
	struct ids *ids = data;
	struct qmp_value *record = qmp_value_parse(text, strlen(text), NULL);

	if (!strcmp(qmp_value_text(record, "domain", ""), ids->domain)) {
		ids->ids = reallocarray(ids->ids, ids->count + 1, sizeof(*ids->ids));
		if (!ids->ids)
			abort();
		ids->ids[ids->count++] = strdup(key + strlen(PREFIX));
	}
	qmp_value_free(record);
}

static struct disk *disk_of(struct domain *domain, const char *id, const struct qmp_value *record)
{
	const char *name = qmp_value_text(record, "disk", NULL);

	return name ? domain_find_disk(domain, name) : domain_disk_of_job_id(domain, id);
}

static struct job *job_of(const struct disk *disk, const char *id, const struct qmp_value *record)
{
	struct job *job = job_new(id, "unknown");

	job->phase = JOB_LIVE;
	job_id_read(id, disk->name, &job->by);
	take(job, record);
	return job;
}

void job_record_forget(struct model *model, const char *domain)
{
	struct ids ids = { .domain = domain };

	journal_each(model->journal, PREFIX, collect, &ids);
	for (size_t i = 0; i < ids.count; i++) {
		char *key = key_of(ids.ids[i]);

		journal_drop(model->journal, key);
		free(key);
		free(ids.ids[i]);
	}
	free(ids.ids);
}

bool job_record_each(struct domain *domain,
		     void (*each)(struct disk *disk, struct job *job, bool started))
{
	struct ids ids = { .domain = domain->name };
	bool all = true;

	journal_each(domain->model->journal, PREFIX, collect, &ids);
	for (size_t i = 0; i < ids.count; i++) {
		struct qmp_value *record = find(domain, ids.ids[i]);
		struct disk *disk = disk_of(domain, ids.ids[i], record);

		if (disk && disk_is_busy(disk))
			all &= !strcmp(disk->job->id, ids.ids[i]);
		else if (disk && record)
			each(disk, job_of(disk, ids.ids[i], record),
			     qmp_value_flag(record, "seen", false));
		qmp_value_free(record);
		free(ids.ids[i]);
	}
	free(ids.ids);
	return all;
}

/* --- from one life of a mount to the next --- */

static char *live_key(const struct disk *disk)
{
	char *key;

	if (asprintf(&key, "live/%s/%s", disk->domain->name, disk->name) < 0)
		abort();
	return key;
}

void job_record_hand_over(const struct disk *disk)
{
	const struct job *job = disk->job;
	struct text *record;
	char *key;

	if (!job_is_live(job))
		return;
	record = put(disk->domain->name, disk->name, job);
	key = live_key(disk);
	json_text(record, "state", job_state_words[job->state]);
	json_flag(record, "was-ready", job->was_ready);
	json_number(record, "offset", job->offset);
	json_number(record, "length", job->length);
	if (*job->io_status)
		json_text(record, "io-status", job->io_status);
	json_close(record, '}');
	journal_put(disk->domain->model->handover, key, text_bytes(record));
	free(key);
	text_free(record);
}

void job_record_lay_down(const struct disk *disk)
{
	char *key = live_key(disk);

	journal_drop(disk->domain->model->handover, key);
	free(key);
}

/*
 * What was told of it, by the log, since that is what is true whenever the last life has ended: what was not told shows as a change as soon as QEMU shows it.
 */
static void recall(const struct disk *disk, struct job *job, const struct qmp_value *record)
{
	static const char *const started[] = { "job-started", NULL },
				 *const ready[] = { "job-ready", NULL },
				 *const parked[] = { "increment-done", NULL },
				 *const paused[] = { "job-paused", "job-resumed", NULL };
	const char *latest = NULL, *state = qmp_value_text(record, "state", "");

	/* What was kept was told before that, though the log may have dropped it since. */
	job->told = event_log_has_job(&disk->log, job->id, started, NULL) ||
		    qmp_value_flag(record, "seen", false);
	job->was_ready = event_log_has_job(&disk->log, job->id, ready, NULL) ||
			 qmp_value_flag(record, "was-ready", false);
	event_log_has_job(&disk->log, job->id, paused, &latest);
	if (!latest && disk->log.lines_dropped && !strcmp(state, job_state_words[JOB_PAUSED]))
		latest = paused[0];
	job->state = JOB_RUNNING;
	if (job->mark && job->offset >= job->mark)
		job->parked = event_log_has_job(&disk->log, job->id, parked, NULL);
	if ((latest && !strcmp(latest, "job-paused")) || job->parked)
		job->state = JOB_PAUSED;
	else if (job->was_ready &&
		 !job->pivot_wanted) /* else it is to be told to pivot when it is seen */
		job->state = JOB_READY;
	if (!strcmp(state, job_state_words[JOB_ABORTING]))
		job->state = JOB_ABORTING;
	job->paused = job->state == JOB_PAUSED;
}

/* It has ended, and the last life has died before it could say so. */
static void tell_end(struct disk *disk)
{
	static const char *const ends[] = { "job-completed", "job-failed", "job-cancelled",
					    "job-lost", NULL };

	if (!event_log_has_job(&disk->log, disk->job->id, ends, NULL))
		event_job_ended(disk);
	job_record_drop(disk, disk->job);
	job_record_lay_down(disk);
}

bool job_record_pick_up(struct disk *disk)
{
	char *key = live_key(disk);
	const char *text = journal_get(disk->domain->model->handover, key);
	struct qmp_value *record = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;
	const char *id = qmp_value_text(record, "id", NULL);
	struct job *job;

	free(key);
	if (id && disk->job && !strcmp(disk->job->id, id)) {
		tell_end(disk);
	} else if (id) {
		job = job_of(disk, id, record);
		job_record_read(disk, job); /* which may know more, such as its end */
		job->offset = qmp_value_number(record, "offset", job->offset);
		job->length = qmp_value_number(record, "length", job->length);
		job_take_word(job->io_status, qmp_value_text(record, "io-status", NULL));
		recall(disk, job, record);
		job->carried = true;
		job->previous = disk->job;
		disk->job = job;
		if (!job->outcome_known)
			deadline_adopt(disk);
	}
	qmp_value_free(record);
	return id;
}
