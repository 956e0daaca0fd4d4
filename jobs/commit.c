/*
 * `commit`: merge images of the chain down into one of them. In the middle of the chain the job ends by itself; when the active image is
 * among them it becomes ready and waits for `pivot` or `finish`. Called by fs/ through the row of `commit`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/backing_name.h"
#include "jobs/delete.h"
#include "jobs/deletion.h"
#include "jobs/domain_link.h"
#include "jobs/find_image.h"
#include "jobs/grammar.h"
#include "jobs/image_users.h"
#include "jobs/job_record.h"
#include "jobs/start.h"

struct commit {
	size_t top, base; /* indexes in the chain */
	struct word *top_word; /* NULL: the default */
	struct word *base_word; /* NULL: the default */
	struct word *delete_word; /* NULL: nothing is to be deleted */
	struct deletion *deletion;
	bool shallow, pivot, dry_run;
	int64_t speed;
	char *on_error;
};

static const enum qmp_feature needed[] = { QMP_HAS_COMMIT, QMP_HAS_COMMIT_NODES,
					   QMP_HAS_COMMIT_DISMISS };
#define NEEDED (sizeof(needed) / sizeof(*needed))

static void word_free(struct word *word)
{
	if (word)
		free(word->text);
	free(word);
}

static void commit_free(struct commit *commit)
{
	word_free(commit->base_word);
	word_free(commit->top_word);
	word_free(commit->delete_word);
	deletion_free(commit->deletion);
	free(commit->on_error);
	free(commit);
}

/* What would be done, for `dry-run`. */
static void describe(struct op *op, const struct commit *commit, const struct qmp_commit *arguments)
{
	const struct disk *disk = op->target.disk;
	char *json = qmp_block_commit_text(arguments);

	for (size_t i = commit->top; i < commit->base; i++) {
		text_puts(op->answer, "would merge ");
		text_put_path(op->answer, disk->chain[i].path);
		text_puts(op->answer, "\n");
	}
	text_puts(op->answer, "would merge into ");
	text_put_path(op->answer, disk->chain[commit->base].path);
	text_puts(op->answer, "\n");
	for (size_t i = commit->top; (commit->top || commit->pivot) && i < commit->base; i++) {
		text_puts(op->answer, "would drop ");
		text_put_path(op->answer, disk->chain[i].path);
		text_puts(op->answer, "\n");
	}
	for (size_t i = 0; commit->deletion && i < commit->deletion->count; i++) {
		text_puts(op->answer, "would delete ");
		text_put_path(op->answer, commit->deletion->images[i].path);
		text_puts(op->answer, "\n");
	}
	text_printf(op->answer, "would send %s\n", json);
	if (commit->pivot)
		text_puts(op->answer, "would send job-complete when it is ready\n");
	free(json);
	op_complete(op, 0);
}

/* All has been checked. */
static void start(struct op *op, struct commit *commit)
{
	struct disk *disk = op->target.disk;
	bool active = commit->top == 0;
	/* The header that changes is that of the image above top; QEMU takes no such name for an active commit. */
	char *name = active ? NULL : backing_name(disk->chain, commit->top - 1, commit->base);
	struct qmp_commit arguments = {
		.job = JOB_ID_PREFIX "...",
		.node = disk->chain[0].node,
		.top_node = active ? NULL : disk->chain[commit->top].node,
		.base_node = disk->chain[commit->base].node,
		.backing_file = name,
		.on_error = commit->on_error,
		.speed = commit->speed,
	};
	struct job *job;

	if (commit->dry_run) {
		describe(op, commit, &arguments);
	} else {
		job = start_register(op, active ? "active-commit" : "commit", commit->speed);
		job->pivot_wanted = commit->pivot;
		job->deletion = commit->deletion;
		commit->deletion = NULL;
		start_write_down(disk);
		arguments.job = job->id;
		qmp_block_commit(disk->domain->link->qmp, &arguments, start_answered,
				 call_new(disk, op));
		start_sent(disk);
	}
	free(name);
}

static void delete_listed(struct op *op, struct deletion *deletion, void *data)
{
	struct commit *commit = data;

	commit->deletion = deletion;
	if (op && start_may(op, needed, NEEDED))
		start(op, commit);
	commit_free(commit);
}

static void users_checked(struct op *op, bool is_free, void *data)
{
	struct commit *commit = data;

	if (is_free && commit->delete_word && start_may(op, needed, NEEDED)) {
		delete_list(op, commit->delete_word, commit->top, commit->base, delete_listed,
			    commit);
		return;
	}
	if (is_free && !commit->delete_word && start_may(op, needed, NEEDED))
		start(op, commit);
	commit_free(commit);
}

/* Both ends are known. Takes @commit. */
static void check(struct op *op, struct commit *commit)
{
	struct disk *disk = op->target.disk;

	const struct word *word = commit->base_word ? commit->base_word : commit->top_word;

	if (commit->top >= commit->base && disk->depth == 1)
		op_refuse(op, -EINVAL, "nothing backs the disk: there is nothing to commit into");
	else if (commit->top >= commit->base)
		op_refuse_at(op, -EINVAL, word ? word->offset : 0, word ? word->length : 0,
			     "base is not below top in the chain");
	else if (commit->pivot && commit->top > 0)
		op_refuse_at(op, -EINVAL, commit->top_word->offset, commit->top_word->length,
			     "pivot is for a commit of the active image");
	else if (commit->pivot && !qmp_has(disk->domain->link->features, QMP_HAS_QUERY_STATUS))
		op_refuse(op, -EOPNOTSUPP,
			  "a storage daemon has no device that could go over to another image: use "
			  "`finish`");
	else if (!disk->chain[commit->base].node || !disk->chain[commit->top].node)
		op_refuse(op, -EOPNOTSUPP, "this QEMU does not tell the node names of the chain");
	else {
		disk_check_users(op, commit->top, commit->base, users_checked, commit);
		return;
	}
	commit_free(commit);
}

static void base_found(struct op *op, long index, void *data)
{
	struct commit *commit = data;

	if (!op || index < 0 || !start_may(op, needed, NEEDED)) {
		commit_free(commit);
		return;
	}
	commit->base = (size_t)index;
	check(op, commit);
}

/* The top is known. Takes @commit. */
static void find_base(struct op *op, struct commit *commit)
{
	if (commit->base_word) {
		disk_find_image(op, commit->base_word, base_found, commit);
		return;
	}
	commit->base = commit->shallow ? commit->top + 1 : op->target.disk->depth - 1;
	if (commit->base >= op->target.disk->depth)
		commit->base = commit->top; /* nothing is below it: refused by check() */
	check(op, commit);
}

static void top_found(struct op *op, long index, void *data)
{
	struct commit *commit = data;

	if (!op || index < 0 || !start_may(op, needed, NEEDED)) {
		commit_free(commit);
		return;
	}
	commit->top = (size_t)index;
	find_base(op, commit);
}

/* The words go when the command returns; the base's is wanted later. */
static struct word *word_copy(const struct word *word)
{
	struct word *copy = word ? malloc(sizeof(*copy)) : NULL;

	if (!copy)
		return NULL;
	*copy = *word;
	copy->text = word->text ? strdup(word->text) : NULL;
	return copy;
}

void disk_commit(struct op *op, const struct command *command)
{
	const struct word *top = command_word(command, "top"),
			  *base = command_word(command, "base");
	const char *on_error = command_text(command, "on-error");
	struct commit *commit;

	if (!start_may_command(op, command, needed, NEEDED))
		return;
	if (base && command_flag(command, "shallow")) {
		op_refuse_at(op, -EINVAL, base->offset, base->length,
			     "shallow means the image right under top: base= says otherwise");
		return;
	}
	commit = calloc(1, sizeof(*commit));
	if (!commit)
		abort();
	commit->base_word = word_copy(base);
	commit->top_word = word_copy(top);
	commit->delete_word = word_copy(command_word(command, "delete"));
	commit->shallow = command_flag(command, "shallow");
	commit->pivot = command_flag(command, "pivot");
	commit->dry_run = command_flag(command, "dry-run");
	commit->speed = command_number(command, "bandwidth", 0);
	commit->on_error = on_error ? strdup(on_error) : NULL;
	if (top)
		disk_find_image(op, top, top_found, commit);
	else
		find_base(op, commit);
}
