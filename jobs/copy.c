/*
 * `copy`: mirror the disk to another file. The job becomes ready and waits for `pivot` or `finish`. QEMU makes the file, with the disk's
 * size, unless there is one to be used. Called by fs/ through the row of `copy`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/image_info.h"
#include "jobs/job_record.h"
#include "jobs/new_file.h"
#include "jobs/start.h"
#include "jobs/trial.h"

static const enum qmp_feature needed[] = { QMP_HAS_MIRROR, QMP_HAS_MIRROR_DISMISS };
#define NEEDED (sizeof(needed) / sizeof(*needed))

enum {
	GRANULARITY_MIN = 512, /* QEMU's limits: block/mirror.c, blockdev.c */
	GRANULARITY_MAX = 64 << 20,
	GRANULARITY_DEFAULT = 64 << 10, /* at most */
	BUFFER_DEFAULT = 16 << 20,
	REQUEST_MIN = 1 << 20, /* requests are a 16th of the buffer, and no less than this */
	REQUEST_PIECES = 1024, /* of a granularity, at most */
	CLUSTER_MAX = 2 << 20,
};

static bool is_power_of_2(int64_t number)
{
	return number > 0 && !(number & (number - 1));
}

/*
 * QEMU ends by assert(), and the guest with it, when a request that it widens to whole clusters of a copy with a backing image has more
 * pieces than it can take: block/mirror.c, mirror_cow_align(); tried with 7.2 and 10.0. So it must have room for the widest.
 */
static bool is_deadly(const struct command *command)
{
	int64_t granularity = command_number(command, "granularity", GRANULARITY_DEFAULT);
	int64_t buffer = command_number(command, "buf-size", 0);
	int64_t request = (buffer ? buffer : BUFFER_DEFAULT) / 16;

	if (!command_flag(command, "shallow") && !command_flag(command, "reuse"))
		return false; /* its header names no backing image */
	if (request < REQUEST_MIN)
		request = REQUEST_MIN;
	return granularity < CLUSTER_MAX &&
	       granularity * REQUEST_PIECES < request + 2 * CLUSTER_MAX;
}

/* Refuses @op, and returns false, if the words make no sense for this QEMU. */
static bool check_words(struct op *op, const struct command *command)
{
	struct qmp_features features = op->target.disk->domain->link->features;
	const struct word *granularity = command_word(command, "granularity");
	const struct word *mode = command_word(command, "copy-mode"),
			  *pivot = command_word(command, "pivot");

	if (granularity &&
	    (!is_power_of_2(granularity->number) || granularity->number < GRANULARITY_MIN ||
	     granularity->number > GRANULARITY_MAX))
		op_refuse_at(op, -EINVAL, granularity->offset, granularity->length,
			     "granularity is a power of 2 from 512 to 64M");
	else if (is_deadly(command))
		op_refuse(
			op, -EINVAL,
			"QEMU could crash: with shallow or reuse a granularity of 8K or more goes "
			"with a buf-size up to 64M, one of 64K with up to 512M");
	else if (mode && !qmp_has(features, QMP_HAS_MIRROR_COPY_MODE))
		op_refuse_at(op, -EOPNOTSUPP, mode->offset, mode->length,
			     "this QEMU does not know %s",
			     qmp_feature_name(QMP_HAS_MIRROR_COPY_MODE));
	/*
	 * The copy has no backing image before the pivot. What the guest writes goes to it at once, and where that is less than a cluster
	 * the rest of the cluster would stay zeros: tried with QEMU 7.2 and 10.0.
	 */
	else if (mode && !strcmp(mode->text, "write-blocking") && command_flag(command, "shallow"))
		op_refuse_at(op, -EINVAL, mode->offset, mode->length,
			     "with shallow QEMU would spoil what is beside the guest's writes: "
			     "leave one of them out");
	else if (pivot && !qmp_has(features, QMP_HAS_QUERY_STATUS))
		op_refuse_at(op, -EOPNOTSUPP, pivot->offset, pivot->length,
			     "a storage daemon has no device that could go over to another image: "
			     "use `finish`");
	else
		return new_file_may_format(op, command_word(command, "format"));
	return false;
}

/* @pivot: the disk is to go over to the copy, which stands on what is below the active image if it is a shallow one. */
static void describe(struct op *op, const struct qmp_mirror *mirror, bool pivot)
{
	const struct disk *disk = op->target.disk;
	size_t dropped = !pivot ? 0 : mirror->shallow && disk->depth ? 1 : disk->depth;
	char *json = qmp_drive_mirror_text(mirror);

	text_puts(op->answer, mirror->reuse ? "would overwrite " : "would create ");
	text_put_path(op->answer, mirror->target);
	text_puts(op->answer, "\n");
	for (size_t i = 0; i < dropped; i++) {
		text_puts(op->answer, "would drop ");
		text_put_path(op->answer, disk->chain[i].path);
		text_puts(op->answer, "\n");
	}
	text_printf(op->answer, "would send %s\n", json);
	if (pivot)
		text_puts(op->answer, "would send job-complete when it is ready\n");
	free(json);
	op_complete(op, 0);
}

/* A copy that is being checked. */
struct copy {
	struct qmp_mirror mirror; /* its strings are ours */
	bool pivot, dry_run;
	struct model *model;
	uint64_t op, generation; /* who waits, and for which chain */
	size_t word_offset, word_length; /* of dest= */
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
		describe(op, &copy->mirror, copy->pivot);
		return;
	}
	job = start_register(op, "copy", copy->mirror.speed);
	job->pivot_wanted = copy->pivot;
	job->dest = strdup(copy->mirror.target);
	job->dest_format = strdup(copy->mirror.format);
	job->made_s = copy->mirror.reuse ? 0 : time(NULL);
	if (job->made_s)
		new_file_note(op, job->dest, job->made_s, NULL);
	job->trial = true;
	start_write_down(disk);
	copy->mirror.job = job->id;
	qmp_drive_mirror(disk->domain->link->qmp, &copy->mirror, trial_answered,
			 call_new(disk, op));
	start_sent(disk);
}

/* QEMU would see it too, but when the job has begun. What cannot be told from here is left to it. */
static void info_known(void *data, const struct image_info *info)
{
	struct copy *copy = data;
	struct op *op = op_find(copy->model, copy->op);
	const struct disk *disk = op ? op->target.disk : NULL;

	if (op && disk->generation != copy->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op && !info->complaint && info->size >= 0 && info->size != disk->chain[0].size)
		op_refuse_at(op, -EINVAL, copy->word_offset, copy->word_length,
			     "its size is %lld bytes, and the disk's %lld", (long long)info->size,
			     (long long)disk->chain[0].size);
	else if (op && start_may(op, needed, NEEDED))
		start(op, copy);
	copy_free(copy);
}

static void file_checked(struct op *op, const char *path, void *data)
{
	struct copy *copy = data;

	if (!op || !start_may(op, needed, NEEDED)) {
		copy_free(copy);
		return;
	}
	copy->generation = op->target.disk->generation;
	copy->mirror.target = strdup(path);
	if (copy->mirror.reuse && !domain_is_remote(op->target.disk->domain)) {
		image_info_get(copy->model, path, copy->mirror.format, NULL, info_known, copy);
		return;
	}
	start(op, copy);
	copy_free(copy);
}

static struct copy *copy_new(const struct op *op, const struct command *command)
{
	const char *format = command_text(command, "format");
	struct copy *copy = calloc(1, sizeof(*copy));

	if (!copy)
		abort();
	copy->model = op->target.model;
	copy->op = op->id;
	copy->word_offset = command_word(command, "dest")->offset;
	copy->word_length = command_word(command, "dest")->length;
	copy->pivot = command_flag(command, "pivot");
	copy->dry_run = command_flag(command, "dry-run");
	copy->mirror = (struct qmp_mirror){
		.job = JOB_ID_PREFIX "...",
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
	new_file_check(op, command_word(command, "dest"),
		       copy->mirror.reuse ? copy->mirror.format : NULL, file_checked, copy);
}
