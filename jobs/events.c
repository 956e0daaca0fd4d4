/*
 * Events as JSON lines, into the logs of the disk, its domain and the mount. Called by whoever changes the model; knows nothing of who
 * reads.
 */
#include "jobs/events.h"

#include <stdio.h>
#include <string.h>
#include "jobs/deletion.h"
#include "jobs/event_store.h"
#include "jobs/json.h"
#include "jobs/model.h"

void event_format_time(char out[32], struct timespec time)
{
	struct tm tm;
	size_t length;

	gmtime_r(&time.tv_sec, &tm);
	length = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + length, 32 - length, ".%06ldZ", time.tv_nsec / 1000);
}

static struct text *event_new(struct model *model, const char *event, const char *domain,
			      const struct disk *disk)
{
	struct text *line = json_new();
	struct timespec now;
	char time[32];

	clock_gettime(CLOCK_REALTIME, &now);
	event_format_time(time, now);
	json_text(line, "event", event);
	json_number(line, "seq", (int64_t)++model->seq);
	json_text(line, "time", time);
	json_text(line, "domain", domain);
	json_text(line, "disk", disk ? disk->name : NULL);
	return line;
}

/* Writes the line into every log that it belongs to, and frees it. */
static void event_tell(struct model *model, struct text *line, struct domain *domain,
		       struct disk *disk)
{
	json_close(line, '}');
	text_puts(line, "\n");
	event_log_append(&model->log, text_bytes(line), text_length(line));
	stamp_touch(&model->stamps[TOPIC_EVENTS]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_EVENTS);
	if (domain) {
		event_log_append(&domain->log, text_bytes(line), text_length(line));
		domain_changed(domain, TOPIC_EVENTS);
	}
	if (disk) {
		event_log_append(&disk->log, text_bytes(line), text_length(line));
		disk_changed(disk, TOPIC_EVENTS);
	}
	event_store_add(model, domain, disk, text_bytes(line));
	text_free(line);
}

/* NULL: the event is about no job. Every event has these keys, so that they can be looked up without asking first. */
static void add_job(struct text *line, const struct job *job)
{
	json_text(line, "job", job ? job->id : NULL);
	json_text(line, "type", job ? job->type : NULL);
}

static void add_end(struct text *line, const struct job *job)
{
	int64_t cur, end;

	job_progress(job, &cur, &end);
	json_number(line, "cur", cur);
	json_number(line, "end", end);
	json_text(line, "error", job->error);
	json_text(line, "result", job_result(job));
	json_texts(line, "released", job->released, job->released_count);
	json_open(line, "shared", '[');
	for (size_t i = 0; i < job->released_count; i++)
		if (job->released_shared[i])
			json_text(line, NULL, job->released[i]);
	json_close(line, ']');
}

void event_plain(struct domain *domain, struct disk *disk, const char *event, const char *reason)
{
	struct text *line = event_new(domain->model, event, domain->name, disk);

	add_job(line, NULL);
	if (reason)
		json_text(line, "reason", reason);
	event_tell(domain->model, line, domain, disk);
}

static void add_by(struct text *line, const struct who *by)
{
	if (by->uid == (uid_t)-1) {
		json_text(line, "by", "foreign");
		return;
	}
	json_number(line, "uid", by->uid);
	json_number(line, "pid", by->pid);
}

void event_job(struct disk *disk, const char *event)
{
	struct model *model = disk->domain->model;
	struct text *line = event_new(model, event, disk->domain->name, disk);

	add_job(line, disk->job);
	if (!strcmp(event, "job-started"))
		add_by(line, &disk->job->by);
	event_tell(model, line, disk->domain, disk);
}

void event_job_error(struct disk *disk, const char *operation, const char *action, uint64_t count)
{
	struct model *model = disk->domain->model;
	struct text *line = event_new(model, "job-error", disk->domain->name, disk);

	add_job(line, disk->job);
	json_text(line, "operation", operation);
	json_text(line, "action", action);
	json_number(line, "count", (int64_t)count);
	event_tell(model, line, disk->domain, disk);
}

void event_increment_done(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct text *line = event_new(model, "increment-done", disk->domain->name, disk);
	int64_t cur, end;

	job_progress(disk->job, &cur, &end);
	add_job(line, disk->job);
	json_number(line, "cur", cur);
	json_number(line, "end", end);
	json_number(line, "mark", disk->job->mark);
	event_tell(model, line, disk->domain, disk);
}

void event_job_ended(struct disk *disk)
{
	struct model *model = disk->domain->model;
	char name[32];
	struct text *line;

	snprintf(name, sizeof(name), "job-%s", job_state_words[disk->job->state]);
	line = event_new(model, name, disk->domain->name, disk);
	add_job(line, disk->job);
	add_end(line, disk->job);
	event_tell(model, line, disk->domain, disk);
}

void event_refused(const struct target *target, const struct who *by, const char *errno_name,
		   const char *reason)
{
	struct domain *domain = target->disk ? target->disk->domain : target->domain;
	struct text *line = event_new(target->model, "command-refused",
				      domain ? domain->name : NULL, target->disk);

	add_job(line, NULL);
	json_text(line, "errno", errno_name);
	json_text(line, "error", reason);
	add_by(line, by);
	event_tell(target->model, line, domain, target->disk);
}

void event_image(struct disk *disk, const char *path, const char *reason)
{
	struct model *model = disk->domain->model;
	struct text *line = event_new(model, reason ? "image-delete-failed" : "image-deleted",
				      disk->domain->name, disk);

	add_job(line, disk->job);
	json_text(line, "image", path);
	if (reason)
		json_text(line, "error", reason);
	event_tell(model, line, disk->domain, disk);
}

void event_domain_refused(struct model *model, const char *name, const char *folder,
			  const char *file, const char *reason)
{
	struct text *line = event_new(model, "domain-refused", name, NULL);
	struct text *path = text_new();

	text_put_safe(path, folder, strlen(folder));
	text_puts(path, "/");
	text_put_safe(path, file, strlen(file));
	add_job(line, NULL);
	json_text(line, "socket", text_bytes(path));
	json_text(line, "reason", reason);
	event_tell(model, line, NULL, NULL);
	text_free(path);
}

void event_chain_changed(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct text *line = event_new(model, "chain-changed", disk->domain->name, disk);

	add_job(line, NULL);
	json_number(line, "generation", (int64_t)disk->generation);
	json_open(line, "chain", '[');
	for (size_t i = 0; i < disk->depth; i++)
		json_text(line, NULL, disk->chain[i].path);
	json_close(line, ']');
	event_tell(model, line, disk->domain, disk);
}

/* What was to be deleted, and whether it was. */
static void add_deleted(struct text *line, const struct deletion *deletion)
{
	json_open(line, "delete", '[');
	for (size_t i = 0; i < deletion->count; i++) {
		json_open(line, NULL, '{');
		json_text(line, "path", deletion->images[i].path);
		json_flag(line, "deleted", deletion->images[i].deleted);
		json_close(line, '}');
	}
	json_close(line, ']');
}

char *event_history_line(const struct disk *disk)
{
	const struct job *job = disk->job;
	struct text *line = json_new();
	char started[32], ended[32], *copy;

	event_format_time(started, job->started);
	event_format_time(ended, job->ended);
	add_job(line, job);
	json_text(line, "state", job_state_words[job->state]);
	add_end(line, job);
	json_text(line, "started", started);
	json_text(line, "ended", ended);
	json_number(line, "bandwidth", job->speed);
	add_by(line, &job->by);
	if (job->deletion)
		add_deleted(line, job->deletion);
	json_close(line, '}');
	text_puts(line, "\n");
	copy = strdup(text_bytes(line));
	if (!copy)
		abort();
	text_free(line);
	return copy;
}
