/*
 * One link against the scripted peer: every odd order of greeting, answers, events, silence and hang-up.
 */
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
	char reason[300];
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

static const struct qmp_link_handlers handlers = { on_ready, on_busy, on_event, on_closed };

static void begin(struct owner *owner)
{
	*owner = (struct owner){ .descriptors = peer_open_descriptors() };
	uv_loop_init(&owner->loop);
	owner->peer = peer_new(&owner->loop);
}

static void open_to(struct owner *owner, const char *path, unsigned timeout_ms)
{
	owner->link = qmp_link_open(&owner->loop, path, timeout_ms, &handlers, owner);
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

static void ready(struct owner *owner, unsigned timeout_ms)
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

/* --- the handshake --- */

Test(qmp_link, handshake)
{
	/* Catches a wrong or missing qmp_capabilities, and commands without an id. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	cr_assert_str_eq(peer_message(owner.peer, 0),
			 "{\"execute\":\"qmp_capabilities\",\"id\":1}");
	cr_assert_eq(qmp_link_peer(owner.link), getpid());
	send_one(&owner, "a", 5);
	until(&owner, "reply5:1 ");
	cr_assert_str_eq(peer_message(owner.peer, 1),
			 "{\"execute\":\"a\",\"arguments\":{\"n\":5},\"id\":2}");
	end(&owner);
}

Test(qmp_link, handshake_one_byte_at_a_time)
{
	/* Catches a framing that takes a read for a message. */
	struct owner owner;

	begin(&owner);
	peer_set_pieces(owner.peer, 1);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "ready ");
	send_one(&owner, "a", 5);
	peer_send_event(owner.peer, "STOP", NULL);
	until(&owner, "reply5:1 ");
	expect_log(&owner, "ready event:STOP reply5:1 ");
	end(&owner);
}

Test(qmp_link, no_socket)
{
	/* Catches a connect error told by anything but `closed`, or told inside qmp_link_open(). */
	struct owner owner;

	begin(&owner);
	open_to(&owner, "/nonexistent/qmp.sock", TIMEOUT_MS);
	until(&owner, "closed:ENOENT ");
	expect_log(&owner, "closed:ENOENT ");
	end(&owner);
}

Test(qmp_link, nobody_listens)
{
	/* Catches a socket file left by a dead QEMU taken for a fault of ours. */
	struct owner owner;
	uv_pipe_t dead;
	char path[150];

	begin(&owner);
	snprintf(path, sizeof(path), "%s.dead", peer_path(owner.peer));
	uv_pipe_init(&owner.loop, &dead, 0);
	cr_assert_eq(uv_pipe_bind(&dead, path), 0);
	open_to(&owner, path, TIMEOUT_MS);
	until(&owner, "closed:ECONNREFUSED ");
	uv_close((uv_handle_t *)&dead, NULL);
	peer_run_for(&owner.loop, 1);
	end(&owner);
}

Test(qmp_link, path_too_long)
{
	/* Catches libuv's silent cut, which would connect to another socket. */
	struct owner owner;
	char path[300];

	begin(&owner);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	open_to(&owner, path, TIMEOUT_MS);
	until(&owner, "closed:ENAMETOOLONG ");
	end(&owner);
}

Test(qmp_link, silent_peer_is_busy_then_ready)
{
	/* Catches a hang on a monitor that serves somebody else, and `busy` twice. */
	struct owner first, second;

	ready(&first, TIMEOUT_MS);
	second = (struct owner){ .peer = first.peer };
	second.link =
		qmp_link_open(&first.loop, peer_path(first.peer), TIMEOUT_MS, &handlers, &second);
	peer_run_for(&first.loop, QMP_GREETING_MS * 5 / 2);
	expect_log(&second, "busy ");
	cr_assert_eq(peer_clients(first.peer), 1);
	let_go(&first, true);
	peer_run_for(&first.loop, 100);
	expect_log(&second, "busy ready ");
	expect_log(&first, "");
	let_go(&second, true);
	end(&first);
}

Test(qmp_link, hang_up_on_a_busy_link)
{
	/* Catches a link that waits for ever after `busy`. */
	struct owner owner;

	begin(&owner);
	peer_set_greeting(owner.peer, NULL);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "busy ");
	peer_hang_up(owner.peer);
	until(&owner, "closed:ECONNRESET ");
	expect_log(&owner, "busy closed:ECONNRESET ");
	end(&owner);
}

static void expect_end(const char *greeting, const char *wanted, const char *reason)
{
	struct owner owner;

	begin(&owner);
	peer_set_greeting(owner.peer, greeting);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "closed");
	expect_log(&owner, wanted);
	cr_assert_str_eq(owner.reason, reason);
	end(&owner);
}

Test(qmp_link, not_a_monitor)
{
	/* Catches something else on the socket taken for a monitor. */
	expect_end("SSH-2.0-OpenSSH_9.2\r\n", "closed:EPROTO ", "not JSON");
	expect_end("(qemu) ", "closed:EPROTO ", "not JSON");
	expect_end("{\"hello\": 1}", "closed:EPROTO ", "it did not greet as a QMP monitor does");
	expect_end("{\"QMP\": 1}", "closed:EPROTO ", "it did not greet as a QMP monitor does");
	expect_end("{\"return\": {}, \"id\": 1}", "closed:EPROTO ",
		   "it did not greet as a QMP monitor does");
	expect_end("[]", "closed:EPROTO ", "a message is no object");
}

Test(qmp_link, capabilities_refused)
{
	/* Catches a link that is ready though the monitor has not left negotiation. */
	struct owner owner;

	begin(&owner);
	peer_set_refusal(owner.peer, "qmp_capabilities", "GenericError", "no way");
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "closed:EPROTO ");
	cr_assert_str_eq(owner.reason, "qmp_capabilities: no way");
	end(&owner);
}

Test(qmp_link, capabilities_unanswered)
{
	/* Catches a hang on a QEMU that stops right after its greeting. */
	struct owner owner;

	begin(&owner);
	peer_set_answer(owner.peer, "qmp_capabilities", NULL);
	open_to(&owner, peer_path(owner.peer), 50);
	until(&owner, "closed");
	expect_log(&owner, "closed:ETIMEDOUT ");
	end(&owner);
}

Test(qmp_link, events_around_the_handshake)
{
	/* Catches an event taken for the reply to qmp_capabilities, which is where go-qemu failed. */
	struct owner owner;

	begin(&owner);
	peer_set_answer(owner.peer, "qmp_capabilities", NULL);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	cr_assert(peer_run_until_command(owner.peer, "qmp_capabilities", 1, LONG_MS));
	peer_send_event(owner.peer, "RESUME", NULL);
	peer_reply(owner.peer, 0, "{}");
	peer_send_event(owner.peer, "STOP", NULL);
	until(&owner, "event:STOP ");
	expect_log(&owner, "ready event:STOP ");
	end(&owner);
}

/* --- answers --- */

Test(qmp_link, answers_by_id)
{
	/* Catches answers matched by order, and events taken for answers. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	for (int i = 1; i <= 3; i++)
		peer_set_answer(owner.peer, i == 1 ? "a" : i == 2 ? "b" : "c", NULL);
	send_one(&owner, "a", 1);
	send_one(&owner, "b", 2);
	send_one(&owner, "c", 3);
	cr_assert(peer_run_until_command(owner.peer, "c", 1, LONG_MS));
	peer_send_event(owner.peer, "STOP", NULL);
	peer_reply(owner.peer, 3, "{'n': 33}");
	peer_reply_error(owner.peer, 1, "GenericError", "no");
	peer_send_event(owner.peer, "RESUME", NULL);
	peer_reply(owner.peer, 2, "{'n': 22}");
	until(&owner, "reply2");
	expect_log(&owner, "event:STOP reply3:33 reply1:EREMOTEIO event:RESUME reply2:22 ");
	cr_assert_str_eq(owner.reason, "no");
	end(&owner);
}

Test(qmp_link, late_answer_is_dropped)
{
	/* Catches a late answer given to the next command, or ending the link. */
	struct owner owner;

	ready(&owner, 60);
	peer_set_answer(owner.peer, "slow", NULL);
	peer_set_answer(owner.peer, "quick", "{'n': 2}");
	send_one(&owner, "slow", 1);
	until(&owner, "reply1:ETIMEDOUT ");
	cr_assert_str_eq(owner.reason, "no answer to slow within 0.0 s");
	send_one(&owner, "quick", 2);
	peer_reply(owner.peer, 1, "{'n': 1}");
	until(&owner, "reply2:2 ");
	peer_run_for(&owner.loop, 20);
	expect_log(&owner, "reply1:ETIMEDOUT reply2:2 ");
	/* But only once: a second one is an answer to nothing. */
	peer_reply(owner.peer, 1, "{'n': 1}");
	until(&owner, "closed:EPROTO ");
	end(&owner);
}

Test(qmp_link, deadlines_are_each_commands_own)
{
	/* Catches one timer for all that is pushed on by each new command. */
	struct owner owner;
	uint64_t start;

	ready(&owner, 400);
	peer_set_answer(owner.peer, "slow", NULL);
	peer_set_answer(owner.peer, "quick", "{'n': 2}");
	start = uv_hrtime();
	send_one(&owner, "slow", 1);
	peer_run_for(&owner.loop, 200);
	send_one(&owner, "slow", 2);
	send_one(&owner, "quick", 3);
	until(&owner, "reply1:ETIMEDOUT ");
	cr_assert_lt((uv_hrtime() - start) / 1000000, 590);
	expect_log(&owner, "reply3:2 reply1:ETIMEDOUT ");
	until(&owner, "reply2:ETIMEDOUT ");
	cr_assert_geq((uv_hrtime() - start) / 1000000, 595);
	end(&owner);
}

static bool answer_then_hold_up(void *data, struct peer *peer, size_t number, const char *command,
				const struct qmp_value *arguments)
{
	peer_reply(peer, number, "{'n': 1}");
	/* The answer goes out in the same turn of the loop in which the link's timer is found to be due. */
	usleep(200000);
	return true;
}

Test(qmp_link, answer_that_waits_in_the_socket_is_no_timeout)
{
	/* Catches a deadline believed before reading, when it was us who were held up (SIGSTOP, a suspended laptop). */
	struct owner owner;

	ready(&owner, 100);
	peer_set_hook(owner.peer, answer_then_hold_up, NULL);
	send_one(&owner, "slow", 1);
	until(&owner, "reply1");
	expect_log(&owner, "reply1:1 ");
	end(&owner);
}

Test(qmp_link, answer_to_nothing)
{
	/* Catches an answer without a known id that is taken for any command's, or passed over. */
	static const char *const answers[] = {
		"{\"return\": {}, \"id\": 99}",
		"{\"return\": {}, \"id\": \"2\"}",
		"{\"return\": {}, \"id\": 2.0}",
		"{\"return\": {}, \"id\": -1}",
		"{\"return\": {}}",
		"{\"error\": {\"desc\": \"Parse error\"}}",
		"{\"return\": {}, \"id\": [{}]}",
		"{\"nothing\": {}, \"id\": 2}",
		"{\"event\": {}, \"id\": 2}",
		"3 ",
	};

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct owner owner;

		ready(&owner, TIMEOUT_MS);
		peer_set_answer(owner.peer, "a", NULL);
		send_one(&owner, "a", 1);
		cr_assert(peer_run_until_command(owner.peer, "a", 1, LONG_MS));
		peer_send(owner.peer, answers[i]);
		until(&owner, "closed");
		expect_log(&owner, "reply1:EHOSTDOWN closed:EPROTO ");
		if (strstr(answers[i], "Parse"))
			cr_assert(strstr(owner.reason, "Parse error"));
		end(&owner);
	}
}

Test(qmp_link, rubbish_in_the_middle)
{
	/* Catches a link that goes on after it has lost the stream; what was before is still delivered. */
	struct owner owner;
	char nested[200];

	ready(&owner, TIMEOUT_MS);
	peer_send_event(owner.peer, "STOP", NULL);
	memset(nested, '[', sizeof(nested));
	peer_send(owner.peer, "{\"event\": ");
	peer_send_bytes(owner.peer, nested, sizeof(nested));
	until(&owner, "closed");
	expect_log(&owner, "event:STOP closed:EPROTO ");
	cr_assert_str_eq(owner.reason, "a message is nested deeper than 64 levels");
	end(&owner);
}

Test(qmp_link, odd_answers)
{
	/* Catches a crash on an answer of a strange shape. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", NULL);
	for (int i = 1; i <= 3; i++)
		send_one(&owner, "a", i);
	cr_assert(peer_run_until_command(owner.peer, "a", 3, LONG_MS));
	peer_send(owner.peer, "{\"error\": 5, \"id\": 2}{\"error\": {}, \"return\": {}, \"id\": 3}"
			      "{\"return\": [1], \"id\": 4, \"more\": null}");
	until(&owner, "reply3");
	expect_log(&owner, "reply1:EREMOTEIO reply2:EREMOTEIO reply3:-1 ");
	end(&owner);
}

/* --- the end --- */

Test(qmp_link, hang_up_delivers_all_first)
{
	/* Catches the last event lost, when data and hang-up come together. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", NULL);
	send_one(&owner, "a", 1);
	send_one(&owner, "a", 2);
	cr_assert(peer_run_until_command(owner.peer, "a", 2, LONG_MS));
	peer_reply(owner.peer, 1, "{'n': 11}");
	for (int i = 0; i < 200; i++)
		peer_send_event(owner.peer, "BLOCK_JOB_ERROR", NULL);
	peer_send_event(owner.peer, "SHUTDOWN", NULL);
	peer_hang_up(owner.peer);
	until(&owner, "closed");
	cr_assert(strstr(owner.log,
			 "BLOCK_JOB_ERROR event:SHUTDOWN reply2:EHOSTDOWN closed:ECONNRESET "));
	cr_assert(strstr(owner.log, "reply1:11 "));
	cr_assert_str_eq(owner.reason, "the peer hung up");
	end(&owner);
}

Test(qmp_link, hang_up_while_we_write)
{
	/* Catches a write error that ends the link before what the peer had said is read. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_deaf(owner.peer, true);
	peer_send_event(owner.peer, "SHUTDOWN", NULL);
	peer_hang_up(owner.peer);
	for (int i = 0; i < 3; i++) {
		uv_run(&owner.loop, UV_RUN_NOWAIT);
		if (owner.link)
			send_one(&owner, "a", i);
	}
	until(&owner, "closed");
	cr_assert_eq(strncmp(owner.log, "event:SHUTDOWN ", 15), 0, "%s", owner.log);
	end(&owner);
}

Test(qmp_link, close_answers_what_waits)
{
	/* Catches a command that is never answered, or answered inside qmp_link_close(). */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", NULL);
	send_one(&owner, "a", 1);
	send_one(&owner, "a", 2);
	cr_assert(peer_run_until_command(owner.peer, "a", 2, LONG_MS));
	let_go(&owner, true);
	expect_log(&owner, "");
	peer_run_for(&owner.loop, 10);
	expect_log(&owner, "reply1:EHOSTDOWN reply2:EHOSTDOWN ");
	end(&owner);
}

Test(qmp_link, close_at_once)
{
	/* Catches memory lost or used again when a link goes before it is connected. */
	struct owner owner;

	begin(&owner);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	send_one(&owner, "early", 1);
	let_go(&owner, true);
	peer_run_for(&owner.loop, 10);
	expect_log(&owner, "reply1:EHOSTDOWN ");
	end(&owner);
}

Test(qmp_link, send_before_ready)
{
	/* Catches a command sent to a monitor that is not negotiated. */
	struct owner owner;

	begin(&owner);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	send_one(&owner, "early", 1);
	until(&owner, "reply1:EHOSTDOWN ");
	until(&owner, "ready ");
	cr_assert_eq(peer_count(owner.peer), 1);
	end(&owner);
}

Test(qmp_link, close_inside_each_callback)
{
	/* Catches a link used after its owner let go of it inside a callback of its own. */
	for (int which = 0; which < 5; which++) {
		struct owner owner;

		begin(&owner);
		owner.close_in_ready = which == 0;
		owner.close_in_event = which == 1;
		owner.close_in_reply = which == 2;
		owner.close_in_busy = which == 3;
		owner.close_in_closed = which == 4;
		if (which == 3)
			peer_set_greeting(owner.peer, NULL);
		peer_set_answer(owner.peer, "a", which == 2 ? "{}" : NULL);
		open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
		until(&owner, which == 3 ? "busy " : "ready ");
		if (owner.link) {
			send_one(&owner, "a", 1);
			send_one(&owner, "a", 2);
			peer_send_event(owner.peer, "STOP", NULL);
			peer_send_event(owner.peer, "RESUME", NULL);
			if (which == 4)
				peer_hang_up(owner.peer);
		}
		peer_run_for(&owner.loop, 30);
		expect_log(&owner,
			   which == 0	? "ready "
			   : which == 1 ? "ready event:STOP reply1:EHOSTDOWN reply2:EHOSTDOWN "
			   : which == 2
				   ? "ready event:STOP event:RESUME reply1:-1 reply2:EHOSTDOWN "
			   : which == 3 ? "busy "
					: "ready event:STOP event:RESUME reply1:EHOSTDOWN "
					  "reply2:EHOSTDOWN closed:ECONNRESET ");
		end(&owner);
	}
}

Test(qmp_link, send_inside_callbacks)
{
	/* Catches tables changed under a walk: sending from events, replies, timeouts, the last replies, and `closed`. */
	struct owner owner;

	ready(&owner, 100);
	peer_set_answer(owner.peer, "from-event", "{'n': 70}");
	peer_set_answer(owner.peer, "again", "{'n': 80}");
	peer_set_answer(owner.peer, "slow", NULL);
	owner.send_in_event = true;
	peer_send_event(owner.peer, "STOP", NULL);
	until(&owner, "reply7:70 ");
	owner.send_in_event = false;
	owner.send_in_reply = true;
	send_one(&owner, "again", 1);
	until(&owner, "reply51:80 ");
	owner.send_in_reply = true;
	send_one(&owner, "slow", 2);
	until(&owner, "reply2:ETIMEDOUT reply52:80 ");
	owner.send_in_reply = owner.send_in_closed = true;
	send_one(&owner, "slow", 3);
	peer_hang_up(owner.peer);
	until(&owner, "reply9:EHOSTDOWN ");
	expect_log(&owner,
		   "event:STOP reply7:70 reply1:80 reply51:80 reply2:ETIMEDOUT reply52:80 "
		   "reply3:EHOSTDOWN reply53:EHOSTDOWN closed:ECONNRESET reply9:EHOSTDOWN ");
	end(&owner);
}

/* --- bounds --- */

static void count_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	int *counts = data;

	counts[error ? error->code == -EAGAIN ? 1 : 2 : 0]++;
}

Test(qmp_link, too_many_commands)
{
	/* Catches a table that grows with a QEMU that does not answer; tombstones count. */
	struct owner owner;
	int counts[3] = { 0 };

	ready(&owner, 50);
	peer_set_answer(owner.peer, "slow", NULL);
	for (int i = 0; i < QMP_COMMANDS_MAX + 10; i++)
		qmp_link_send(owner.link, "slow", NULL, count_reply, counts);
	cr_assert_eq(counts[0] + counts[1] + counts[2], 0);
	peer_run_for(&owner.loop, 200);
	cr_assert_eq(counts[1], 10);
	cr_assert_eq(counts[2], QMP_COMMANDS_MAX);
	qmp_link_send(owner.link, "slow", NULL, count_reply, counts);
	qmp_link_send(owner.link, "slow", NULL, NULL, NULL);
	peer_run_for(&owner.loop, 20);
	cr_assert_eq(counts[1], 11);
	peer_reply(owner.peer, 1, "{}");
	peer_run_for(&owner.loop, 20);
	qmp_link_send(owner.link, "slow", NULL, count_reply, counts);
	let_go(&owner, true);
	peer_run_for(&owner.loop, 20);
	cr_assert_eq(counts[2], QMP_COMMANDS_MAX + 1);
	end(&owner);
}

Test(qmp_link, peer_that_does_not_read)
{
	/* Catches output that piles up without end. */
	struct owner owner;
	char text[100001];

	ready(&owner, TIMEOUT_MS);
	peer_set_deaf(owner.peer, true);
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	for (int i = 0; i < 100; i++)
		qmp_link_send(owner.link, "a", qmp_add_text(qmp_object(), "t", text), NULL, NULL);
	expect_log(&owner, "");
	until(&owner, "closed");
	expect_log(&owner, "closed:ETIMEDOUT ");
	cr_assert_str_eq(owner.reason, "it does not take our commands");
	end(&owner);
}

Test(qmp_link, nothing_ticks_while_nothing_waits)
{
	/* Catches an idle link that wakes the process up. */
	struct owner owner;
	uv_loop_t *loop = &owner.loop;

	ready(&owner, 50);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	send_one(&owner, "a", 1);
	until(&owner, "reply1:1 ");
	peer_run_for(loop, 5);
	cr_assert_eq(uv_backend_timeout(loop), -1);
	end(&owner);
}

Test(qmp_link, event_storm)
{
	/* Catches anything that grows or slows down with the number of events. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	for (int i = 0; i < 20000; i++) {
		peer_send_event(owner.peer, "BLOCK_JOB_ERROR",
				"{'device': 'j', 'operation': 'write', 'action': 'report'}");
		if (i % 500 == 0) {
			peer_run_for(&owner.loop, 1);
			owner.log[0] = 0;
		}
	}
	owner.log[0] = 0;
	send_one(&owner, "a", 1);
	owner.wish = "reply1:1";
	for (int i = 0; i < 1000 && !saw_wish(&owner); i++) {
		if (strlen(owner.log) > 10000)
			owner.log[0] = 0;
		uv_run(&owner.loop, UV_RUN_ONCE);
	}
	cr_assert(saw_wish(&owner));
	end(&owner);
}
