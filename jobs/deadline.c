/*
 * Deadlines of jobs. Within one life of the daemon the time is measured by a clock that nobody sets; between two of them it is the wall
 * clock's, which is in the job's record. One timer a domain waits for the nearest; what is then true QEMU is asked first, since a
 * job that has just become ready is not to be thrown away.
 */
#include "jobs/deadline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"

enum {
	SECONDS_MAX = 1000000000, /* thirty years */
	AGAIN_S = 1, /* QEMU did not answer, or would not give it up */
};

static const uint64_t ns_per_s = 1000000000;

bool deadline_read(struct op *op, const struct command *command)
{
	const struct word *word = command_word(command, "deadline");

	if (word && (word->number < 1 || word->number > SECONDS_MAX)) {
		op_refuse_at(op, -EINVAL, word->offset, word->length,
			     "a deadline is a whole number of seconds from 1 to %d", SECONDS_MAX);
		return false;
	}
	op->deadline_s = word ? word->number : 0;
	return true;
}

/* --- the timer --- */

static bool has_ended(const struct job *job)
{
	static const char *const last[] = { "waiting", "pending", "aborting", "concluded", "null" };

	for (size_t i = 0; i < sizeof(last) / sizeof(*last); i++)
		if (job_qemu_says(job, last[i]))
			return true;
	return job->phase >= JOB_FINALIZING;
}

static bool applies(const struct job *job)
{
	return job_is_live(job) && job->deadline_ns && !job->abort_asked && !has_ended(job);
}

static void arm(struct domain *domain)
{
	uint64_t now = uv_hrtime(), nearest = UINT64_MAX;
	struct disk *disk;

	if (domain->link->stopping)
		return;
	DL_FOREACH(domain->disks, disk)
		if (applies(disk->job) && disk->job->deadline_ns < nearest)
			nearest = disk->job->deadline_ns;
	if (nearest == UINT64_MAX)
		return;
	uv_update_time(domain->model->loop);
	uv_timer_start(&domain->link->deadline, deadline_due,
		       nearest > now ? (nearest - now) / 1000000 + 1 : AGAIN_S * 1000, 0);
}

void deadline_due(uv_timer_t *timer)
{
	struct domain *domain = timer->data;
	uint64_t now = uv_hrtime();
	struct disk *disk;
	bool due = false;

	DL_FOREACH(domain->disks, disk)
		due |= applies(disk->job) && disk->job->deadline_ns <= now;
	if (due)
		domain_refresh(domain);
	/* Without a connection the next one shows the job, and then it is looked at. */
	if (!due || domain->link->ready)
		arm(domain);
}

/* --- its beginning --- */

void deadline_begin(struct disk *disk, const struct op *op)
{
	struct job *job = disk->job;

	if (!op->deadline_s)
		return;
	job->deadline_s = op->deadline_s;
	job->deadline = job->started;
	job->deadline.tv_sec += op->deadline_s;
	job->deadline_ns = uv_hrtime() + (uint64_t)op->deadline_s * ns_per_s;
	arm(disk->domain);
}

void deadline_adopt(struct disk *disk)
{
	struct job *job = disk->job;
	struct timespec now;
	int64_t left;

	if (job->deadline_s < 1 || job->deadline_s > SECONDS_MAX)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	left = job->deadline.tv_sec - now.tv_sec;
	if (left < 0)
		left = 0;
	if (left > job->deadline_s)
		left = job->deadline_s; /* somebody has set the clock back */
	job->deadline_ns = uv_hrtime() + (uint64_t)left * ns_per_s;
	arm(disk->domain);
}

/* --- its end --- */

static void given_up(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (error && disk && error->code != -EHOSTDOWN && !has_ended(disk->job)) {
		disk->job->abort_asked = false;
		disk->job->deadline_ns = uv_hrtime() + AGAIN_S * ns_per_s;
		domain_refresh(disk->domain);
		arm(disk->domain);
	}
	free(call);
}

static void give_up(struct disk *disk)
{
	struct job *job = disk->job;

	job->deadline_struck = true;
	job_record_write(disk);
	job->abort_asked = true;
	job->state = JOB_ABORTING;
	disk_changed(disk, TOPIC_JOB);
	qmp_job_cancel(disk->domain->link->qmp, job->id, given_up, call_new(disk, NULL));
}

void deadline_look(struct disk *disk, bool ready)
{
	struct job *job = disk->job;

	if (!applies(job))
		return;
	if (ready) {
		job->deadline_s = 0;
		job->deadline_ns = 0;
		job->deadline_struck = false;
		job_record_write(disk);
		disk_changed(disk, TOPIC_JOB);
	} else if (job->phase == JOB_LIVE && job->deadline_ns <= uv_hrtime() &&
		   disk->domain->link->ready) {
		give_up(disk);
	}
}

void deadline_end(struct job *job)
{
	if (!job->deadline_struck || !job->outcome_known || !job->cancelled)
		return;
	job->cancelled = false;
	free(job->error);
	if (asprintf(&job->error, "deadline: neither ready nor done within %lld s",
		     (long long)job->deadline_s) < 0)
		abort();
}
