/*
 * `copy`: mirror the disk to another file. The job becomes ready and waits for `pivot` or `finish`. QEMU makes the file, with the disk's
 * size, unless there is one to be used. Called by fs/ through the row of `copy`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/start.h"

static const enum qmp_feature needed[] = { QMP_HAS_MIRROR, QMP_HAS_MIRROR_DISMISS };
#define NEEDED (sizeof(needed) / sizeof(*needed))

enum {
	GRANULARITY_MIN = 512, /* QEMU's limits: block/mirror.c, blockdev.c */
	GRANULARITY_MAX = 64 << 20,
};

static bool is_power_of_2(int64_t number)
{
	return number > 0 && !(number & (number - 1));
}

/* Refuses @op, and returns false, if the words make no sense for this QEMU. */
static bool check_words(struct op *op, const struct command *command)
{
	struct qmp_features features = op->target.disk->domain->link->features;
	const struct word *dest = command_word(command, "dest"),
			  *granularity = command_word(command, "granularity");
	const struct word *mode = command_word(command, "copy-mode"),
			  *pivot = command_word(command, "pivot");

	if (*dest->text != '/')
		op_refuse_at(op, -EINVAL, dest->offset, dest->length, "dest is an absolute path");
	else if (granularity &&
		 (!is_power_of_2(granularity->number) || granularity->number < GRANULARITY_MIN ||
		  granularity->number > GRANULARITY_MAX))
		op_refuse_at(op, -EINVAL, granularity->offset, granularity->length,
			     "granularity is a power of 2 from 512 to 64M");
	else if (mode && !qmp_has(features, QMP_HAS_MIRROR_COPY_MODE))
		op_refuse_at(op, -EOPNOTSUPP, mode->offset, mode->length,
			     "this QEMU does not know %s",
			     qmp_feature_name(QMP_HAS_MIRROR_COPY_MODE));
	else if (pivot && !qmp_has(features, QMP_HAS_QUERY_STATUS))
		op_refuse_at(op, -EOPNOTSUPP, pivot->offset, pivot->length,
			     "a storage daemon has no device that could go over to another image: "
			     "use `finish`");
	/* Whoever has been given the file to write may still not have files made anywhere. */
	else if (op->by.uid != geteuid() && op->by.uid != 0)
		op_refuse(op, -EPERM, "only the mount's owner may have images made");
	else
		return true;
	return false;
}

static void describe(struct op *op, const struct qmp_mirror *mirror)
{
	char *json = qmp_drive_mirror_text(mirror);

	text_puts(op->answer, mirror->reuse ? "would overwrite " : "would create ");
	text_put_path(op->answer, mirror->target);
	text_printf(op->answer, "\nwould send %s\n", json);
	free(json);
	op_complete(op, 0);
}

/* A copy that is being checked. */
struct copy {
	uv_work_t work;
	struct model *model;
	uint64_t op;
	uint64_t generation;
	struct qmp_mirror mirror; /* its strings are ours */
	size_t offset, length; /* of dest= */
	bool pivot, dry_run;
	bool exists;
};

static char *keep(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void copy_free(struct copy *copy)
{
	free((char *)copy->mirror.target);
	free((char *)copy->mirror.format);
	free((char *)copy->mirror.copy_mode);
	free((char *)copy->mirror.on_error);
	free(copy);
}

/* All has been checked. */
static void start(struct op *op, struct copy *copy)
{
	struct disk *disk = op->target.disk;
	struct job *job;

	copy->mirror.node = disk->chain[0].node;
	if (copy->dry_run) {
		describe(op, &copy->mirror);
		return;
	}
	job = start_register(op, "copy", copy->mirror.speed);
	job->pivot_wanted = copy->pivot;
	copy->mirror.job = job->id;
	qmp_drive_mirror(disk->domain->link->qmp, &copy->mirror, start_answered,
			 call_new(disk, op));
}

/* In the pool: looking at a file may block. */
static void look(uv_work_t *work)
{
	struct copy *copy = work->data;
	struct stat status;

	copy->exists = lstat(copy->mirror.target, &status) == 0;
}

/* QEMU would overwrite whatever is there: only if that was asked for. */
static void looked(uv_work_t *work, int status)
{
	struct copy *copy = work->data;
	struct op *op = op_find(copy->model, copy->op);

	if (op && copy->exists && !copy->mirror.reuse)
		op_refuse_at(op, -EEXIST, copy->offset, copy->length,
			     "%s is there already: name another file, or say reuse to overwrite it",
			     copy->mirror.target);
	else if (op && op->target.disk->generation != copy->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op && start_may(op, needed, NEEDED))
		start(op, copy);
	copy_free(copy);
}

static struct copy *copy_new(const struct op *op, const struct command *command)
{
	const struct word *dest = command_word(command, "dest");
	const char *format = command_text(command, "format");
	struct copy *copy = calloc(1, sizeof(*copy));

	if (!copy)
		abort();
	copy->work.data = copy;
	copy->model = op->target.model;
	copy->op = op->id;
	copy->generation = op->target.disk->generation;
	copy->offset = dest->offset;
	copy->length = dest->length;
	copy->pivot = command_flag(command, "pivot");
	copy->dry_run = command_flag(command, "dry-run");
	copy->mirror = (struct qmp_mirror){
		.job = JOB_ID_PREFIX "copy-...",
		.target = strdup(dest->text),
		.format = strdup(format ? format : op->target.disk->chain[0].format),
		.shallow = command_flag(command, "shallow"),
		.reuse = command_flag(command, "reuse"),
		.copy_mode = keep(command_text(command, "copy-mode")),
		.on_error = keep(command_text(command, "on-error")),
		.speed = command_number(command, "bandwidth", 0),
		.granularity = command_number(command, "granularity", 0),
		.buffer_size = command_number(command, "buf-size", 0),
	};
	return copy;
}

void disk_copy(struct op *op, const struct command *command)
{
	struct copy *copy;

	if (!start_may_command(op, command, needed, NEEDED) || !check_words(op, command))
		return;
	copy = copy_new(op, command);
	if (uv_queue_work(copy->model->loop, &copy->work, look, looked))
		abort(); /* only for a NULL function */
}
