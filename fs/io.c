/*
 * read(2) and write(2). A read at offset 0 takes a snapshot, the following ones go on in it; a write is
 * one command, and its answer is what the same open file reads next. Knows the rows and the model, not
 * FUSE: that is behind struct reply.
 */
#include "fs/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <utlist.h>
#include "jobs/policy.h"

static void give_error(struct reply *reply, int error)
{
	reply_error(reply, error);
	reply_free(reply);
}

/* The part of the content that was asked for; none beyond its end. */
static void give(struct reply *reply, const char *bytes, size_t length)
{
	size_t left = reply->offset < length ? length - (size_t)reply->offset : 0;

	reply_bytes(reply, bytes + (length - left), left < reply->size ? left : reply->size);
	reply_free(reply);
}

static void give_text(struct reply *reply, const struct text *text)
{
	give(reply, text_bytes(text), text_length(text));
}

/* --- reading --- */

/* Takes the snapshot and answers from it. */
static void read_content(struct reply *reply, const struct place *place)
{
	struct open_file *file = open_file_find(&reply->face->files, reply->fh);
	struct text *text = text_new();
	uint64_t version = place_stamp(place)->version;
	const struct text *told =
		reply->cached ? known_told(&reply->face->known, reply->node) : NULL;

	place_show(place, text);
	if (told && text_length(text) > text_length(told)) {
		/* It has become longer since its size was told: rather what was true then than half of what is true now. */
		text_clear(text);
		text_append(text, text_bytes(told), text_length(told));
		version = OPEN_UNSEEN;
	}
	if (file)
		open_file_take_snapshot(file, text, version, reply->size);
	give_text(reply, text);
	if (!file)
		text_free(text); /* closed while it waited */
}

static void read_done(struct op *op, int status, void *data)
{
	struct reply *reply = data;
	struct place place;

	reply->op = NULL;
	face_node_free(reply->face, reply->node);
	if (reply->since)
		DL_DELETE(reply->face->waits, reply);
	if (status < 0)
		give_error(reply, status);
	else if (!node_find(&reply->face->nodes, reply->node, &place))
		give_error(reply, -ENODEV);
	else
		read_content(reply, &place);
}

/* Right after the server was started anew: the op waits until its domain is reached. False: it need not. */
static bool hold(struct op *op, void (*resumed)(struct op *op))
{
	const struct domain *domain = op->target.disk ? op->target.disk->domain : op->target.domain;

	if (!domain || !domain_is_resuming(domain))
		return false;
	op->resumed = resumed;
	return true;
}

static void read_resumed(struct op *op)
{
	disk_refresh(op);
}

/* The files whose content has to be waited for. */
static void read_later(struct reply *reply, const struct place *place, const struct who *who)
{
	struct target target = place_target(place);
	struct op *op = op_new(&target, who, read_done, reply);

	face_node_busy(reply->face, reply->node);
	if (!reply_park(reply, op))
		return;
	if (place->file->flags & FILE_FRESH && place->disk && hold(op, read_resumed))
		return;
	if (place->file->flags & FILE_WAITS) {
		/* The kernel's patience began when it was sent first. */
		reply->since =
			uv_now(place->model->loop) - (uv_hrtime() - reply->arrived_ns) / 1000000;
		DL_APPEND(reply->face->waits, reply);
		disk_wait(op);
	} else if (!place->disk) {
		model_refresh(op);
	} else {
		disk_refresh(op);
	}
}

void io_expire_waits(struct face *face)
{
	uint64_t now = uv_now(face->model->loop);
	struct reply *reply, *next;

	DL_FOREACH_SAFE(face->waits, reply, next)
		if (now - reply->since >= face->wait_limit_ms)
			op_complete(reply->op, 0);
}

static void read_log(struct reply *reply, const struct place *place, struct open_file *file)
{
	struct event_log *log = place_log(place);
	char *bytes = malloc(reply->size + 1);
	unsigned notices;
	size_t length;

	if (!bytes)
		abort();
	notices = file->place.notices;
	length = event_log_read(log, &file->place, reply->offset, bytes, reply->size);
	place->model->metrics.overruns += file->place.notices - notices;
	if (length < reply->size)
		file->seen = place_stamp(place)->version; /* has read to the end */
	reply_bytes(reply, bytes, length);
	reply_free(reply);
	free(bytes);
}

static bool must_wait(const struct place *place)
{
	return place->file->flags & (FILE_FRESH | FILE_WAITS) &&
	       (!place->disk || disk_is_busy(place->disk));
}

void io_read(struct reply *reply)
{
	struct open_files *files = &reply->face->files;
	struct open_file *file = open_file_find(files, reply->fh);
	struct place place;
	const struct text *snapshot;
	const char *answer;
	size_t left;

	if (reply->face->model->stopping) {
		give_error(reply, -ESHUTDOWN);
		return;
	}
	if (file && file->node == reply->node) {
		if (open_file_answers(file, reply->offset, &answer, &left)) {
			reply_bytes(reply, answer, left < reply->size ? left : reply->size);
			reply_free(reply);
			return;
		}
		if (open_file_goes_on(file, reply->offset, &snapshot)) {
			if (snapshot)
				give_text(reply, snapshot);
			else
				give(reply, "", 0);
			return;
		}
	}
	if ((file && file->gone) || !node_find(&reply->face->nodes, reply->node, &place)) {
		give_error(reply, -ENODEV);
		return;
	}
	file = place_is_folder(&place) ? NULL : open_file_adopt(files, reply->fh, &place);
	if (!file)
		give_error(reply, place_is_folder(&place) ? -EISDIR : -EBADF);
	else if (place.file->flags & FILE_LOG)
		read_log(reply, &place, file);
	else if (must_wait(&place))
		read_later(reply, &place, &file->who);
	else
		read_content(reply, &place);
}

/* --- writing --- */

static void write_done(struct op *op, int status, void *data)
{
	struct reply *reply = data;
	struct open_file *file = open_file_find(&reply->face->files, reply->fh);
	uint64_t end = status < 0 ? reply->offset : reply->offset + reply->size;

	reply->op = NULL;
	face_node_free(reply->face, reply->node);
	if (file)
		open_file_set_answer(file, op->answer, end);
	if (status < 0)
		reply_error(reply, status);
	else
		reply_written(reply, reply->size);
	reply_free(reply);
}

/* Why the write cannot be a command, whatever its words; NULL: it can. */
static const char *no_command(const struct open_file *file, const struct reply *reply,
			      const char *bytes)
{
	size_t size = reply->size;

	/* With O_APPEND the kernel makes the offset the file's size. */
	if (file->flags & O_APPEND ? file->writes > 1 : reply->offset > 0)
		return "one write is one command: a second line or a continuation is not carried "
		       "out";
	if (!size)
		return "nothing was written: all defaults are an empty line";
	/* stdio cuts what it writes at its buffer's size: half a command must not be carried out. */
	if (size <= COMMAND_BYTES_MAX && size % 4096 == 0 && bytes[size - 1] != '\n')
		return "cut off at a multiple of 4096 bytes? end the command with a newline";
	return NULL;
}

static void carry_out(struct op *op, const struct file *row)
{
	struct command command;
	struct fault fault;

	if (grammar_parse(row->keys, op->written, op->written_length, &command, &fault) < 0) {
		op_refuse_fault(op, &fault);
		return;
	}
	row->write(op, &command);
	command_clear(&command);
}

static void write_resumed(struct op *op)
{
	const struct reply *reply = op->data;
	struct place place;

	if (!node_find(&reply->face->nodes, reply->node, &place))
		op_complete(op, -ENODEV);
	else
		carry_out(op, place.file);
}

void io_write(struct reply *reply, const char *bytes)
{
	struct open_file *file = open_file_find(&reply->face->files, reply->fh);
	const char *reason;
	struct target target;
	struct place place;
	struct op *op;

	if (file && file->touch) {
		reply_written(reply, reply->size);
		reply_free(reply);
		return;
	}
	if ((file && file->gone) || !node_find(&reply->face->nodes, reply->node, &place)) {
		give_error(reply, -ENODEV);
		return;
	}
	if (place.model->stopping) {
		give_error(reply, -ESHUTDOWN);
		return;
	}
	/* Who opened it decides what is allowed: nobody knows that of an open file of an earlier life. */
	if (!file || file->node != reply->node) {
		give_error(reply, -ESTALE);
		return;
	}
	if (file->adopted || place_is_folder(&place) || !place.file->write) {
		give_error(reply, file->adopted ? -ESTALE : -EACCES);
		return;
	}
	file->writes++;
	target = place_target(&place);
	op = op_new(&target, &file->who, write_done, reply);
	op_set_written(op, bytes, reply->size);
	op->request = reply->request.number;
	op->again = reply->request.again;
	reason = no_command(file, reply, bytes);
	face_node_busy(reply->face, reply->node);
	if (!reply_park(reply, op))
		return;
	if (place.disk && !policy_may(op, place.file->name))
		return;
	if (reason)
		op_refuse(op, -EINVAL, "%s", reason);
	else if (!hold(op, write_resumed))
		carry_out(op, place.file);
}
