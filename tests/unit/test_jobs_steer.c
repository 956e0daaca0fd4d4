/*
 * Steering a live job: speed, pause, abort; late and missing answers; what is in flight when its disk or everything ends.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/fake/world.h"

static void connect_and_start(struct world *world, size_t disks, unsigned timeout_ms)
{
	struct answer_slip pull;

	world_new(world, disks);
	world->timeout_ms = timeout_ms;
	world_connect(world);
	world_write(world, "vda", "pull", "bandwidth=1M", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
	WORLD_UNTIL(world, world_is_quiet(world));
}

static int write_and_wait(struct world *world, const char *file, const char *text)
{
	struct answer_slip slip;

	world_write(world, "vda", file, text, &slip);
	WORLD_UNTIL(world, !slip.op);
	cr_assert_eq(slip.times, 1);
	return slip.status;
}

Test(jobs_steer, without_a_job)
{
	/* Catches a command sent to QEMU for a disk that has nothing to steer. */
	struct world world;
	size_t before;

	world_new(&world, 1);
	world_connect(&world);
	before = peer_count(world.peer);
	cr_assert_eq(write_and_wait(&world, "speed", "1M"), -ESRCH);
	cr_assert_eq(write_and_wait(&world, "pause", "1"), -ESRCH);
	cr_assert_eq(write_and_wait(&world, "abort", ""), -ESRCH);
	cr_assert_str_eq(world_disk(&world, "vda")->error, "\nESRCH: the disk has no live job\n");
	cr_assert_eq(peer_count(world.peer), before);
	world_free(&world);
}

Test(jobs_steer, one_job_a_disk)
{
	/* Catches a second start while one is under way, before and after QEMU has answered the first. */
	struct world world;
	struct answer_slip first, second;

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &first);
	world_write(&world, "vda", "pull", "", &second);
	cr_assert_eq(second.status, -EBUSY);
	WORLD_UNTIL(&world, !first.op);
	cr_assert_eq(first.status, 0);
	cr_assert_eq(write_and_wait(&world, "pull", ""), -EBUSY);
	cr_assert_eq(peer_count_of(world.peer, "block-stream"), 1);
	cr_assert(strstr(world_disk(&world, "vda")->error, "EBUSY: "));
	world_free(&world);
}

Test(jobs_steer, speed)
{
	/* Catches a limit shown that is not in force, and one that a refusal changes. */
	struct world world;

	connect_and_start(&world, 1, 3000);
	cr_assert_eq(world_job(&world, "vda")->speed, 1 << 20);
	cr_assert_eq(write_and_wait(&world, "speed", "2M"), 0);
	cr_assert_eq(world_job(&world, "vda")->speed, 2 << 20);
	cr_assert_eq(qemu_job(world.qemu, 0)->speed, 2 << 20);
	cr_assert_eq(write_and_wait(&world, "speed", "max"), 0);
	cr_assert_eq(world_job(&world, "vda")->speed, 0);
	peer_set_refusal(world.peer, "block-job-set-speed", "GenericError", "not now");
	world.qemu->left = "block-job-set-speed";
	cr_assert_eq(write_and_wait(&world, "speed", "7"), -EREMOTEIO);
	cr_assert_eq(world_job(&world, "vda")->speed, 0);
	cr_assert_str_eq(world_disk(&world, "vda")->error, "7\nEREMOTEIO: not now\n");
	world.qemu->left = NULL;
	cr_assert_eq(write_and_wait(&world, "speed", "0"), 0);
	cr_assert_null(world_disk(&world, "vda")->error);
	world_free(&world);
}

Test(jobs_steer, pause_may_be_repeated)
{
	/* Catches QEMU's "already paused" handed on, and a status that lags behind the writer. */
	struct world world;

	connect_and_start(&world, 1, 3000);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(write_and_wait(&world, "pause", "1"), 0);
		cr_assert(world_is(&world, "vda", "paused"));
	}
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(write_and_wait(&world, "pause", "0"), 0);
		cr_assert(world_is(&world, "vda", "running"));
	}
	cr_assert_eq(peer_count_of(world.peer, "job-pause"), 2);
	cr_assert_eq(world_events(&world, "job-paused"), 1);
	cr_assert_eq(world_events(&world, "job-resumed"), 1);
	cr_assert_eq(world_events(&world, "command-refused"), 0);

	/* Refused for another reason: that is a refusal. */
	world.qemu->left = "job-pause";
	peer_set_refusal(world.peer, "job-pause", "GenericError", "Job is in a bad mood");
	cr_assert_eq(write_and_wait(&world, "pause", "1"), -EREMOTEIO);
	cr_assert(strstr(world_disk(&world, "vda")->error, "bad mood"));
	world_free(&world);
}

Test(jobs_steer, pause_of_a_job_that_ends)
{
	/* Catches a writer left waiting, or told nonsense, when the job ends under the command. */
	struct world world;
	struct answer_slip pause;

	connect_and_start(&world, 1, 3000);
	qemu_hold(world.qemu, "job-pause", true);
	world_write(&world, "vda", "pause", "1", &pause);
	cr_assert(peer_run_until_command(world.peer, "job-pause", 1, WORLD_WAIT_MS));
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	cr_assert_not_null(pause.op);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, !pause.op);
	cr_assert_eq(pause.status, -ESRCH);
	world_free(&world);
}

Test(jobs_steer, abort_waits_for_the_end)
{
	/* Catches an abort that returns before the job is over, or a job that ends as something else. */
	struct world world;
	struct answer_slip abort, soon;

	connect_and_start(&world, 1, 3000);
	world.qemu->slow_cancel = true;
	world_write(&world, "vda", "abort", "async", &soon);
	world_write(&world, "vda", "abort", "", &abort);
	WORLD_UNTIL(&world, !soon.op);
	cr_assert_eq(soon.status, 0);
	cr_assert(world_is(&world, "vda", "aborting"));
	WORLD_WHILE(&world, abort.op != NULL, 20);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
	WORLD_UNTIL(&world, !abort.op);
	cr_assert_eq(abort.status, 0, "%s", abort.text);
	cr_assert_eq(strncmp(abort.text, "cancelled blockjobfs-vda-", 25), 0, "%s", abort.text);
	cr_assert(world_is(&world, "vda", "cancelled"));
	cr_assert_null(world_job(&world, "vda")->error);
	cr_assert_eq(world_events(&world, "job-cancelled"), 1);
	cr_assert_eq(world_disk(&world, "vda")->depth, 3);
	cr_assert_null(world.qemu->jobs);
	world_free(&world);
}

Test(jobs_steer, abort_while_pending)
{
	/* Catches an abort that is lost between pending and finalize; QEMU takes it as long as the job is pending. */
	struct world world;
	struct answer_slip abort;

	connect_and_start(&world, 1, 3000);
	qemu_hold(world.qemu, "query-block", true);
	world_look(&world);
	cr_assert(peer_run_until_command(world.peer, "query-block", 2, WORLD_WAIT_MS));
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, !strcmp(world_job(&world, "vda")->qemu_state, "pending"));
	world_write(&world, "vda", "abort", "", &abort);
	cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, !abort.op && world_is_quiet(&world));
	cr_assert_eq(abort.status, 0);
	cr_assert(world_is(&world, "vda", "cancelled"));
	cr_assert_eq(world_disk(&world, "vda")->depth, 3);
	cr_assert_eq(peer_count_of(world.peer, "job-finalize"), 0);
	world_free(&world);
}

Test(jobs_steer, abort_too_late)
{
	/* Catches QEMU's refusal of an abort handed on as one, though the job's end is what was wanted. */
	struct world world;
	struct answer_slip abort;

	/* It is concluded, and being dismissed. */
	connect_and_start(&world, 1, 3000);
	qemu_hang(world.qemu, "job-dismiss");
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	world_write(&world, "vda", "abort", "", &abort);
	cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
	WORLD_WHILE(&world, abort.op != NULL, 20);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, !abort.op);
	cr_assert_eq(abort.status, 0);
	cr_assert(world_is(&world, "vda", "completed"));
	cr_assert_eq(strncmp(abort.text, "completed ", 10), 0);
	world_free(&world);

	/* It fails of itself just now. */
	connect_and_start(&world, 1, 3000);
	qemu_move(world.qemu, qemu_job(world.qemu, 0), "aborting");
	WORLD_UNTIL(&world, world_is(&world, "vda", "aborting"));
	world_write(&world, "vda", "abort", "", &abort);
	cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
	WORLD_WHILE(&world, abort.op != NULL, 20);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "Input/output error");
	WORLD_UNTIL(&world, !abort.op);
	cr_assert_eq(abort.status, 0);
	cr_assert(world_is(&world, "vda", "failed"));
	world_free(&world);
}

Test(jobs_steer, abort_refused)
{
	/* Catches a job that reads aborting for ever because QEMU would not hear of it. */
	struct world world;

	connect_and_start(&world, 1, 3000);
	world.qemu->left = "job-cancel";
	peer_set_refusal(world.peer, "job-cancel", "GenericError", "no");
	cr_assert_eq(write_and_wait(&world, "abort", ""), -EREMOTEIO);
	WORLD_UNTIL(&world, world_is(&world, "vda", "running"));
	world_free(&world);
}

Test(jobs_steer, abort_of_a_silent_qemu)
{
	/* Catches an abort that waits for ever for a QEMU that took the command and hangs, or never took it. */
	struct world world;
	struct answer_slip abort, waiting;

	for (int taken = 0; taken < 2; taken++) {
		connect_and_start(&world, 1, 100);
		world.qemu->slow_cancel = true;
		world_wait(&world, "vda", &waiting);
		if (!taken)
			peer_set_deaf(world.peer, true);
		world_write(&world, "vda", "abort", "", &abort);
		if (taken) {
			cr_assert(
				peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
			peer_set_deaf(world.peer, true);
		}
		WORLD_UNTIL(&world, !abort.op);
		cr_assert_eq(abort.status, -ETIMEDOUT, "%d", abort.status);
		cr_assert(strstr(world_disk(&world, "vda")->error, "ETIMEDOUT: "));
		cr_assert_not_null(waiting.op);
		/* It wakes up: what it was told is done, and its late answers are nobody's. */
		peer_set_deaf(world.peer, false);
		cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
		peer_run_for(&world.loop, 5);
		qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
		WORLD_UNTIL(&world, world_is(&world, "vda", "cancelled"));
		cr_assert_eq(waiting.times, 1);
		cr_assert_eq(peer_clients(world.peer), 1);
		world_free(&world);
	}
}

Test(jobs_steer, start_times_out)
{
	/* Catches a job that stays though it never began, one that is forgotten though it did, and a late refusal believed. */
	struct world world;
	struct answer_slip pull;

	for (int begun = 0; begun < 2; begun++) {
		struct job *last;

		connect_and_start(&world, 1, 100);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
		last = world_job(&world, "vda");
		world.qemu->disks[0].pulled = false;
		peer_set_deaf(world.peer, true);
		world_write(&world, "vda", "pull", "", &pull);
		WORLD_UNTIL(&world, !pull.op);
		cr_assert_eq(pull.status, -ETIMEDOUT);
		cr_assert(strstr(pull.text, "`job` tells"));
		WORLD_WHILE(&world, world_job(&world, "vda") != last, 150);
		if (!begun) {
			world.qemu->left = "block-stream";
			peer_set_refusal(world.peer, "block-stream", "GenericError", "no");
		}
		peer_set_deaf(world.peer, false);
		if (begun) {
			WORLD_UNTIL(&world, world_events(&world, "job-started") == 2);
			cr_assert(world_is(&world, "vda", "running"));
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
			WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
		} else {
			WORLD_UNTIL(&world, world_job(&world, "vda") == last);
			cr_assert(world_is(&world, "vda", "completed"));
			cr_assert_eq(world_events(&world, "job-started"), 1);
		}
		cr_assert_eq(peer_clients(world.peer), 1);
		world_free(&world);
	}
}
