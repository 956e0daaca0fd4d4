/*
 * blockdev-create; see create.h. Called by jobs/make_image.c.
 */
#include "qmp/create.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SWEEP_MAX = 256, /* jobs that are looked at */
};

struct create_call {
	char *job; /* of qmp_query_job_error() */
	qmp_done_fn done;
	void *data;
};

static struct create_call *call_new(const char *job, qmp_done_fn done, void *data)
{
	struct create_call *call = malloc(sizeof(*call));

	if (!call)
		abort();
	*call = (struct create_call){ strdup(job), done, data };
	return call;
}

static void call_end(struct create_call *call, const struct qmp_error *error)
{
	if (call->done)
		call->done(call->data, error);
	free(call->job);
	free(call);
}

static void replied(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	call_end(data, error);
}

static void send_create(struct qmp_link *link, const char *job, struct qmp_value *options,
			qmp_done_fn done, void *data)
{
	struct qmp_value *arguments = qmp_add_text(qmp_object(), "job-id", job);

	qmp_link_send(link, "blockdev-create", qmp_add_value(arguments, "options", options),
		      replied, call_new(job, done, data));
}

static struct qmp_value *file_options(const char *path)
{
	struct qmp_value *file = qmp_add_text(qmp_object(), "driver", "file");

	return qmp_add_text(file, "filename", path);
}

void qmp_create_file(struct qmp_link *link, const struct qmp_create *create, qmp_done_fn done,
		     void *data)
{
	bool raw = !strcmp(create->format, "raw");

	send_create(link, create->job,
		    qmp_add_number(file_options(create->path), "size", raw ? create->size : 0),
		    done, data);
}

void qmp_create_format(struct qmp_link *link, const struct qmp_create *create, qmp_done_fn done,
		       void *data)
{
	struct qmp_value *options = qmp_add_text(qmp_object(), "driver", create->format);

	qmp_add_value(options, "file", file_options(create->path));
	qmp_add_number(options, "size", create->size);
	if (create->backing) {
		qmp_add_text(options, "backing-file", create->backing);
		qmp_add_text(options, "backing-fmt", create->backing_format);
	}
	send_create(link, create->job, options, done, data);
}

static void jobs_known(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct create_call *call = data;
	struct qmp_error found = { -EPROTO, "", "the job that was to make the image is gone" };
	const char *text;

	for (size_t i = 0; !error && i < qmp_value_count(value); i++) {
		const struct qmp_value *job = qmp_value_item(value, i);

		if (strcmp(qmp_value_text(job, "id", ""), call->job))
			continue;
		text = qmp_value_text(job, "error", NULL);
		found = (struct qmp_error){ text ? -EREMOTEIO : 0, "", text };
	}
	call_end(call, error ? error : found.code ? &found : NULL);
}

void qmp_query_job_error(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	qmp_link_send(link, "query-jobs", NULL, jobs_known, call_new(job, done, data));
}

/* --- what an earlier connection has left --- */

struct sweep {
	struct qmp_link *link;
	const char *prefix;
};

static void sweep_jobs(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct sweep *sweep = data;

	for (size_t i = 0; !error && i < qmp_value_count(value) && i < SWEEP_MAX; i++) {
		const struct qmp_value *job = qmp_value_item(value, i);
		const char *id = qmp_value_text(job, "id", "");

		if (!strncmp(id, sweep->prefix, strlen(sweep->prefix)) &&
		    !strcmp(qmp_value_text(job, "status", ""), "concluded"))
			qmp_job_dismiss(sweep->link, id, NULL, NULL);
	}
	free(sweep);
}

void qmp_create_sweep(struct qmp_link *link, const char *prefix)
{
	struct sweep *sweep = malloc(sizeof(*sweep));

	if (!sweep)
		abort();
	*sweep = (struct sweep){ link, prefix };
	qmp_link_send(link, "query-jobs", NULL, sweep_jobs, sweep);
}
