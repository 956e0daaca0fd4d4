/*
 * Pulls in increments. QEMU has no event at an offset, and while a stream passes over what needs no copying nothing slows it down: a
 * look at its figures comes too late. So the job takes steps: job-resume and, right behind it, job-pause, which QEMU
 * carries out after a chunk or two; then the figures are looked at. Near the mark QEMU's own limit is set so that no more than what is
 * left fits into a slice of time. Whatever becomes of the daemon, the job stands still; and one that is parked costs nothing.
 *
 * Facts of QEMU 7.2 and 10 (block/stream.c, blockjob.c, include/qemu/ratelimit.h; measured): a chunk has at most 512 KiB; the limit
 * counts copied bytes in slices of 100 ms, and a job sleeps as soon as a slice is used up; in 7.2 job-resume ends that sleep; over a
 * hole it goes 50 MiB and more in the time between two commands.
 */
#include "jobs/increment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"

enum {
	CHUNK = 512 << 10, /* what QEMU streams at once */
	CLUSTER = 64 << 10, /* less is hardly ever copied */
	SLICES = 10, /* of QEMU's limit, a second */
	NEAR = 4 << 20, /* from here on the mark is met in one go */
	IDLE_MS = 20, /* after a step that came to nothing, since QEMU's limit had the job sleep */
	STUCK_MS = 2000, /* so long it may */
	SLICE_NS = 100000000,
	ROUND_NS = 60000000, /* of a slice, so that a step is over within it */
	LONG_MS = 2000, /* for a slice */
	AGAIN_MS = 1000, /* after a command that QEMU has not taken */
};

static const uint64_t ns_per_ms = 1000000;
static const int64_t far_max = (int64_t)1 << 50; /* so that nothing overflows */

/* However slices begin and end within one step, it does not come past the mark. */
static bool is_safe(int64_t limit, int64_t left)
{
	return limit && limit / SLICES * 2 + CHUNK <= left;
}

/* The limit that QEMU is to keep with @left bytes to go: far from the mark a safe one, near it one that what is left fits into. */
static int64_t limit_for(int64_t left, int64_t speed)
{
	int64_t limit;

	if (left > far_max)
		left = far_max;
	if (left < CLUSTER)
		left = CLUSTER;
	limit = left > NEAR ? left / 4 * SLICES : left * SLICES;
	return speed && speed < limit ? speed : limit;
}

int64_t increment_first_limit(int64_t increment, int64_t speed)
{
	return limit_for(increment, speed);
}

/* --- waiting for the next step --- */

static void wait_ms(struct disk *disk, uint64_t ms)
{
	uv_timer_t *timer = &disk->domain->link->pace;

	if (disk->domain->link->stopping)
		return;
	if (!uv_is_active((uv_handle_t *)timer) || uv_timer_get_due_in(timer) > ms)
		uv_timer_start(timer, increment_pace, ms, 0);
}

void increment_pace(uv_timer_t *timer)
{
	struct domain *domain = timer->data;
	struct disk *disk;

	for (disk = domain->disks; disk; disk = disk->next)
		if (job_is_live(disk->job))
			increment_go(disk);
}

static uint64_t ns_for(int64_t bytes, int64_t speed)
{
	double ns = (double)bytes * 1e9 / (double)speed;

	return ns < 1e18 ? (uint64_t)ns : (uint64_t)1e18;
}

/*
 * A look at where the step has come. QEMU's account of its slice is kept here as well, since 7.2 ends the sleep of a job that is resumed
 * and goes on with an overdrawn one: what was passed over counts as copied, and the slice as begun as late as it can have been.
 */
static void look(struct job *job)
{
	struct step *step = &job->step;
	int64_t slice = step->limit / SLICES, most = slice + CHUNK;

	step->looked = true;
	step->looked_ns = uv_hrtime();
	step->moved = job->offset - step->offset;
	if (step->moved <= 0 && step->idle_ms < STUCK_MS)
		step->idle_ms += IDLE_MS;
	else
		step->idle_ms = 0;
	if (!step->limit || step->moved <= 0)
		return;
	if (step->began_ns >= step->slice_end_ns) {
		step->slice_ns = step->looked_ns;
		step->slice_end_ns = step->slice_ns + SLICE_NS;
		step->used = 0;
	}
	step->used += step->moved < most ? step->moved : most;
	if (step->used >= slice)
		step->slice_end_ns = step->slice_ns + ns_for(step->used, step->limit);
}

/* --- a step --- */

static void continued(struct op *op)
{
	text_printf(op->answer, "continued %s\n", op->target.disk->job->id);
	op_complete(op, 0);
}

/* One of the commands of a step was answered. */
static void stepped(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);

	if (disk && disk->job->step.commands && --disk->job->step.commands == 0) {
		if (error && error->code == -EAGAIN)
			wait_ms(disk, AGAIN_MS);
		else if (!error || error->code != -EHOSTDOWN)
			domain_refresh(disk->domain);
	}
	/* That it was not paused, or is over, is seen in the figures. */
	if (op && error && error->code != -EREMOTEIO)
		op_refuse(op, error->code, "%s; the job may go on: `job` tells", error->text);
	else if (op)
		continued(op);
	free(call);
}

static struct call *step_call(struct disk *disk, const struct op *op)
{
	disk->job->step.commands++;
	return call_new(disk, op);
}

static void hold(struct disk *disk)
{
	qmp_job_pause(disk->domain->link->qmp, disk->job->id, stepped, step_call(disk, NULL));
}

/* @op, or NULL, is answered when QEMU has answered. */
static void step(struct disk *disk, int64_t limit, const struct op *op)
{
	struct qmp_link *qmp = disk->domain->link->qmp;
	struct job *job = disk->job;

	job->step.offset = job->offset;
	job->step.began_ns = uv_hrtime();
	job->step.looked = job->step.retry = job->step.still = false;
	if (limit != job->step.limit)
		qmp_job_set_speed(qmp, job->id, limit, stepped, step_call(disk, NULL));
	qmp_job_resume(qmp, job->id, stepped, step_call(disk, op));
	hold(disk);
}

/*
 * The limit for the next step, and when that may be. A safe limit may stay as it is. Near the mark one is right for as long as the slice
 * lasts that begins with it, which is a round: *@begins.
 */
static int64_t next_limit(const struct job *job, uint64_t now, uint64_t *next, bool *begins)
{
	const struct step *step = &job->step;
	int64_t left = job->mark - job->offset, limit = limit_for(left, job->speed);
	bool safe = is_safe(limit, left);

	*next = step->moved > 0 ? 0 : step->looked_ns + IDLE_MS * ns_per_ms;
	*begins = false;
	if (step->idle_ms >= STUCK_MS)
		return job->speed;
	if (safe && limit < step->limit && is_safe(step->limit, left) &&
	    (!job->speed || step->limit <= job->speed))
		limit = step->limit;
	if (safe && limit >= step->limit && step->used < limit / SLICES)
		return limit;
	if (!safe && step->round_ns && now - step->round_ns < ROUND_NS)
		return step->limit;
	*begins = !safe;
	if (*next < step->slice_end_ns)
		*next = step->slice_end_ns;
	if (*next < now + LONG_MS * ns_per_ms)
		return limit;
	/* It was overdrawn under a tight limit, which is another one now, and would last: a step of a chunk has QEMU settle it. */
	if (limit > (int64_t)CHUNK * SLICES)
		limit = (int64_t)CHUNK * SLICES;
	*next = step->slice_ns + ns_for(step->used, limit);
	return limit;
}

/* The job stands still, short of its mark. */
static void step_in_time(struct disk *disk, struct op *op)
{
	struct job *job = disk->job;
	uint64_t now = uv_hrtime(), next;
	bool begins;
	int64_t limit = next_limit(job, now, &next, &begins);

	if (next > now) {
		wait_ms(disk, (next - now) / ns_per_ms + 1);
		if (op)
			continued(op);
		return;
	}
	if (begins)
		job->step.round_ns = now;
	else if (limit != job->step.limit)
		job->step.round_ns = 0;
	step(disk, limit, op);
}

void increment_go(struct disk *disk)
{
	struct job *job = disk->job;

	if (!job->mark || job->phase != JOB_LIVE || job->abort_asked || job->step.commands ||
	    !disk->domain->link->ready)
		return;
	if (job_qemu_says(job, "running") && !job->qemu_paused)
		hold(disk); /* it was adopted in the midst of a step, or somebody else has resumed it */
	if (job->step.still && !job->step.looked)
		look(job);
	if (job->step.still && job->state == JOB_RUNNING)
		step_in_time(disk, NULL);
}

void increment_begin(struct disk *disk)
{
	struct job *job = disk->job;

	job->step.limit = increment_first_limit(job->increment, job->speed);
	job->step.began_ns = uv_hrtime();
	if (!is_safe(job->step.limit, job->mark))
		job->step.round_ns = job->step.began_ns;
	hold(disk);
}

void increment_steered(struct disk *disk)
{
	job_record_write(disk);
	disk_job_reconsider(disk);
	increment_go(disk);
}

/* --- the next `pull` --- */

/* The limit is the user's again. */
static void released(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);

	if (disk)
		disk->job->step.commands = 0;
	if (!error && disk) {
		disk->job->parked = false;
		disk_job_reconsider(disk); /* who goes on after this does not read `paused` */
		disk->job->mark = disk->job->increment = 0;
		disk->job->continued_by = op ? op->request : 0;
		disk->job->step.retry = false;
		job_record_write(disk);
		domain_refresh(disk->domain);
	}
	if (op && error)
		op_refuse(op, error->code, "%s", error->text);
	else if (op)
		continued(op);
	free(call);
}

static void limit_lifted(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (disk && !error && disk->job->user_paused)
		released(call, NULL); /* that pause stays */
	else if (disk && !error)
		qmp_job_resume(disk->domain->link->qmp, disk->job->id, released, call);
	else
		released(call, error);
}

/* To the end, without a stop: nothing is to be watched. */
static void release(struct op *op)
{
	struct disk *disk = op->target.disk;

	qmp_job_set_speed(disk->domain->link->qmp, disk->job->id, disk->job->speed, limit_lifted,
			  step_call(disk, op));
}

static bool same_text(const char *a, const char *b)
{
	return !strcmp(a ? a : "report", b ? b : "report");
}

/* Refuses @op, and returns false, if the job is not parked, or if the words are for its beginning. */
static bool may_continue(struct op *op, const struct command *command)
{
	const struct word *base = command_word(command, "base"),
			  *on_error = command_word(command, "on-error");
	const struct job *job = op->target.disk->job;

	if (job->user_paused)
		op_refuse(op, -EBUSY, "the job was paused: write 0 to `pause` first");
	else if (!job->parked || job->step.commands)
		op_refuse(op, -EBUSY,
			  "an increment is under way, up to %lld: wait until `status` is paused",
			  (long long)job->mark);
	else if (base)
		op_refuse_at(op, -EINVAL, base->offset, base->length,
			     "the job is parked, and its base was fixed when it began: leave base= "
			     "out, or abort it");
	else if (on_error && !same_text(on_error->text, job->on_error))
		op_refuse_at(op, -EINVAL, on_error->offset, on_error->length,
			     "the job is parked, and its on-error was fixed when it began: leave "
			     "it out, or abort it");
	else
		return true;
	return false;
}

static void describe(struct op *op, const struct job *job, int64_t mark)
{
	if (mark)
		text_printf(op->answer, "would go on from %lld and park at %lld\n",
			    (long long)job->offset, (long long)mark);
	else
		text_printf(op->answer, "would go on from %lld to the end\n",
			    (long long)job->offset);
	op_complete(op, 0);
}

void increment_continue(struct op *op, const struct command *command)
{
	struct disk *disk = op->target.disk;
	struct job *job = disk->job;
	int64_t increment = command_number(command, "increment", 0), mark = 0;

	/* An earlier life of the server has done it, and could not say so any more. */
	if (op->again && job->continued_by == op->request) {
		continued(op);
		return;
	}
	if (!may_continue(op, command))
		return;
	/* What would end behind the end needs no mark. */
	if (increment && increment < job->length - job->offset)
		mark = job->offset + increment;
	if (command_flag(command, "dry-run")) {
		describe(op, job, mark);
		return;
	}
	job->speed = command_number(command, "bandwidth", job->speed);
	job->step.retry = true;
	if (!mark) {
		release(op);
		return;
	}
	job->continued_by = op->request;
	job->mark = mark;
	job->increment = increment;
	job->parked = false;
	job->step.round_ns = 0;
	job_record_write(disk);
	disk_job_reconsider(disk);
	step_in_time(disk, op);
}
