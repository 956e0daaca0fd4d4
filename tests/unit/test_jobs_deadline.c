/*
 * Deadlines of jobs: what they strike, and what they must not.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "jobs/deadline.h"
#include "jobs/job_record.h"
#include "tests/fake/world.h"

static const char reason[] = "deadline: neither ready nor done within 5 s";

/* A job with five seconds, which are over when the test wants it: @left_ms. pull takes none, so it is set. */
static void begin(struct world *world, unsigned left_ms)
{
	struct answer_slip pull;
	struct job *job;

	world_new(world, 1);
	world_keep_journal(world);
	world_connect(world);
	world_write(world, "vda", "pull", "bandwidth=1M", &pull);
	WORLD_UNTIL(world, !pull.op && world_is_quiet(world));
	job = world_job(world, "vda");
	job->deadline_s = 5;
	job->deadline = job->started;
	job->deadline.tv_sec += 5;
	job->deadline_ns = uv_hrtime() + left_ms * (uint64_t)1000000;
	job_record_write(world_disk(world, "vda"));
	deadline_due(&world->domain->link->deadline);
}

static void expect_given_up(struct world *world)
{
	WORLD_UNTIL(world, world_is(world, "vda", "failed") && world_is_quiet(world));
	cr_assert_str_eq(world_job(world, "vda")->error, reason);
	cr_assert_eq(world_events(world, "job-failed"), 1);
	cr_assert_eq(world_events(world, "job-cancelled"), 0);
	cr_assert(strstr(world_disk(world, "vda")->history[0], reason));
	cr_assert_null(world->qemu->jobs);
	WORLD_UNTIL(world, !uv_is_active((uv_handle_t *)&world->domain->link->deadline));
}

Test(jobs_deadline, running_and_paused)
{
	/* Catches a deadline that is not kept, or comes too early, or leaves a paused job alone. */
	struct world world;
	struct answer_slip pause;

	for (int paused = 0; paused < 2; paused++) {
		begin(&world, 150);
		if (paused) {
			world_write(&world, "vda", "pause", "1", &pause);
			WORLD_UNTIL(&world, !pause.op);
		}
		WORLD_WHILE(&world, job_is_live(world_job(&world, "vda")), 60);
		expect_given_up(&world);
		world_free(&world);
	}
}

Test(jobs_deadline, ready_or_at_its_end)
{
	/* Catches a job that is thrown away though it has come in time, seen too late to be known before the deadline. */
	struct world world;

	for (int pending = 0; pending < 2; pending++) {
		begin(&world, 100000);
		if (pending) {
			qemu_hold(world.qemu, "job-finalize", true);
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
			cr_assert(peer_run_until_command(world.peer, "job-finalize", 1,
							 WORLD_WAIT_MS));
		} else {
			qemu_job(world.qemu, 0)->ready = true;
		}
		world_job(&world, "vda")->deadline_ns = 1;
		deadline_due(&world.domain->link->deadline);
		WORLD_WHILE(&world, peer_count_of(world.peer, "job-cancel") == 0, 100);
		cr_assert(pending || world_job(&world, "vda")->deadline_s == 0);
		if (pending) {
			qemu_release(world.qemu);
			WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
		}
		world_free(&world);
	}
}

Test(jobs_deadline, the_link_is_down)
{
	/* Catches a deadline that is forgotten because QEMU could not be told then. */
	struct world world;

	begin(&world, 100000);
	qemu_hold(world.qemu, "query-qmp-schema", true);
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_DISCONNECTED);
	world_job(&world, "vda")->deadline_ns = 1;
	uv_timer_stop(&world.domain->link->deadline);
	deadline_due(&world.domain->link->deadline);
	WORLD_WHILE(&world, job_is_live(world_job(&world, "vda")), 100);
	qemu_release(world.qemu);
	expect_given_up(&world);
	world_free(&world);
}

Test(jobs_deadline, the_link_is_lost_with_the_answer)
{
	/* Catches a job that is given up and shown as cancelled, or runs on, because the answer was lost. */
	struct world world;

	for (int taken = 0; taken < 2; taken++) {
		begin(&world, 100000);
		world.qemu->slow_cancel = taken;
		if (!taken)
			qemu_hold(world.qemu, "job-cancel", true);
		world_job(&world, "vda")->deadline_ns = 1;
		deadline_due(&world.domain->link->deadline);
		cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
		peer_hang_up(world.peer);
		WORLD_UNTIL(&world, world.domain->state == DOMAIN_DISCONNECTED);
		qemu_drop_held(world.qemu);
		if (taken)
			qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
		expect_given_up(&world);
		world_free(&world);
	}
}

Test(jobs_deadline, the_daemons_next_life)
{
	/* Catches a deadline that only one life of the daemon knows of, before it strikes and after. */
	struct world world;

	for (int struck = 0; struck < 2; struck++) {
		begin(&world, 100000);
		if (struck) {
			world.qemu->slow_cancel = true;
			world_job(&world, "vda")->deadline_ns = 1;
			deadline_due(&world.domain->link->deadline);
			WORLD_UNTIL(&world, world_is(&world, "vda", "aborting"));
			WORLD_UNTIL(&world, world_is_quiet(&world));
			qemu_move(world.qemu, qemu_job(world.qemu, 0), "aborting");
		} else {
			world_job(&world, "vda")->deadline.tv_sec -= 10;
			job_record_write(world_disk(&world, "vda"));
		}
		world_restart(&world);
		if (struck)
			qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
		expect_given_up(&world);
		world_free(&world);
	}
}

Test(jobs_deadline, a_clock_that_is_set_back)
{
	/* Catches a deadline that is never, because the wall clock jumped between two lives. */
	struct world world;

	begin(&world, 100000);
	world_job(&world, "vda")->deadline.tv_sec += 1000000;
	job_record_write(world_disk(&world, "vda"));
	world_restart(&world);
	cr_assert_leq(world_job(&world, "vda")->deadline_ns,
		      uv_hrtime() + 5 * (uint64_t)1000000000);
	world_free(&world);
}

Test(jobs_deadline, qemu_will_not_hear_of_it)
{
	/* Catches a loop without a breath, and a job that reads `aborting` for ever. */
	struct world world;

	begin(&world, 100000);
	world.qemu->left = "job-cancel";
	peer_set_refusal(world.peer, "job-cancel", "GenericError", "no");
	world_job(&world, "vda")->deadline_ns = 1;
	deadline_due(&world.domain->link->deadline);
	cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
	WORLD_UNTIL(&world, world_is(&world, "vda", "running"));
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-cancel") == 1, 300);
	world.qemu->left = NULL;
	expect_given_up(&world);
	world_free(&world);
}

Test(jobs_deadline, who_aborts_first)
{
	/* Catches an abort that somebody asked for and that is told as a failure. */
	struct world world;
	struct answer_slip abort;

	begin(&world, 100000);
	world.qemu->slow_cancel = true;
	world_write(&world, "vda", "abort", "", &abort);
	cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
	world_job(&world, "vda")->deadline_ns = 1;
	deadline_due(&world.domain->link->deadline);
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-cancel") == 1, 100);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
	WORLD_UNTIL(&world, !abort.op && world_is(&world, "vda", "cancelled"));
	cr_assert_null(world_job(&world, "vda")->error);
	world_free(&world);
}
