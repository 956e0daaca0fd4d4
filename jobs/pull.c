/*
 * `pull`: populate a disk from its backing chain. Checks what can be checked without QEMU, finds the base, registers the job, starts
 * it. Called by fs/ through the row of `pull`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/events.h"
#include "jobs/find_image.h"
#include "jobs/grammar.h"

/* --- a job at its beginning --- */

void disk_remember_chain(struct disk *disk, struct job *job)
{
	job->before_paths = calloc(disk->depth + 1, sizeof(*job->before_paths));
	job->before_nodes = calloc(disk->depth + 1, sizeof(*job->before_nodes));
	if (!job->before_paths || !job->before_nodes)
		abort();
	job->before_count = disk->depth;
	for (size_t i = 0; i < disk->depth; i++) {
		job->before_paths[i] = strdup(disk->chain[i].path);
		job->before_nodes[i] = disk->chain[i].node ? strdup(disk->chain[i].node) : NULL;
	}
}

void disk_job_seen(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->phase == JOB_STARTING)
		job->phase = JOB_LIVE;
	job->unanswered = false;
	if (job->told)
		return;
	job->told = true;
	job_free(job->previous);
	job->previous = NULL;
	event_job(disk, "job-started");
	disk_changed(disk, TOPIC_JOB);
	refresh_tick(disk->domain);
}

void disk_job_forget(struct disk *disk)
{
	struct job *job = disk->job;
	struct op *op, *next;

	disk->job = job->previous;
	job->previous = NULL;
	job_free(job);
	disk_changed(disk, TOPIC_PROGRESS);
	disk_changed(disk, TOPIC_JOB);
	for (op = disk->ops; op; op = next) {
		next = op->next;
		if (op->job_ended)
			op->job_ended(op); /* somebody was quick enough to wait for it */
	}
}

void disk_adopt_job(struct disk *disk, const struct qmp_job_info *info)
{
	struct job *job = job_new(info->id, job_type_word(info->type));

	job_free(disk->job);
	disk->job = job;
	if (!job_id_read(info->id, disk->name, &job->by))
		job->by.uid = (uid_t)-1;
	disk_remember_chain(disk, job);
	job->phase = JOB_LIVE;
	disk_job_seen(disk);
}

/* --- pull --- */

struct pull {
	struct qmp_stream stream; /* its strings are those below */
	char *base_node, *on_error;
};

static void pull_free(struct pull *pull)
{
	free(pull->base_node);
	free(pull->on_error);
	free(pull);
}

static void started(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);

	if (disk && disk->job->phase == JOB_STARTING) {
		if (!error)
			disk_job_seen(disk);
		else if (error->code == -EREMOTEIO || error->code == -EAGAIN)
			disk_job_forget(disk);
		else
			disk->job->unanswered = true;
		if (error && error->code == -ETIMEDOUT) {
			domain_refresh(disk->domain);
			domain_be_patient(disk->domain);
		}
	}
	if (op && error)
		op_refuse(op, error->code, "%s%s", error->text,
			  error->code == -ETIMEDOUT || error->code == -EHOSTDOWN
				  ? "; the job may have been started: `job` tells"
				  : "");
	else if (op) {
		text_printf(op->answer, "started %s\n", call->job);
		op_complete(op, 0);
	}
	free(call);
}

/* All has been checked: registers the job, since its events may come before the answer, and sends the command. */
static void start(struct op *op, struct pull *pull)
{
	struct disk *disk = op->target.disk;
	char *id = job_id_new("pull", disk->name, &op->by);
	struct job *job = job_new(id, "pull");

	free(id);
	job->previous = disk->job;
	job->by = op->by;
	job->speed = pull->stream.speed;
	disk_remember_chain(disk, job);
	disk->job = job;
	pull->stream.job = job->id;
	pull->stream.node = disk->chain[0].node;
	pull->stream.base_node = pull->base_node;
	pull->stream.on_error = pull->on_error;
	disk_changed(disk, TOPIC_PROGRESS);
	disk_changed(disk, TOPIC_JOB);
	qmp_block_stream(disk->domain->link->qmp, &pull->stream, started, call_new(disk, op));
	pull_free(pull);
}

/* Refuses @op, and returns false, if no job can be started on its disk now. */
static bool may_start(struct op *op)
{
	static const enum qmp_feature needed[] = { QMP_HAS_STREAM, QMP_HAS_STREAM_FINALIZE,
						   QMP_HAS_STREAM_BASE_NODE };
	struct disk *disk = op->target.disk;

	if (!domain_is_connected(disk->domain)) {
		op_refuse(op, -EHOSTDOWN, "the domain is not connected: see its `state`");
		return false;
	}
	for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
		if (!qmp_has(disk->domain->link->features, needed[i])) {
			op_refuse(op, -EOPNOTSUPP, "this QEMU does not know %s",
				  qmp_feature_name(needed[i]));
			return false;
		}
	}
	if (disk_is_busy(disk)) {
		op_refuse(op, -EBUSY, "the disk has a live job: %s, %s", disk->job->id,
			  disk_status(disk));
		return false;
	}
	return true;
}

static void base_found(struct op *op, long index, void *data)
{
	struct pull *pull = data;
	struct disk *disk;

	if (!op || index < 0 || !may_start(op)) {
		pull_free(pull);
		return;
	}
	disk = op->target.disk;
	if (index == 0)
		op_refuse(
			op, -EINVAL,
			"base is the disk's active image itself: there is nothing between to pull");
	else if (!disk->chain[index].node)
		op_refuse(op, -EOPNOTSUPP, "this QEMU does not tell the node name of %s",
			  disk->chain[index].path);
	else {
		pull->base_node = strdup(disk->chain[index].node);
		start(op, pull);
		return;
	}
	pull_free(pull);
}

void disk_pull(struct op *op, const struct command *command)
{
	const struct word *base = command_word(command, "base");
	const char *on_error = command_text(command, "on-error");
	struct pull *pull;

	if (!may_start(op))
		return;
	pull = calloc(1, sizeof(*pull));
	if (!pull)
		abort();
	pull->stream.speed = command_number(command, "bandwidth", 0);
	pull->on_error = on_error ? strdup(on_error) : NULL;
	if (base)
		disk_find_image(op, base, base_found, pull);
	else
		start(op, pull);
}
