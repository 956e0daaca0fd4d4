/*
 * Live jobs in the journal. A new property of a job that must survive the daemon is a line in put() and a line in take().
 */
#include "jobs/job_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/deletion.h"
#include "jobs/disk.h"
#include "jobs/journal.h"
#include "jobs/model.h"
#include "qmp/value.h"

static char *key_of(const struct disk *disk)
{
	char *key;

	if (asprintf(&key, "job/%s/%s", disk->domain->name, disk->name) < 0)
		abort();
	return key;
}

static struct qmp_value *put(const struct job *job)
{
	struct qmp_value *record = qmp_object();

	qmp_add_text(record, "id", job->id);
	qmp_add_number(record, "started", job->started.tv_sec);
	qmp_add_number(record, "started-ns", job->started.tv_nsec);
	qmp_add_flag(record, "pivot", job->pivot_wanted);
	deletion_put(record, job->deletion);
	if (job->deadline_s) {
		qmp_add_number(record, "deadline-s", job->deadline_s);
		qmp_add_number(record, "deadline", job->deadline.tv_sec);
		qmp_add_flag(record, "deadline-struck", job->deadline_struck);
	}
	qmp_add_number(record, "increment", job->increment);
	qmp_add_number(record, "mark", job->mark);
	if (job->mark)
		qmp_add_number(record, "speed", job->speed);
	qmp_add_flag(record, "paused", job->user_paused);
	if (job->on_error)
		qmp_add_text(record, "on-error", job->on_error);
	if (job->dest) {
		qmp_add_text(record, "dest", job->dest);
		qmp_add_text(record, "dest-format", job->dest_format);
	}
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
	job->started.tv_sec = qmp_value_number(record, "started", job->started.tv_sec);
	job->started.tv_nsec = qmp_value_number(record, "started-ns", job->started.tv_nsec);
	const char *on_error = qmp_value_text(record, "on-error", NULL);

	job->pivot_wanted = qmp_value_flag(record, "pivot", false);
	deletion_free(job->deletion);
	job->deletion = deletion_take(record);
	job->deadline_s = qmp_value_number(record, "deadline-s", 0);
	job->deadline.tv_sec = qmp_value_number(record, "deadline", 0);
	job->deadline_struck = qmp_value_flag(record, "deadline-struck", false);
	job->increment = qmp_value_number(record, "increment", 0);
	job->mark = qmp_value_number(record, "mark", 0);
	job->speed = qmp_value_number(record, "speed", job->speed);
	job->user_paused = qmp_value_flag(record, "paused", false);
	free(job->on_error);
	job->on_error = on_error ? strdup(on_error) : NULL;
	take_text(&job->dest, record, "dest");
	take_text(&job->dest_format, record, "dest-format");
}

void job_record_write(const struct disk *disk)
{
	struct qmp_value *record;
	char *key;

	if (!job_is_live(disk->job) || !disk->job->ours)
		return;
	record = put(disk->job);
	key = key_of(disk);
	journal_put(disk->domain->model->journal, key, qmp_value_print(record));
	free(key);
	qmp_value_free(record);
}

static struct qmp_value *find(const struct disk *disk, const char *key, const struct job *job)
{
	const char *text = journal_get(disk->domain->model->journal, key);
	struct qmp_value *record = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;

	if (!strcmp(qmp_value_text(record, "id", ""), job->id))
		return record;
	qmp_value_free(record);
	return NULL;
}

void job_record_read(const struct disk *disk, struct job *job)
{
	char *key = key_of(disk);
	struct qmp_value *record = find(disk, key, job);

	if (record)
		take(job, record);
	qmp_value_free(record);
	free(key);
}

void job_record_drop(const struct disk *disk, const struct job *job)
{
	char *key = key_of(disk);
	struct qmp_value *record = find(disk, key, job);

	if (record)
		journal_drop(disk->domain->model->journal, key);
	qmp_value_free(record);
	free(key);
}
