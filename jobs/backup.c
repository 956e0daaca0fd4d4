/*
 * `backup`: a copy of the disk as it is when the job starts, while the guest goes on. QEMU makes the file, and opens it for the job and
 * closes it with the job: nothing of it is left in QEMU at the end, nor when the daemon dies in between. That is what drive-backup
 * does, and blockdev-backup does not. Called by fs/ through the row of `backup`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/backing_name.h"
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/job_record.h"
#include "jobs/make_image.h"
#include "jobs/new_file.h"
#include "jobs/start.h"

static const enum qmp_feature needed[] = { QMP_HAS_BACKUP, QMP_HAS_BACKUP_FINALIZE,
					   QMP_HAS_BLOCKDEV_CREATE };
#define NEEDED (sizeof(needed) / sizeof(*needed))

struct backup {
	struct qmp_backup arguments; /* its strings are ours */
	size_t bitmap_offset, bitmap_length; /* of its word */
	bool dry_run;
	struct model *model;
	struct domain *domain;
	uint64_t op, generation; /* who waits, and for which chain */
	char target_node[NODE_NAME_BYTES];
	time_t since_s; /* when the file began to be made */
	struct call *call; /* of the start command */
	int code; /* why QEMU has refused that ... */
	char *reason; /* ... while the file is being taken away */
};

static bool is_partial(const char *sync)
{
	return !strcmp(sync, "incremental") || !strcmp(sync, "bitmap");
}

static const char *format_of(const struct disk *disk, const struct command *command)
{
	const char *format = command_text(command, "format");

	return format ? format : disk->chain[0].format;
}

/* Refuses @op, and returns false, if the words make no sense for this QEMU. */
static bool check_words(struct op *op, const struct command *command)
{
	struct qmp_features features = op->target.disk->domain->link->features;
	const struct word *sync = command_word(command, "sync"),
			  *bitmap = command_word(command, "bitmap");
	bool partial = sync && is_partial(sync->text);

	if (partial && !bitmap)
		op_refuse_at(op, -EINVAL, sync->offset, sync->length,
			     "sync=%s needs bitmap=, the name of a dirty bitmap", sync->text);
	else if (bitmap && !partial)
		op_refuse_at(op, -EINVAL, bitmap->offset, bitmap->length,
			     "bitmap= is for sync=incremental and sync=bitmap");
	else if (sync && strcmp(sync->text, "full") &&
		 !strcmp(format_of(op->target.disk, command), "raw"))
		op_refuse_at(op, -EINVAL, sync->offset, sync->length,
			     "raw cannot tell what is not in it: name another format=, as qcow2");
	else if (partial && (!qmp_has(features, QMP_HAS_BACKUP_BITMAP) ||
			     !qmp_has(features, QMP_HAS_BACKUP_PROBE)))
		op_refuse_at(op, -EOPNOTSUPP, sync->offset, sync->length,
			     "this QEMU does not know %s", qmp_feature_name(QMP_HAS_BACKUP_PROBE));
	else
		return new_file_may_format(op, command_word(command, "format"));
	return false;
}

static void describe(struct op *op, const struct qmp_backup *arguments)
{
	char *json = qmp_drive_backup_text(arguments);

	text_puts(op->answer, "would create ");
	text_put_path(op->answer, arguments->target);
	text_printf(op->answer, "\nwould send %s\n", json);
	free(json);
	op_complete(op, 0);
}

static char *keep(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void backup_free(struct backup *backup)
{
	free((char *)backup->arguments.node);
	free((char *)backup->arguments.target);
	free((char *)backup->arguments.format);
	free((char *)backup->arguments.sync);
	free((char *)backup->arguments.bitmap);
	free((char *)backup->arguments.on_error);
	free(backup->reason);
	free(backup);
}

/* NULL: the op is over, or refused here. */
static struct op *find_op(const struct backup *backup)
{
	struct op *op = op_find(backup->model, backup->op);

	if (op && op->target.disk->generation != backup->generation) {
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
		return NULL;
	}
	return op && start_may(op, needed, NEEDED) ? op : NULL;
}

/* --- the job --- */

static void refused(void *data)
{
	struct backup *backup = data;
	struct qmp_error error = { backup->code, "", backup->reason };

	start_answered(backup->call, &error);
	backup_free(backup);
}

/* What was made for a job that there will not be goes, before anybody is told. */
static void answered(void *data, const struct qmp_error *error)
{
	struct backup *backup = data;

	if (error && (error->code == -EREMOTEIO || error->code == -EAGAIN)) {
		backup->code = error->code;
		backup->reason = strdup(error->text);
		make_image_undo(backup->domain, backup->arguments.target, backup->since_s, refused,
				backup);
		return;
	}
	start_answered(backup->call, error);
	backup_free(backup);
}

static void image_made(void *data, const struct qmp_error *error)
{
	struct backup *backup = data;
	struct op *op = op_find(backup->model, backup->op);
	struct disk *disk;
	struct job *job;

	if (op && error)
		op_refuse(op, error->code, "%s", error->text);
	else if (!error)
		op = find_op(backup);
	if (!op || error) {
		if (!error)
			make_image_undo(backup->domain, backup->arguments.target, backup->since_s,
					NULL, NULL);
		backup_free(backup);
		return;
	}
	disk = op->target.disk;
	job = start_register(op, "backup", backup->arguments.speed);
	job->waits_for_finalize = true;
	job->dest = strdup(backup->arguments.target);
	job->dest_format = strdup(backup->arguments.format);
	start_write_down(disk);
	backup->arguments.job = job->id;
	backup->arguments.target_node = backup->target_node;
	node_name_new(backup->target_node, NODE_OF_TARGET);
	backup->call = call_new(disk, op);
	qmp_drive_backup(disk->domain->link->qmp, &backup->arguments, answered, backup);
	start_sent(disk);
}

/* All has been checked. Takes @backup. */
static void start(struct op *op, struct backup *backup)
{
	struct disk *disk = op->target.disk;
	const char *sync = backup->arguments.sync;
	size_t below = !strcmp(sync, "top") ? 1 : !strcmp(sync, "none") ? 0 : disk->depth;
	struct qmp_create image = {
		.path = backup->arguments.target,
		.format = backup->arguments.format,
		.size = disk->chain[0].size,
	};

	if (backup->dry_run) {
		describe(op, &backup->arguments);
		backup_free(backup);
		return;
	}
	if (below < disk->depth) {
		image.backing = backing_name_new(disk->chain, below, image.path, false);
		image.backing_format = disk->chain[below].format;
	}
	backup->since_s = time(NULL);
	new_file_note(op, image.path, backup->since_s, NULL);
	make_image(disk->domain, &image, image_made, backup);
	free((char *)image.backing);
}

/* --- the bitmap --- */

static void probed(void *data, const struct qmp_error *error)
{
	struct backup *backup = data;
	struct op *op = op_find(backup->model, backup->op);

	if (op && error && error->code == -EREMOTEIO)
		op_refuse_at(op, -ENOENT, backup->bitmap_offset, backup->bitmap_length,
			     "the bitmap cannot be used: %s", error->text);
	else if (op && error)
		op_refuse(op, error->code, "%s", error->text);
	else if (op && (op = find_op(backup))) {
		start(op, backup);
		return;
	}
	backup_free(backup);
}

/* --- the command --- */

static void file_checked(struct op *op, const char *path, void *data)
{
	struct backup *backup = data;

	if (!op || !start_may(op, needed, NEEDED)) {
		backup_free(backup);
		return;
	}
	backup->arguments.target = strdup(path);
	backup->arguments.node = strdup(op->target.disk->chain[0].node);
	backup->generation = op->target.disk->generation;
	if (backup->arguments.bitmap)
		qmp_backup_probe(op->target.disk->domain->link->qmp, &backup->arguments, probed,
				 backup);
	else
		start(op, backup);
}

static struct backup *backup_new(const struct op *op, const struct command *command)
{
	const char *sync = command_text(command, "sync");
	const struct word *bitmap = command_word(command, "bitmap");
	struct backup *backup = calloc(1, sizeof(*backup));

	if (!backup)
		abort();
	backup->dry_run = command_flag(command, "dry-run");
	backup->model = op->target.model;
	backup->op = op->id;
	backup->domain = op->target.disk->domain;
	backup->bitmap_offset = bitmap ? bitmap->offset : 0;
	backup->bitmap_length = bitmap ? bitmap->length : 0;
	backup->arguments = (struct qmp_backup){
		.job = JOB_ID_PREFIX "...",
		.target_node = "...",
		.format = strdup(format_of(op->target.disk, command)),
		.sync = strdup(sync ? sync : "full"),
		.bitmap = keep(command_text(command, "bitmap")),
		.on_error = keep(command_text(command, "on-error")),
		.speed = command_number(command, "bandwidth", 0),
	};
	return backup;
}

void disk_backup(struct op *op, const struct command *command)
{
	if (!start_may_command(op, command, needed, NEEDED) || !check_words(op, command))
		return;
	new_file_check(op, command_word(command, "dest"), NULL, file_checked,
		       backup_new(op, command));
}
