/*
 * Events as JSON lines, into the logs of the disk, its domain and the mount. Called by whoever changes the model; knows nothing of who
 * reads.
 */
#include "jobs/events.h"

#include <stdio.h>
#include <string.h>
#include "jobs/deletion.h"
#include "jobs/event_store.h"
#include "jobs/model.h"
#include "qmp/value.h"

void event_format_time(char out[32], struct timespec time)
{
	struct tm tm;
	size_t length;

	gmtime_r(&time.tv_sec, &tm);
	length = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + length, 32 - length, ".%06ldZ", time.tv_nsec / 1000);
}

static struct qmp_value *event_new(struct model *model, const char *event, struct domain *domain,
				   struct disk *disk)
{
	struct qmp_value *line = qmp_object();
	struct timespec now;
	char time[32];

	clock_gettime(CLOCK_REALTIME, &now);
	event_format_time(time, now);
	qmp_add_text(line, "event", event);
	qmp_add_number(line, "seq", (int64_t)++model->seq);
	qmp_add_text(line, "time", time);
	qmp_add_text(line, "domain", domain ? domain->name : NULL);
	qmp_add_text(line, "disk", disk ? disk->name : NULL);
	return line;
}

/* Writes the line into every log that it belongs to, and frees it. */
static void event_tell(struct model *model, struct qmp_value *line, struct domain *domain,
		       struct disk *disk)
{
	struct text *text = text_new();

	text_puts(text, qmp_value_print(line));
	text_puts(text, "\n");
	qmp_value_free(line);
	event_log_append(&model->log, text_bytes(text), text_length(text));
	stamp_touch(&model->stamps[TOPIC_EVENTS]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_EVENTS);
	if (domain) {
		event_log_append(&domain->log, text_bytes(text), text_length(text));
		domain_changed(domain, TOPIC_EVENTS);
	}
	if (disk) {
		event_log_append(&disk->log, text_bytes(text), text_length(text));
		disk_changed(disk, TOPIC_EVENTS);
	}
	event_store_add(model, domain, disk, text_bytes(text));
	text_free(text);
}

/* NULL: the event is about no job. Every event has these keys, so that they can be looked up without asking first. */
static void add_job(struct qmp_value *line, const struct job *job)
{
	qmp_add_text(line, "job", job ? job->id : NULL);
	qmp_add_text(line, "type", job ? job->type : NULL);
}

static void add_end(struct qmp_value *line, const struct job *job)
{
	struct qmp_value *released = qmp_array(), *shared = qmp_array();
	int64_t cur, end;

	job_progress(job, &cur, &end);
	qmp_add_number(line, "cur", cur);
	qmp_add_number(line, "end", end);
	qmp_add_text(line, "error", job->error);
	qmp_add_text(line, "result", job_result(job));
	for (size_t i = 0; i < job->released_count; i++)
		qmp_append_text(released, job->released[i]);
	for (size_t i = 0; i < job->released_count; i++)
		if (job->released_shared[i])
			qmp_append_text(shared, job->released[i]);
	qmp_add_value(line, "released", released);
	qmp_add_value(line, "shared", shared);
}

void event_plain(struct domain *domain, struct disk *disk, const char *event, const char *reason)
{
	struct qmp_value *line = event_new(domain->model, event, domain, disk);

	add_job(line, NULL);
	if (reason)
		qmp_add_text(line, "reason", reason);
	event_tell(domain->model, line, domain, disk);
}

static void add_by(struct qmp_value *line, const struct who *by)
{
	if (by->uid == (uid_t)-1) {
		qmp_add_text(line, "by", "foreign");
		return;
	}
	qmp_add_number(line, "uid", by->uid);
	qmp_add_number(line, "pid", by->pid);
}

void event_job(struct disk *disk, const char *event)
{
	struct model *model = disk->domain->model;
	struct qmp_value *line = event_new(model, event, disk->domain, disk);

	add_job(line, disk->job);
	if (!strcmp(event, "job-started"))
		add_by(line, &disk->job->by);
	event_tell(model, line, disk->domain, disk);
}

void event_job_error(struct disk *disk, const char *operation, const char *action, uint64_t count)
{
	struct model *model = disk->domain->model;
	struct qmp_value *line = event_new(model, "job-error", disk->domain, disk);

	add_job(line, disk->job);
	qmp_add_text(line, "operation", operation);
	qmp_add_text(line, "action", action);
	qmp_add_number(line, "count", (int64_t)count);
	event_tell(model, line, disk->domain, disk);
}

void event_increment_done(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct qmp_value *line = event_new(model, "increment-done", disk->domain, disk);
	int64_t cur, end;

	job_progress(disk->job, &cur, &end);
	add_job(line, disk->job);
	qmp_add_number(line, "cur", cur);
	qmp_add_number(line, "end", end);
	qmp_add_number(line, "mark", disk->job->mark);
	event_tell(model, line, disk->domain, disk);
}

void event_job_ended(struct disk *disk)
{
	struct model *model = disk->domain->model;
	char name[32];
	struct qmp_value *line;

	snprintf(name, sizeof(name), "job-%s", job_state_words[disk->job->state]);
	line = event_new(model, name, disk->domain, disk);
	add_job(line, disk->job);
	add_end(line, disk->job);
	event_tell(model, line, disk->domain, disk);
}

void event_refused(const struct target *target, const struct who *by, const char *errno_name,
		   const char *reason)
{
	struct domain *domain = target->disk ? target->disk->domain : target->domain;
	struct qmp_value *line = event_new(target->model, "command-refused", domain, target->disk);

	add_job(line, NULL);
	qmp_add_text(line, "errno", errno_name);
	qmp_add_text(line, "error", reason);
	add_by(line, by);
	event_tell(target->model, line, domain, target->disk);
}

void event_image(struct disk *disk, const char *path, const char *reason)
{
	struct model *model = disk->domain->model;
	struct qmp_value *line = event_new(model, reason ? "image-delete-failed" : "image-deleted",
					   disk->domain, disk);

	add_job(line, disk->job);
	qmp_add_text(line, "image", path);
	if (reason)
		qmp_add_text(line, "error", reason);
	event_tell(model, line, disk->domain, disk);
}

void event_domain_refused(struct model *model, const char *name, const char *folder,
			  const char *file, const char *reason)
{
	struct qmp_value *line = event_new(model, "domain-refused", NULL, NULL);
	struct text *path = text_new();

	text_put_safe(path, folder, strlen(folder));
	text_puts(path, "/");
	text_put_safe(path, file, strlen(file));
	qmp_add_text(line, "domain", name);
	add_job(line, NULL);
	qmp_add_text(line, "socket", text_bytes(path));
	qmp_add_text(line, "reason", reason);
	event_tell(model, line, NULL, NULL);
	text_free(path);
}

void event_chain_changed(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct qmp_value *line = event_new(model, "chain-changed", disk->domain, disk);
	struct qmp_value *chain = qmp_array();

	add_job(line, NULL);
	qmp_add_number(line, "generation", (int64_t)disk->generation);
	for (size_t i = 0; i < disk->depth; i++)
		qmp_append_text(chain, disk->chain[i].path);
	qmp_add_value(line, "chain", chain);
	event_tell(model, line, disk->domain, disk);
}

/* What was to be deleted, and whether it was. */
static struct qmp_value *deleted(const struct deletion *deletion)
{
	struct qmp_value *list = qmp_array();

	for (size_t i = 0; i < deletion->count; i++) {
		struct qmp_value *item = qmp_object();

		qmp_add_text(item, "path", deletion->images[i].path);
		qmp_add_flag(item, "deleted", deletion->images[i].deleted);
		qmp_append_value(list, item);
	}
	return list;
}

char *event_history_line(const struct disk *disk)
{
	const struct job *job = disk->job;
	struct qmp_value *line = qmp_object();
	char started[32], ended[32], *text;

	event_format_time(started, job->started);
	event_format_time(ended, job->ended);
	add_job(line, job);
	qmp_add_text(line, "state", job_state_words[job->state]);
	add_end(line, job);
	qmp_add_text(line, "started", started);
	qmp_add_text(line, "ended", ended);
	qmp_add_number(line, "bandwidth", job->speed);
	add_by(line, &job->by);
	if (job->deletion)
		qmp_add_value(line, "delete", deleted(job->deletion));
	if (asprintf(&text, "%s\n", qmp_value_print(line)) < 0)
		abort();
	qmp_value_free(line);
	return text;
}
