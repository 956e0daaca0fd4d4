/*
 * `pull`: populate a disk from its backing chain. Finds the base and starts the job. Called by fs/ through the row of `pull`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/backing_name.h"
#include "jobs/domain_link.h"
#include "jobs/find_image.h"
#include "jobs/grammar.h"
#include "jobs/increment.h"
#include "jobs/job_record.h"
#include "jobs/request.h"
#include "jobs/start.h"

/* --- pull --- */

struct pull {
	struct qmp_stream stream; /* its strings are those below */
	char *base_node, *backing_file, *on_error;
	int64_t increment, speed; /* 0: none */
	bool dry_run;
};

static void pull_free(struct pull *pull)
{
	free(pull->base_node);
	free(pull->backing_file);
	free(pull->on_error);
	free(pull);
}

static bool same_node(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

/* The last two are for increments alone. */
static const enum qmp_feature needed[] = { QMP_HAS_STREAM, QMP_HAS_STREAM_FINALIZE,
					   QMP_HAS_STREAM_BASE_NODE, QMP_HAS_JOB_PAUSE,
					   QMP_HAS_SET_SPEED };
#define NEEDED (sizeof(needed) / sizeof(*needed))

static size_t count_needed(int64_t increment)
{
	return increment ? NEEDED : NEEDED - 2;
}

/* What would be done, for `dry-run`. */
static void describe(struct op *op, const struct pull *pull)
{
	const struct disk *disk = op->target.disk;
	char *json = qmp_block_stream_text(&pull->stream);

	for (size_t i = 1; i < disk->depth && !same_node(disk->chain[i].node, pull->base_node);
	     i++) {
		text_puts(op->answer, "would drop ");
		text_put_path(op->answer, disk->chain[i].path);
		text_puts(op->answer, "\n");
	}
	if (pull->increment)
		text_printf(op->answer, "would park at %lld\n", (long long)pull->increment);
	text_printf(op->answer, "would send %s\n", json);
	free(json);
	op_complete(op, 0);
}

/* All has been checked. Takes @pull. */
static void start(struct op *op, struct pull *pull)
{
	struct disk *disk = op->target.disk;
	struct job *job;

	pull->stream.node = disk->chain[0].node;
	pull->stream.base_node = pull->base_node;
	pull->stream.backing_file = pull->backing_file;
	pull->stream.on_error = pull->on_error;
	if (pull->dry_run) {
		pull->stream.job = JOB_ID_PREFIX "...";
		describe(op, pull);
	} else {
		job = start_register(op, "pull", pull->speed);
		job->waits_for_finalize = true;
		job->increment = job->mark = pull->increment;
		job->on_error = pull->on_error ? strdup(pull->on_error) : NULL;
		start_write_down(disk);
		pull->stream.job = job->id;
		qmp_block_stream(disk->domain->link->qmp, &pull->stream, start_answered,
				 call_new(disk, op));
		if (job->mark)
			increment_begin(disk); /* QEMU is at work already */
		start_sent(disk);
	}
	pull_free(pull);
}

static void base_found(struct op *op, long index, void *data)
{
	struct pull *pull = data;
	struct disk *disk;

	if (!op || index < 0 || !start_may(op, needed, count_needed(pull->increment))) {
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
		pull->backing_file = backing_name(disk->chain, 0, (size_t)index);
		start(op, pull);
		return;
	}
	pull_free(pull);
}

/* What is no smaller than the disk is a pull without one. */
static void set_increment(struct pull *pull, const struct disk *disk, const struct word *increment)
{
	if (!increment || (disk->depth && increment->number >= disk->chain[0].size))
		return;
	pull->increment = increment->number;
	pull->stream.speed = increment_first_limit(pull->increment, pull->speed);
}

/* True if its live job is ours and was started with an increment: it may be parked. */
static bool takes_steps(const struct disk *disk)
{
	return disk_is_busy(disk) && disk->job->mark && disk->job->phase == JOB_LIVE &&
	       !disk->job->abort_asked;
}

void disk_pull(struct op *op, const struct command *command)
{
	const struct word *base = command_word(command, "base");
	const struct word *increment = command_word(command, "increment");
	const char *on_error = command_text(command, "on-error");
	struct pull *pull;

	if (increment && !increment->number) {
		op_refuse_at(op, -EINVAL, increment->offset, increment->length,
			     "an increment has at least one byte");
		return;
	}
	if (request_has_started(op))
		return;
	if (takes_steps(op->target.disk)) {
		if (start_may_continue(op, command, needed, NEEDED))
			increment_continue(op, command);
		return;
	}
	if (!start_may_command(op, command, needed, count_needed(increment != NULL)))
		return;
	pull = calloc(1, sizeof(*pull));
	if (!pull)
		abort();
	pull->speed = pull->stream.speed = command_number(command, "bandwidth", 0);
	set_increment(pull, op->target.disk, increment);
	pull->dry_run = command_flag(command, "dry-run");
	pull->on_error = on_error ? strdup(on_error) : NULL;
	if (base)
		disk_find_image(op, base, base_found, pull);
	else
		start(op, pull);
}
