/*
 * The end of a job whose flush and questions go out behind its dismissal: only when no other job can be in the way, and none of it is believed
 * before the job has gone.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
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

static void begin(struct world *world, size_t disks)
{
	world_new(world, disks);
	qemu_set_daemon(world->qemu);
	world_connect(world);
	start(world, "vda");
}

/* A stream of somebody else's that does not dismiss itself. */
static void add_foreign(struct world *world)
{
	struct qemu_job *job = qemu_add_job(world->qemu, 1, "foreign", "created");

	qemu_move(world->qemu, job, "created");
	qemu_move(world->qemu, job, "running");
}

static void expect_completed(struct world *world)
{
	WORLD_UNTIL(world, world_is(world, "vda", "completed") && world_is_quiet(world));
	cr_assert_eq(world_disk(world, "vda")->depth, 1);
	cr_assert_eq(world->domain->link->finalizing, 0);
	cr_assert_eq(world->qemu->in_danger, 0);
}

/* Ours is dismissed, and its end waits for the other one to be gone. */
static void expect_no_listing(struct world *world)
{
	WORLD_UNTIL(world, peer_count_of(world->peer, "job-dismiss") == 1);
	WORLD_WHILE(world, world->qemu->in_danger == 0, 100);
	qemu_forget(world->qemu, qemu_job(world->qemu, 1));
	expect_completed(world);
}

Test(jobs_behind, in_one_breath)
{
	/* Catches an end that goes there and back more often than it has to. */
	static const char *const behind[] = { "query-named-block-nodes",
					      "x-debug-query-block-graph" };
	struct world world;
	size_t looks, dismissal;

	begin(&world, 1);
	looks = peer_count_of(world.peer, "query-block-jobs");
	qemu_hang(world.qemu, "job-dismiss");
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	dismissal = peer_last_of(world.peer, "job-dismiss");
	for (int i = 0; i < 2; i++) {
		WORLD_UNTIL(&world, peer_last_of(world.peer, behind[i]) > dismissal);
		cr_assert(world_is(&world, "vda", "running"));
	}
	cr_assert_eq(peer_count_of(world.peer, "query-block-jobs"), looks);
	qemu_release(world.qemu);
	world.qemu->disks[0].left = 0;
	expect_completed(&world);
	world_free(&world);
}

Test(jobs_behind, not_beside_a_stream_of_another)
{
	/* Catches a listing that QEMU dies of: a stream that we know is concluded, and its owner has not dismissed it. */
	struct world world;
	size_t looks;

	begin(&world, 2);
	looks = peer_count_of(world.peer, "query-block-jobs");
	add_foreign(&world);
	WORLD_UNTIL(&world, peer_count_of(world.peer, "query-block-jobs") > looks &&
				    world_is_quiet(&world));
	qemu_move(world.qemu, qemu_job(world.qemu, 1), "concluded");
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_no_listing(&world);
	world_free(&world);
}

Test(jobs_behind, not_when_a_look_is_owed)
{
	/* Catches the same with a stream that we have only heard of, while ours was being finalized. */
	struct world world;

	begin(&world, 2);
	qemu_hold(world.qemu, "job-finalize", true);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-finalize", 1, WORLD_WAIT_MS));
	add_foreign(&world);
	qemu_move(world.qemu, qemu_job(world.qemu, 1), "concluded");
	WORLD_UNTIL(&world, world.domain->link->sync_again);
	qemu_release(world.qemu);
	expect_no_listing(&world);
	world_free(&world);
}

Test(jobs_behind, not_after_a_look_that_failed)
{
	/* Catches the same with a stream that we would know of, had the last look at the jobs not failed. */
	struct world world;

	begin(&world, 2);
	world.qemu->left = "query-block-jobs";
	peer_set_refusal(world.peer, "query-block-jobs", "GenericError", "not now");
	add_foreign(&world);
	qemu_move(world.qemu, qemu_job(world.qemu, 1), "concluded");
	WORLD_UNTIL(&world, uv_is_active((uv_handle_t *)&world.domain->link->retry));
	world.qemu->left = NULL;
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_no_listing(&world);
	world_free(&world);
}

Test(jobs_behind, a_disk_named_as_what_is_made)
{
	/* Catches a job that is taken for the making of an image, for what its disk is called. */
	static char name[] = "create-0123456789abcdef";
	struct world world;

	world_new(&world, 1);
	free(world.qemu->disks[0].name);
	world.qemu->disks[0].name = strdup(name);
	world_connect(&world);
	start(&world, name);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, name, "completed"));
	world_free(&world);
}

Test(jobs_behind, a_flush_that_was_not_sent)
{
	/* Catches a job completed on an image that was not flushed, since too many commands waited for an answer just then. */
	static struct answer_slip speeds[QMP_COMMANDS_MAX];
	struct world world;
	size_t flushes;

	world_new(&world, 1);
	qemu_set_monitor(world.qemu);
	world_connect(&world);
	start(&world, "vda");
	qemu_hold(world.qemu, "job-finalize", true);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-finalize", 1, WORLD_WAIT_MS));
	WORLD_UNTIL(&world, !world.domain->link->refreshing);
	world.qemu->left = "block-job-set-speed";
	peer_set_answer(world.peer, "block-job-set-speed", NULL);
	/* With the finalization and the dismissal these are all that may be under way. */
	for (int i = 0; i < QMP_COMMANDS_MAX - 2; i++)
		world_write(&world, "vda", "speed", "1", &speeds[i]);
	cr_assert(peer_run_until_command(world.peer, "block-job-set-speed", QMP_COMMANDS_MAX - 2,
					 WORLD_WAIT_MS));
	flushes = peer_count_of(world.peer, "human-monitor-command");
	qemu_release(world.qemu);
	qemu_hold(world.qemu, "job-dismiss", true);
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	WORLD_UNTIL(&world, world_job(&world, "vda")->flush_owed);
	for (size_t i = 0; i < peer_count(world.peer); i++)
		if (!strcmp(peer_command(world.peer, i), "block-job-set-speed"))
			peer_reply(world.peer, i, "{}");
	WORLD_UNTIL(&world, !speeds[QMP_COMMANDS_MAX - 3].op);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	cr_assert_eq(peer_count_of(world.peer, "human-monitor-command"), flushes + 1);
	world_free(&world);
}
