/*
 * Steering a live job: `speed`, `pause`, `abort`, `pivot`, `finish`. Each is checked against the job, sent, and answered when QEMU has. Called by fs/
 * through the rows of these files.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"
#include "jobs/increment.h"
#include "jobs/request.h"
#include "qmp/value.h"

struct call *call_new(struct disk *disk, const struct op *op)
{
	size_t length = strlen(disk->job->id) + 1;
	struct call *call = malloc(sizeof(*call) + length);

	if (!call)
		abort();
	call->domain = disk->domain;
	call->op = op ? op->id : 0;
	memcpy(call->job, disk->job->id, length);
	return call;
}

struct disk *call_disk(const struct call *call)
{
	return domain_find_job(call->domain, call->job);
}

struct op *call_op(const struct call *call)
{
	return op_find(call->domain->model, call->op);
}

/* Refuses @op, and returns false, if its disk has no live job that can be told something. */
static bool may_steer(struct op *op)
{
	struct disk *disk = op->target.disk;

	if (!disk_is_busy(disk))
		op_refuse(op, -ESRCH, "the disk has no live job");
	else if (!domain_is_connected(disk->domain))
		op_refuse(op, -EHOSTDOWN, "the domain is not connected: see its `state`");
	else if (disk->job->phase >= JOB_CONCLUDED)
		op_refuse(op, -ESRCH, "the job is over: %s", disk->job->id);
	else
		return true;
	return false;
}

/* QEMU has refused: because the job has ended meanwhile, or for the reason it gives. */
static void refused(struct op *op, const struct disk *disk, const struct qmp_error *error)
{
	if (error->code == -EREMOTEIO && (!disk || disk->job->phase >= JOB_FINALIZING))
		op_refuse(op, -ESRCH, "the job has ended meanwhile");
	else
		op_refuse(op, error->code, "%s", error->text);
}

/* --- speed --- */

struct speed_call {
	int64_t speed;
	struct call *call;
};

static void speed_set(void *data, const struct qmp_error *error)
{
	struct speed_call *speed = data;
	struct disk *disk = call_disk(speed->call);
	struct op *op = call_op(speed->call);

	if (!error && disk && disk->job->speed != speed->speed) {
		disk->job->speed = speed->speed;
		disk->job->sample_ns = 0; /* the rate is measured anew */
		disk->job->rate = 0;
		disk_changed(disk, TOPIC_JOB);
	}
	if (op && error)
		refused(op, disk, error);
	else if (op)
		op_complete(op, 0);
	free(speed->call);
	free(speed);
}

void disk_speed(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;
	struct speed_call *speed;

	if (!may_steer(op))
		return;
	if (disk->job->mark) {
		/* QEMU's own limit is set with each step. */
		disk->job->speed = command_number(command, "speed", 0);
		disk_changed(disk, TOPIC_JOB);
		increment_steered(disk);
		op_complete(op, 0);
		return;
	}
	speed = malloc(sizeof(*speed));
	if (!speed)
		abort();
	speed->speed = command_number(command, "speed", 0);
	speed->call = call_new(disk, op);
	qmp_job_set_speed(disk->domain->link->qmp, disk->job->id, speed->speed, speed_set, speed);
}

/* --- pause --- */

struct pause_call {
	bool pause;
	bool holds; /* a job that takes steps, which was not paused before */
	char *reason; /* why QEMU refused; NULL: it has accepted */
	struct call *call;
};

static void pause_free(struct pause_call *pause)
{
	free(pause->reason);
	free(pause->call);
	free(pause);
}

/* The figures are in. If QEMU refused because the job was so already, all is as was wished. */
static void pause_checked(struct op *check, int status, void *data)
{
	struct pause_call *pause = data;
	struct disk *disk = call_disk(pause->call);
	struct op *op = call_op(pause->call);

	if (op && !disk)
		op_refuse(op, -ESRCH, "the job has ended meanwhile");
	else if (op && status)
		op_refuse(op, status, "QEMU does not tell whether the job is paused");
	else if (op && (!pause->reason || disk->job->paused == pause->pause))
		op_complete(op, 0);
	else if (op)
		op_refuse(op, -EREMOTEIO, "%s", pause->reason);
	pause_free(pause);
}

static void pause_set(void *data, const struct qmp_error *error)
{
	struct pause_call *pause = data;
	struct disk *disk = call_disk(pause->call);
	struct op *op = call_op(pause->call);

	/*
	 * A second pause or resume is refused by QEMU, but may be repeated here; and when it is accepted, `status` must show the new
	 * state as soon as the writer goes on. So ask what is true, in both cases.
	 */
	if (op && disk && (!error || error->code == -EREMOTEIO)) {
		pause->reason = error ? strdup(error->text) : NULL;
		disk_refresh(op_new(&op->target, &op->by, pause_checked, pause));
		return;
	}
	if (error && disk && disk->job->mark && pause->holds) {
		disk->job->user_paused = false; /* what is refused changes nothing */
		increment_steered(disk);
	}
	if (op && error)
		refused(op, disk, error);
	else if (op)
		op_complete(op, 0);
	pause_free(pause);
}

/*
 * A job that takes steps. What holds it, besides the end of a step, is known here: `pause` and the mark are two things, and each is
 * taken back by the one who has set it. False: it is still to be sent.
 */
static bool pause_steps(struct op *op, bool pause)
{
	struct disk *disk = op->target.disk;
	struct job *job = disk->job;

	if (!pause && job->parked && !job->user_paused) {
		op_refuse(op, -EBUSY,
			  "the job is parked at the end of its increment: write to `pull`, with "
			  "increment= or without");
		return true;
	}
	job->user_paused = pause;
	job->step.retry |= !pause;
	increment_steered(disk);
	if (pause)
		return false; /* a step may be under way */
	op_complete(op, 0);
	return true;
}

void disk_pause(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;
	struct pause_call *pause;
	bool held = disk->job && disk->job->user_paused;

	if (!may_steer(op) ||
	    (disk->job->mark && pause_steps(op, command_number(command, "pause", 1) != 0)))
		return;
	pause = calloc(1, sizeof(*pause));
	if (!pause)
		abort();
	pause->pause = command_number(command, "pause", 1) != 0;
	pause->holds = !held && disk->job->user_paused;
	pause->call = call_new(disk, op);
	if (pause->pause)
		qmp_job_pause(disk->domain->link->qmp, disk->job->id, pause_set, pause);
	else
		qmp_job_resume(disk->domain->link->qmp, disk->job->id, pause_set, pause);
}

/* --- abort --- */

static void abort_over(struct op *op)
{
	struct job *job = op->target.disk->job;

	if (job)
		text_printf(op->answer, "%s %s\n", job_state_words[job->state], job->id);
	op_complete(op, 0);
}

static void abort_sent(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);
	/* Too late to cancel is no failure: the job's end is on its way. */
	bool refused_early = error && disk && !job_is_ending(disk->job);

	if (refused_early && error->code == -EREMOTEIO) {
		disk->job->abort_asked = false;
		domain_refresh(disk->domain);
	}
	if (op && error && (refused_early || error->code != -EREMOTEIO))
		op_refuse(op, error->code, "%s", error->text);
	else if (op && !op->job_ended)
		op_complete(op, 0);
	else if (op && !disk)
		op->job_ended(op);
	else if (op)
		domain_be_patient(call->domain);
	free(call);
}

/* An earlier life of the server has sent the abort, and QEMU is done with the job: all that is missing is its last word. */
static bool was_aborted(const struct op *op)
{
	const struct disk *disk = op->target.disk;
	struct qmp_value *note = request_noted(op);
	bool sent = note != NULL;

	qmp_value_free(note);
	return sent && disk_is_busy(disk) && disk->job->phase >= JOB_CONCLUDED;
}

void disk_abort(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;
	bool waits = !command_flag(command, "async");

	if (request_job_is_over(op) || (was_aborted(op) && !waits)) {
		abort_over(op);
		return;
	}
	if (was_aborted(op)) {
		op->job_ended = abort_over;
		op->needs_qemu = true;
		return;
	}
	if (!may_steer(op))
		return;
	request_note_job(op);
	if (waits)
		op->job_ended = abort_over;
	op->needs_qemu = op->job_ended != NULL;
	disk->job->abort_asked = true;
	if (disk->job->state != JOB_ABORTING) {
		disk->job->state = JOB_ABORTING;
		disk_changed(disk, TOPIC_JOB);
	}
	qmp_job_cancel(disk->domain->link->qmp, disk->job->id, abort_sent, call_new(disk, op));
}

/* --- pivot, finish --- */

static void end_accepted(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);

	if (op && error)
		refused(op, disk, error);
	else if (op)
		op_complete(op, 0);
	free(call);
}

/* True if an earlier life of the server has sent it, and QEMU has taken it: the op is over then. */
static bool was_ended(struct op *op)
{
	const struct job *job = op->target.disk->job;
	struct qmp_value *note = request_noted(op);
	bool sent = note != NULL, over = sent && request_job_is_over(op);

	qmp_value_free(note);
	if (over && job && !job_is_live(job) && job->state != JOB_COMPLETED)
		op_refuse(op, -ESRCH, "the job has ended meanwhile: %s",
			  job_state_words[job->state]);
	else if (over || (sent && job_has_begun_to_end(job)))
		op_complete(op, 0);
	else
		return false;
	return true;
}

/* Refuses @op, and returns false, if its disk has no job that is ready to be ended. */
static bool may_end(struct op *op, enum qmp_feature needed)
{
	struct disk *disk = op->target.disk;
	const struct job *job = disk->job;

	if (was_ended(op) || !may_steer(op))
		return false;
	if (!qmp_has(disk->domain->link->features, needed))
		op_refuse(op, -EOPNOTSUPP, "this QEMU does not know %s", qmp_feature_name(needed));
	else if (job->state == JOB_PAUSED && job->was_ready)
		op_refuse(op, -EAGAIN, "the job is paused: write 0 to `pause` first");
	else if (job->state != JOB_READY)
		op_refuse(op, -EAGAIN, "the %s job is %s, not ready", job->type, disk_status(disk));
	else
		return true;
	return false;
}

/* QEMU calls both ends completed; which it was has to be known after QEMU's own death, too. */
static void asked_to_pivot(struct disk *disk, bool pivot)
{
	disk->job->pivot_asked = pivot;
	disk->job->pivot_wanted &= pivot;
	job_record_write(disk);
}

void disk_pivot(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;

	if (!may_end(op, QMP_HAS_JOB_COMPLETE))
		return;
	if (!qmp_has(disk->domain->link->features, QMP_HAS_QUERY_STATUS))
		op_refuse(op, -EOPNOTSUPP,
			  "a storage daemon has no device that could go over to another image: use "
			  "`finish`");
	else {
		request_note_job(op);
		asked_to_pivot(disk, true);
		qmp_job_complete(disk->domain->link->qmp, disk->job->id, end_accepted,
				 call_new(disk, op));
	}
}

void disk_finish(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;

	if (!may_end(op, QMP_HAS_BLOCK_JOB_CANCEL))
		return;
	request_note_job(op);
	asked_to_pivot(disk, false);
	qmp_job_end_softly(disk->domain->link->qmp, disk->job->id, end_accepted,
			   call_new(disk, op));
}
