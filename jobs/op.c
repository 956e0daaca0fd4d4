/*
 * Operations in flight: one completion each. Made by fs/ for every read and write that may wait; completed by whoever in jobs/ comes
 * first. Records refusals in `error` and as an event, so that no command can forget to.
 */
#include "jobs/op.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/events.h"
#include "jobs/grammar.h"
#include "jobs/model.h"
#include "jobs/request.h"
#include "jobs/resume.h"

static struct op **op_list(const struct target *target)
{
	if (target->disk)
		return &target->disk->ops;
	return target->domain ? &target->domain->ops : &target->model->ops;
}

struct op *op_new(const struct target *target, const struct who *by, op_done_fn done, void *data)
{
	struct op *op = calloc(1, sizeof(*op));
	struct op **list;

	if (!op)
		abort();
	op->target = *target;
	op->by = *by;
	op->done = done;
	op->data = data;
	op->answer = text_new();
	op->id = ++target->model->last_op;
	list = op_list(target);
	DL_APPEND(*list, op);
	HASH_ADD(hh, target->model->ops_by_id, id, sizeof(op->id), op);
	return op;
}

void op_set_written(struct op *op, const char *bytes, size_t length)
{
	op->written = malloc(length + 1);
	if (!op->written)
		abort();
	memcpy(op->written, bytes, length);
	op->written[length] = 0;
	op->written_length = length;
}

struct op *op_find(struct model *model, uint64_t id)
{
	struct op *op;

	HASH_FIND(hh, model->ops_by_id, &id, sizeof(id), op);
	return op;
}

/* Sets the target's `error`; NULL or "" empties it. The mount itself has no such file. */
static void set_error(const struct target *target, const char *error)
{
	char **kept = target->disk     ? &target->disk->error
		      : target->domain ? &target->domain->error
				       : NULL;

	if (!kept || (!*kept && !error))
		return;
	free(*kept);
	*kept = error ? strdup(error) : NULL;
	resume_keep_error(target);
	if (target->disk)
		disk_changed(target->disk, TOPIC_ERROR);
	else
		domain_changed(target->domain, TOPIC_ERROR);
}

/* The one way out. */
static void op_end(struct op *op, int status)
{
	struct op **list = op_list(&op->target);

	assert(!op->completed);
	op->completed = true;
	DL_DELETE(*list, op);
	HASH_DEL(op->target.model->ops_by_id, op);
	if (op->done)
		op->done(op, status, op->data);
	request_over(op);
	text_free(op->answer);
	free(op->written);
	free(op);
}

void op_complete(struct op *op, int status)
{
	if (op->written && status == 0)
		set_error(&op->target, NULL);
	op_end(op, status);
}

enum {
	WRITTEN_MAX = 1024, /* bytes of the command that are kept in `error` */
};

/* What was written, as it stands in `error`: one line, fit for a terminal, not endless. */
static void put_written(struct text *out, const struct op *op)
{
	size_t length = op->written_length;

	if (length && op->written[length - 1] == '\n')
		length--;
	text_put_safe(out, op->written, length < WRITTEN_MAX ? length : WRITTEN_MAX);
	text_puts(out, length > WRITTEN_MAX ? "...\n" : "\n");
}

/* How many columns a part of the command takes in put_written(). */
static size_t written_width(const struct op *op, size_t offset, size_t bytes)
{
	struct text *shown = text_new();
	size_t width = 0;

	if (offset < op->written_length)
		text_put_safe(shown, op->written + offset,
			      bytes < op->written_length - offset ? bytes
								  : op->written_length - offset);
	for (const char *at = text_bytes(shown); *at; at++)
		width += ((unsigned char)*at & 0xc0) !=
			 0x80; /* a character of several bytes is one column */
	text_free(shown);
	return width;
}

static void put_caret(struct text *out, const struct op *op, size_t offset, size_t length)
{
	size_t width = written_width(op, offset, length);

	for (size_t column = written_width(op, 0, offset); column; column--)
		text_puts(out, " ");
	do
		text_puts(out, "^");
	while (width-- > 1);
	text_puts(out, "\n");
}

static void refuse(struct op *op, int error, size_t offset, size_t length, const char *unsafe)
{
	const char *name = strerrorname_np(-error);
	struct text *safe = text_new();
	const char *reason;

	text_put_safe(safe, unsafe, strlen(unsafe));
	reason = text_bytes(safe);

	text_clear(op->answer);
	if (op->written) {
		put_written(op->answer, op);
		if (length && offset < WRITTEN_MAX)
			put_caret(op->answer, op, offset, length);
	}
	text_printf(op->answer, "%s: %s\n", name ? name : "error", reason);
	if (op->written) {
		set_error(&op->target, text_bytes(op->answer));
		event_refused(&op->target, &op->by, name ? name : "error", reason);
	}
	text_free(safe);
	op_end(op, error);
}

static void vrefuse(struct op *op, int error, size_t offset, size_t length, const char *format,
		    va_list arguments)
{
	char *reason = NULL;

	if (vasprintf(&reason, format, arguments) < 0)
		abort();
	refuse(op, error, offset, length, reason);
	free(reason);
}

void op_refuse(struct op *op, int error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vrefuse(op, error, 0, 0, format, arguments);
	va_end(arguments);
}

void op_refuse_at(struct op *op, int error, size_t offset, size_t length, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vrefuse(op, error, offset, length, format, arguments);
	va_end(arguments);
}

void op_refuse_fault(struct op *op, const struct fault *fault)
{
	refuse(op, fault->error, fault->offset, fault->length, fault->reason);
}

void op_interrupt(struct op *op)
{
	op_end(op, -EINTR);
}

void op_list_end(struct op **list, int error, const char *reason)
{
	while (*list)
		op_refuse(*list, error, "%s", reason);
}
