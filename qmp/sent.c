/*
 * Commands under way; see sent.h. Called by link.c; must not know when they are sent.
 */
#include "qmp/sent.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

enum {
	ID_SHORTEST_MAX = 9, /* as long as few are waiting */
	ID_SHORT_MAX = 99,
	ID_MAX = 2 * QMP_COMMANDS_MAX,
	ERROR_BYTES = 1024,
};

struct command *command_new(const char *name, qmp_reply_fn reply, void *data)
{
	struct command *command = malloc(sizeof(*command));

	if (!command)
		abort();
	*command = (struct command){ .name = name, .reply = reply, .data = data };
	return command;
}

struct command *sent_question(struct sent *sent, const char *name, qmp_brief_fn brief,
			      qmp_reply_fn reply, const void *data, size_t size)
{
	struct command *command = &sent->question;

	assert(size <= sizeof(command->asker));
	if (command->name)
		command = command_new(name, reply, NULL);
	else
		*command = (struct command){ .name = name, .reply = reply, .lent = true };
	command->brief = brief;
	command->data = memcpy(command->asker, data, size);
	return command;
}

void command_free(struct command *command)
{
	same_free(command->same);
	if (command->lent)
		command->name = NULL;
	else
		free(command);
}

void command_fail(struct command *command, int code, const char *format, ...)
{
	qmp_reply_fn reply = command->reply;
	char text[ERROR_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	command->reply = NULL;
	if (reply)
		reply(command->data, &(struct qmp_error){ code, "", text }, NULL);
}

static void tell_text(const struct command *command)
{
	size_t length;
	const char *text = command->same ? same_noted(command->same, &length) : NULL;

	if (text)
		command->known->came(command->data, text, length);
}

void command_answer(const struct command *command, const struct qmp_value *message)
{
	const struct qmp_value *refusal = qmp_value_get(message, "error");
	struct qmp_error error = {
		.code = -EREMOTEIO,
		.class = qmp_value_text(refusal, "class", ""),
		.text = qmp_value_text(refusal, "desc", "QEMU gives no reason"),
	};

	if (!command->reply)
		return;
	if (refusal) {
		command->reply(command->data, &error, NULL);
		return;
	}
	tell_text(command);
	command->reply(command->data, NULL, qmp_value_get(message, "return"));
}

/* The names of commands are ours: nothing in them needs to be escaped. (printf(3) would be most of the work for a short one.) */
const char *command_line(const struct command *command, struct qmp_value *arguments, size_t *length)
{
	static char *line;
	static size_t room;
	const char *text = arguments ? qmp_value_print(arguments) : "";
	size_t needed = strlen(command->name) + strlen(text) + 80;
	char *at;

	if (needed > room) {
		free(line);
		line = malloc(needed);
		if (!line)
			abort();
		room = needed;
	}
	at = line;
	at = stpcpy(stpcpy(stpcpy(at, "{\"execute\":\""), command->name), "\"");
	if (arguments)
		at = stpcpy(stpcpy(at, ",\"arguments\":"), text);
	if (!command->unnumbered)
		at += sprintf(at, ",\"id\":%" PRIu64, command->id);
	at = stpcpy(at, "}\n");
	*length = (size_t)(at - line);
	return line;
}

/* From the oldest on, which it mostly is. */
static struct command *find_id(const struct sent *sent, uint64_t id)
{
	struct command *command;

	DL_FOREACH2(sent->commands, command, sent_next)
		if (command->id == id)
			return command;
	return NULL;
}

/*
 * QEMU reads commands a byte at a time, some 3 microseconds each (monitor_can_read() in its source): so numbers are short, and used again once
 * they have been answered. The first one, of qmp_capabilities, is another in every life and connection: QEMU may give us the answer to a
 * command of the client before us (seen with 7.2), but since it carries out one command after the other not after that of our first.
 *
 * The question that is asked most, without arguments, goes without a number, which is a fifth of it. One at a time, so that there is no doubt
 * whose answer it is that has none: as long as one is not answered the next has a number.
 */
static uint64_t new_id(struct sent *sent, bool first)
{
	const uint64_t limit = sent->count < ID_SHORTEST_MAX / 2 ? ID_SHORTEST_MAX
			       : sent->count < ID_SHORT_MAX / 2	 ? ID_SHORT_MAX
								 : ID_MAX;
	uint32_t random;

	if (first) {
		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			random = (uint32_t)uv_hrtime();
		return ((uint64_t)random << 20) + ID_MAX + 1;
	}
	do
		sent->last_id = sent->last_id < limit ? sent->last_id + 1 : 1;
	while (find_id(sent, sent->last_id));
	if (sent->highest_id < sent->last_id)
		sent->highest_id = sent->last_id;
	return sent->last_id;
}

void sent_add(struct sent *sent, struct command *command, bool first)
{
	command->id = new_id(sent, first);
	command->unnumbered = command->brief && !sent->unnumbered && !sent->all_numbered;
	if (command->unnumbered)
		sent->unnumbered = command;
	if (command->known)
		command->same = same_new(command->known, command->id);
	DL_APPEND2(sent->commands, command, sent_prev, sent_next);
	sent->count++;
}

void sent_remove(struct sent *sent, struct command *command)
{
	DL_DELETE2(sent->commands, command, sent_prev, sent_next);
	sent->count--;
	if (sent->unnumbered == command)
		sent->unnumbered = NULL;
}

void sent_clear(struct sent *sent)
{
	while (sent->commands) {
		struct command *command = sent->commands;

		sent_remove(sent, command);
		command_free(command);
	}
}

/* --- whose answer it is --- */

struct command *sent_find(const struct sent *sent, const struct qmp_value *message)
{
	const struct qmp_value *id = qmp_value_get(message, "id");
	struct command *command = NULL;

	if (!id)
		return sent->unnumbered;
	if (qmp_value_is_number(id))
		command = find_id(sent, (uint64_t)qmp_value_number(id, NULL, 0));
	return command && !command->unnumbered ? command : NULL;
}

/* True of the answer to a question that went without a number: a list. */
static bool is_unnumbered(const struct qmp_value *message)
{
	return !qmp_value_get(message, "id") && qmp_value_is_list(qmp_value_get(message, "return"));
}

bool sent_is_left_over(const struct qmp_value *message)
{
	return qmp_value_is_number(qmp_value_get(message, "id")) || is_unnumbered(message);
}

bool sent_is_for_another(const struct sent *sent, const struct qmp_value *message)
{
	const struct qmp_value *value = qmp_value_get(message, "id");
	uint64_t id = (uint64_t)qmp_value_number(value, NULL, 0);

	/* Of our own only the first has been sent: then one without a number is nobody's either. */
	if (!sent->highest_id && is_unnumbered(message))
		return true;
	return qmp_value_is_number(value) && (!id || id > sent->highest_id);
}
