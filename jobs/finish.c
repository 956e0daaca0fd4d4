/*
 * The end of a job. Our jobs wait in `pending` until they are finalized here, their end is recorded, they are dismissed at once, the
 * nodes that the disk no longer uses are dropped, the chain is read anew, and only then the final word is shown. See "Why a
 * pull is finalized by us" in docs/architecture.md for what must not happen in between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/delete.h"
#include "jobs/domain_link.h"
#include "jobs/deadline.h"
#include "jobs/events.h"
#include "jobs/history.h"
#include "jobs/job_record.h"
#include "jobs/released.h"
#include "jobs/trial.h"
#include "qmp/flush.h"

enum {
	OWNER_NS_MAX =
		900 * 1000 *
		1000, /* what somebody else has to dismiss his job; then comes a sync, every second */
};

static void keep(char **kept, const char *text)
{
	free(*kept);
	*kept = text ? strdup(text) : NULL;
}

/* --- the final word --- */

static void wake_waiters(struct disk *disk)
{
	struct op *op, *next;

	DL_FOREACH_SAFE(disk->ops, op, next)
		if (op->job_ended)
			op->job_ended(op);
}

void finish_tell_errors(struct disk *disk)
{
	struct job *job = disk->job;

	if (!job || !job->io_errors)
		return;
	event_job_error(disk, job->io_operation, job->io_action, job->io_errors);
	job->io_errors = 0;
}

void finish_publish(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->flush_error) {
		job->outcome_known = true;
		job->cancelled = false;
		keep(&job->error, job->flush_error);
	}
	deadline_end(job);
	if (trial_ended(disk))
		return;
	/* What is to be deleted is gone before anybody is told that the job has completed. */
	if (job->deleting || delete_images(disk))
		return;
	finish_tell_errors(disk);
	if (!job->told)
		disk_job_seen(disk);
	job->phase = JOB_ENDED;
	job->state = job_final_state(job);
	if (job->state == JOB_CANCELLED)
		keep(&job->error, NULL); /* "Operation canceled" is no error of its own */
	job->rate = 0;
	clock_gettime(CLOCK_REALTIME, &job->ended);
	if (job->state == JOB_LOST && !job->error)
		keep(&job->error,
		     "the connection to QEMU was lost and nothing tells how the job ended");
	job->pivoted = job->state == JOB_COMPLETED && job->before_count && disk->depth &&
		       !released_may_be(job, job->before_paths[0], &disk->chain[0]);
	/* A pivot that QEMU has done and the chain does not show: it may be another QEMU by now, and what was done is past. */
	if (!job->pivoted && job->reconnected && (job->pivot_asked || job->pivot_wanted))
		job->chain_unread = true;
	released_find(disk);
	history_add(disk);
	job_record_drop(disk, job);
	disk_changed(disk, TOPIC_PROGRESS);
	disk_changed(disk, TOPIC_JOB);
	event_job_ended(disk);
	job_record_lay_down(disk);
	metrics_ended(&disk->domain->model->metrics, job->type, job_result(job));
	wake_waiters(disk);
}

void finish_job_gone(struct disk *disk)
{
	struct domain_link *link = disk->domain->link;
	struct job *job = disk->job;

	job->chain_unread = !link->ready;
	if (!link->ready && job->unflushed && job_final_state(job) == JOB_COMPLETED) {
		job->outcome_known = false;
		keep(&job->error, "QEMU was gone before what was pulled had been flushed");
	}
	if (disk->job->phase == JOB_FINALIZING)
		link->finalizing--;
	delete_give_up(disk, "QEMU was gone before the chain could be read again");
	finish_publish(disk);
}

void finish_unplugged(struct disk *disk)
{
	disk->job->deleting =
		false; /* what is under way goes on, and only the daemon's log tells of it */
	delete_give_up(disk, "the disk was unplugged before the commit was over");
	finish_job_gone(disk);
}

void finish_link_lost(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->phase == JOB_FINALIZING)
		disk->domain->link->finalizing--;
	/*
	 * The next connection shows it, also one whose start was not answered, or it is gone; then what QEMU has told of its end
	 * before it went counts (finish_job_gone()).
	 */
	if (job->phase < JOB_CONCLUDED)
		job->phase = JOB_LIVE;
	job->step.commands = 0;
	job->reconnected = true;
	job->dismissing = job->flushing = job->giving_up = false;
	/* If QEMU was told, it shows the job as aborting; if not, it runs on, and the one who asked knows of the loss. */
	job->abort_asked = false;
}

static void flush_idle(struct disk *disk);

/* --- the end of the end --- */

/* Or was, and nobody knows. */
static bool is_dismissing(const struct job *job)
{
	return job->dismissing || job->dismiss_lost;
}

/* QEMU no longer has the job: the chain is to be read, then the word can be shown. */
static void concluded(struct disk *disk)
{
	struct domain_link *link = disk->domain->link;

	if (disk->job->phase == JOB_FINALIZING)
		link->finalizing--;
	disk->job->phase = JOB_CONCLUDED;
	if (!sync_is_behind(disk))
		link->sync_again = true;
	domain_pump(disk->domain);
	model_stop_step(disk->domain->model);
}

static void if_concluded(struct disk *disk)
{
	if (!disk->job->flushing && !is_dismissing(disk->job))
		concluded(disk);
}

/* --- nothing is completed that a killed QEMU would lose (qmp/flush.h) --- */

static struct qmp_flush flush_of(const struct disk *disk)
{
	return (struct qmp_flush){
		.node = disk->chain[0].node,
		.file_node = disk->file_node,
		.format = disk->chain[0].format,
		.backing_node = disk->depth > 1 ? disk->chain[1].node : NULL,
		.ours = disk->domain->engine && (disk->depth == 1 || disk->chain[1].node),
	};
}

static void flushed_idle(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (disk && disk->job->phase == JOB_FINALIZING && (!error || error->code != -EHOSTDOWN)) {
		disk->job->flushing = false;
		disk->job->unflushed &= error != NULL;
		if (error && is_dismissing(disk->job))
			disk->job->flush_owed =
				true; /* the job may be there still: when it has gone */
		else if (error && error->code == -ETIMEDOUT)
			flush_idle(disk); /* it takes its time */
		else if (error &&
			 asprintf(&disk->job->flush_error,
				  "flush: %s; some of what was pulled is in QEMU's memory "
				  "only: keep the old images and this QEMU until it can be "
				  "written",
				  error->text) < 0)
			abort();
		if_concluded(disk);
	}
	free(call);
}

static void flush_idle(struct disk *disk)
{
	struct domain_link *link = disk->domain->link;
	struct qmp_flush flush = flush_of(disk);
	struct call *call = call_new(disk, NULL);

	disk->job->flush_owed = false;
	/* Commits and copies are flushed by QEMU: a base when it becomes read-only again, a copy before it is ready. */
	disk->job->flushing = job_final_state(disk->job) == JOB_COMPLETED &&
			      !strcmp(disk->job->type, "pull") &&
			      qmp_flush_idle(link->qmp, link->features, &flush, flushed_idle, call);
	if (!disk->job->flushing)
		free(call);
}

static void flushed_pending(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (disk && disk->job->flushing) {
		disk->job->flushing = false;
		disk->job->flushed = !error;
		if (error && error->code == -EREMOTEIO &&
		    asprintf(&disk->job->flush_error, "flush: %s", error->text) < 0)
			abort();
		if (disk->job->flush_error)
			job_record_write(disk); /* it is no cancelled job, whoever sees it end */
		if (disk->job->phase == JOB_FINALIZING)
			if_concluded(disk); /* it has been given up meanwhile, and dismissed */
		else if (!error || error->code == -EREMOTEIO || error->code == -ETIMEDOUT)
			finish_step(disk); /* on with it, or once more, or it is given up */
	}
	free(call);
}

/* False: there is no way to do it. */
static bool send_flush(const struct disk *disk, struct call *call)
{
	const struct domain_link *link = disk->domain->link;
	struct qmp_flush flush = flush_of(disk);
	const struct job *job = disk->job;

	if (strcmp(job->type, "backup"))
		return qmp_flush_pending(link->qmp, link->features, &flush, flushed_pending, call);
	return job->dest_format && qmp_flush_target(link->qmp, link->features, job->id,
						    job->dest_format, flushed_pending, call);
}

/* True if a flush is under way, or has failed. */
static bool flush_pending(struct disk *disk)
{
	struct job *job = disk->job;
	struct call *call;

	if (job->flushed)
		return false;
	if (job->flush_error && !job->giving_up) {
		job->giving_up = true;
		qmp_job_cancel(disk->domain->link->qmp, job->id, NULL, NULL);
	}
	if (job->flushing || job->flush_error)
		return true;
	call = call_new(disk, NULL);
	job->flushing = send_flush(disk, call);
	if (!job->flushing)
		free(call);
	job->unflushed = !job->flushing;
	job->flushed = !job->flushing; /* no way to do it: then after the end, as well as may be */
	return job->flushing;
}

/* --- dismissing --- */

static void dismissed(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (disk && disk->job->phase == JOB_FINALIZING && disk->job->dismissing) {
		disk->job->dismissing = false;
		/* Refused: somebody else has dismissed it. Not answered: the next look finds it concluded or gone. */
		disk->job->dismiss_lost = error && error->code != -EREMOTEIO;
		if (!disk->job->dismiss_lost) {
			if (disk->job->flush_owed)
				flush_idle(disk);
			if_concluded(disk);
		} else if (error->code != -EHOSTDOWN) {
			domain_be_patient(disk->domain);
		}
	}
	free(call);
}

/* From here to job-dismiss QEMU must not be asked for its nodes. */
static void close_listing(struct disk *disk)
{
	if (disk->job->phase == JOB_FINALIZING)
		return;
	disk->job->phase = JOB_FINALIZING;
	disk->domain->link->finalizing++;
}

void finish_ended(struct disk *disk)
{
	close_listing(disk);
	if (!disk->job->flushing)
		flush_idle(disk);
	if_concluded(disk);
}

void finish_not_shown(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->phase == JOB_FINALIZING && !job->dismiss_lost)
		return; /* what it waits for will come */
	if (!job->ours || !job->outcome_known) {
		finish_job_gone(disk);
		return;
	}
	/* It was dismissed, and the answer is lost; what comes after that is still to be done. */
	job->dismiss_lost = false;
	finish_ended(disk);
}

static void record_outcome(struct job *job)
{
	/* query-jobs has no word for "cancelled" but the error's text, which is the C library's: qapi/job.json, JobInfo. */
	if (!job->outcome_known)
		job->cancelled = job->error && !strcmp(job->error, strerror(ECANCELED));
	job->outcome_known = true;
	if (job->cancelled)
		keep(&job->error, NULL);
}

static void dismiss(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->dismissing)
		return;
	record_outcome(job);
	job_record_write(disk); /* QEMU will not know it any more */
	close_listing(disk);
	job->dismissing = true;
	job->dismiss_lost = false;
	qmp_job_dismiss(disk->domain->link->qmp, job->id, dismissed, call_new(disk, NULL));
	/* QEMU carries out one after the other: what is to be done when the job has gone can be on its way already. */
	if (!job->flushing)
		flush_idle(disk);
	sync_behind(disk);
}

static void finalized(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	/*
	 * Refused: it was cancelled meanwhile, and an event will tell its end. Not answered: it may be carried out yet. Not sent,
	 * since too much waits for an answer: once more, later.
	 */
	if (disk && error && error->code == -ETIMEDOUT) {
		domain_be_patient(disk->domain);
	} else if (disk && error && error->code == -EAGAIN && disk->job->phase == JOB_FINALIZING) {
		disk->job->phase = JOB_LIVE;
		disk->domain->link->finalizing--;
		domain_retry_sync(disk->domain);
	}
	free(call);
}

static void finalize(struct disk *disk)
{
	struct domain_link *link = disk->domain->link;

	if (disk->job->phase != JOB_LIVE || flush_pending(disk) || link->syncing)
		return; /* domain_pump() comes back to it */
	close_listing(disk);
	qmp_job_finalize(link->qmp, disk->job->id, finalized, call_new(disk, NULL));
}

/*
 * The job of somebody else who has kept its dismissal for himself, and does it in a moment or never. The moment is waited for, since until
 * then the disk may take no other job; then the end is told all the same.
 */
static void concluded_foreign(struct disk *disk)
{
	struct job *job = disk->job;
	uint64_t now = uv_hrtime();

	record_outcome(job);
	if (!job->over_ns)
		job->over_ns = now;
	if (now - job->over_ns >= OWNER_NS_MAX)
		concluded(disk);
	else
		domain_retry_sync(disk->domain);
}

void finish_step(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->phase == JOB_STARTING || job->phase >= JOB_CONCLUDED || !disk->domain->link->ready)
		return;
	if (job->phase == JOB_FINALIZING && job->flushing && !is_dismissing(job))
		return; /* dismissed already: concluded() follows */
	if (job_qemu_says(job, "pending") && job->ours && job->waits_for_finalize)
		finalize(disk);
	else if (job_qemu_says(job, "concluded") && job->ours && job->dismiss_lost)
		return; /* the next look shows whether it was carried out */
	else if (job_qemu_says(job, "concluded") && job->ours)
		dismiss(disk);
	else if (job_qemu_says(job, "concluded") && job->seen && !job->auto_dismiss)
		concluded_foreign(disk);
	else if (job_qemu_says(job, "null") && job->dismiss_lost)
		finish_not_shown(disk);
	else if (job_qemu_says(job, "null") && !job->dismissing)
		concluded(disk);
}

/* --- what events tell --- */

static void status_changed(struct disk *disk, const char *status)
{
	struct job *job = disk->job;

	job_take_word(job->qemu_state, status);
	job->step.still = false; /* until the figures of that are in */
	if (job_qemu_says(job, "aborting") && job->state != JOB_ABORTING) {
		job->state = JOB_ABORTING;
		disk_changed(disk, TOPIC_JOB);
	}
	if (job_qemu_says(job, "concluded") && !job->outcome_known)
		domain_refresh(disk->domain);
	else if (job_qemu_says(job, "pending") || job_qemu_says(job, "concluded") ||
		 job_qemu_says(job, "null"))
		finish_step(disk);
	else if (!job_qemu_says(job, "waiting") && !job_qemu_says(job, "aborting") &&
		 !job->step.commands /* the last of their answers asks */)
		domain_refresh_soon(
			disk->domain); /* it may be a drain that is over already: ask what is true */
}

static void record_end(struct job *job, const struct qmp_event *event)
{
	job->outcome_known = true;
	job->cancelled = event->kind == QMP_EVENT_BLOCK_JOB_CANCELLED;
	if (event->error)
		keep(&job->error, event->error);
	if (event->offset >= 0)
		job->offset = event->offset;
	if (event->length >= 0)
		job->length = event->length;
}

/*
 * A start that QEMU refuses late has had a job for a moment: `created`, `null`, and then the refusal (block_job_create() and
 * job_early_fail(); tried with a negative speed). Only what comes after `created` is evidence of a job.
 */
static bool proves_start(const struct qmp_event *event)
{
	return !event->status ||
	       (strcmp(event->status, "created") && strcmp(event->status, "null"));
}

void finish_job_event(struct disk *disk, const struct qmp_event *event)
{
	struct job *job = disk->job;

	if (job->phase == JOB_STARTING && !proves_start(event))
		return;
	if (job->phase == JOB_STARTING)
		disk_job_seen(disk);
	switch (event->kind) {
	case QMP_EVENT_JOB_STATUS_CHANGE:
		if (event->status)
			status_changed(disk, event->status);
		break;
	case QMP_EVENT_BLOCK_JOB_COMPLETED:
	case QMP_EVENT_BLOCK_JOB_CANCELLED:
		record_end(job, event);
		break;
	case QMP_EVENT_BLOCK_JOB_READY:
		/* Only such a one becomes ready, and it may be over when it is looked at. */
		if (!strcmp(job->type, "commit")) {
			job->type = "active-commit";
			disk_changed(disk, TOPIC_JOB);
		}
		domain_refresh_soon(disk->domain);
		break;
	case QMP_EVENT_BLOCK_JOB_ERROR:
		job->io_errors++;
		keep(&job->io_operation, event->operation);
		keep(&job->io_action, event->action);
		break;
	default:
		break;
	}
}

/* --- nodes left behind --- */

static void dropped(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct domain_link *link = call->domain->link;

	if (error && error->code != -EHOSTDOWN && disk)
		disk->job->drop_failed =
			true; /* somebody else uses it: the disk does not, and that is what counts */
	if (--link->dropping == 0) {
		link->sync_again = true;
		domain_pump(call->domain);
	}
	free(call);
}

static bool is_loose(const struct qmp_layout *layout, const char *node)
{
	for (size_t i = 0; i < layout->loose_count; i++)
		if (!strcmp(layout->loose[i], node))
			return true;
	return false;
}

static bool is_in_chain(const struct disk *disk, const struct qmp_layout *layout, const char *node)
{
	for (size_t i = 0; i < layout->disk_count; i++) {
		const struct qmp_disk_info *info = &layout->disks[i];

		if (domain_disk_of_info(disk->domain, info) != disk)
			continue;
		for (size_t j = 0; j < info->depth; j++)
			if (info->chain[j].node && !strcmp(info->chain[j].node, node))
				return true;
	}
	return false;
}

static void drop_nodes_of(struct disk *disk, const struct qmp_layout *layout)
{
	struct domain_link *link = disk->domain->link;
	struct job *job = disk->job;

	for (size_t i = 0; i < job->before_count; i++) {
		/* A storage daemon's disk is a node without a parent, too. */
		if (!job->before_nodes[i] || !is_loose(layout, job->before_nodes[i]) ||
		    is_in_chain(disk, layout, job->before_nodes[i]))
			continue;
		/* The next one may be loose only when this one has gone. But a QEMU that keeps them is not asked for ever. */
		if (job->drops++ > 2 * job->before_count)
			return;
		link->dropping++;
		qmp_blockdev_del(link->qmp, job->before_nodes[i], dropped, call_new(disk, NULL));
	}
}

bool finish_drop_nodes(struct domain *domain, const struct qmp_layout *layout)
{
	struct domain_link *link = domain->link;
	struct disk *disk;

	if (!qmp_has(link->features, QMP_HAS_BLOCKDEV_DEL))
		return false;
	DL_FOREACH(domain->disks, disk) {
		struct job *job = disk->job;

		if (job && job->sync_phase == JOB_CONCLUDED && job->phase == JOB_CONCLUDED &&
		    job->ours && !job->drop_failed && job_final_state(job) == JOB_COMPLETED)
			drop_nodes_of(disk, layout);
	}
	return link->dropping > 0;
}
