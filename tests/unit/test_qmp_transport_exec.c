/*
 * Links over a command: commands that work, and every way in which one does not.
 */
#include <signal.h>
#include <sys/resource.h>
#include "tests/unit/test_qmp_transport.h"

/* Runs until the link is over, and checks the reason. */
static void expect_end(const char *command, const char *code, const char *reason)
{
	struct owner owner;
	char wanted[64];

	begin_alone(&owner);
	open_at(&owner, QMP_EXEC, command);
	snprintf(wanted, sizeof(wanted), "closed:%s ", code);
	until(&owner, wanted);
	expect_log(&owner, wanted);
	cr_assert_str_eq(owner.reason, reason, "%s", owner.reason);
	end_alone(&owner);
}

/* A link over socat to the scripted peer, and what the shell is to do before. */
static void ready_behind(struct owner *owner, const char *before)
{
	char command[600];

	begin(owner);
	snprintf(command, sizeof(command), "%s exec socat - UNIX:%s", before,
		 peer_path(owner->peer));
	open_at(owner, QMP_EXEC, command);
	until(owner, "ready ");
	owner->log[0] = 0;
}

/* "98765.4321" : a time to sleep, that no other process sleeps. */
static const char *marker(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "98765.%d", getpid());
	return text;
}

static void expect_nobody(const char *text)
{
	for (int i = 0; i < 50 && processes(text); i++)
		usleep(10000);
	cr_assert_eq(processes(text), 0, "a process is left over");
}

Test(qmp_exec, talks)
{
	/* Catches bytes lost at either end, and what came before the end that is told after it. */
	struct owner owner;

	ready_behind(&owner, "");
	cr_assert_eq(qmp_link_peer(owner.link), 0, "the peer is no QEMU");
	peer_set_answer(owner.peer, "a", "{'n': 11}");
	send_one(&owner, "a", 1);
	until(&owner, "reply1:11 ");
	for (int i = 0; i < 1000; i++)
		peer_send_event(owner.peer, "STOP", NULL);
	peer_send_event(owner.peer, "SHUTDOWN", NULL);
	peer_hang_up(owner.peer);
	until(&owner, "event:SHUTDOWN closed:ECONNRESET ");
	cr_assert(strstr(owner.reason, " ended with status 0"), "%s", owner.reason);
	end(&owner);
	expect_nobody("/qmp-peer-");
}

Test(qmp_exec, ends)
{
	/* Catches an end without its reason. */
	expect_end("exit 3", "ECONNRESET", "exit 3 ended with status 3");
	expect_end("kill -9 $$", "ECONNRESET", "kill -9 $$ was killed by signal 9");
	expect_end("echo one >&2; echo two >&2; exit 3", "ECONNRESET",
		   "echo one >&2; echo two >&2; exit 3 ended with status 3: one two");
	expect_end("exec 2>&-; exit 1", "ECONNRESET", "exec 2>&-; exit 1 ended with status 1");
	expect_end("echo garbage", "EPROTO", "not JSON");
}

Test(qmp_exec, not_there)
{
	/* Catches a shell's complaint that is not told. */
	struct owner owner;

	begin_alone(&owner);
	open_at(&owner, QMP_EXEC, "/no/such/relay --now");
	until(&owner, "closed:ECONNRESET ");
	cr_assert(strstr(owner.reason, "/no/such/relay --now ended with status 127: "));
	cr_assert(strstr(owner.reason, "not found"), "%s", owner.reason);
	end_alone(&owner);
}

Test(qmp_exec, odd_complaints)
{
	/* Catches control characters and broken UTF-8 in `error`, and a reason or a memory that grows with what a command says. */
	struct owner owner;
	const char *cut = "printf 'last words' >&2 # ";
	char command[200];

	expect_end("printf 'a\\033[1mb\\nc\\tü\\0d\\n\\n' >&2; exit 1", "ECONNRESET",
		   "printf 'a\\033[1mb\\nc\\tü\\0d\\n\\n' >&2; exit 1 ended with status 1: a [1mb "
		   "c ü?d");
	expect_end("printf '\\302\\233\\377' >&2", "ECONNRESET",
		   "printf '\\302\\233\\377' >&2 ended with status 0:   \xef\xbf\xbd");
	memset(command, 'x', sizeof(command) - 1);
	command[sizeof(command) - 1] = 0;
	memcpy(command, cut, strlen(cut));
	begin_alone(&owner);
	open_at(&owner, QMP_EXEC, command);
	until(&owner, "closed:ECONNRESET ");
	cr_assert(strstr(owner.reason, "xxx... ended with status 0: last words"));
	end_alone(&owner);
	begin_alone(&owner);
	open_at(&owner, QMP_EXEC, "yes 'It goes on and on' | head -n 20000 >&2; echo end >&2");
	until(&owner, "closed:ECONNRESET ");
	cr_assert_lt(strlen(owner.reason), 1000);
	cr_assert(strstr(owner.reason, ": It goes on and on It goes"), "%s", owner.reason);
	cr_assert_str_eq(owner.reason + strlen(owner.reason) - 4, " end");
	end_alone(&owner);
}

Test(qmp_exec, babbles_while_it_works)
{
	/* Catches a command that is held up by its own complaints, and a loop that does nothing but read them. */
	struct owner owner;
	struct rusage before, after;
	double used;

	ready_behind(&owner, "yes >&2 &");
	peer_set_answer(owner.peer, "a", "{'n': 1}");
	getrusage(RUSAGE_SELF, &before);
	for (int i = 1; i < 20; i++) {
		char wish[20];

		peer_run_for(&owner.loop, 20);
		send_one(&owner, "a", i);
		snprintf(wish, sizeof(wish), "reply%d:1 ", i);
		until(&owner, wish);
	}
	getrusage(RUSAGE_SELF, &after);
	used = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
			before.ru_stime.tv_sec) +
	       (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
			before.ru_stime.tv_usec) /
		       1e6;
	cr_assert_lt(used, 0.2, "%f s", used);
	end(&owner);
}

Test(qmp_exec, nobody_is_left_over)
{
	/* Catches a child, a grandchild, one in a session of its own, one that takes no TERM, one that is stopped. */
	static const char *const scripts[] = {
		"sleep $T & wait",
		"(sleep $T & sleep $T) & sleep $T",
		"setsid sleep $T & setsid sh -c 'setsid sleep $T & sleep $T' & sleep $T",
		"trap '' TERM HUP INT; sleep $T; sleep $T",
		"trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep $T; sleep $T' & sleep $T",
		"kill -STOP $$; sleep $T",
		"sleep $T & kill -STOP $!; exit 0",
		"sleep $T | sleep $T | sleep $T",
		"sleep $T <&- >&- 2>&- & exec >&-; sleep $T",
	};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(*scripts); i++) {
		struct owner owner;
		char command[300];

		snprintf(command, sizeof(command), "T=%s; %s", marker(), scripts[i]);
		begin_alone(&owner);
		open_at(&owner, QMP_EXEC, command);
		peer_run_for(&owner.loop, 250);
		/* The reaper, a shell, a sleep; all that was started has ended in one of them. */
		cr_assert(processes(marker()) >= 2 || strstr(command, "exit 0"), "%s", command);
		end_alone(&owner);
		cr_assert_eq(processes(marker()), 0, "left over by: %s", command);
	}
}

Test(qmp_exec, ends_with_others_at_its_output)
{
	/* Catches an end that is not noticed, as somebody whom the command has left holds its output. */
	char command[100], reason[200];

	snprintf(command, sizeof(command), "sleep %s & exit 5", marker());
	snprintf(reason, sizeof(reason), "%s ended with status 5", command);
	expect_end(command, "ECONNRESET", reason);
	snprintf(command, sizeof(command), "trap '' TERM; sleep %s & exit 5", marker());
	snprintf(reason, sizeof(reason), "%s ended with status 5", command);
	expect_end(command, "ECONNRESET", reason);
	cr_assert_eq(processes(marker()), 0);
}

Test(qmp_exec, closes_its_output_and_lives_on)
{
	/* Catches a link that waits for a command which will not say anything any more. */
	char command[100], reason[200];

	snprintf(command, sizeof(command), "exec >&-; echo why >&2; sleep %s", marker());
	snprintf(reason, sizeof(reason), "%s has closed its output: why", command);
	expect_end(command, "ECONNRESET", reason);
	cr_assert_eq(processes(marker()), 0);
}

Test(qmp_exec, takes_nothing)
{
	/* Catches a write to a command that has closed its input, or is gone, which ends us or the link. */
	struct owner owner;

	begin_alone(&owner);
	open_at(&owner, QMP_EXEC,
		"exec <&-; echo '{\"QMP\": {\"version\": {}, \"capabilities\": []}}'; sleep 0.3");
	until(&owner, "closed:ECONNRESET ");
	expect_log(&owner, "closed:ECONNRESET ");
	cr_assert(strstr(owner.reason, "ended with status 0"), "%s", owner.reason);
	end_alone(&owner);
}

Test(qmp_exec, closed_at_every_step)
{
	/* Catches a handle used after its link has gone, whatever the command was about to tell. */
	static const char *const commands[] = { "exit 1", "echo x >&2; sleep 5", "cat", "exec >&-",
						"/no/such" };

	for (int turns = 0; turns < 8; turns++) {
		for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
			struct owner owner;

			begin_alone(&owner);
			open_at(&owner, QMP_EXEC, commands[i]);
			send_one(&owner, "early", 1);
			for (int turn = 0; turn < turns && owner.link; turn++) {
				usleep(1000);
				uv_run(&owner.loop, UV_RUN_NOWAIT);
			}
			end_alone(&owner);
			cr_assert(strstr(owner.log, "reply1:EHOSTDOWN "), "%s", owner.log);
		}
	}
}

Test(qmp_exec, no_descriptors)
{
	/* Catches a start that fails half way: what was opened is closed, and it is told. */
	struct owner owner;
	struct rlimit all, few;

	getrlimit(RLIMIT_NOFILE, &all);
	for (rlim_t more = 0; more < 8; more++) {
		begin_alone(&owner);
		few = all;
		few.rlim_cur = (rlim_t)peer_open_descriptors() + more;
		setrlimit(RLIMIT_NOFILE, &few);
		open_at(&owner, QMP_EXEC, "sleep 5");
		setrlimit(RLIMIT_NOFILE, &all);
		until(&owner, "closed:ECONNABORTED ");
		cr_assert(strstr(owner.reason, "cannot be started: "), "%s", owner.reason);
		end_alone(&owner);
	}
}

Test(qmp_exec, dies_with_us)
{
	/* Catches processes that are left when we are killed: nothing of ours can run then. */
	pid_t child = fork();

	if (child == 0) {
		static const struct qmp_link_handlers nothing;
		char command[200];
		uv_loop_t loop;

		snprintf(command, sizeof(command),
			 "trap '' TERM; setsid sleep %s & sleep %s; sleep %s", marker(), marker(),
			 marker());
		/* marker() has the child's pid in it: the parent looks for that. */
		uv_loop_init(&loop);
		qmp_link_open(&loop, &(struct qmp_address){ QMP_EXEC, command }, 1000, &nothing,
			      NULL);
		uv_run(&loop, UV_RUN_DEFAULT);
		_exit(0);
	} else {
		char text[32];
		int started = 0;

		snprintf(text, sizeof(text), "98765.%d", child);
		/* Counted once: what is just being executed has no command line for a moment. */
		for (int i = 0; i < 500 && (started = processes(text)) < 4; i++)
			usleep(10000);
		cr_assert_geq(started, 4, "it did not start");
		kill(child, SIGKILL);
		for (int i = 0; i < 300 && processes(text); i++)
			usleep(10000);
		cr_assert_eq(processes(text), 0);
	}
}
