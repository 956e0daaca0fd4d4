/*
 * Owns the QMP commands that are used: their arguments, and the shape of their answers. Called by jobs/; must not know when
 * or why a command is sent.
 */
#include "qmp/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/brief.h"

/* Waits for an answer; one of the functions is set. */
struct call {
	qmp_done_fn done;
	qmp_text_fn text;
	void *data;
};

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static void *call_new(struct call call)
{
	struct call *copy = must(malloc(sizeof(*copy)));

	*copy = call;
	return copy;
}

static struct call call_take(void *data)
{
	struct call call = *(struct call *)data;

	free(data);
	return call;
}

/* --- commands whose answer tells nothing more --- */

static void done_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct call call = call_take(data);

	if (call.done)
		call.done(call.data, error);
}

static void send_plain(struct qmp_link *link, const char *command, struct qmp_value *arguments,
		       qmp_done_fn done, void *data)
{
	qmp_link_send(link, command, arguments, done_reply,
		      call_new((struct call){ .done = done, .data = data }));
}

static struct qmp_value *stream_arguments(const struct qmp_stream *stream)
{
	struct qmp_value *arguments = qmp_object();

	qmp_add_text(arguments, "job-id", stream->job);
	qmp_add_text(arguments, "device", stream->node);
	if (stream->base_node)
		qmp_add_text(arguments, "base-node", stream->base_node);
	if (stream->backing_file)
		qmp_add_text(arguments, "backing-file", stream->backing_file);
	qmp_add_number(arguments, "speed", stream->speed);
	if (stream->on_error)
		qmp_add_text(arguments, "on-error", stream->on_error);
	qmp_add_flag(arguments, "auto-finalize", false);
	qmp_add_flag(arguments, "auto-dismiss", false);
	return arguments;
}

void qmp_block_stream(struct qmp_link *link, const struct qmp_stream *stream, qmp_done_fn done,
		      void *data)
{
	send_plain(link, "block-stream", stream_arguments(stream), done, data);
}

/* The whole message, as it would be sent but for the id. */
static char *command_text(const char *command, struct qmp_value *arguments)
{
	struct qmp_value *message = qmp_object();
	char *text;

	qmp_add_text(message, "execute", command);
	qmp_add_value(message, "arguments", arguments);
	text = must(strdup(qmp_value_print(message)));
	qmp_value_free(message);
	return text;
}

char *qmp_block_stream_text(const struct qmp_stream *stream)
{
	return command_text("block-stream", stream_arguments(stream));
}

static struct qmp_value *commit_arguments(const struct qmp_commit *commit)
{
	struct qmp_value *arguments = qmp_object();

	qmp_add_text(arguments, "job-id", commit->job);
	qmp_add_text(arguments, "device", commit->node);
	if (commit->top_node)
		qmp_add_text(arguments, "top-node", commit->top_node);
	qmp_add_text(arguments, "base-node", commit->base_node);
	if (commit->backing_file)
		qmp_add_text(arguments, "backing-file", commit->backing_file);
	qmp_add_number(arguments, "speed", commit->speed);
	if (commit->on_error)
		qmp_add_text(arguments, "on-error", commit->on_error);
	qmp_add_flag(arguments, "auto-dismiss", false);
	return arguments;
}

void qmp_block_commit(struct qmp_link *link, const struct qmp_commit *commit, qmp_done_fn done,
		      void *data)
{
	send_plain(link, "block-commit", commit_arguments(commit), done, data);
}

char *qmp_block_commit_text(const struct qmp_commit *commit)
{
	return command_text("block-commit", commit_arguments(commit));
}

static struct qmp_value *mirror_arguments(const struct qmp_mirror *mirror)
{
	struct qmp_value *arguments = qmp_object();

	qmp_add_text(arguments, "job-id", mirror->job);
	qmp_add_text(arguments, "device", mirror->node);
	qmp_add_text(arguments, "target", mirror->target);
	qmp_add_text(arguments, "format", mirror->format);
	qmp_add_text(arguments, "sync", mirror->shallow ? "top" : "full");
	qmp_add_text(arguments, "mode", mirror->reuse ? "existing" : "absolute-paths");
	qmp_add_number(arguments, "speed", mirror->speed);
	if (mirror->granularity)
		qmp_add_number(arguments, "granularity", mirror->granularity);
	if (mirror->buffer_size)
		qmp_add_number(arguments, "buf-size", mirror->buffer_size);
	if (mirror->copy_mode)
		qmp_add_text(arguments, "copy-mode", mirror->copy_mode);
	if (mirror->on_error) {
		qmp_add_text(arguments, "on-source-error", mirror->on_error);
		qmp_add_text(arguments, "on-target-error", mirror->on_error);
	}
	qmp_add_flag(arguments, "auto-dismiss", false);
	return arguments;
}

void qmp_drive_mirror(struct qmp_link *link, const struct qmp_mirror *mirror, qmp_done_fn done,
		      void *data)
{
	send_plain(link, "drive-mirror", mirror_arguments(mirror), done, data);
}

char *qmp_drive_mirror_text(const struct qmp_mirror *mirror)
{
	return command_text("drive-mirror", mirror_arguments(mirror));
}

/* What drive-backup and blockdev-backup have in common. */
static struct qmp_value *backup_common(const struct qmp_backup *backup)
{
	struct qmp_value *arguments = qmp_object();

	qmp_add_text(arguments, "job-id", backup->job);
	qmp_add_text(arguments, "device", backup->node);
	qmp_add_text(arguments, "sync", backup->sync);
	if (backup->bitmap)
		qmp_add_text(arguments, "bitmap", backup->bitmap);
	/* For incremental, QEMU's only mode is on-success. */
	if (backup->bitmap && !strcmp(backup->sync, "bitmap"))
		qmp_add_text(arguments, "bitmap-mode", "never");
	return arguments;
}

/*
 * The target is not named by its path but described, so that its node has a name, without which it could not be flushed
 * (qmp/flush.c). A node that QEMU opens for a job goes with the job, name or not.
 */
static void add_target(struct qmp_value *arguments, const struct qmp_backup *backup)
{
	struct qmp_value *file = qmp_add_text(qmp_object(), "driver", "file");
	struct qmp_value *node = qmp_add_text(qmp_object(), "driver", backup->format);
	char *text;

	qmp_add_text(file, "filename", backup->target);
	qmp_add_text(node, "node-name", backup->target_node);
	qmp_add_value(node, "file", file);
	if (asprintf(&text, "json:%s", qmp_value_print(node)) < 0)
		abort();
	qmp_add_text(arguments, "target", text);
	free(text);
	qmp_value_free(node);
}

static struct qmp_value *backup_arguments(const struct qmp_backup *backup)
{
	struct qmp_value *arguments = backup_common(backup);

	add_target(arguments, backup);
	qmp_add_text(arguments, "format", backup->format);
	qmp_add_text(arguments, "mode", "existing");
	qmp_add_number(arguments, "speed", backup->speed);
	if (backup->on_error) {
		qmp_add_text(arguments, "on-source-error", backup->on_error);
		qmp_add_text(arguments, "on-target-error", backup->on_error);
	}
	qmp_add_flag(arguments, "auto-finalize", false);
	qmp_add_flag(arguments, "auto-dismiss", false);
	return arguments;
}

void qmp_drive_backup(struct qmp_link *link, const struct qmp_backup *backup, qmp_done_fn done,
		      void *data)
{
	send_plain(link, "drive-backup", backup_arguments(backup), done, data);
}

char *qmp_drive_backup_text(const struct qmp_backup *backup)
{
	return command_text("drive-backup", backup_arguments(backup));
}

/*
 * A backup of a node onto itself is refused in any case, but the bitmap is looked at before (blockdev.c, do_backup_common(); tried with
 * 7.2 and 10.0). So the same is asked without the bitmap first: another reason is the bitmap's. (block-dirty-bitmap-merge of
 * no bitmaps, which would be a way too, makes both versions crash.)
 */
struct probe {
	struct qmp_link *link;
	struct qmp_value *arguments; /* of the second question */
	char *usual; /* why QEMU refuses in any case */
	struct call call;
};

static void probe_end(struct probe *probe, const struct qmp_error *error)
{
	probe->call.done(probe->call.data, error);
	qmp_value_free(probe->arguments);
	free(probe->usual);
	free(probe);
}

static const struct qmp_error *not_refused(const struct qmp_error *error)
{
	static const struct qmp_error taken = { -EPROTO, "",
						"QEMU takes a backup of a disk onto itself" };

	return !error ? &taken : error->code == -EREMOTEIO ? NULL : error;
}

static void probe_answered(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct probe *probe = data;

	if (!not_refused(error) && !strcmp(error->text, probe->usual))
		probe_end(probe, NULL);
	else
		probe_end(probe, error ? error : not_refused(error));
}

static void usual_answered(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct probe *probe = data;
	struct qmp_value *arguments = probe->arguments;

	if (not_refused(error)) {
		probe_end(probe, not_refused(error));
		return;
	}
	probe->usual = must(strdup(error->text));
	probe->arguments = NULL;
	qmp_link_send(probe->link, "blockdev-backup", arguments, probe_answered, probe);
}

void qmp_backup_probe(struct qmp_link *link, const struct qmp_backup *backup, qmp_done_fn done,
		      void *data)
{
	struct qmp_backup plain = { .job = backup->job, .node = backup->node, .sync = "full" };
	struct probe *probe = must(calloc(1, sizeof(*probe)));

	probe->call = (struct call){ .done = done, .data = data };
	probe->link = link;
	probe->arguments = qmp_add_text(backup_common(backup), "target", backup->node);
	qmp_link_send(link, "blockdev-backup",
		      qmp_add_text(backup_common(&plain), "target", plain.node), usual_answered,
		      probe);
}

static void send_job(struct qmp_link *link, const char *command, const char *job, qmp_done_fn done,
		     void *data)
{
	send_plain(link, command, qmp_add_text(qmp_object(), "id", job), done, data);
}

void qmp_job_pause(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-pause", job, done, data);
}

void qmp_job_resume(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-resume", job, done, data);
}

void qmp_job_finalize(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-finalize", job, done, data);
}

void qmp_job_dismiss(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-dismiss", job, done, data);
}

void qmp_job_cancel(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-cancel", job, done, data);
}

void qmp_job_complete(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	send_job(link, "job-complete", job, done, data);
}

/* job-cancel would throw the job away: only this command knows how to end one that is ready. */
void qmp_job_end_softly(struct qmp_link *link, const char *job, qmp_done_fn done, void *data)
{
	struct qmp_value *arguments = qmp_add_text(qmp_object(), "device", job);

	send_plain(link, "block-job-cancel", qmp_add_flag(arguments, "force", false), done, data);
}

/* There is no job- form of this one; its "device" means the job's id. */
void qmp_job_set_speed(struct qmp_link *link, const char *job, int64_t speed, qmp_done_fn done,
		       void *data)
{
	struct qmp_value *arguments = qmp_add_text(qmp_object(), "device", job);

	send_plain(link, "block-job-set-speed", qmp_add_number(arguments, "speed", speed), done,
		   data);
}

void qmp_blockdev_add_file(struct qmp_link *link, const char *node, const char *path,
			   qmp_done_fn done, void *data)
{
	struct qmp_value *arguments = qmp_add_text(qmp_object(), "driver", "file");

	qmp_add_text(arguments, "node-name", node);
	qmp_add_text(arguments, "filename", path);
	qmp_add_flag(arguments, "read-only", true);
	qmp_add_text(arguments, "locking", "off");
	send_plain(link, "blockdev-add", arguments, done, data);
}

void qmp_blockdev_del(struct qmp_link *link, const char *node, qmp_done_fn done, void *data)
{
	send_plain(link, "blockdev-del", qmp_add_text(qmp_object(), "node-name", node), done, data);
}

void qmp_quit(struct qmp_link *link, qmp_done_fn done, void *data)
{
	send_plain(link, "quit", NULL, done, data);
}

/* --- questions --- */

struct jobs_call {
	qmp_jobs_fn done;
	void *data;
};

/* False: it is no block job, or has no id that it could be known by. */
static bool job_read(struct qmp_job_info *job, const struct qmp_value *value)
{
	*job = (struct qmp_job_info){
		.id = qmp_value_text(value, "device", NULL),
		.type = qmp_value_text(value, "type", ""),
		.status = qmp_value_text(value, "status", ""),
		.io_status = qmp_value_text(value, "io-status", NULL),
		.error = qmp_value_text(value, "error", NULL),
		.offset = qmp_value_number(value, "offset", 0),
		.length = qmp_value_number(value, "len", 0),
		.speed = qmp_value_number(value, "speed", 0),
		.paused = qmp_value_flag(value, "paused", false),
		.ready = qmp_value_flag(value, "ready", false),
		.auto_finalize = qmp_value_flag(value, "auto-finalize", true),
		.auto_dismiss = qmp_value_flag(value, "auto-dismiss", true),
	};
	return job->id && *job->id;
}

static void jobs_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	static const struct qmp_error no_list = { -EPROTO, "",
						  "query-block-jobs was answered with no list" };
	const struct jobs_call *call = data;
	struct qmp_job_info *jobs;
	size_t count = 0;

	if (!error && !qmp_value_is_list(value))
		error = &no_list;
	if (error) {
		call->done(call->data, error, NULL, 0);
		return;
	}
	jobs = must(calloc(qmp_value_count(value) + 1, sizeof(*jobs)));
	for (size_t i = 0; i < qmp_value_count(value); i++)
		count += job_read(&jobs[count], qmp_value_item(value, i));
	call->done(call->data, NULL, jobs, count);
	free(jobs);
}

static bool jobs_in_brief(void *data, char *text)
{
	const struct jobs_call *call = data;
	struct qmp_job_info jobs[BRIEF_JOBS_MAX];
	size_t count;

	if (!brief_jobs(text, jobs, &count))
		return false;
	call->done(call->data, NULL, jobs, count);
	return true;
}

void qmp_query_block_jobs(struct qmp_link *link, qmp_jobs_fn done, void *data)
{
	struct jobs_call call = { done, data };

	qmp_link_ask(link, "query-block-jobs", jobs_in_brief, jobs_reply, &call, sizeof(call));
}

static void status_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	static const struct qmp_error no_status = { -EPROTO, "",
						    "query-status was answered with no status" };
	struct call call = call_take(data);
	const char *status = error ? NULL : qmp_value_text(value, "status", NULL);

	if (!error && !status)
		error = &no_status;
	call.text(call.data, error, status);
}

void qmp_query_run_state(struct qmp_link *link, qmp_text_fn done, void *data)
{
	qmp_link_send(link, "query-status", NULL, status_reply,
		      call_new((struct call){ .text = done, .data = data }));
}
