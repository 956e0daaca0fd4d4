/*
 * Fresh figures. query-block-jobs tells all live jobs of a QEMU at once, so one query in flight a domain serves everyone who
 * asked before it was sent; who asks while it is under way is served by the next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/deadline.h"
#include "jobs/events.h"
#include "jobs/trial.h"
#include "jobs/increment.h"

static void serve_waits(struct domain *domain, uint64_t number)
{
	struct domain_link *link = domain->link;

	while (link->refresh_waits && link->refresh_waits->number <= number) {
		struct refresh_wait *wait = link->refresh_waits;

		DL_DELETE(link->refresh_waits, wait);
		wait->done(wait->data); /* which may free it */
	}
}

void refresh_give_up(struct domain *domain)
{
	serve_waits(domain, UINT64_MAX);
}

/* Calls for each that waits for query number @number or an earlier one. */
static void serve(struct domain *domain, uint64_t number, const struct qmp_error *error)
{
	struct disk *disk;
	struct op *op, *next;

	serve_waits(domain, number);

	DL_FOREACH(domain->disks, disk) {
		DL_FOREACH_SAFE(disk->ops, op, next) {
			if (!op->refresh || op->refresh > number)
				continue;
			op->refresh = 0;
			if (error)
				op_refuse(op, error->code, "%s", error->text);
			else
				op_complete(op, 0);
		}
	}
}

/* QEMU does not answer: whoever waits for the end of a job it was told to give up waits in vain. */
static void give_up_aborts(struct domain *domain, const struct qmp_error *error)
{
	struct disk *disk;
	struct op *op, *next;

	DL_FOREACH(domain->disks, disk)
		DL_FOREACH_SAFE(disk->ops, op, next)
			if (op->needs_qemu)
				op_refuse(op, error->code,
					  "QEMU has taken the command but does not answer now: %s",
					  error->text);
}

static void wake_ready(struct disk *disk)
{
	struct op *op, *next;

	DL_FOREACH_SAFE(disk->ops, op, next)
		if (op->job_ready)
			op->job_ready(op);
}

static void tell_transition(struct disk *disk, enum job_state before)
{
	struct job *job = disk->job;

	if (job->state == JOB_PAUSED && before != JOB_PAUSED && !job->parked)
		event_job(disk, "job-paused");
	else if (before == JOB_PAUSED && job->state != JOB_ABORTING)
		event_job(disk, "job-resumed");
	if (job->state == JOB_READY && !job->was_ready) {
		job->was_ready = true;
		event_job(disk, "job-ready");
	}
	if (job->state != JOB_READY || before == JOB_READY)
		return;
	job->pivot_asked |= job->pivot_wanted;
	if (job->pivot_wanted)
		qmp_job_complete(disk->domain->link->qmp, job->id, NULL, NULL);
	wake_ready(disk);
}

void disk_job_reconsider(struct disk *disk)
{
	enum job_state before = disk->job->state;

	if (!job_reconsider(disk->job))
		return;
	disk_changed(disk, TOPIC_JOB);
	tell_transition(disk, before);
	refresh_tick(disk->domain);
}

void disk_update_job(struct disk *disk, const struct qmp_job_info *info)
{
	struct job *job = disk->job;
	enum job_state before = job->state;
	bool parked = job->parked;
	int64_t offset = job->offset, length = job->length;

	job->carried = job->dismiss_lost = false; /* it is there */
	/* Its start may have been left without an answer by a connection that was lost. */
	if (!job->told)
		disk_job_seen(disk);
	trial_look(disk, info);
	if (job->phase >= JOB_CONCLUDED)
		return;
	if (job_update(job, info, uv_hrtime()))
		disk_changed(disk, TOPIC_JOB);
	if (job->state != before)
		tell_transition(disk, before);
	if (job->parked && !parked)
		event_increment_done(disk);
	if (job->offset != offset || job->length != length)
		disk_changed(disk, TOPIC_PROGRESS);
	refresh_tick(disk->domain);
	deadline_look(disk, info->ready);
	increment_go(disk);
	finish_step(disk);
}

/*
 * A command that timed out, and QEMU, which answers in order, shows no such job: its start was not carried out; its dismissal was.
 */
static void settle_unseen(struct domain *domain, const struct qmp_job_info *jobs, size_t count)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk) {
		struct job *job = disk->job;
		bool shown = false;

		if (!job_is_live(job) || (!job->unanswered && !job->dismiss_lost))
			continue;
		for (size_t i = 0; i < count; i++)
			shown |= !strcmp(jobs[i].id, job->id);
		if (!shown && job->phase == JOB_STARTING)
			disk_job_forget(disk);
		else if (!shown && job->phase == JOB_FINALIZING)
			finish_not_shown(disk);
	}
}

static void send_query(struct domain *domain);

static void refreshed(void *data, const struct qmp_error *error, const struct qmp_job_info *jobs,
		      size_t count)
{
	struct domain *domain = data;
	struct domain_link *link = domain->link;

	domain_prefetch(domain);
	link->refreshing = false;
	if (!error) {
		for (size_t i = 0; i < count; i++) {
			struct disk *disk = domain_find_job(domain, jobs[i].id);

			if (disk)
				disk_update_job(disk, &jobs[i]);
		}
		settle_unseen(domain, jobs, count);
	} else if (error->code == -ETIMEDOUT) {
		give_up_aborts(domain, error);
	}
	serve(domain, link->refresh_sent, error);
	if (link->refresh_wanted > link->refresh_sent && link->ready)
		send_query(domain);
}

static void send_query(struct domain *domain)
{
	struct domain_link *link = domain->link;

	link->refreshing = true;
	link->refresh_sent = link->refresh_wanted;
	link->refresh_sent_ns = uv_hrtime();
	qmp_query_block_jobs(link->qmp, refreshed, domain);
}

/* The number of the next query, which is sent now if none is in flight. */
static uint64_t want_query(struct domain *domain)
{
	struct domain_link *link = domain->link;

	link->refresh_wanted = link->refresh_sent + 1;
	if (!link->refreshing)
		send_query(domain);
	return link->refresh_wanted;
}

void domain_refresh(struct domain *domain)
{
	if (domain->link->ready)
		want_query(domain);
}

void domain_refresh_then(struct domain *domain, struct refresh_wait *wait)
{
	wait->number = want_query(domain);
	DL_APPEND(domain->link->refresh_waits, wait);
}

void refresh_link_lost(struct domain *domain)
{
	struct qmp_error error = { -EHOSTDOWN, "", "the connection to QEMU was lost" };

	serve(domain, domain->link->refresh_wanted, &error);
	give_up_aborts(domain, &error);
}

/* Its figures move by themselves: it runs, or guest writes are mirrored. One that is paused stands still. */
static bool is_moving(const struct disk *disk)
{
	return job_is_live(disk->job) &&
	       (disk->job->state == JOB_RUNNING || disk->job->state == JOB_READY);
}

static void tick(uv_timer_t *timer)
{
	struct domain *domain = timer->data;
	struct domain_link *link = domain->link;

	if (link->refresh_soon || !link->refreshing)
		domain_refresh(domain);
	link->refresh_soon = false;
	refresh_tick(domain);
}

void domain_refresh_soon(struct domain *domain)
{
	struct domain_link *link = domain->link;

	if (!link->ready || link->stopping)
		return;
	link->refresh_soon = true;
	uv_timer_start(&link->tick, tick, 0, 0);
}

void refresh_tick(struct domain *domain)
{
	uv_timer_t *timer = &domain->link->tick;
	struct disk *disk;

	if (uv_is_active((uv_handle_t *)timer) || !domain->link->ready || domain->link->stopping)
		return;
	DL_FOREACH(domain->disks, disk) {
		if (is_moving(disk)) {
			uv_timer_start(timer, tick, TICK_MS, 0);
			return;
		}
	}
}

void disk_refresh(struct op *op)
{
	struct disk *disk = op->target.disk;

	if (!disk_is_busy(disk) || disk->job->phase >= JOB_CONCLUDED) {
		op_complete(op, 0);
		return;
	}
	if (!disk->domain->link->ready) {
		op_refuse(op, -EHOSTDOWN, "the domain is not connected");
		return;
	}
	op->refresh = want_query(disk->domain);
}

/* --- while somebody waits for QEMU --- */

/* True if something hangs on QEMU's answering again. */
static bool somebody_waits(const struct domain *domain)
{
	const struct disk *disk;
	const struct op *op;

	DL_FOREACH(domain->disks, disk) {
		if (job_is_live(disk->job) &&
		    (disk->job->unanswered || disk->job->phase == JOB_FINALIZING))
			return true;
		DL_FOREACH(disk->ops, op)
			if (op->needs_qemu)
				return true;
	}
	return false;
}

static void patience_over(uv_timer_t *timer)
{
	struct domain *domain = timer->data;

	if (!domain->link->ready || !somebody_waits(domain))
		return;
	domain_refresh(domain);
	domain_be_patient(domain);
}

void domain_be_patient(struct domain *domain)
{
	uv_timer_t *timer = &domain->link->patience;

	if (!uv_is_active((uv_handle_t *)timer) && !domain->link->stopping)
		uv_timer_start(timer, patience_over, domain->model->settings.timeout_ms, 0);
}
