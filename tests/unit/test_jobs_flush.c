/*
 * The image is flushed before its job is finalized, and before it is shown as completed.
 */
#include <criterion/criterion.h>
#include <string.h>
#include "tests/fake/world.h"

static void start(struct world *world, const char *disk)
{
	struct answer_slip pull;

	world_write(world, disk, "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
}

static void connect_world(struct world *world, size_t disks)
{
	world_new(world, disks);
	qemu_set_monitor(world->qemu);
	world_connect(world);
}

Test(jobs_flush, before_finalize_and_before_completed)
{
	/* Catches a job finalized, or shown as completed, while its image is not flushed. */
	struct world world;

	connect_world(&world, 1);
	start(&world, "vda");
	qemu_hold(world.qemu, "human-monitor-command", false);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "human-monitor-command", 1, WORLD_WAIT_MS));
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-finalize") == 0, 20);
	qemu_release(world.qemu);
	qemu_hold(world.qemu, "human-monitor-command", false);
	cr_assert(peer_run_until_command(world.peer, "human-monitor-command", 2, WORLD_WAIT_MS));
	cr_assert_gt(peer_last_of(world.peer, "human-monitor-command"),
		     peer_last_of(world.peer, "job-dismiss"));
	WORLD_WHILE(&world, world_is(&world, "vda", "running"), 20);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	world_free(&world);
}

Test(jobs_flush, others_do_not_hurry_it)
{
	/* Catches the end of another disk's job that publishes the one which is being flushed. */
	struct world world;

	connect_world(&world, 2);
	start(&world, "vda");
	start(&world, "vdb");
	qemu_hold(world.qemu, "human-monitor-command", false);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "human-monitor-command", 1, WORLD_WAIT_MS));
	qemu_release(world.qemu);
	qemu_hold(world.qemu, "human-monitor-command", false);
	cr_assert(peer_run_until_command(world.peer, "human-monitor-command", 2, WORLD_WAIT_MS));
	qemu_end(world.qemu, qemu_job(world.qemu, 1), "Input/output error");
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 2, WORLD_WAIT_MS));
	WORLD_WHILE(&world, world_is(&world, "vda", "running"), 30);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world,
		    world_is(&world, "vda", "completed") && world_is(&world, "vdb", "failed"));
	world_free(&world);
}

Test(jobs_flush, that_fails)
{
	/* Catches a job completed on an image that could not be flushed, and one that a lost link leaves pending for ever. */
	struct world world;

	for (int lost = 0; lost < 2; lost++) {
		connect_world(&world, 1);
		peer_set_answer(world.peer, "human-monitor-command",
				"'qemu-io: flush: No space left on device'");
		start(&world, "vda");
		if (lost)
			qemu_hold(world.qemu, "job-cancel", true);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, "job-cancel", 1, WORLD_WAIT_MS));
		if (lost) {
			peer_hang_up(world.peer);
			WORLD_UNTIL(&world, world.domain->state == DOMAIN_DISCONNECTED);
			qemu_drop_held(world.qemu);
		}
		WORLD_UNTIL(&world, world_is(&world, "vda", "failed"));
		cr_assert(strstr(world_job(&world, "vda")->error, "No space left on device"));
		cr_assert_eq(peer_count_of(world.peer, "job-finalize"), 0);
		cr_assert_eq(world_disk(&world, "vda")->depth, 3);
		world_free(&world);
	}
}

Test(jobs_flush, slow)
{
	/* Catches a job that is stuck, or finalized all the same, when a flush takes longer than the deadline. */
	struct world world;

	world_new(&world, 1);
	qemu_set_monitor(world.qemu);
	world.timeout_ms = 100;
	world_connect(&world);
	start(&world, "vda");
	qemu_hold(world.qemu, "human-monitor-command", false);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "human-monitor-command", 2, WORLD_WAIT_MS));
	cr_assert_eq(peer_count_of(world.peer, "job-finalize"), 0);
	qemu_release(world.qemu);
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	world_free(&world);
}
