/*
 * The beginning of a job: what every starting command has to check, and the job that is registered before its command is sent, since
 * its events may come before the answer. Called by the commands (jobs/pull.c) and by jobs/sync.c for jobs that are found.
 */
#include "jobs/start.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/deadline.h"
#include "jobs/domain_link.h"
#include "jobs/events.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"
#include "jobs/request.h"

/* --- a job at its beginning --- */

void disk_remember_chain(struct disk *disk, struct job *job)
{
	job_forget_chain(job);
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

/* Whoever has written the start command, if he still waits: before the rest is done that nobody waits for. */
static void answer_starter(struct disk *disk)
{
	struct job *job = disk->job;
	struct op *op = job->starter ? op_find(disk->domain->model, job->starter) : NULL;

	job->starter = 0;
	if (!op)
		return;
	text_printf(op->answer, "started %s\n", job->id);
	op_complete(op, 0);
}

void disk_job_seen(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->phase == JOB_STARTING)
		job->phase = JOB_LIVE;
	job->unanswered = false;
	if (job->told || job->trial)
		return;
	job->told = true;
	job_record_write(disk);
	answer_starter(disk);
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

	job_record_drop(disk, job);
	job_record_lay_down(disk);
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

void disk_take_job(struct disk *disk, struct job *job)
{
	job_free(disk->job);
	disk->job = job;
	if (!job->before_count)
		disk_remember_chain(disk, job);
	job->phase = JOB_LIVE;
	disk_job_seen(disk);
}

void disk_adopt_job(struct disk *disk, const struct qmp_job_info *info)
{
	struct job *job = job_new(info->id, job_type_word(info->type));

	if (!job_id_read(info->id, disk->name, &job->by))
		job->by.uid = (uid_t)-1;
	job_record_read(disk, job);
	disk_take_job(disk, job);
	if (!job->outcome_known)
		deadline_adopt(disk);
}

/* --- starting commands --- */

static bool has_features(struct op *op, const enum qmp_feature *needed, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!qmp_has(op->target.disk->domain->link->features, needed[i])) {
			op_refuse(op, -EOPNOTSUPP, "this QEMU does not know %s",
				  qmp_feature_name(needed[i]));
			return false;
		}
	}
	return true;
}

/* A command that was made for the chain as it was must not be carried out on another. */
bool start_is_generation(struct op *op, const struct word *wanted)
{
	const struct disk *disk = op->target.disk;

	if (!wanted || wanted->number == (int64_t)disk->generation)
		return true;
	op_refuse_at(
		op, -ESTALE, wanted->offset, wanted->length,
		"the chain has changed: it is of generation %llu now; look at `chain` and `job`",
		(unsigned long long)disk->generation);
	return false;
}

static bool can_be_told(struct op *op, const enum qmp_feature *needed, size_t count)
{
	if (!domain_is_connected(op->target.disk->domain)) {
		op_refuse(op, -EHOSTDOWN, "the domain is not connected: see its `state`");
		return false;
	}
	return has_features(op, needed, count);
}

bool start_may_continue(struct op *op, const struct command *command,
			const enum qmp_feature *needed, size_t count)
{
	return can_be_told(op, needed, count) &&
	       start_is_generation(op, command_word(command, "generation"));
}

bool start_may(struct op *op, const enum qmp_feature *needed, size_t count)
{
	struct disk *disk = op->target.disk;

	if (!can_be_told(op, needed, count))
		return false;
	if (disk->going_over) {
		op_refuse(op, -EBUSY,
			  "the disk is getting an overlay, and QEMU has not answered yet");
		return false;
	}
	if (disk_is_busy(disk)) {
		op_refuse(op, -EBUSY, "the disk has a live job: %s %s, %s", disk->job->type,
			  disk->job->id, disk_status(disk));
		return false;
	}
	return true;
}

bool start_may_command(struct op *op, const struct command *command, const enum qmp_feature *needed,
		       size_t count)
{
	return !request_has_started(op) && start_may(op, needed, count) &&
	       start_is_generation(op, command_word(command, "generation")) &&
	       deadline_read(op, command);
}

struct job *start_register(struct op *op, const char *type, int64_t speed)
{
	struct disk *disk = op->target.disk;
	char *id = job_id_new(disk->name, &op->by, request_number(op));
	struct job *job = job_new(id, type);

	free(id);
	job->previous = disk->job;
	job->by = op->by;
	job->speed = speed;
	disk_remember_chain(disk, job);
	job->starter = op->id;
	disk->job = job;
	deadline_begin(disk, op);
	return job;
}

void start_write_down(const struct disk *disk)
{
	job_record_write(disk);
	job_record_hand_over(disk);
}

void start_sent(struct disk *disk)
{
	disk_changed(disk, TOPIC_PROGRESS);
	disk_changed(disk, TOPIC_JOB);
}

void start_answered(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op;

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
	op = call_op(call);
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
