/* An owner of one link that writes down what it is told, for the tests of links. */
#ifndef TESTS_TEST_QMP_LINK_H
#define TESTS_TEST_QMP_LINK_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "qmp/link.h"
#include "tests/fake/peer.h"

enum {
	LONG_MS = 5000,
	TIMEOUT_MS = 60000,
};

/* What the owner was told, as one line of text: "ready event:STOP reply:1 closed:ECONNRESET". */
struct owner {
	uv_loop_t loop;
	struct peer *peer;
	struct qmp_link *link;
	char log[16384];
	const char *wish; /* for saw() */
	int descriptors;
	/* what to do inside callbacks */
	bool close_in_ready, close_in_event, close_in_reply, close_in_busy, close_in_closed;
	bool send_in_event, send_in_reply, send_in_closed;
	char reason[1200];
};

/* A command's own number; it is checked that it is answered once. */
struct sent {
	struct owner *owner;
	int number;
};

static struct sent sents[100];

static void note(struct owner *owner, const char *format, ...)
{
	size_t length = strlen(owner->log);
	va_list args;

	va_start(args, format);
	vsnprintf(owner->log + length, sizeof(owner->log) - length, format, args);
	va_end(args);
}

static void send_one(struct owner *owner, const char *command, int number);

static void let_go(struct owner *owner, bool now)
{
	if (!now || !owner->link)
		return;
	qmp_link_close(owner->link);
	owner->link = NULL;
}

static void on_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct sent *sent = data;
	struct owner *owner = sent->owner;

	cr_assert(!error == !!value || !error);
	if (error) {
		cr_assert(error->text && *error->text && error->class);
		note(owner, "reply%d:%s ", sent->number, strerrorname_np(-error->code));
		snprintf(owner->reason, sizeof(owner->reason), "%s", error->text);
	} else {
		note(owner, "reply%d:%ld ", sent->number, (long)qmp_value_number(value, "n", -1));
	}
	if (owner->send_in_reply) {
		owner->send_in_reply = false;
		send_one(owner, "again", sent->number + 50);
	}
	let_go(owner, owner->close_in_reply);
}

static void send_one(struct owner *owner, const char *command, int number)
{
	size_t before = strlen(owner->log);

	sents[number] = (struct sent){ owner, number };
	qmp_link_send(owner->link, command, qmp_add_number(qmp_object(), "n", number), on_reply,
		      &sents[number]);
	cr_assert_eq(strlen(owner->log), before, "a callback inside qmp_link_send()");
}

static void on_ready(void *data)
{
	struct owner *owner = data;

	note(owner, "ready ");
	let_go(owner, owner->close_in_ready);
}

static void on_busy(void *data)
{
	struct owner *owner = data;

	note(owner, "busy ");
	let_go(owner, owner->close_in_busy);
}

static void on_event(void *data, const struct qmp_event *event)
{
	struct owner *owner = data;

	note(owner, "event:%s ", event->name);
	if (owner->send_in_event)
		send_one(owner, "from-event", 7);
	let_go(owner, owner->close_in_event);
}

static void on_closed(void *data, int code, const char *reason)
{
	struct owner *owner = data;

	note(owner, "closed:%s ", strerrorname_np(-code));
	cr_assert(reason && *reason);
	snprintf(owner->reason, sizeof(owner->reason), "%s", reason);
	if (owner->send_in_closed)
		send_one(owner, "too-late", 9);
	let_go(owner, owner->close_in_closed);
	owner->link = NULL;
}

static const struct qmp_link_handlers handlers = {
	.ready = on_ready, .busy = on_busy, .event = on_event, .closed = on_closed
};

static void begin(struct owner *owner)
{
	*owner = (struct owner){ .descriptors = peer_open_descriptors() };
	uv_loop_init(&owner->loop);
	owner->peer = peer_new(&owner->loop);
}

__attribute__((unused)) static void open_at(struct owner *owner, enum qmp_transport transport,
					    const char *where)
{
	owner->link = qmp_link_open(&owner->loop, &(struct qmp_address){ transport, where },
				    TIMEOUT_MS, &handlers, owner);
	cr_assert_str_empty(owner->log, "a callback inside qmp_link_open()");
}

static void open_to(struct owner *owner, const char *path, unsigned timeout_ms)
{
	owner->link = qmp_link_open(&owner->loop, &(struct qmp_address){ QMP_UNIX, path },
				    timeout_ms, &handlers, owner);
	cr_assert_str_empty(owner->log, "a callback inside qmp_link_open()");
}

static bool saw_wish(void *data)
{
	struct owner *owner = data;

	return strstr(owner->log, owner->wish) != NULL;
}

static void until(struct owner *owner, const char *wish)
{
	owner->wish = wish;
	cr_assert(peer_run_until(&owner->loop, saw_wish, owner, LONG_MS), "waited for %s, saw: %s",
		  wish, owner->log);
}

static void expect_log(const struct owner *owner, const char *wanted)
{
	cr_assert_str_eq(owner->log, wanted, "saw: %s", owner->log);
}

__attribute__((unused)) static void ready(struct owner *owner, unsigned timeout_ms)
{
	begin(owner);
	open_to(owner, peer_path(owner->peer), timeout_ms);
	until(owner, "ready ");
	owner->log[0] = 0;
}

/* Everything away; nothing may be left over, in the loop or of descriptors. */
static void end(struct owner *owner)
{
	if (owner->link)
		qmp_link_close(owner->link);
	peer_free(owner->peer);
	cr_assert(peer_run_empty(&owner->loop, LONG_MS), "something is left in the loop");
	cr_assert_eq(uv_loop_close(&owner->loop), 0);
	cr_assert_eq(peer_open_descriptors(), owner->descriptors, "descriptors left open");
}

#endif
