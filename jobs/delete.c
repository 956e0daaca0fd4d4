/*
 * Deleting what a commit has made useless; see delete.h. Called by jobs/commit.c, which has the list made, and by jobs/finish.c, which has
 * it carried out. All looks at files, and the deleting, are in the work pool: both may block.
 *
 * A file is deleted only if it is the very one that was meant (device, inode, time of birth), if no chain of any disk under the mount
 * has it, and if no program has it open that can be seen. When that cannot be told it stays.
 */
#include "jobs/delete.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/deletion.h"
#include "jobs/domain_link.h"
#include "jobs/events.h"
#include "jobs/file_users.h"
#include "jobs/folder.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"
#include "jobs/policy.h"

/* --- who else may use an image --- */

/* A domain whose images are not known, though it may use some; NULL: there is none. */
static const struct domain *unknown_user(const struct model *model)
{
	const struct domain *domain;

	DL_FOREACH(model->domains, domain)
		if (!domain->link->laid_out && !domain->link->gone)
			return domain;
	return NULL;
}

/* Another address was written, and nothing has come of it yet. */
static bool is_coming(const struct domain *domain)
{
	return domain->state == DOMAIN_CONNECTING && !domain->link->laid_out && !domain->link->gone;
}

static bool all_settled(const struct model *model)
{
	const struct domain *domain;

	if (!folders_settled(model))
		return false;
	DL_FOREACH(model->domains, domain)
		if (!domain->link->settled || is_coming(domain))
			return false;
	return true;
}

/* --- making the list --- */

struct listing {
	uv_work_t work;
	struct model *model;
	uint64_t op, generation;
	size_t offset, length; /* of the word */
	struct who by;
	pid_t peer;
	struct deletion *deletion;
	int error; /* an image cannot be deleted ... */
	char *reason; /* ... for this reason */
	delete_listed_fn listed;
	void *data;
};

static int look_at(const struct listing *listing, struct doomed *image, char **reason)
{
	struct policy_file file;
	const char *what = NULL;
	int error = doomed_look(image, &what);

	if (error && asprintf(reason, "%s %s", image->path, what ? what : strerror(-error)) < 0)
		abort();
	if (!error)
		error = policy_check_unlink(listing->model->policy, &listing->by, image->path,
					    &file, reason);
	if (!error && !file_is_that_of(image, listing->peer)) {
		error = -EOPNOTSUPP;
		if (asprintf(reason,
			     "%s may be another file than the one that QEMU has: QEMU has other "
			     "mounts, or its files cannot be seen from here",
			     image->path) < 0)
			abort();
	}
	return error;
}

/* In the pool. */
static void look(uv_work_t *work)
{
	struct listing *listing = work->data;
	struct deletion *deletion = listing->deletion;

	for (size_t i = 0; i < deletion->count && !listing->error; i++)
		listing->error = look_at(listing, &deletion->images[i], &listing->reason);
}

static void looked(uv_work_t *work, int status)
{
	struct listing *listing = work->data;
	struct op *op = op_find(listing->model, listing->op);
	struct deletion *deletion = listing->deletion;

	if (op && op->target.disk->generation != listing->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op && listing->error)
		op_refuse_at(op, listing->error, listing->offset, listing->length,
			     "%s; without delete it can be committed", listing->reason);
	else if (op)
		deletion = NULL;
	if (deletion) {
		deletion_free(deletion);
		listing->listed(NULL, NULL, listing->data);
	} else {
		listing->listed(op, listing->deletion, listing->data);
	}
	free(listing->reason);
	free(listing);
}

static bool may_list(struct op *op, const struct word *word)
{
	const struct domain *unknown = unknown_user(op->target.model);

	if (domain_is_remote(op->target.disk->domain))
		op_refuse_at(op, -EOPNOTSUPP, word->offset, word->length,
			     "QEMU is reached over a network or a command: its files are not those "
			     "of this host");
	else if (unknown)
		op_refuse_at(op, -EBUSY, word->offset, word->length,
			     "domain %s was never connected, and may use an image: see its `state`",
			     unknown->name);
	else
		return true;
	return false;
}

void delete_list(struct op *op, const struct word *word, size_t first, size_t end,
		 delete_listed_fn listed, void *data)
{
	struct disk *disk = op->target.disk;
	struct listing *listing;

	if (!may_list(op, word)) {
		listed(NULL, NULL, data);
		return;
	}
	listing = calloc(1, sizeof(*listing));
	if (!listing)
		abort();
	*listing = (struct listing){
		.model = op->target.model,
		.op = op->id,
		.generation = disk->generation,
		.offset = word->offset,
		.length = word->length,
		.by = op->by,
		.peer = qmp_link_peer(disk->domain->link->qmp),
		.deletion = deletion_new(end - first),
		.listed = listed,
		.data = data,
	};
	listing->work.data = listing;
	for (size_t i = first; i < end; i++)
		listing->deletion->images[i - first].path = strdup(disk->chain[i].path);
	if (uv_queue_work(listing->model->loop, &listing->work, look, looked))
		abort(); /* only for a NULL function */
}

/* --- carrying it out --- */

struct carrying {
	uv_work_t work;
	struct model *model;
	char *domain, *job; /* looked up anew: both may be gone by the end */
	struct deletion *deletion; /* a copy of the job's */
	char **errors; /* one an image; NULL: deleted */
	struct file_users users;
	struct who by;
	bool again; /* an earlier life may have begun */
};

static struct deletion *copy_list(const struct deletion *deletion)
{
	struct deletion *copy = deletion_new(deletion->count);

	for (size_t i = 0; i < deletion->count; i++) {
		copy->images[i] = deletion->images[i];
		copy->images[i].path = strdup(deletion->images[i].path);
	}
	return copy;
}

static void carrying_free(struct carrying *carrying)
{
	for (size_t i = 0; i < carrying->deletion->count; i++)
		free(carrying->errors[i]);
	free(carrying->errors);
	deletion_free(carrying->deletion);
	file_users_clear(&carrying->users);
	free(carrying->domain);
	free(carrying->job);
	free(carrying);
}

/* Why the image is not to be deleted, malloc'ed; NULL: nothing is against it. */
static char *objection(const struct carrying *carrying, const struct doomed *image, bool *is_gone)
{
	struct doomed now = { .path = image->path };
	const char *reason = NULL;
	int error = doomed_look(&now, &reason);

	*is_gone = error == -ENOENT;
	if (*is_gone)
		return strdup("it is gone already");
	if (reason || (!error && !doomed_is(image, &now)))
		return strdup("it is another file than when the commit was accepted");
	return error ? strdup(strerror(-error)) : file_used_by(image, &carrying->users);
}

/* Returns why it was not deleted, malloc'ed; NULL: it is. */
static char *delete_one(const struct carrying *carrying, const struct doomed *image)
{
	struct policy_file file = { .device = image->device, .inode = image->inode };
	bool is_gone;
	char *reason = objection(carrying, image, &is_gone);

	if (is_gone && carrying->again) {
		/* By the life that was killed before it could tell. */
		free(reason);
		return NULL;
	}
	if (!reason)
		policy_unlink(carrying->model->policy, &carrying->by, image->path, &file, &reason);
	return reason;
}

/* In the pool. */
static void carry_out(uv_work_t *work)
{
	struct carrying *carrying = work->data;

	for (size_t i = 0; i < carrying->deletion->count; i++)
		carrying->errors[i] = delete_one(carrying, &carrying->deletion->images[i]);
}

static void tell(struct disk *disk, struct doomed *image, const char *error)
{
	image->deleted = !error;
	event_image(disk, image->path, error);
	if (error)
		domain_log(disk->domain, "%s: %s is not deleted: %s", disk->name, image->path,
			   error);
	else
		domain_log(disk->domain, "%s: %s is deleted, as the commit asked for", disk->name,
			   image->path);
}

static struct disk *disk_of(const struct carrying *carrying)
{
	struct domain *domain = model_find_domain(carrying->model, carrying->domain);
	struct disk *disk = domain ? domain_find_job(domain, carrying->job) : NULL;

	return disk && disk->job->deleting ? disk : NULL;
}

/* The disk has been unplugged meanwhile. */
static void log_of_gone(const struct carrying *carrying, size_t index)
{
	const char *error = carrying->errors[index];
	struct text *line = text_new();

	text_printf(
		line, "%s: %s is %s%s", carrying->domain, carrying->deletion->images[index].path,
		error ? "not deleted: " : "deleted, as the commit asked for", error ? error : "");
	carrying->model->watcher->log(carrying->model->watcher_data, text_bytes(line));
	text_free(line);
}

static void carried_out(uv_work_t *work, int status)
{
	struct carrying *carrying = work->data;
	struct disk *disk = disk_of(carrying);
	const struct deletion *deletion = carrying->deletion;

	for (size_t i = 0; !disk && i < deletion->count; i++)
		log_of_gone(carrying, i);
	if (disk) {
		for (size_t i = 0; i < deletion->count; i++)
			tell(disk, &disk->job->deletion->images[i], carrying->errors[i]);
		disk->job->deletion->over = true;
		disk->job->deleting = false;
		finish_publish(disk);
	}
	carrying_free(carrying);
}

static void begin(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct deletion *deletion = disk->job->deletion;
	struct carrying *carrying = calloc(1, sizeof(*carrying));

	if (!carrying ||
	    !(carrying->errors = calloc(deletion->count + 1, sizeof(*carrying->errors))))
		abort();
	carrying->work.data = carrying;
	carrying->model = model;
	carrying->domain = strdup(disk->domain->name);
	carrying->job = strdup(disk->job->id);
	carrying->deletion = copy_list(deletion);
	carrying->by = disk->job->by;
	carrying->again = deletion->begun;
	file_users_take(&carrying->users, model);
	deletion->waits = false;
	deletion->begun = true;
	job_record_write(disk);
	if (uv_queue_work(model->loop, &carrying->work, carry_out, carried_out))
		abort(); /* only for a NULL function */
}

void delete_give_up(struct disk *disk, const char *reason)
{
	struct job *job = disk->job;

	if (!job->deletion || job->deletion->over || job->deleting ||
	    job_final_state(job) != JOB_COMPLETED)
		return;
	for (size_t i = 0; i < job->deletion->count; i++)
		tell(disk, &job->deletion->images[i], reason);
	job->deletion->over = true;
}

/* The disk goes on with what was its active image: `finish`. */
static bool is_kept(const struct disk *disk)
{
	return disk->depth && !strcmp(disk->job->deletion->images[0].path, disk->chain[0].path);
}

static size_t find_path(char *const *paths, size_t count, const char *path)
{
	size_t at = 0;

	while (at < count && strcmp(paths[at], path))
		at++;
	return at;
}

/*
 * True if the chain is what such a commit leaves: what was above the images lies right on what was below them. It may be another
 * one when both QEMU and the daemon were started anew before the end was told; then nothing proves that the images are useless.
 */
static bool is_left_by_commit(const struct disk *disk)
{
	const struct job *job = disk->job;
	const struct deletion *deletion = job->deletion;
	size_t first = find_path(job->before_paths, job->before_count, deletion->images[0].path);
	size_t base = first + deletion->count;

	if (base >= job->before_count)
		return false;
	for (size_t i = 0; i < deletion->count; i++)
		if (strcmp(job->before_paths[first + i], deletion->images[i].path))
			return false;
	for (size_t i = 0; i < disk->depth; i++) {
		if (strcmp(disk->chain[i].path, job->before_paths[base]))
			continue;
		if (first == 0)
			return i == 0;
		return i > 0 && !strcmp(disk->chain[i - 1].path, job->before_paths[first - 1]);
	}
	return false;
}

/* True if QEMU has one of the images still open, by what is known of its nodes. */
static bool qemu_has_node(const struct disk *disk)
{
	const struct job *job = disk->job;
	const struct domain_link *link = disk->domain->link;
	size_t first =
		find_path(job->before_paths, job->before_count, job->deletion->images[0].path);

	for (size_t i = first; i < job->before_count && i < first + job->deletion->count; i++)
		for (size_t j = 0; job->before_nodes[i] && j < link->node_count; j++)
			if (!strcmp(job->before_nodes[i], link->nodes[j]))
				return true;
	return false;
}

bool delete_images(struct disk *disk)
{
	struct model *model = disk->domain->model;
	struct job *job = disk->job;
	const struct domain *unknown;
	char *reason;

	if (!job->deletion || job->deletion->over || job_final_state(job) != JOB_COMPLETED ||
	    is_kept(disk))
		return false;
	if (!is_left_by_commit(disk)) {
		delete_give_up(disk, "the chain is not the one that the commit leaves: QEMU was "
				     "started anew, or something else has changed it");
		return false;
	}
	if (job->drop_failed || qemu_has_node(disk)) {
		delete_give_up(disk, "QEMU still has a node of an image that the commit has made "
				     "useless: something there uses it");
		return false;
	}
	unknown = unknown_user(model);
	job->deletion->waits = !all_settled(model);
	if (unknown && !job->deletion->waits) {
		if (asprintf(&reason,
			     "domain %s was never connected, and may use it; it was to be deleted "
			     "after the commit",
			     unknown->name) < 0)
			abort();
		delete_give_up(disk, reason);
		free(reason);
		return false;
	}
	job->deleting = true;
	job->phase = JOB_CONCLUDED;
	if (job->deletion->waits)
		model->deletions_wait = true;
	else
		begin(disk);
	return true;
}

void delete_step(struct model *model)
{
	struct domain *domain;
	struct disk *disk;

	/* Called for each domain whose state has changed: of ten thousand that are just being connected, too. */
	if (!model->deletions_wait)
		return;
	model->deletions_wait = false;
	DL_FOREACH(model->domains, domain) {
		DL_FOREACH(domain->disks, disk) {
			struct job *job = disk->job;

			if (!job_is_live(job) || !job->deleting || !job->deletion->waits)
				continue;
			job->deleting = false;
			finish_publish(disk);
		}
	}
}
