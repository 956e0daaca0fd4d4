/*
 * `snapshot`: a new overlay on top of the disk, at once. It is no job: the write returns when the disk stands on the overlay and `chain`
 * shows it. Called by fs/ through the row of `snapshot`.
 */
#include "qmp/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/backing_name.h"
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/image_info.h"
#include "jobs/make_image.h"
#include "jobs/new_file.h"
#include "jobs/request.h"
#include "jobs/start.h"
#include "qmp/value.h"

static const enum qmp_feature on_machine[] = { QMP_HAS_BLOCKDEV_CREATE, QMP_HAS_SNAPSHOT_SYNC };
static const enum qmp_feature on_daemon[] = { QMP_HAS_BLOCKDEV_CREATE, QMP_HAS_BLOCKDEV_ADD,
					      QMP_HAS_SNAPSHOT };

struct snapshot {
	struct model *model;
	uint64_t op, generation; /* who waits, and for which chain */
	char *path, *format, *backing;
	char overlay_node[NODE_NAME_BYTES], file_node[NODE_NAME_BYTES];
	size_t word_offset, word_length; /* of file= */
	bool relative, reuse, dry_run;
	time_t since_s; /* when the file began to be made */
	struct domain *domain; /* while the disk is going over */
	char *disk;
	int code; /* why QEMU has refused that ... */
	char *reason; /* ... while the file is being taken away */
};

static void snapshot_free(struct snapshot *snapshot)
{
	free(snapshot->path);
	free(snapshot->format);
	free(snapshot->backing);
	free(snapshot->disk);
	free(snapshot->reason);
	free(snapshot);
}

static bool may_start(struct op *op)
{
	struct qmp_features features = op->target.disk->domain->link->features;

	return qmp_has(features, QMP_HAS_QUERY_STATUS) ? start_may(op, on_machine, 2)
						       : start_may(op, on_daemon, 3);
}

/* NULL: the op is over, or refused here. */
static struct op *find_op(const struct snapshot *snapshot)
{
	struct op *op = op_find(snapshot->model, snapshot->op);

	if (op && op->target.disk->generation != snapshot->generation) {
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
		return NULL;
	}
	return op && may_start(op) ? op : NULL;
}

static struct qmp_snapshot arguments_of(const struct snapshot *snapshot, const struct disk *disk)
{
	return (struct qmp_snapshot){
		.node = disk->chain[0].node,
		.path = snapshot->path,
		.format = snapshot->format,
		.overlay_node = snapshot->overlay_node,
		.file_node = snapshot->file_node,
	};
}

static void describe(struct op *op, const struct snapshot *snapshot)
{
	const struct disk *disk = op->target.disk;
	struct qmp_snapshot arguments = arguments_of(snapshot, disk);
	char *json = qmp_snapshot_text(disk->domain->link->features, &arguments), *line, *rest;

	text_puts(op->answer, snapshot->reuse ? "would use " : "would create ");
	text_put_path(op->answer, snapshot->path);
	if (!snapshot->reuse) {
		text_puts(op->answer, "\nits header would name ");
		text_put_path(op->answer, snapshot->backing);
	}
	for (line = strtok_r(json, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		text_printf(op->answer, "\nwould send %s", line);
	text_puts(op->answer, "\n");
	free(json);
	op_complete(op, 0);
}

/* --- the disk goes over --- */

static void refuse(struct snapshot *snapshot)
{
	struct op *op = op_find(snapshot->model, snapshot->op);

	if (op)
		op_refuse(op, snapshot->code, "%s", snapshot->reason);
	snapshot_free(snapshot);
}

static void taken_away(void *data)
{
	refuse(data);
}

static void undo(struct snapshot *snapshot, const struct qmp_error *error)
{
	snapshot->code = error->code;
	snapshot->reason = strdup(error->text);
	if (snapshot->reuse)
		refuse(snapshot);
	else
		make_image_undo(snapshot->domain, snapshot->path, snapshot->since_s, taken_away,
				snapshot);
}

static void gone_over(struct disk *disk, const struct snapshot *snapshot)
{
	bool machine = qmp_has(disk->domain->link->features, QMP_HAS_QUERY_STATUS);

	disk_take_overlay(disk,
			  &(struct qmp_image){
				  .node = strdup(snapshot->overlay_node),
				  .filename = strdup(snapshot->path),
				  .path = strdup(snapshot->path),
				  .backing = snapshot->backing ? strdup(snapshot->backing) : NULL,
				  .format = strdup(snapshot->format),
				  .size = disk->chain[0].size,
			  },
			  machine ? NULL : snapshot->file_node);
	domain_sync(disk->domain); /* what QEMU says of it */
}

static void answered(void *data, const struct qmp_error *error)
{
	struct snapshot *snapshot = data;
	struct op *op = op_find(snapshot->model, snapshot->op);
	struct disk *disk = domain_find_disk(snapshot->domain, snapshot->disk);
	bool refused = error && (error->code == -EREMOTEIO || error->code == -EAGAIN);

	/* Not answered: the disk takes no other command before its chain has been read (jobs/inventory.c). */
	if (disk) {
		disk->going_over_sent = false;
		disk->going_over = error && !refused;
	}
	if (refused) {
		undo(snapshot, error);
		return;
	}
	if (disk && !error)
		gone_over(disk, snapshot);
	if (disk && error && error->code == -ETIMEDOUT)
		domain_sync(disk->domain);
	if (op && error) {
		op_refuse(op, error->code, "%s; the snapshot may have been taken: `chain` tells",
			  error->text);
	} else if (op) {
		text_puts(op->answer, "the disk stands on ");
		text_put_path(op->answer, snapshot->path);
		text_puts(op->answer, "\n");
		op_complete(op, 0);
	}
	snapshot_free(snapshot);
}

static void send_it(struct op *op, struct snapshot *snapshot)
{
	struct disk *disk = op->target.disk;
	struct qmp_snapshot arguments = arguments_of(snapshot, disk);

	if (snapshot->reuse)
		request_note(op, qmp_add_text(qmp_object(), "node", snapshot->overlay_node));
	disk->going_over = disk->going_over_sent = true;
	snapshot->disk = strdup(disk->name);
	qmp_snapshot(disk->domain->link->qmp, disk->domain->link->features, &arguments, answered,
		     snapshot);
}

/* --- the image --- */

static void image_made(void *data, const struct qmp_error *error)
{
	struct snapshot *snapshot = data;
	struct op *op = error ? op_find(snapshot->model, snapshot->op) : find_op(snapshot);

	if (op && !error) {
		send_it(op, snapshot);
		return;
	}
	if (op)
		op_refuse(op, error->code, "%s", error->text);
	if (!error)
		make_image_undo(snapshot->domain, snapshot->path, snapshot->since_s, NULL, NULL);
	snapshot_free(snapshot);
}

static void make_it(struct op *op, struct snapshot *snapshot)
{
	struct disk *disk = op->target.disk;
	struct qmp_create image = {
		.path = snapshot->path,
		.format = snapshot->format,
		.size = disk->chain[0].size,
		.backing = snapshot->backing,
		.backing_format = disk->chain[0].format,
	};

	snapshot->since_s = time(NULL);
	new_file_note(op, snapshot->path, snapshot->since_s, snapshot->overlay_node);
	make_image(disk->domain, &image, image_made, snapshot);
}

/*
 * An image that is there must be as QEMU would have made it: of another size the guest's disk would be another one, and with another
 * backing image in its header it would be so at QEMU's next start.
 */
static void info_known(void *data, const struct image_info *info)
{
	struct snapshot *snapshot = data;
	struct op *op = find_op(snapshot);
	const struct disk *disk = op ? op->target.disk : NULL;
	size_t offset = snapshot->word_offset, length = snapshot->word_length;

	if (op && info->complaint)
		op_refuse_at(op, -EINVAL, offset, length, "it cannot be used: %s", info->complaint);
	else if (op && info->size != disk->chain[0].size)
		op_refuse_at(op, -EINVAL, offset, length,
			     "it is of %" PRId64 " bytes, and the disk of %" PRId64, info->size,
			     disk->chain[0].size);
	else if (op && !info->backing_is_expected)
		op_refuse_at(op, -EINVAL, offset, length,
			     "its header must name %s as its backing image, and names %s",
			     disk->chain[0].path, info->backing ? info->backing : "none");
	else if (op) {
		send_it(op, snapshot);
		return;
	}
	snapshot_free(snapshot);
}

/* --- the command --- */

static void file_checked(struct op *op, const char *path, void *data)
{
	struct snapshot *snapshot = data;
	struct disk *disk = op ? op->target.disk : NULL;

	if (!op || !may_start(op)) {
		snapshot_free(snapshot);
		return;
	}
	snapshot->generation = disk->generation;
	snapshot->path = strdup(path);
	snapshot->backing = backing_name_new(disk->chain, 0, path, snapshot->relative);
	if (snapshot->dry_run) {
		describe(op, snapshot);
		snapshot_free(snapshot);
	} else if (snapshot->reuse) {
		image_info_get(snapshot->model, path, snapshot->format, disk->chain[0].path,
			       info_known, snapshot);
	} else {
		make_it(op, snapshot);
	}
}

static struct snapshot *snapshot_new(const struct op *op, const struct command *command)
{
	const struct word *file = command_word(command, "file");
	const char *format = command_text(command, "format");
	struct snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (!snapshot)
		abort();
	snapshot->model = op->target.model;
	snapshot->op = op->id;
	snapshot->domain = op->target.disk->domain;
	snapshot->format = strdup(format ? format : "qcow2");
	snapshot->word_offset = file->offset;
	snapshot->word_length = file->length;
	snapshot->relative = *file->text != '/';
	snapshot->reuse = command_flag(command, "reuse");
	snapshot->dry_run = command_flag(command, "dry-run");
	node_name_new(snapshot->overlay_node, NODE_OF_OVERLAY);
	node_name_new(snapshot->file_node, NODE_OF_FILE);
	return snapshot;
}

/* Refuses @op, and returns false, if the words make no sense. */
static bool check_words(struct op *op, const struct command *command)
{
	const struct disk *disk = op->target.disk;
	const struct word *file = command_word(command, "file"),
			  *format = command_word(command, "format");

	if (format && !strcmp(format->text, "raw"))
		op_refuse_at(op, -EINVAL, format->offset, format->length,
			     "an overlay needs a format that can have a backing image, as qcow2");
	else if (!new_file_may_format(op, format))
		return false;
	else if (!*file->text)
		op_refuse_at(op, -EINVAL, file->offset, file->length, "file is a path");
	else if (*file->text != '/' && *disk->chain[0].path != '/')
		op_refuse_at(op, -EINVAL, file->offset, file->length,
			     "the folder of the active image is not known: name an absolute path");
	else if (command_flag(command, "reuse") && domain_is_remote(disk->domain))
		op_refuse(op, -EOPNOTSUPP,
			  "an image on another host cannot be looked at: let QEMU make it");
	else
		return true;
	return false;
}

static bool is_named(const struct qmp_image *image, const char *node, const char *path)
{
	return (image->node && !strcmp(image->node, node)) || (path && !strcmp(image->path, path));
}

/*
 * True if an earlier life of the server has had the snapshot taken, or if nobody can tell: the op is over then. If QEMU has not come to it, it never will,
 * and what was prepared for it goes.
 */
static bool was_taken(struct op *op)
{
	struct disk *disk = op->target.disk;
	struct domain_link *link = disk->domain->link;
	struct qmp_value *note = request_noted(op);
	const char *node = qmp_value_text(note, "node", NULL),
		   *path = qmp_value_text(note, "file", NULL);
	bool over = false;

	for (size_t i = 0; node && !over && i < disk->depth; i++) {
		over = is_named(&disk->chain[i], node, path);
		if (!over)
			continue;
		text_puts(op->answer, "the disk stands on ");
		text_put_path(op->answer, disk->chain[i].path);
		text_puts(op->answer, "\n");
		op_complete(op, 0);
	}
	if (node && !over && !(link->ready && link->laid_out)) {
		op_refuse(op, -EHOSTDOWN,
			  "blockjobfs was started anew meanwhile, and cannot ask QEMU whether the "
			  "snapshot was "
			  "taken: `chain` tells when the domain is connected");
		over = true;
	}
	qmp_value_free(note);
	return over;
}

void disk_snapshot(struct op *op, const struct command *command)
{
	const struct word *file = command_word(command, "file"),
			  *generation = command_word(command, "generation");
	const struct disk *disk = op->target.disk;
	struct snapshot *snapshot;
	struct word absolute = *file;

	if (was_taken(op) || !may_start(op) || !start_is_generation(op, generation) ||
	    !check_words(op, command))
		return;
	/* A relative name is seen from the active image's folder, as the header's of an image are. */
	if (*file->text != '/' &&
	    asprintf(&absolute.text, "%.*s%s",
		     (int)(strrchr(disk->chain[0].path, '/') + 1 - disk->chain[0].path),
		     disk->chain[0].path, file->text) < 0)
		abort();
	snapshot = snapshot_new(op, command);
	new_file_check(op, &absolute, snapshot->reuse ? snapshot->format : NULL, file_checked,
		       snapshot);
	if (absolute.text != file->text)
		free(absolute.text);
}
