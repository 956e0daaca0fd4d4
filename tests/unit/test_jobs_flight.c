/*
 * What is in flight: figures shared by many readers, events in odd numbers, and the end of a disk or of everything around it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fake/world.h"

static void connect_and_start(struct world *world, size_t disks)
{
	struct answer_slip pull;

	world_new(world, disks);
	world_connect(world);
	world_write(world, "vda", "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	WORLD_UNTIL(world, world_is_quiet(world));
}

Test(jobs_flight, many_readers_one_query)
{
	/* Catches a query for each reader, a reader served with figures from before it asked, and one that is forgotten. */
	enum { MANY = 600 };
	static struct answer_slip first, late[MANY];
	struct world world;
	size_t before;

	connect_and_start(&world, 1);
	qemu_job(world.qemu, 0)->offset = 111;
	qemu_hold(world.qemu, "query-block-jobs", true);
	before = peer_count_of(world.peer, "query-block-jobs");
	world_refresh(&world, "vda", &first);
	/* That one is on its way: its figures may be older than the next readers. */
	for (int i = 0; i < MANY / 2; i++)
		world_refresh(&world, "vda", &late[i]);
	cr_assert(
		peer_run_until_command(world.peer, "query-block-jobs", before + 1, WORLD_WAIT_MS));
	for (int i = MANY / 2; i < MANY; i++)
		world_refresh(&world, "vda", &late[i]);
	WORLD_WHILE(&world, peer_count_of(world.peer, "query-block-jobs") == before + 1, 10);
	qemu_release(world.qemu);
	qemu_hold(world.qemu, "query-block-jobs", true);
	WORLD_UNTIL(&world, !first.op);
	cr_assert_eq(world_job(&world, "vda")->offset, 111);
	for (int i = 0; i < MANY; i++)
		cr_assert_not_null(late[i].op);
	qemu_job(world.qemu, 0)->offset = 222;
	cr_assert(
		peer_run_until_command(world.peer, "query-block-jobs", before + 2, WORLD_WAIT_MS));
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, !late[0].op);
	cr_assert_eq(world_job(&world, "vda")->offset, 222);
	for (int i = 0; i < MANY; i++) {
		cr_assert_eq(late[i].times, 1);
		cr_assert_eq(late[i].status, 0);
	}
	cr_assert_eq(peer_count_of(world.peer, "query-block-jobs"), before + 2);
	world_free(&world);
}

Test(jobs_flight, figures_nobody_tells)
{
	/* Catches a reader that waits for ever, and one more query for a disk that has no job. */
	struct world world;
	struct answer_slip slip, interrupted;
	size_t before;

	world_new(&world, 1);
	world.timeout_ms = 80;
	world_connect(&world);
	before = peer_count(world.peer);
	world_refresh(&world, "vda", &slip);
	cr_assert_eq(slip.status, 0);
	cr_assert_eq(peer_count(world.peer), before);
	world_write(&world, "vda", "pull", "", &slip);
	WORLD_UNTIL(&world, !slip.op && world_is_quiet(&world));
	peer_set_deaf(world.peer, true);
	world_refresh(&world, "vda", &slip);
	world_refresh(&world, "vda", &interrupted);
	op_interrupt(interrupted.op);
	cr_assert_eq(interrupted.status, -EINTR);
	WORLD_UNTIL(&world, !slip.op);
	cr_assert_eq(slip.status, -ETIMEDOUT);
	cr_assert_eq(interrupted.times, 1);
	cr_assert_null(world_disk(&world, "vda")->error, "a read has left an error");
	/* And afterwards it is all well again. */
	peer_set_deaf(world.peer, false);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	world_refresh(&world, "vda", &slip);
	WORLD_UNTIL(&world, !slip.op);
	cr_assert_eq(slip.status, 0);
	world_free(&world);
}

Test(jobs_flight, ready_twice)
{
	/* Catches a second job-ready, which QEMU sends under load. */
	struct world world;
	struct qemu_job *job;
	int64_t cur, end;

	connect_and_start(&world, 1);
	job = qemu_job(world.qemu, 0);
	job->ready = true;
	job->offset = job->length = 4096;
	for (int i = 0; i < 3; i++) {
		char text[200];

		snprintf(text, sizeof(text), "{'device': '%s', 'type': 'stream', 'len': 4096}",
			 job->id);
		qemu_move(world.qemu, job, i % 2 ? "standby" : "ready");
		peer_send_event(world.peer, "BLOCK_JOB_READY", text);
		WORLD_UNTIL(&world, world_is(&world, "vda", "ready"));
		peer_run_for(&world.loop, 5);
	}
	cr_assert_eq(world_events(&world, "job-ready"), 1);
	job_progress(world_job(&world, "vda"), &cur, &end);
	cr_assert_eq(cur, end);
	world_free(&world);
}

/* The sum of what the job-error events have counted. */
static unsigned long count_errors(struct world *world)
{
	static const char key[] = "\"operation\":\"write\",\"action\":\"stop\",\"count\":";
	const struct event_log *log = &world->model->log;
	const char *at = log->bytes, *end = at + log->length;
	unsigned long count = 0;

	while ((at = memmem(at, (size_t)(end - at), key, sizeof(key) - 1))) {
		at += sizeof(key) - 1;
		count += strtoul(at, NULL, 10);
	}
	return count;
}

Test(jobs_flight, storm_of_errors)
{
	/* Catches an event a failed request: QEMU sends thousands. And a last burst that is lost when the job ends. */
	struct world world;
	struct qemu_job *job;
	char text[300];

	connect_and_start(&world, 1);
	job = qemu_job(world.qemu, 0);
	snprintf(text, sizeof(text), "{'device': '%s', 'operation': 'write', 'action': 'stop'}",
		 job->id);
	for (int i = 0; i < 2000; i++)
		peer_send_event(world.peer, "BLOCK_JOB_ERROR", text);
	WORLD_UNTIL(&world, count_errors(&world) == 2000);
	for (int i = 0; i < 7; i++)
		peer_send_event(world.peer, "BLOCK_JOB_ERROR", text);
	qemu_end(world.qemu, job, "No space left on device");
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed"));
	cr_assert_eq(count_errors(&world), 2007);
	/* Two on an idle machine: one for each burst. */
	cr_assert_lt(world_events(&world, "job-error"), 50);
	world_free(&world);
}

Test(jobs_flight, disk_removed)
{
	/* Catches anybody left waiting on a disk that is gone, or one that touches it later. */
	struct world world;
	struct answer_slip waiting, reading, aborting, pausing, speed, other;

	connect_and_start(&world, 2);
	world_write(&world, "vdb", "pull", "", &other);
	WORLD_UNTIL(&world, !other.op && world_is_quiet(&world));
	world_wait(&world, "vda", &waiting);
	world_wait(&world, "vdb", &other);
	qemu_hold(world.qemu, "job-pause", true);
	world_write(&world, "vda", "pause", "1", &pausing);
	cr_assert(peer_run_until_command(world.peer, "job-pause", 1, WORLD_WAIT_MS));
	world.qemu->slow_cancel = true;
	world_write(&world, "vda", "abort", "", &aborting);
	WORLD_UNTIL(&world, world_is(&world, "vda", "aborting"));
	world.qemu->left = "block-job-set-speed";
	peer_set_answer(world.peer, "block-job-set-speed", NULL);
	world_write(&world, "vda", "speed", "1", &speed);
	world.qemu->disks[0].gone = true;
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	peer_send_event(world.peer, "DEVICE_DELETED", "{'device': 'vda', 'path': '/x'}");
	world_refresh(&world, "vda", &reading);
	WORLD_UNTIL(&world, !domain_find_disk(world.domain, "vda"));
	cr_assert_eq(speed.status, -ENODEV);
	cr_assert_eq(pausing.status, -ENODEV);
	cr_assert_eq(waiting.times + reading.times + aborting.times + pausing.times + speed.times,
		     5);
	cr_assert_eq(waiting.status, 0, "its job is over: that is what it waited for");
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_not_null(other.op);
	cr_assert_eq(world_events(&world, "disk-removed"), 1);
	cr_assert_eq(world_events(&world, "job-lost"), 1);

	/* Plugged in again it is a new disk. */
	world.qemu->disks[0].gone = false;
	world_look(&world);
	WORLD_UNTIL(&world, domain_find_disk(world.domain, "vda"));
	cr_assert(world_is(&world, "vda", "idle"));
	world_free(&world);
}

Test(jobs_flight, a_look_waits_for_the_command_that_follows)
{
	/* Catches a command that waits for what a walk to its file has made us ask, and looks that are forgotten. */
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	world.domain->link->synced_ns = 0;
	domain_looked_at(world.domain);
	domain_looked_at(world.domain);
	cr_assert(!world.domain->link->syncing);
	cr_assert_geq(uv_timer_get_due_in(&world.domain->link->look), LOOK_DELAY_MS / 2);
	cr_assert_eq(peer_count_of(world.peer, "query-block"), 1, "that of the beginning");
	WORLD_UNTIL(&world, peer_count_of(world.peer, "query-block") == 2);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_eq(peer_count_of(world.peer, "query-block"), 2);
	world_free(&world);
}

Test(jobs_flight, another_type_is_another_table)
{
	/* Catches the length of `jobs` told from before a commit was seen to be one of the active image. */
	struct world world;
	struct job *job;
	uint64_t version;
	char text[200];

	connect_and_start(&world, 1);
	job = world_job(&world, "vda");
	job->type = job_type_known("commit");
	disk_changed(world_disk(&world, "vda"), TOPIC_JOB);
	version = world.model->stamps[TOPIC_STATUS].version;
	qemu_hold(world.qemu, "query-block-jobs", true);
	snprintf(text, sizeof(text),
		 "{'device': '%s', 'type': 'commit', 'len': 9, 'offset': 9, 'speed': 0}", job->id);
	peer_send_event(world.peer, "BLOCK_JOB_READY", text);
	WORLD_UNTIL(&world, !strcmp(job->type, "active-commit"));
	cr_assert_gt(world.model->stamps[TOPIC_STATUS].version, version);
	qemu_hold(world.qemu, "query-block-jobs", false);
	world_free(&world);
}

Test(jobs_flight, stop_with_everything_in_flight)
{
	/* Catches an op that shutdown forgets or answers twice, and memory of what QEMU had still to answer. */
	static const char *const silent[] = { "block-stream",	  "job-pause",
					      "job-cancel",	  "block-job-set-speed",
					      "query-block-jobs", "query-block",
					      "job-finalize",	  "blockdev-del" };
	struct world world;

	for (size_t i = 0; i < sizeof(silent) / sizeof(*silent); i++) {
		struct answer_slip slips[6];

		connect_and_start(&world, 2);
		qemu_hold(world.qemu, silent[i], true);
		if (i >= 6)
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		world_wait(&world, "vda", &slips[0]);
		world_refresh(&world, "vda", &slips[1]);
		world_write(&world, "vda", "pause", "1", &slips[2]);
		world_write(&world, "vda", "speed", "1", &slips[3]);
		world_write(&world, "vdb", "pull", "", &slips[4]);
		world_write(&world, "vda", "abort", "", &slips[5]);
		world_look(&world);
		for (int turn = 0; turn < (int)i; turn++)
			world_turn(&world);
		world_stop(&world);
		for (int slip = 0; slip < 6; slip++) {
			cr_assert_null(slips[slip].op);
			cr_assert_eq(slips[slip].times, 1);
		}
		qemu_drop_held(world.qemu);
		world_free(&world);
	}
}

Test(jobs_flight, stop_while_an_image_is_looked_for)
{
	/* Catches the work pool coming back to a model that is gone. */
	struct world world;
	struct answer_slip pull;

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "base=/vm/../vm/elsewhere.qcow2", &pull);
	cr_assert_not_null(pull.op);
	world_stop(&world);
	cr_assert_eq(pull.times, 1);
	cr_assert_eq(pull.status, -ESHUTDOWN);
	world_free(&world);
}

Test(jobs_flight, stop_while_a_job_is_being_dismissed)
{
	/* Catches a QEMU left in the state in which a listing kills it, and a stop that waits for a silent one for ever. */
	struct world world;
	uint64_t began;

	for (int silent = 0; silent < 2; silent++) {
		connect_and_start(&world, 1);
		qemu_hold(world.qemu, "job-finalize", true);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, "job-finalize", 1, WORLD_WAIT_MS));
		world_begin_stop(&world);
		for (int i = 0; i < 3; i++)
			world_turn(&world);
		if (!silent)
			qemu_release(world.qemu);
		began = uv_hrtime();
		world_stop(&world);
		cr_assert_lt(uv_hrtime() - began, 2000000000u);
		cr_assert_eq(world.qemu->jobs == NULL, !silent, "the job is left undismissed");
		world_free(&world);
	}
}

Test(jobs_flight, base)
{
	/* Catches a job with another base than was named, and an image that is not in the chain. */
	static const struct {
		const char *text, *sent;
		int status;
	} cases[] = {
		{ "base=/vm/vda-mid.qcow2", "\"base-node\":\"vda-mid\"", 0 },
		{ "base=[2]", "\"base-node\":\"vda-base\"", 0 },
		{ "base=[0]", NULL, -EINVAL },
		{ "base=[3]", NULL, -ENOENT },
		{ "base=[99999999999999999999]", NULL, -EINVAL },
		{ "base=[-1]", NULL, -EINVAL },
		{ "base=vda-mid.qcow2", NULL, -EINVAL },
		{ "base=/vm/none.qcow2", NULL, -ENOENT },
		{ "base=", NULL, -EINVAL },
	};
	struct world world;
	struct answer_slip pull;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		world_new(&world, 1);
		world_connect(&world);
		world_write(&world, "vda", "pull", cases[i].text, &pull);
		WORLD_UNTIL(&world, !pull.op);
		cr_assert_eq(pull.status, cases[i].status, "%s: %s", cases[i].text, pull.text);
		cr_assert_eq(peer_count_of(world.peer, "block-stream"), cases[i].sent != NULL);
		if (cases[i].sent)
			cr_assert(strstr(
				peer_message(world.peer, peer_last_of(world.peer, "block-stream")),
				cases[i].sent));
		else if (i != 2)
			cr_assert(strstr(pull.text, "\n^^^^^"), "%s", pull.text);
		world_free(&world);
	}
}
