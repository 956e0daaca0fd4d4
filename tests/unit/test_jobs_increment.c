/*
 * Pulls in increments: steps, parking, and whatever comes in between.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/fake/world.h"

enum { MIB = 1 << 20 };

/* Each job-resume copies a MiB. The one that would come to the end does. */
static void advance(void *data, const char *command)
{
	struct world *world = data;
	struct qemu_job *job = qemu_job(world->qemu, 0);

	if (strcmp(command, "job-resume") || !job || !job->paused)
		return;
	job->offset += MIB;
	if (job->offset >= job->length) {
		job->paused = false;
		qemu_pend(world->qemu, job);
	}
}

static void begin(struct world *world)
{
	world_new(world, 1);
	world->qemu->before = advance;
	world->qemu->before_data = world;
	world_keep_journal(world);
	world_connect(world);
}

static void write_ok(struct world *world, const char *file, const char *text)
{
	struct answer_slip slip;

	world_write(world, "vda", file, text, &slip);
	WORLD_UNTIL(world, !slip.op);
	cr_assert_eq(slip.status, 0, "%s", slip.text);
}

static void write_refused(struct world *world, const char *file, const char *text, int error,
			  const char *why)
{
	struct answer_slip slip;

	world_write(world, "vda", file, text, &slip);
	WORLD_UNTIL(world, !slip.op);
	cr_assert_eq(slip.status, error, "%s", slip.text);
	cr_assert(strstr(slip.text, why), "%s", slip.text);
}

static bool is_parked(struct world *world, int mib)
{
	const struct job *job = world_job(world, "vda");

	return job->parked && world_is(world, "vda", "paused") &&
	       job->offset == (int64_t)mib * MIB && world_is_quiet(world);
}

static void expect_silence(struct world *world)
{
	size_t before = peer_count(world->peer);

	WORLD_WHILE(world, peer_count(world->peer) == before, 300);
	cr_assert(!uv_is_active((uv_handle_t *)&world->domain->link->pace));
}

static void expect_no_step(struct world *world)
{
	size_t before = peer_count_of(world->peer, "job-pause");

	WORLD_WHILE(world, peer_count_of(world->peer, "job-pause") == before, 300);
}

Test(jobs_increment, steps_to_the_mark_and_on)
{
	/* Catches a step too many, a parked job that is looked at, and a status that is still `paused` when the writer goes on. */
	struct world world;

	begin(&world);
	write_ok(&world, "pull", "increment=3M bandwidth=200M");
	cr_assert(world_is(&world, "vda", "running"));
	WORLD_UNTIL(&world, is_parked(&world, 3));
	cr_assert_eq(peer_count_of(world.peer, "job-resume"), 3);
	cr_assert_eq(world_events(&world, "increment-done"), 1);
	cr_assert_eq(world_events(&world, "job-paused"), 0);
	cr_assert_eq(world_job(&world, "vda")->speed, 200 * MIB);
	WORLD_WHILE(&world, true,
		    1200); /* the figures of a running job are asked for once a second: once more */
	expect_silence(&world);

	write_ok(&world, "pull", "increment=2M");
	cr_assert(world_is(&world, "vda", "running"));
	WORLD_UNTIL(&world, is_parked(&world, 5));
	cr_assert_eq(peer_count_of(world.peer, "job-resume"), 5);

	write_ok(&world, "pull", "");
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert_eq(world_job(&world, "vda")->mark, 0);
	cr_assert_eq(qemu_job(world.qemu, 0)->speed, 200 * MIB);
	WORLD_UNTIL(&world, !qemu_job(world.qemu, 0)->paused && world_is_quiet(&world));
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	cr_assert_eq(world_events(&world, "increment-done"), 2);
	cr_assert_eq(world_events(&world, "job-resumed"), 2);
	world_free(&world);
}

Test(jobs_increment, refusals)
{
	/* Catches a second pull that disturbs an increment, and words that are forgotten without a word. */
	struct world world;

	begin(&world);
	write_refused(&world, "pull", "increment=0", -EINVAL, "at least one byte");
	cr_assert_eq(peer_count_of(world.peer, "block-stream"), 0);
	qemu_hold(world.qemu, "job-resume", true);
	write_ok(&world, "pull", "increment=2M on-error=stop");
	cr_assert(peer_run_until_command(world.peer, "job-resume", 1, WORLD_WAIT_MS));
	write_refused(&world, "pull", "", -EBUSY, "up to 2097152");
	write_refused(&world, "pull", "increment=4M", -EBUSY, "wait until");
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, is_parked(&world, 2));
	write_refused(&world, "pull", "increment=1M base=/vm/vda-base.qcow2", -EINVAL, "base");
	write_refused(&world, "pull", "on-error=ignore", -EINVAL, "on-error");
	write_refused(&world, "pause", "0", -EBUSY, "`pull`");
	cr_assert(is_parked(&world, 2));
	write_ok(&world, "pull", "increment=1M on-error=stop");
	WORLD_UNTIL(&world, is_parked(&world, 3));
	world_free(&world);
}

Test(jobs_increment, paused_as_it_comes_to_its_mark)
{
	/* Catches a user's pause and a mark that are taken for each other: each is taken back by its own. */
	struct world world;
	struct answer_slip pause;

	begin(&world);
	qemu_hold(world.qemu, "job-pause", true);
	write_ok(&world, "pull", "increment=1M");
	world_write(&world, "vda", "pause", "1", &pause);
	cr_assert(world_is(&world, "vda", "paused"));
	cr_assert(!world_job(&world, "vda")->parked);
	qemu_job(world.qemu, 0)->offset = MIB;
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, !pause.op && world_job(&world, "vda")->parked);
	cr_assert_eq(pause.status, 0);
	cr_assert_eq(world_events(&world, "increment-done"), 1);
	write_refused(&world, "pull", "increment=1M", -EBUSY, "`pause`");
	write_ok(&world, "pause", "0");
	cr_assert(is_parked(&world, 1));
	write_refused(&world, "pause", "0", -EBUSY, "`pull`");
	cr_assert_eq(peer_count_of(world.peer, "job-resume"), 0);
	write_ok(&world, "pull", "increment=1M");
	WORLD_UNTIL(&world, is_parked(&world, 2));
	world_free(&world);
}

Test(jobs_increment, paused_on_the_way)
{
	/* Catches a paused increment that goes on by itself, and one that forgets its mark. */
	struct world world;

	begin(&world);
	write_ok(&world, "pull", "increment=8M bandwidth=4M");
	WORLD_UNTIL(&world, world_job(&world, "vda")->offset >= 2 * MIB);
	write_ok(&world, "pause", "1");
	write_ok(&world, "pause", "1");
	cr_assert(world_is(&world, "vda", "paused"));
	WORLD_WHILE(&world, true, 1200);
	expect_silence(&world);
	cr_assert_lt(world_job(&world, "vda")->offset, 8 * MIB);
	write_ok(&world, "speed", "0");
	expect_silence(&world);
	write_ok(&world, "pause", "0");
	WORLD_UNTIL(&world, is_parked(&world, 8));
	cr_assert_eq(world_events(&world, "job-paused"), 1);
	world_free(&world);
}

Test(jobs_increment, the_job_ends_on_the_way)
{
	/* Catches steps that go on behind the end: of a job that is done, that fails, that is gone. */
	struct world world;

	for (int i = 0; i < 3; i++) {
		begin(&world);
		write_ok(&world, "pull", i ? "increment=8M bandwidth=4M" : "increment=63M");
		WORLD_UNTIL(&world, world_job(&world, "vda")->offset >= 2 * MIB);
		if (i == 0) {
			WORLD_UNTIL(&world, is_parked(&world, 63));
			world.qemu->before = NULL;
			write_ok(&world, "pull", "increment=1M"); /* all that is left: to the end */
			cr_assert_eq(world_job(&world, "vda")->mark, 0);
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		} else if (i == 1) {
			qemu_end(world.qemu, qemu_job(world.qemu, 0), "No space left on device");
		} else {
			qemu_forget(world.qemu, qemu_job(world.qemu, 0));
			peer_hang_up(world.peer);
		}
		WORLD_UNTIL(&world, !job_is_live(world_job(&world, "vda")));
		cr_assert(world_is(&world, "vda",
				   i == 0   ? "completed"
				   : i == 1 ? "failed"
					    : "lost"),
			  "%s", disk_status(world_disk(&world, "vda")));
		WORLD_UNTIL(&world, world_is_quiet(&world));
		expect_no_step(&world);
		world_free(&world);
	}
}

Test(jobs_increment, abort)
{
	/* Catches an abort that a parked job, or one in the midst of a step, does not hear. */
	struct world world;

	for (int parked = 0; parked < 2; parked++) {
		begin(&world);
		if (!parked)
			qemu_hold(world.qemu, "job-resume", true);
		write_ok(&world, "pull", "increment=2M");
		if (parked)
			WORLD_UNTIL(&world, is_parked(&world, 2));
		else
			cr_assert(
				peer_run_until_command(world.peer, "job-resume", 1, WORLD_WAIT_MS));
		write_ok(&world, "abort", "");
		cr_assert(world_is(&world, "vda", "cancelled"));
		if (!parked)
			qemu_release(world.qemu);
		WORLD_UNTIL(&world, world_is_quiet(&world));
		expect_no_step(&world);
		cr_assert_null(world.qemu->jobs);
		world_free(&world);
	}
}

Test(jobs_increment, link_lost_while_parking)
{
	/* Catches a job-pause that was lost with the link: the job runs on, and must park as soon as it is seen. */
	struct world world;
	struct qemu_job *job;

	begin(&world);
	qemu_hold(world.qemu, "job-pause", true);
	write_ok(&world, "pull", "increment=1M");
	cr_assert(peer_run_until_command(world.peer, "job-pause", 1, WORLD_WAIT_MS));
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_DISCONNECTED);
	qemu_drop_held(world.qemu);
	job = qemu_job(world.qemu, 0);
	cr_assert(!job->paused);
	job->offset = 7 * MIB;
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED && is_parked(&world, 7));
	cr_assert(qemu_job(world.qemu, 0)->paused);
	cr_assert_eq(world_events(&world, "increment-done"), 1);

	/* And parked it stays, through another loss, told once. */
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_DISCONNECTED);
	cr_assert(world_is(&world, "vda", "paused"));
	write_refused(&world, "pull", "increment=1M", -EHOSTDOWN, "not connected");
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED && is_parked(&world, 7));
	cr_assert_eq(world_events(&world, "increment-done"), 1);
	write_ok(&world, "pull", "increment=1M");
	WORLD_UNTIL(&world, is_parked(&world, 8));
	world_free(&world);
}

Test(jobs_increment, the_daemons_next_life)
{
	/* Catches a mark, a bandwidth or a pause that only one life of the daemon knows of. */
	struct world world;

	begin(&world);
	write_ok(&world, "pull", "increment=4M bandwidth=3M on-error=stop");
	WORLD_UNTIL(&world, world_job(&world, "vda")->offset >= 2 * MIB);
	write_ok(&world, "pause", "1");
	world_restart(&world);
	cr_assert(world_is(&world, "vda", "paused"));
	cr_assert(world_job(&world, "vda")->user_paused && !world_job(&world, "vda")->parked);
	cr_assert_eq(world_job(&world, "vda")->speed, 3 * MIB);
	write_ok(&world, "pause", "0");
	world_restart(&world);
	WORLD_UNTIL(&world, is_parked(&world, 4));
	world_restart(&world);
	WORLD_UNTIL(&world, is_parked(&world, 4));
	cr_assert_eq(world_events(&world, "increment-done"), 1);
	write_refused(&world, "pull", "on-error=report", -EINVAL, "on-error");
	write_ok(&world, "pull", "increment=1M");
	WORLD_UNTIL(&world, is_parked(&world, 5));
	world_free(&world);
}

Test(jobs_increment, somebody_else_resumes_it)
{
	/* Catches a parked job that another client lets run away. */
	struct world world;
	struct qemu_job *job;

	begin(&world);
	write_ok(&world, "pull", "increment=1M");
	WORLD_UNTIL(&world, is_parked(&world, 1));
	job = qemu_job(world.qemu, 0);
	job->paused = false;
	job->offset += MIB;
	qemu_move(world.qemu, job, "running");
	WORLD_UNTIL(&world, qemu_job(world.qemu, 0)->paused && is_parked(&world, 2));
	world_free(&world);
}

Test(jobs_increment, a_qemu_that_makes_no_progress)
{
	/* Catches a loop without a breath around a QEMU whose job does not move. */
	struct world world;
	unsigned before;

	begin(&world);
	world.qemu->before = NULL;
	write_ok(&world, "pull", "increment=2M");
	before = peer_count_of(world.peer, "job-resume");
	WORLD_WHILE(&world, world_is(&world, "vda", "running"), 500);
	cr_assert_lt(peer_count_of(world.peer, "job-resume") - before, 40);
	world_free(&world);
}

Test(jobs_increment, going_on_is_refused)
{
	/* Catches a job that is shown as going on though QEMU would not hear of it. */
	struct world world;

	begin(&world);
	write_ok(&world, "pull", "increment=1M");
	WORLD_UNTIL(&world, is_parked(&world, 1));
	world.qemu->left = "block-job-set-speed";
	peer_set_refusal(world.peer, "block-job-set-speed", "GenericError", "not now");
	write_refused(&world, "pull", "", -EREMOTEIO, "not now");
	cr_assert(is_parked(&world, 1));
	world.qemu->left = NULL;
	write_ok(&world, "pull", "");
	cr_assert(world_is(&world, "vda", "running"));
	world_free(&world);
}

Test(jobs_increment, a_pause_that_was_lost)
{
	/* Catches a job that stands still for a `pause` whose writer was told that it failed. */
	struct world world;
	struct answer_slip pause;

	begin(&world);
	qemu_hold(world.qemu, "job-pause", true);
	write_ok(&world, "pull", "increment=2M");
	world_write(&world, "vda", "pause", "1", &pause);
	peer_hang_up(world.peer);
	WORLD_UNTIL(&world, !pause.op);
	cr_assert_eq(pause.status, -EHOSTDOWN);
	qemu_drop_held(world.qemu);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED && is_parked(&world, 2));
	world_free(&world);
}
