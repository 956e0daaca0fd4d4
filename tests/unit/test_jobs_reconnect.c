/*
 * The link lost and found again, and the daemon's next life: what becomes of jobs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "tests/fake/world.h"

static void start(struct world *world, const char *disk)
{
	struct answer_slip pull;

	world_write(world, disk, "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
	WORLD_UNTIL(world, world_is_quiet(world));
}

/* The client is thrown out, and what it waits for is never answered. */
static void hang_up(struct world *world)
{
	peer_hang_up(world->peer);
	WORLD_UNTIL(world, world->domain->state == DOMAIN_DISCONNECTED);
	qemu_drop_held(world->qemu);
}

static void come_back(struct world *world)
{
	WORLD_UNTIL(world, world->domain->state == DOMAIN_CONNECTED && world_is_quiet(world));
}

static void expect_end(struct world *world, const char *word)
{
	WORLD_UNTIL(world, world_is(world, "vda", word) && world_is_quiet(world));
	cr_assert_eq(world->domain->link->finalizing, 0);
	cr_assert_eq(world->qemu->in_danger, 0);
	cr_assert_eq(world_disk(world, "vda")->history_count, 1);
	cr_assert_null(world->qemu->jobs);
}

/* A disk that has been through it takes its next job as any other. */
static void expect_next(struct world *world)
{
	struct answer_slip pull;

	world->qemu->hold = NULL;
	world_write(world, "vda", "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
	qemu_pend(world->qemu, qemu_job(world->qemu, 0));
	WORLD_UNTIL(world, world_is(world, "vda", "completed") && world_is_quiet(world));
}

Test(jobs_reconnect, running)
{
	/* Catches a job that is lost, or told of twice, because the link was gone for a moment. */
	struct world world;
	struct answer_slip waiting, reading;
	struct job *job;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	job = world_job(&world, "vda");
	world_wait(&world, "vda", &waiting);
	qemu_hold(world.qemu, "query-block-jobs", true);
	world_refresh(&world, "vda", &reading);
	hang_up(&world);
	cr_assert_eq(reading.times, 1);
	cr_assert_eq(reading.status, -EHOSTDOWN);
	cr_assert(world_is(&world, "vda", "running"));
	come_back(&world);
	cr_assert_eq(world_job(&world, "vda"), job);
	cr_assert_not_null(waiting.op);
	cr_assert_eq(world_events(&world, "job-started"), 1);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_end(&world, "completed");
	cr_assert_eq(waiting.times, 1);
	cr_assert_eq(world_events(&world, "domain-connected"), 2);
	world_free(&world);
}

Test(jobs_reconnect, gone)
{
	/* Catches a job that a QEMU which was started anew does not know, and that stays alive here. */
	struct world world;
	struct answer_slip waiting;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	world_wait(&world, "vda", &waiting);
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	hang_up(&world);
	come_back(&world);
	expect_end(&world, "lost");
	cr_assert_eq(waiting.times, 1);
	cr_assert_eq(world_events(&world, "job-lost"), 1);
	expect_next(&world);
	world_free(&world);
}

Test(jobs_reconnect, ended_meanwhile)
{
	/* Catches an end that nobody has seen: pending, failed or cancelled while the link was down. */
	struct world world;
	static const char *const words[] = { "completed", "failed", "cancelled" };

	for (int i = 0; i < 3; i++) {
		struct qemu_job *job;

		world_new(&world, 1);
		world_connect(&world);
		start(&world, "vda");
		hang_up(&world);
		job = qemu_job(world.qemu, 0);
		if (i == 0)
			qemu_pend(world.qemu, job);
		else
			qemu_end(world.qemu, job, i == 1 ? "No space left on device" : NULL);
		come_back(&world);
		expect_end(&world, words[i]);
		cr_assert_eq(world_events(&world, "job-completed"), i == 0);
		expect_next(&world);
		world_free(&world);
	}
}

Test(jobs_reconnect, data_before_the_end_counts)
{
	/* Catches a last word thrown away because the hang-up was seen before the events in front of it. */
	struct world world;
	struct qemu_job *job;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	peer_stop_listening(world.peer);
	job = qemu_job(world.qemu, 0);
	qemu_end(world.qemu, job, "No space left on device");
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed"));
	cr_assert_str_eq(world_job(&world, "vda")->error, "No space left on device");
	cr_assert_eq(world_events(&world, "job-failed"), 1);
	world_free(&world);
}

Test(jobs_reconnect, lost_when_nobody_listens)
{
	/* Catches a parked reader, writer or waiter that a dead QEMU leaves waiting. */
	struct world world;
	struct answer_slip waiting, reading, aborting, speed, late;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	world.qemu->left = "query-block-jobs";
	peer_set_answer(world.peer, "query-block-jobs", NULL);
	peer_set_deaf(world.peer, true);
	world_wait(&world, "vda", &waiting);
	world_refresh(&world, "vda", &reading);
	world_write(&world, "vda", "abort", "", &aborting);
	world_write(&world, "vda", "speed", "1M", &speed);
	peer_stop_listening(world.peer);
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world_is(&world, "vda", "lost"));
	cr_assert_eq(waiting.times, 1);
	cr_assert_eq(waiting.status, 0);
	cr_assert_eq(reading.status, -EHOSTDOWN);
	cr_assert_eq(aborting.status, -EHOSTDOWN);
	cr_assert_eq(speed.status, -EHOSTDOWN);
	cr_assert_eq(reading.times + aborting.times + speed.times, 3);
	cr_assert_null(world_disk(&world, "vda")->ops);
	cr_assert_eq(world_events(&world, "job-lost"), 1);

	/* And afterwards: nothing can be asked, everything can be read. */
	world_write(&world, "vda", "pull", "", &late);
	cr_assert_eq(late.status, -EHOSTDOWN);
	world_write(&world, "vda", "speed", "1", &late);
	cr_assert_eq(late.status, -ESRCH);
	world_wait(&world, "vda", &late);
	cr_assert_eq(late.status, 0);
	world_refresh(&world, "vda", &late);
	cr_assert_eq(late.status, 0);
	world_free(&world);
}

Test(jobs_reconnect, during_finalize)
{
	/* Catches a count of jobs being finalized that the loss of the link leaves wrong. */
	struct world world;

	for (int done = 0; done < 2; done++) {
		world_new(&world, 1);
		world_connect(&world);
		start(&world, "vda");
		qemu_hold(world.qemu, "job-finalize", !done);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, "job-finalize", 1, WORLD_WAIT_MS));
		hang_up(&world);
		come_back(&world);
		expect_end(&world, "completed");
		expect_next(&world);
		world_free(&world);
	}
}

Test(jobs_reconnect, between_concluded_and_dismissed)
{
	/* Catches a listing of a QEMU whose job is not dismissed yet, after a reconnect. */
	struct world world;

	for (int done = 0; done < 2; done++) {
		world_new(&world, 1);
		world_connect(&world);
		start(&world, "vda");
		if (done)
			qemu_hold(world.qemu, "job-dismiss", false);
		else
			qemu_hang(world.qemu, "job-dismiss");
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
		hang_up(&world);
		come_back(&world);
		expect_end(&world, "completed");
		cr_assert_eq(world.qemu->disks[0].left, 0,
			     "nodes of the old chain are still there");
		expect_next(&world);
		world_free(&world);
	}
}

Test(jobs_reconnect, while_nodes_are_dropped)
{
	/* Catches nodes that stay for ever because the link was lost when they were being dropped. */
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	qemu_hold(world.qemu, "blockdev-del", true);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "blockdev-del", 1, WORLD_WAIT_MS));
	hang_up(&world);
	cr_assert_eq(world.domain->link->dropping, 0);
	come_back(&world);
	expect_end(&world, "completed");
	cr_assert_eq(world.qemu->disks[0].left, 0);
	world_free(&world);
}

Test(jobs_reconnect, start_without_an_answer)
{
	/* Catches a job whose start nobody has confirmed, and which the next connection shows: it has begun, and is told of. */
	struct world world;
	struct answer_slip pull;

	world_new(&world, 1);
	world_connect(&world);
	world.qemu->left = "block-stream";
	peer_set_answer(world.peer, "block-stream", NULL);
	world_write(&world, "vda", "pull", "", &pull);
	cr_assert(peer_run_until_command(world.peer, "block-stream", 1, WORLD_WAIT_MS));
	qemu_add_job(world.qemu, 0, world_job(&world, "vda")->id, "running");
	hang_up(&world);
	cr_assert_eq(pull.times, 1);
	cr_assert_eq(pull.status, -EHOSTDOWN);
	come_back(&world);
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert_eq(world_events(&world, "job-started"), 1);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_end(&world, "completed");
	cr_assert_eq(world_events(&world, "job-started"), 1);
	world_free(&world);
}

Test(jobs_reconnect, qemu_dies_at_every_command_of_the_end)
{
	/* Catches a word that says more than is known, or less: the end is known from job-dismiss on, and what became of the chain is not. */
	static const struct {
		const char *command;
		bool done;
		const char *word;
	} cases[] = {
		{ "job-finalize", true, "lost" },      { "job-finalize", false, "completed" },
		{ "job-dismiss", true, "completed" },  { "job-dismiss", false, "completed" },
		{ "blockdev-del", true, "completed" },
	};
	char event[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct world world;
		struct answer_slip waiting, reading;

		world_new(&world, 1);
		qemu_set_monitor(world.qemu);
		world_connect(&world);
		start(&world, "vda");
		world_wait(&world, "vda", &waiting);
		qemu_hold(world.qemu, cases[i].command, cases[i].done);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, cases[i].command, 1, WORLD_WAIT_MS));
		world_refresh(&world, "vda", &reading);
		peer_stop_listening(world.peer);
		peer_hang_up(world.peer);
		WORLD_UNTIL(&world, waiting.times == 1);
		qemu_drop_held(world.qemu);
		cr_assert(world_is(&world, "vda", cases[i].word), "%zu %s", i,
			  disk_status(world_disk(&world, "vda")));
		snprintf(event, sizeof(event), "job-%s", cases[i].word);
		cr_assert_eq(world_events(&world, event), 1);
		cr_assert_eq(reading.times, 1);
		cr_assert_eq(world.domain->link->finalizing, 0);
		cr_assert_null(world_disk(&world, "vda")->ops);
		world_free(&world);
	}
}

Test(jobs_reconnect, qemu_dies_before_it_is_flushed)
{
	/* Catches `completed` for a pull whose data QEMU had only in memory when it died. */
	struct world world;

	world_new(&world, 1);
	qemu_set_daemon(world.qemu); /* somebody else's: no way to flush before the end */
	world_connect(&world);
	start(&world, "vda");
	qemu_hold(world.qemu, "job-dismiss", false);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	cr_assert(world_job(&world, "vda")->unflushed);
	peer_stop_listening(world.peer);
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world_is(&world, "vda", "lost"));
	cr_assert(strstr(world_job(&world, "vda")->error, "flushed"));
	qemu_drop_held(world.qemu);
	world_free(&world);
}

Test(jobs_reconnect, next_life_adopts)
{
	/* Catches a job that the daemon's next life does not know for its own, whatever state it finds it in. */
	static const char *const words[] = { "running", "completed", "completed", "failed",
					     "cancelled" };
	struct world world;

	for (int i = 0; i < 5; i++) {
		world_new(&world, 1);
		world_connect(&world);
		start(&world, "vda");
		world_stop(&world);
		if (i == 1) {
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		} else if (i == 2) { /* killed between concluded and dismissed */
			world.qemu->disks[0].pulled = true;
			world.qemu->disks[0].left = 0;
			strcpy(qemu_job(world.qemu, 0)->status, "concluded");
		} else if (i > 2) {
			qemu_end(world.qemu, qemu_job(world.qemu, 0), i == 3 ? "EIO" : NULL);
		}
		world_connect(&world);
		WORLD_UNTIL(&world, world_job(&world, "vda") && world_is(&world, "vda", words[i]) &&
					    world_is_quiet(&world));
		cr_assert_eq(world_job(&world, "vda")->by.uid, 1000);
		cr_assert_eq(world_job(&world, "vda")->by.pid, 4711);
		cr_assert_eq(world_events(&world, "job-started"), 1);
		if (i == 0)
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		expect_end(&world, i == 0 ? "completed" : words[i]);
		expect_next(&world);
		world_free(&world);
	}
}

Test(jobs_reconnect, busy_monitor)
{
	/* Catches a monitor that serves somebody else and is shown as something else, or is not tried again. */
	struct world world;

	world_new(&world, 1);
	peer_set_greeting(world.peer, NULL);
	world_start(&world);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_BUSY);
	cr_assert(strstr(world.domain->error, "another client"));
	peer_set_greeting(world.peer, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n");
	peer_hang_up(world.peer);
	come_back(&world);
	cr_assert_null(world.domain->error);
	world_free(&world);
}
