/*
 * One link against the scripted peer: every odd order of greeting, answers, events and silence.
 */
#include "tests/unit/test_qmp_link.h"

/* --- the handshake --- */

Test(qmp_link, handshake)
{
	/* Catches a wrong or missing qmp_capabilities, and commands without an id. */
	static const char greeting[] =
		"{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":";
	static const char command[] = "{\"execute\":\"a\",\"arguments\":{\"n\":5},\"id\":";
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	cr_assert_eq(strncmp(peer_message(owner.peer, 0), greeting, strlen(greeting)), 0);
	cr_assert_eq(qmp_link_peer(owner.link), getpid());
	send_one(&owner, "a", 5);
	until(&owner, "reply5:1 ");
	cr_assert_eq(strncmp(peer_message(owner.peer, 1), command, strlen(command)), 0);
	end(&owner);
}

static bool refuse_arguments(void *data, struct peer *peer, size_t number, const char *command,
			     const struct qmp_value *arguments)
{
	if (!arguments)
		return false;
	peer_reply_error(peer, number, "GenericError", "This monitor does not take it");
	return true;
}

Test(qmp_link, handshake_without_oob)
{
	/* Catches what is asked for and not offered, and a link that gives up when what was offered is not given. */
	static const char plain[] = "{\"execute\":\"qmp_capabilities\",\"id\":";
	static const char *const greetings[] = {
		"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n",
		"{\"QMP\": {\"version\": {}}}\r\n",
		"{\"QMP\": {\"version\": {}, \"capabilities\": [{}, \"oob2\", 7]}}\r\n",
		"{\"QMP\": {\"version\": {}, \"capabilities\": \"oob\"}}\r\n",
		"{\"QMP\": {\"version\": {}, \"capabilities\": [\"x\", \"oob\"]}}\r\n",
	};

	for (size_t i = 0; i < 5; i++) {
		struct owner owner;
		size_t last = i == 4;

		begin(&owner);
		peer_set_greeting(owner.peer, greetings[i]);
		peer_set_hook(owner.peer, refuse_arguments, NULL);
		open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
		until(&owner, "ready ");
		cr_assert_eq(peer_count_of(owner.peer, "qmp_capabilities"), last + 1);
		cr_assert_eq(strncmp(peer_message(owner.peer, last), plain, strlen(plain)), 0);
		end(&owner);
	}
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
		qmp_link_open(&first.loop, &(struct qmp_address){ QMP_UNIX, peer_path(first.peer) },
			      TIMEOUT_MS, &handlers, &second);
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
	expect_end("{\"return\": {}}", "closed:EPROTO ", "it did not greet as a QMP monitor does");
	expect_end("[]", "closed:EPROTO ", "a message is no object");
}

Test(qmp_link, answer_to_the_client_before_us)
{
	/* Catches an end of the link, since QEMU had something left to say to one whose connection has ended. */
	struct owner owner;

	begin(&owner);
	peer_set_greeting(
		owner.peer,
		"{\"return\": [], \"id\": 7}\r\n"
		"{\"return\": []}\r\n"
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 8}\r\n"
		"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "ready ");
	expect_log(&owner, "ready ");
	end(&owner);
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
	usleep(1200000);
	return true;
}

Test(qmp_link, answer_that_waits_in_the_socket_is_no_timeout)
{
	/* Catches a deadline believed before reading, when it was us who were held up (SIGSTOP, a suspended laptop). */
	struct owner owner;

	ready(&owner, 1000);
	peer_set_hook(owner.peer, answer_then_hold_up, NULL);
	send_one(&owner, "slow", 1);
	until(&owner, "reply1");
	expect_log(&owner, "reply1:1 ");
	end(&owner);
}

static void hold_up_in_between(uv_timer_t *timer)
{
	usleep(5000);
	uv_update_time(timer->loop);
}

Test(qmp_link, answer_that_waits_while_other_timers_take_their_time)
{
	/* Catches a second look that comes before anything was read: the loop goes on with timers as long as some are due. */
	struct owner owner;
	uv_timer_t other;

	ready(&owner, 1000);
	uv_timer_init(&owner.loop, &other);
	peer_set_hook(owner.peer, answer_then_hold_up, NULL);
	send_one(&owner, "slow", 1);
	uv_timer_start(&other, hold_up_in_between, 1001, 0);
	until(&owner, "reply1");
	expect_log(&owner, "reply1:1 ");
	uv_close((uv_handle_t *)&other, NULL);
	end(&owner);
}

Test(qmp_link, answer_to_nothing)
{
	/* Catches an answer without a known id that is taken for any command's, or passed over. */
	static const char *const answers[] = {
		"{\"return\": {}, \"id\": \"2\"}",
		"{\"return\": {}, \"id\": 2.0}",
		"{\"return\": {}}",
		"{\"error\": {\"desc\": \"Parse error\"}}",
		"{\"return\": {}, \"id\": [{}]}",
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

/* Answers to the client before us come before ours: to it QEMU owes them longer. */
static bool answer_another_first(void *data, struct peer *peer, size_t number, const char *command,
				 const struct qmp_value *arguments)
{
	char line[64];

	if (strcmp(command, "qmp_capabilities"))
		return false;
	peer_send(peer, "{\"return\": [7]}");
	for (int id = -1; id < 200; id++) {
		snprintf(line, sizeof(line), "{\"return\": {\"n\": 7}, \"id\": %d}", id);
		peer_send(peer, line);
	}
	return false;
}

Test(qmp_link, answer_for_the_client_before_us)
{
	/* Catches the answer to another connection's command, which QEMU may send to us, taken for one of ours or for the end. */
	struct owner owner;

	begin(&owner);
	peer_set_hook(owner.peer, answer_another_first, NULL);
	open_to(&owner, peer_path(owner.peer), TIMEOUT_MS);
	until(&owner, "ready ");
	peer_set_answer(owner.peer, "a", NULL);
	send_one(&owner, "a", 1);
	cr_assert(peer_run_until_command(owner.peer, "a", 1, LONG_MS));
	peer_send(owner.peer, "{\"return\": {\"n\": 7}, \"id\": 4711}");
	peer_reply(owner.peer, peer_last_of(owner.peer, "a"), "{'n': 1}");
	until(&owner, "reply1");
	expect_log(&owner, "ready reply1:1 ");
	end(&owner);
}

/* The id of the command in place @number of the record. */
static long long id_of(const struct peer *peer, size_t number)
{
	return atoll(strstr(peer_message(peer, number), "\"id\":") + 5);
}

Test(qmp_link, numbers_are_short_and_never_shared)
{
	/* Catches commands that QEMU reads for long, and a number that comes again while its first command waits. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	cr_assert_gt(id_of(owner.peer, 0), 1 << 20,
		     "the first number tells us from the client before us");
	peer_set_answer(owner.peer, "slow", NULL);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	send_one(&owner, "slow", 0);
	for (int i = 1; i < 250; i++) {
		owner.log[0] = 0;
		send_one(&owner, "a", i % 90 + 1);
		until(&owner, "reply");
		cr_assert_leq(id_of(owner.peer, (size_t)i + 1), 99);
		cr_assert_neq(id_of(owner.peer, (size_t)i + 1), id_of(owner.peer, 1));
	}
	owner.log[0] = 0;
	peer_reply(owner.peer, 1, "{'n': 5}");
	until(&owner, "reply0:5 ");
	end(&owner);
}

static bool take_brief(void *data, char *text)
{
	struct sent *sent = data;

	note(sent->owner, "brief%d:%s ", sent->number, text);
	return true;
}

static void ask_one(struct owner *owner, int number)
{
	struct sent sent = { owner, number };

	qmp_link_ask(owner->link, "ask", take_brief, on_reply, &sent, sizeof(sent));
}

static bool has_id(const struct peer *peer, size_t number)
{
	return strstr(peer_message(peer, number), "\"id\":");
}

Test(qmp_link, one_question_at_a_time_has_no_number)
{
	/* Catches an answer without a number that is given to another question, or that ends the link. */
	struct owner owner;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "ask", NULL);
	peer_set_answer(owner.peer, "a", NULL);
	ask_one(&owner, 1);
	ask_one(&owner, 2);
	send_one(&owner, "a", 3);
	cr_assert(peer_run_until_command(owner.peer, "a", 1, LONG_MS));
	cr_assert_not(has_id(owner.peer, 1));
	cr_assert(has_id(owner.peer, 2) && has_id(owner.peer, 3));
	peer_send(owner.peer, "{\"return\": [1]}\r\n");
	until(&owner, "brief1");
	ask_one(&owner, 4);
	cr_assert(peer_run_until_command(owner.peer, "ask", 3, LONG_MS));
	cr_assert_not(has_id(owner.peer, 4));
	peer_reply(owner.peer, 3, "{'n': 33}");
	peer_reply(owner.peer, 2, "[2]");
	peer_send(owner.peer, "{\"error\": {\"desc\": \"no\"}}\r\n");
	until(&owner, "reply4");
	expect_log(&owner, "brief1:[1] reply3:33 reply2:-1 reply4:EREMOTEIO ");
	/* From here on an answer without a number would be in doubt. */
	ask_one(&owner, 5);
	cr_assert(peer_run_until_command(owner.peer, "ask", 4, LONG_MS));
	cr_assert(has_id(owner.peer, 5));
	peer_send(owner.peer, "{\"return\": []}\r\n");
	until(&owner, "closed:EPROTO ");
	end(&owner);
}

Test(qmp_link, late_answer_without_a_number)
{
	/* Catches the next question, asked when the first had timed out, taking the first one's answer. */
	struct owner owner;

	ready(&owner, 60);
	peer_set_answer(owner.peer, "ask", NULL);
	ask_one(&owner, 1);
	until(&owner, "reply1:ETIMEDOUT ");
	ask_one(&owner, 2);
	cr_assert(peer_run_until_command(owner.peer, "ask", 2, LONG_MS));
	cr_assert(has_id(owner.peer, 2));
	peer_send(owner.peer, "{\"return\": [1]}\r\n");
	peer_reply(owner.peer, 2, "[2]");
	until(&owner, "reply2");
	expect_log(&owner, "reply1:ETIMEDOUT reply2:-1 ");
	ask_one(&owner, 3);
	cr_assert(peer_run_until_command(owner.peer, "ask", 3, LONG_MS));
	cr_assert_not(has_id(owner.peer, 3));
	end(&owner);
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
	char lines[256];

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "a", NULL);
	for (int i = 1; i <= 3; i++)
		send_one(&owner, "a", i);
	cr_assert(peer_run_until_command(owner.peer, "a", 3, LONG_MS));
	snprintf(lines, sizeof(lines),
		 "{\"error\": 5, \"id\": %lld}{\"error\": {}, \"return\": {}, \"id\": %lld}"
		 "{\"return\": [1], \"id\": %lld, \"more\": null}",
		 id_of(owner.peer, 1), id_of(owner.peer, 2), id_of(owner.peer, 3));
	peer_send(owner.peer, lines);
	until(&owner, "reply3");
	expect_log(&owner, "reply1:EREMOTEIO reply2:EREMOTEIO reply3:-1 ");
	end(&owner);
}
