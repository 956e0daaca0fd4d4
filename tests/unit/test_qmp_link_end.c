/*
 * How a link ends, and what it does not let grow, against the scripted peer.
 */
#include "tests/unit/test_qmp_link.h"

Test(qmp_link_end, hang_up_delivers_all_first)
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

Test(qmp_link_end, hang_up_while_we_write)
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

Test(qmp_link_end, close_answers_what_waits)
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

Test(qmp_link_end, close_at_once)
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

Test(qmp_link_end, send_before_ready)
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

Test(qmp_link_end, close_inside_each_callback)
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

Test(qmp_link_end, send_inside_callbacks)
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

Test(qmp_link_end, too_many_commands)
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

Test(qmp_link_end, peer_that_does_not_read)
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

Test(qmp_link_end, nothing_ticks_while_nothing_waits)
{
	/* Catches an idle link that wakes the process up. */
	struct owner owner;
	uv_loop_t *loop = &owner.loop;

	ready(&owner, 50);
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	send_one(&owner, "a", 1);
	until(&owner, "reply1:1 ");
	/* The deadline of what has been answered may strike, once. */
	for (int i = 0; i < 100 && uv_backend_timeout(loop) != -1; i++)
		peer_run_for(loop, 5);
	cr_assert_eq(uv_backend_timeout(loop), -1);
	send_one(&owner, "a", 2);
	until(&owner, "reply2:1 ");
	end(&owner);
}

Test(qmp_link_end, event_storm)
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
