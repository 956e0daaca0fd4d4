/*
 * Rebuilding the model from QEMU: first its jobs, then its disks and chains, one sync at a time. It runs after every connect, after
 * the end of a job, when a job appears that we have not started, and when somebody looks.
 *
 * While a stream job is concluded and not dismissed, QEMU must not be asked for its nodes (docs/architecture.md). So a sync waits for
 * the jobs that are being finalized, they wait for a sync under way, and domain_pump() goes on with whichever has waited.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/make_image.h"
#include "jobs/history.h"
#include "jobs/job_record.h"
#include "jobs/qemu_files.h"

enum {
	FOUND_MAX =
		1024, /* jobs that are looked at: no QEMU has so many, and a hostile one is not to hold up others */
};

/* A job of query-block-jobs, kept until the disks are known too. */
struct found_job {
	struct qmp_job_info info; /* its strings are ours */
	bool dismissed; /* ours, concluded in an earlier life: its end is told when its disk is known */
};

struct found_jobs {
	struct found_job *jobs;
	size_t count;
};

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void found_clear(struct found_job *job)
{
	free((char *)job->info.id);
	free((char *)job->info.type);
	free((char *)job->info.status);
	free((char *)job->info.io_status);
	free((char *)job->info.error);
}

static void found_add(struct found_jobs *found, const struct qmp_job_info *info)
{
	struct found_job *jobs;

	if (found->count == FOUND_MAX)
		return;
	jobs = realloc(found->jobs, (found->count + 1) * sizeof(*jobs));
	if (!jobs)
		abort();
	found->jobs = jobs;
	jobs[found->count] = (struct found_job){ .info = *info };
	jobs[found->count].info.id = copy(info->id);
	jobs[found->count].info.type = copy(info->type);
	jobs[found->count].info.status = copy(info->status);
	jobs[found->count].info.io_status = copy(info->io_status);
	jobs[found->count].info.error = copy(info->error);
	found->count++;
}

static struct found_job *found_find(struct found_jobs *found, const char *id)
{
	for (size_t i = 0; i < found->count; i++)
		if (!strcmp(found->jobs[i].info.id, id))
			return &found->jobs[i];
	return NULL;
}

/* Drops what the last sync has learned, but for jobs whose end is still to be told. */
static void found_forget(struct found_jobs *found)
{
	size_t kept = 0;

	for (size_t i = 0; i < found->count; i++) {
		if (found->jobs[i].dismissed)
			found->jobs[kept++] = found->jobs[i];
		else
			found_clear(&found->jobs[i]);
	}
	found->count = kept;
}

static void free_nodes(struct domain_link *link)
{
	for (size_t i = 0; i < link->node_count; i++)
		free(link->nodes[i]);
	free(link->nodes);
	link->nodes = NULL;
	link->node_count = 0;
}

void sync_free(struct domain_link *link)
{
	free_nodes(link);
	if (!link->found)
		return;
	for (size_t i = 0; i < link->found->count; i++)
		found_clear(&link->found->jobs[i]);
	free(link->found->jobs);
	free(link->found);
	link->found = NULL;
}

/* --- the end of a sync --- */

static void sync_over(struct domain *domain)
{
	domain->link->syncing = false;
	domain_pump(domain);
}

static void sync_failed(struct domain *domain, const struct qmp_error *error)
{
	if (error->code == -EHOSTDOWN) {
		domain->link->syncing = false; /* `closed` follows */
		return;
	}
	domain_set_link_error(domain, error->text);
	domain->link->sync_again = false;
	domain->link->syncing = false;
	domain_retry_sync(domain);
	domain_settle(domain);
	domain_pump(domain);
}

static bool is_ours(const struct qmp_job_info *info)
{
	return !strncmp(info->id, JOB_ID_PREFIX, strlen(JOB_ID_PREFIX));
}

/* --- jobs that the model does not have --- */

/* A job of ours that ended in an earlier life, and was dismissed in this one before its disk was known. */
static void adopt_ended(struct disk *disk, struct found_job *found)
{
	if (disk_is_busy(disk) || history_has(disk, found->info.id))
		return;
	disk_adopt_job(disk, &found->info); /* with its end: job_record_end() */
	if (!disk->job->outcome_known) { /* too much of it to be kept */
		job_update(disk->job, &found->info, uv_hrtime());
		disk->job->cancelled =
			disk->job->error && !strcmp(disk->job->error, strerror(ECANCELED));
		disk->job->outcome_known = true;
	}
	finish_ended(disk);
}

/*
 * A job of an earlier life that QEMU does not show, though none of ours goes by itself. With its end in the record it was dismissed;
 * what comes after that may be left to do. Without, and if nobody was ever told that it has begun, it has not: what
 * was on its way to QEMU when the daemon died QEMU has seen by now, or never will.
 */
static void recover(struct disk *disk, struct job *job, bool started)
{
	if (found_find(disk->domain->link->found, job->id)) {
		job_free(job);
	} else if (history_has(disk, job->id) || (!started && !job->outcome_known)) {
		job_record_drop(disk, job);
		job_free(job);
	} else if (job->outcome_known) {
		disk_take_job(disk, job);
		finish_ended(disk);
	} else {
		job->error = strdup("it ended while no blockjobfs ran: QEMU was started anew, or "
				    "somebody else dismissed it");
		disk_take_job(disk, job);
		finish_job_gone(disk);
	}
}

static struct disk *disk_of_place(struct domain *domain, const struct qmp_layout *layout,
				  const char *job)
{
	for (size_t i = 0; i < layout->job_count; i++)
		if (!strcmp(layout->jobs[i].job, job))
			return domain_disk_of_info(domain, &layout->disks[layout->jobs[i].disk]);
	return domain_disk_of_job_id(domain, job);
}

static void adopt_jobs(struct domain *domain, const struct qmp_layout *layout)
{
	struct found_jobs *found = domain->link->found;

	for (size_t i = 0; i < found->count; i++) {
		struct found_job *job = &found->jobs[i];
		struct disk *disk;

		if (domain_find_job(domain, job->info.id))
			continue;
		disk = disk_of_place(domain, layout, job->info.id);
		if (disk && job->dismissed)
			adopt_ended(disk, job);
		else if (disk && !disk_is_busy(disk) && strcmp(job->info.status, "concluded") &&
			 strcmp(job->info.status, "null")) {
			disk_adopt_job(disk, &job->info);
			disk_update_job(disk, &job->info);
		} else if (!disk && is_ours(&job->info) && !strcmp(job->info.status, "pending")) {
			/* Its disk was unplugged: nobody will finalize it, and it would hold its nodes for ever. */
			qmp_job_cancel(domain->link->qmp, job->info.id, NULL, NULL);
		}
		job->dismissed = false;
	}
}

/*
 * What was on its way to QEMU when the last life died it has seen by now, or never will. If nothing told of the job, it was not begun, and nobody was
 * told that it was.
 */
static void not_found(struct disk *disk)
{
	const struct job *job = disk->job;

	if (job->carried && !job->told && !job->begun && !job->outcome_known)
		disk_job_forget(disk);
	else
		finish_not_shown(disk);
}

/*
 * Jobs that the model has: those that QEMU does not know any more, and, if the chain has been read anew, those whose end can be shown now.
 */
static void settle_known(struct domain *domain, bool chain_read)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk) {
		struct job *job = disk->job;

		if (!job_is_live(job))
			continue;
		if (job->sync_phase == JOB_CONCLUDED && job->phase == JOB_CONCLUDED && chain_read)
			finish_publish(disk);
		else if (job->sync_phase == JOB_LIVE && job->phase == JOB_LIVE &&
			 !found_find(domain->link->found, job->id))
			not_found(disk);
	}
}

/* --- step two: disks and chains --- */

static void take_nodes(struct domain_link *link, struct qmp_layout *layout)
{
	free_nodes(link);
	link->nodes = layout->nodes;
	link->node_count = layout->node_count;
	layout->nodes = NULL;
	layout->node_count = 0;
}

static void laid_out(void *data, const struct qmp_error *error, struct qmp_layout *layout)
{
	struct domain *domain = data;
	struct domain_link *link = domain->link;

	if (error) {
		sync_failed(domain, error);
		return;
	}
	if (link->removed) {
		qmp_layout_free(layout);
		return;
	}
	if (finish_drop_nodes(domain, layout)) {
		link->syncing = false; /* when they are gone, dropped() wants the next one */
		qmp_layout_free(layout);
		return;
	}
	qemu_files_make_absolute(layout, qmp_link_peer(link->qmp));
	link->laid_out = true;
	take_nodes(link, layout);
	inventory_merge(domain, layout);
	settle_known(domain, true);
	adopt_jobs(domain, layout);
	if (!link->recovered)
		link->recovered = job_record_each(domain, recover);
	qmp_layout_free(layout);
	domain_synced(domain);
	sync_over(domain);
}

/* 0: not known of this connection. */
static size_t count_nodes(const struct domain_link *link)
{
	return link->synced ? link->node_count : 0;
}

/* --- step one: jobs --- */

static void orphan_dismissed(void *data, const struct qmp_error *error)
{
	struct domain *domain = data;
	struct domain_link *link = domain->link;

	if (error && error->code == -EHOSTDOWN)
		return; /* domain.c has set the count back */
	link->finalizing--;
	link->sync_again = true;
	domain_pump(domain);
}

/* Dismisses jobs of ours that were concluded and not dismissed by an earlier life. */
static void dismiss_orphans(struct domain *domain)
{
	struct domain_link *link = domain->link;

	for (size_t i = 0; i < link->found->count; i++) {
		struct found_job *job = &link->found->jobs[i];

		/* Those that have been dismissed come first in the list: once is enough, whatever QEMU goes on to show. */
		if (job->dismissed || strcmp(job->info.status, "concluded") ||
		    found_find(link->found, job->info.id)->dismissed ||
		    domain_find_job(domain, job->info.id) || !is_ours(&job->info))
			continue;
		job->dismissed = true;
		job_record_end(domain, &job->info);
		link->finalizing++;
		qmp_job_dismiss(link->qmp, job->info.id, orphan_dismissed, domain);
	}
}

/*
 * A stream that may be concluded and not dismissed by the time that QEMU comes to a listing sent now: a storage daemon must not be
 * asked for its nodes then. Ours are those that could not be dismissed, or are about to end.
 */
static const char *unsafe_stream(const struct domain *domain)
{
	const struct found_jobs *found = domain->link->found;

	if (qmp_has(domain->link->features, QMP_HAS_QUERY_STATUS))
		return NULL;
	for (size_t i = 0; i < found->count; i++) {
		const struct qmp_job_info *info = &found->jobs[i].info;

		if (found->jobs[i].dismissed || strcmp(info->type, "stream") || info->auto_dismiss)
			continue;
		if (!is_ours(info) || !strcmp(info->status, "concluded") ||
		    !strcmp(info->status, "aborting"))
			return info->id;
	}
	return NULL;
}

/*
 * True if a storage daemon's nodes can do without being listed now: a job of ours may end by itself at any moment, and then the same
 * holds. After an abort it surely will. Its end asks for the next sync.
 */
static bool listing_can_wait(const struct domain *domain)
{
	bool needed = !domain->link->synced, live = false;
	const struct disk *disk;

	if (qmp_has(domain->link->features, QMP_HAS_QUERY_STATUS))
		return false;
	DL_FOREACH(domain->disks, disk) {
		if (!job_is_live(disk->job))
			continue;
		if (disk->job->phase == JOB_CONCLUDED)
			needed = true; /* its last word waits for the chain */
		else if (disk->job->ours && disk->job->abort_asked)
			return true;
		else
			live |= disk->job->ours;
	}
	return live && !needed;
}

/* Those of ours that were dismissed and are shown again: the next sync may try once more. */
static void dismiss_again_later(struct found_jobs *found)
{
	for (size_t i = 0; i < found->count; i++)
		if (!found->jobs[i].dismissed)
			found_find(found, found->jobs[i].info.id)->dismissed = false;
}

static void refuse_listing(struct domain *domain, const char *job)
{
	char *reason;

	if (asprintf(&reason,
		     "the stream job %s may be over and not dismissed; until it is gone, listing "
		     "the disks could crash this QEMU",
		     job) < 0)
		abort();
	settle_known(domain,
		     false); /* before those who have waited for the domain look at its jobs */
	if (!domain->link->synced)
		domain_synced(domain);
	domain_set_link_error(domain, reason);
	free(reason);
	dismiss_again_later(domain->link->found);
	domain_retry_sync(domain);
	sync_over(domain);
}

static void jobs_known(void *data, const struct qmp_error *error, const struct qmp_job_info *jobs,
		       size_t count)
{
	struct domain *domain = data;
	struct domain_link *link = domain->link;
	const char *unsafe;

	if (link->removed)
		return;
	if (error) {
		sync_failed(domain, error);
		return;
	}
	found_forget(link->found);
	for (size_t i = 0; i < count; i++) {
		struct disk *disk = domain_find_job(domain, jobs[i].id);

		found_add(link->found, &jobs[i]);
		if (disk)
			disk_update_job(disk, &jobs[i]);
	}
	dismiss_orphans(domain);
	unsafe = unsafe_stream(domain);
	if (link->finalizing || make_image_forbids_listing(domain)) {
		link->sync_again = true;
		sync_over(domain);
	} else if (listing_can_wait(domain)) {
		sync_over(domain);
	} else if (unsafe) {
		refuse_listing(domain, unsafe);
	} else {
		qmp_query_layout(link->qmp, link->features, count_nodes(link), laid_out, domain);
	}
}

/* --- starting --- */

static void mark_jobs(struct domain *domain)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (job_is_live(disk->job))
			disk->job->sync_phase = disk->job->phase;
}

static void sync_begin(struct domain_link *link)
{
	link->syncing = true;
	link->sync_again = false;
	link->synced_ns = uv_hrtime();
}

void domain_sync(struct domain *domain)
{
	struct domain_link *link = domain->link;

	if (!link->ready || link->removed)
		return;
	if (link->syncing || link->finalizing || link->dropping ||
	    make_image_forbids_listing(domain)) {
		link->sync_again = true;
		return;
	}
	if (!link->found && !(link->found = calloc(1, sizeof(*link->found))))
		abort();
	sync_begin(link);
	mark_jobs(domain);
	qmp_query_block_jobs(link->qmp, jobs_known, domain);
}

/* True if the domain has no other job that we know of: none can be a stream that is concluded and not dismissed. */
static bool is_alone(const struct disk *disk)
{
	const struct domain *domain = disk->domain;
	const struct found_jobs *found = domain->link->found;
	const struct disk *other;

	DL_FOREACH(domain->disks, other)
		if (other != disk && job_is_live(other->job))
			return false;
	for (size_t i = 0; i < found->count; i++)
		if (found->jobs[i].dismissed || strcmp(found->jobs[i].info.id, disk->job->id))
			return false;
	return true;
}

void sync_behind(struct disk *disk)
{
	struct domain *domain = disk->domain;
	struct domain_link *link = domain->link;

	/* A sync that failed, and waits for its next try, may have missed jobs. */
	if (!link->synced || !link->recovered || link->syncing || link->sync_again ||
	    uv_is_active((uv_handle_t *)&link->retry) || link->dropping ||
	    make_image_forbids_listing(domain) || !is_alone(disk))
		return;
	sync_begin(link);
	found_forget(link->found);
	mark_jobs(domain);
	disk->job->sync_phase = JOB_CONCLUDED;
	qmp_query_layout(link->qmp, link->features, count_nodes(link), laid_out, domain);
}

bool sync_is_behind(const struct disk *disk)
{
	return disk->domain->link->syncing && disk->job->sync_phase == JOB_CONCLUDED;
}

void domain_pump(struct domain *domain)
{
	struct domain_link *link = domain->link;
	struct disk *disk;

	if (link->syncing || !link->ready)
		return;
	/* Jobs that wait to be finalized go first: many looks must not keep a job from its end. */
	DL_FOREACH(domain->disks, disk)
		if (job_is_live(disk->job))
			finish_step(disk);
	if (link->sync_again)
		domain_sync(domain);
}

/* --- somebody looks --- */

/* A sync that has begun since shows all that he could have looked for. */
static bool look_is_due(const struct domain_link *link, uint64_t ns)
{
	return link->synced && !link->syncing && uv_hrtime() - link->synced_ns >= ns;
}

static void look(uv_timer_t *timer)
{
	struct domain *domain = timer->data;

	if (look_is_due(domain->link, LOOK_DELAY_MS * (uint64_t)1000000))
		domain_sync(domain);
}

void domain_looked_at(struct domain *domain)
{
	struct domain_link *link = domain->link;

	if (look_is_due(link, LOOK_NS_MIN) && !link->stopping &&
	    !uv_is_active((uv_handle_t *)&link->look))
		uv_timer_start(&link->look, look, LOOK_DELAY_MS, 0);
}
