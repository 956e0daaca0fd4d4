/*
 * Owns one connection to one QMP monitor: connect, greeting, capabilities, deadlines, late answers, the end.
 * Called by jobs/domain.c and, to send, by command.c, schema.c and layout.c; must not know what commands and events mean.
 *
 * Nothing is freed inside its own callback. A link ends in link_end(), which may be called from anywhere: it stops reading
 * and closes the handles. What is owed is paid in the last handle's close callback: waiting commands, `closed`, memory.
 */
#include "qmp/link.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "qmp/brief.h"
#include "qmp/greeting.h"
#include "qmp/prefetch.h"
#include "qmp/sent.h"

enum {
	/* Commands are small: a peer that leaves so much unread has long stopped to read. */
	UNSENT_BYTES_MAX = 4 << 20,
	REASON_BYTES = 1024,
};

enum link_state {
	LINK_CONNECTING,
	LINK_GREETING, /* connected, nothing has come yet */
	LINK_NEGOTIATING, /* greeted, qmp_capabilities is on its way */
	LINK_READY,
	LINK_ENDED, /* handles are closing */
};

struct qmp_link {
	uv_loop_t *loop;
	struct transport *transport; /* NULL: closed */
	int open; /* timer and transport, until they are closed */
	const struct qmp_link_handlers *handlers;
	void *owner;
	bool let_go; /* the owner wants to hear no more */
	bool oob; /* QEMU was asked to read on while it works */
	enum link_state state;

	struct qmp_reader *reader;
	struct sent sent;
	struct command *waiting; /* of those, oldest first, until answered or timed out */
	struct command *refused; /* never sent */
	unsigned timeout_ms;
	uint64_t busy_ms; /* when to call a silent peer busy, 0: not */
	uint64_t timer_ms; /* when the timer is set to fire, 0: it is not */
	bool second_look; /* the timer has fired already for what is due */
	bool looked; /* and what had come by then is being read */
	uv_timer_t timer;

	int code; /* why it ended */
	char reason[REASON_BYTES];
};

/* --- the end --- */

static void fail_refused(struct qmp_link *link)
{
	while (link->refused) {
		struct command *command = link->refused;

		DL_DELETE(link->refused, command);
		if (command->refusal == -EAGAIN)
			command_fail(command, -EAGAIN, "too many commands wait for an answer");
		else
			command_fail(command, -EHOSTDOWN, "not connected");
		command_free(command);
	}
}

/* For those who count. */
static void tell_answered(const struct qmp_link *link, const struct command *command, bool failed)
{
	if (!link->let_go && link->handlers->answered)
		link->handlers->answered(link->owner, command->name, uv_hrtime() - command->sent_ns,
					 failed);
}

static void fail_all(struct qmp_link *link)
{
	struct command *command;

	while (link->waiting) {
		command = link->waiting;
		DL_DELETE(link->waiting, command);
		tell_answered(link, command, true);
		command_fail(command, -EHOSTDOWN, "%s", link->reason);
	}
	sent_clear(&link->sent);
	fail_refused(link);
}

static void one_closed(struct qmp_link *link)
{
	const struct qmp_link_handlers *handlers = link->handlers;
	void *owner = link->owner;

	if (--link->open)
		return;
	fail_all(link);
	if (!link->let_go)
		link->handlers->closed(link->owner, link->code, link->reason);
	/* The owner might have sent something to the dead link meanwhile: that is owed an answer too. */
	fail_refused(link);
	qmp_reader_free(link->reader);
	free(link);
	if (handlers->gone)
		handlers->gone(owner);
}

static void timer_closed(uv_handle_t *handle)
{
	one_closed(handle->data);
}

static void transport_is_closed(void *owner)
{
	struct qmp_link *link = owner;

	link->transport = NULL;
	one_closed(link);
}

static void link_end(struct qmp_link *link, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void link_end(struct qmp_link *link, int code, const char *format, ...)
{
	va_list args;

	if (link->state == LINK_ENDED)
		return;
	link->state = LINK_ENDED;
	link->code = code;
	va_start(args, format);
	vsnprintf(link->reason, sizeof(link->reason), format, args);
	va_end(args);
	uv_close((uv_handle_t *)&link->timer, timer_closed);
	transport_close(link->transport);
}

/*
 * --- deadlines: one timer, set when something waits. It is not stopped when that is over, nor put off when the next thing waits, as both are
 * done once for each of a thousand questions: it fires once for nothing, and looks again ---
 */

static void timer_fired(uv_timer_t *timer);

static uint64_t next_due_ms(const struct qmp_link *link)
{
	uint64_t due = UINT64_MAX;

	/* All commands have the same time, so the oldest is the first. */
	if (link->waiting)
		due = link->waiting->deadline_ms;
	if (link->busy_ms && link->busy_ms < due)
		due = link->busy_ms;
	if (link->refused)
		due = 0;
	return due;
}

static void arm_timer(struct qmp_link *link)
{
	uint64_t due = next_due_ms(link), now = uv_now(link->loop);

	if (link->state == LINK_ENDED)
		return;
	/* At least 1 ms: a timer that is set to 0 in its own callback fires again before anything is read. */
	if (due > now)
		link->second_look = false;
	else
		due = now + 1;
	if (due == UINT64_MAX || (link->timer_ms && link->timer_ms <= due))
		return;
	link->timer_ms = due;
	uv_timer_start(&link->timer, timer_fired, due - now, 0);
}

static void read_begun(struct qmp_link *link, struct same *same);

static void expire_commands(struct qmp_link *link)
{
	uint64_t now = uv_now(link->loop);

	while (link->waiting && link->waiting->deadline_ms <= now) {
		struct command *command = link->waiting;

		if (command->same)
			read_begun(link, command->same);
		DL_DELETE(link->waiting, command);
		command->timed_out = true;
		tell_answered(link, command, true);
		command_fail(command, -ETIMEDOUT, "no answer to %s within %u.%u s", command->name,
			     link->timeout_ms / 1000, link->timeout_ms % 1000 / 100);
	}
}

static void expire_greeting(struct qmp_link *link)
{
	if (!link->busy_ms || link->busy_ms > uv_now(link->loop))
		return;
	link->busy_ms = 0;
	if (!link->let_go)
		link->handlers->busy(link->owner);
}

/*
 * The loop runs timers before it reads. If this process was held up, the answer may be there already: so what is due is only believed when the
 * timer fires for the second time. Even then, with many timers due, the loop may not have read in between: not as long as there is
 * something to read, unless some has been read since.
 */
static bool is_believed(const struct qmp_link *link)
{
	return link->state != LINK_ENDED && link->second_look &&
	       (link->looked || !transport_has_input(link->transport));
}

static void timer_fired(uv_timer_t *timer)
{
	struct qmp_link *link = timer->data;
	bool believed;

	link->timer_ms = 0;
	fail_refused(link);
	if ((believed = is_believed(link))) {
		expire_greeting(link);
		/* An owner that lets go in a callback still has its commands answered, at the end. */
		if (link->state != LINK_ENDED)
			expire_commands(link);
	}
	if (believed || !link->second_look)
		link->looked = false; /* what becomes due from now on has a first look of its own */
	link->second_look = next_due_ms(link) <= uv_now(timer->loop);
	arm_timer(link);
}

/* --- sending --- */

static void send_now(struct qmp_link *link, struct command *command, struct qmp_value *arguments)
{
	const char *line;
	size_t length;

	/* Time may have passed since the loop last looked at the clock. */
	uv_update_time(link->loop);
	command->deadline_ms = uv_now(link->loop) + link->timeout_ms;
	command->sent_ns = uv_hrtime();
	sent_add(&link->sent, command, link->state == LINK_NEGOTIATING);
	DL_APPEND(link->waiting, command);
	line = command_line(command, arguments, &length);
	qmp_value_free(arguments);
	transport_write(link->transport, line, length);
	arm_timer(link);
	if (transport_unsent(link->transport) > UNSENT_BYTES_MAX)
		link_end(link, -ETIMEDOUT, "it does not take our commands");
}

static void send_command(struct qmp_link *link, struct command *command,
			 struct qmp_value *arguments)
{
	if (link->state == LINK_READY && link->sent.count < QMP_COMMANDS_MAX) {
		send_now(link, command, arguments);
		return;
	}
	qmp_value_free(arguments);
	command->refusal = link->state == LINK_READY ? -EAGAIN : -EHOSTDOWN;
	DL_APPEND(link->refused, command);
	arm_timer(link);
}

void qmp_link_send(struct qmp_link *link, const char *name, struct qmp_value *arguments,
		   qmp_reply_fn reply, void *data)
{
	send_command(link, command_new(name, reply, data), arguments);
}

void qmp_link_ask(struct qmp_link *link, const char *name, qmp_brief_fn brief, qmp_reply_fn reply,
		  const void *data, size_t size)
{
	send_command(link, sent_question(&link->sent, name, brief, reply, data, size), NULL);
}

void qmp_link_ask_known(struct qmp_link *link, const char *name, const struct qmp_known *known,
			qmp_reply_fn reply, void *data)
{
	struct command *command = command_new(name, reply, data);

	command->known = known;
	send_command(link, command, NULL);
}

/* --- what comes in --- */

static void greet_back(struct qmp_link *link, bool oob);

static void capabilities_reply(void *data, const struct qmp_error *error,
			       const struct qmp_value *value)
{
	struct qmp_link *link = data;

	if (link->state != LINK_NEGOTIATING)
		return;
	if (error && error->code == -EREMOTEIO && link->oob) {
		greet_back(link, false);
		return;
	}
	if (error) {
		link_end(link, error->code == -ETIMEDOUT ? -ETIMEDOUT : -EPROTO,
			 "qmp_capabilities: %s", error->text);
		return;
	}
	link->state = LINK_READY;
	if (!link->let_go)
		link->handlers->ready(link->owner);
}

static void greet_back(struct qmp_link *link, bool oob)
{
	link->oob = oob;
	send_now(link, command_new("qmp_capabilities", capabilities_reply, link),
		 greeting_answer(oob));
}

static void take_greeting(struct qmp_link *link, const struct qmp_value *message)
{
	if (sent_is_left_over(message))
		return;
	if (!greeting_is_one(message)) {
		link_end(link, -EPROTO, "it did not greet as a QMP monitor does");
		return;
	}
	link->state = LINK_NEGOTIATING;
	link->busy_ms = 0;
	greet_back(link, greeting_offers_oob(message));
}

/* Before `ready` the owner has asked nothing yet, and what it will ask tells all that an event would. */
static void tell_event(struct qmp_link *link, const struct qmp_event *event)
{
	if (link->state == LINK_READY)
		link->handlers->event(link->owner, event);
}

static void take_event(struct qmp_link *link, const struct qmp_value *message)
{
	struct qmp_event event;

	if (!qmp_value_is_text(qmp_value_get(message, "event"))) {
		link_end(link, -EPROTO, "an event has no name");
		return;
	}
	qmp_event_read(&event, message);
	tell_event(link, &event);
}

/* It has been answered. */
static void command_leave(struct qmp_link *link, struct command *command, bool failed)
{
	sent_remove(&link->sent, command);
	if (command->timed_out)
		return;
	DL_DELETE(link->waiting, command);
	tell_answered(link, command, failed);
}

static void take_answer(struct qmp_link *link, const struct qmp_value *message)
{
	struct command *command = sent_find(&link->sent, message);

	if (!command && sent_is_for_another(&link->sent, message))
		return;
	if (!command) {
		const char *desc = qmp_value_text(qmp_value_get(message, "error"), "desc", NULL);

		/* Without an id QEMU tells that it could not read us, too: there is no knowing which command it has lost. */
		link_end(link, -EPROTO, "an answer to nothing that was asked%s%s", desc ? ": " : "",
			 desc ? desc : "");
		return;
	}
	/* Was it the question that was refused, or has QEMU not been able to read something else? */
	link->sent.all_numbered |= command->unnumbered && qmp_value_get(message, "error");
	command_leave(link, command, qmp_value_get(message, "error"));
	command_answer(command, message);
	command_free(command);
	arm_timer(link);
}

static void take_message(struct qmp_link *link, const struct qmp_value *message)
{
	if (!qmp_value_is_object(message))
		link_end(link, -EPROTO, "a message is no object");
	else if (qmp_value_get(message, "event"))
		take_event(link, message);
	else if (link->state == LINK_GREETING)
		take_greeting(link, message);
	else if (qmp_value_get(message, "return") || qmp_value_get(message, "error"))
		take_answer(link, message);
	else
		link_end(link, -EPROTO, "a message is neither event nor answer");
}

/* An answer that was read without a tree: @text is what QEMU has returned. False: there is more in it than that. */
static bool take_text(struct qmp_link *link, struct command *command, char *text)
{
	if (command->brief && !command->brief(command->data, text))
		return false;
	if (!command->brief && strcmp(text, "{}"))
		return false;
	command_leave(link, command, false);
	if (!command->brief && command->reply)
		command->reply(command->data, NULL, NULL); /* done, and nothing to say */
	command_free(command);
	arm_timer(link);
	return true;
}

/* The answer that is due next, or an event, if it can be read without a tree. Returns how many bytes it is; 0: it cannot. */
static size_t take_brief(struct qmp_link *link, const char *bytes, size_t length)
{
	struct command *command = link->waiting;
	char text[BRIEF_BYTES_MAX];
	struct qmp_event event;
	size_t used;

	/* What is compared (take_known()) may be in the middle of its answer. */
	if (link->state != LINK_READY || !qmp_reader_is_idle(link->reader) ||
	    (command && command->known))
		return 0;
	used = brief_event(bytes, length, text, &event);
	if (used)
		tell_event(link, &event);
	if (used || !command)
		return used;
	used = brief_answer(bytes, length, command->unnumbered ? 0 : command->id, text);
	return used && take_text(link, command, text) ? used : 0;
}

static size_t take_whole(struct qmp_link *link, const char *bytes, size_t length)
{
	bool first = qmp_reader_is_idle(link->reader);
	const char *error = NULL;
	size_t used;
	struct qmp_value *message = qmp_reader_feed(link->reader, bytes, length, &used, &error);

	if (link->waiting && link->waiting->same)
		same_note(link->waiting->same, bytes, used, first);
	if (message)
		take_message(link, message);
	qmp_value_free(message);
	if (error)
		link_end(link, -EPROTO, "%s", error);
	return used;
}

/*
 * What was compared so far is to be read after all: the beginning of an answer that has been read before, and so of one message. Whatever
 * ends before that is none of ours, and @same is not to be freed here.
 */
static void read_begun(struct qmp_link *link, struct same *same)
{
	const char *bytes, *error = NULL;
	size_t length, used;
	bool first = true;

	while ((bytes = same_begun(same, &length)) && length) {
		struct qmp_value *message =
			qmp_reader_feed(link->reader, bytes, length, &used, &error);

		same_note(same, bytes, length, first);
		first = false;
		if (message || error || used < length)
			link_end(link, -EPROTO, "%s",
				 error ? error : "an answer is over before its end");
		qmp_value_free(message);
	}
}

/* The answer that is due next, as long as it is one that has come before. Returns how many bytes of it there are; 0: it is none. */
static size_t take_known(struct qmp_link *link, const char *bytes, size_t length)
{
	struct command *command = link->waiting;
	enum same_state state;
	size_t used;

	if (!command || !command->same || !qmp_reader_is_idle(link->reader))
		return 0;
	used = same_take(command->same, bytes, length, &state);
	if (state == SAME_NOT)
		read_begun(link, command->same);
	if (state == SAME_WHOLE) {
		command_leave(link, command, false);
		command->known->is(command->data, same_number(command->same));
		command_free(command);
		arm_timer(link);
	}
	return used;
}

static void bytes_came(void *owner, const char *bytes, size_t length)
{
	struct qmp_link *link = owner;

	link->looked = true;
	while (length && link->state != LINK_ENDED) {
		size_t used = take_brief(link, bytes, length);

		if (!used)
			used = take_known(link, bytes, length);
		if (!used && link->state != LINK_ENDED)
			used = take_whole(link, bytes, length);
		bytes += used;
		length -= used;
	}
}

static void transport_has_ended(void *owner, int code, const char *reason)
{
	link_end(owner, code, "%s", reason);
}

/* --- the beginning --- */

static void connected(void *owner, unsigned greeting_ms)
{
	struct qmp_link *link = owner;

	if (link->state != LINK_CONNECTING)
		return;
	link->state = LINK_GREETING;
	uv_update_time(link->loop);
	link->busy_ms = uv_now(link->loop) + greeting_ms;
	arm_timer(link);
	if (link->handlers->reached && !link->let_go)
		link->handlers->reached(link->owner);
}

static const struct transport_handlers transport_handlers = {
	.connected = connected,
	.bytes = bytes_came,
	.ended = transport_has_ended,
	.closed = transport_is_closed,
};

struct qmp_link *qmp_link_open(uv_loop_t *loop, const struct qmp_address *address,
			       unsigned timeout_ms, const struct qmp_link_handlers *handlers,
			       void *owner)
{
	struct qmp_link *link = calloc(1, sizeof(*link));

	if (!link)
		abort();
	link->loop = loop;
	link->handlers = handlers;
	link->owner = owner;
	link->timeout_ms = timeout_ms;
	link->reader = qmp_reader_new();
	uv_timer_init(loop, &link->timer);
	link->timer.data = link;
	link->open = 2;
	link->transport = transport_open(loop, address, &transport_handlers, link);
	return link;
}

void qmp_link_close(struct qmp_link *link)
{
	link->let_go = true;
	link_end(link, 0, "the link was closed");
}

void qmp_link_prefetch(const struct qmp_link *link)
{
	prefetch(link, offsetof(struct qmp_link, timer));
}

void qmp_link_prefetch_parts(const struct qmp_link *link)
{
	prefetch(link->reader, 1);
	transport_prefetch(link->transport);
}

pid_t qmp_link_peer(const struct qmp_link *link)
{
	return link->transport ? transport_peer(link->transport) : 0;
}
