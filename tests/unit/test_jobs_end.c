/*
 * The end of a pull: what happens between `pending` and the final word, and what QEMU must not be asked meanwhile.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/fake/world.h"

static void start(struct world *world, const char *disk)
{
	struct answer_slip pull;

	world_write(world, disk, "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
}

static void pend(struct world *world, size_t disk)
{
	qemu_pend(world->qemu, qemu_job(world->qemu, disk));
}

/* Looks, as often as a crowd of readers would, before every command that QEMU takes. */
static void look_again(void *data, const char *command)
{
	world_look(data);
}

static void expect_completed(struct world *world, const char *disk)
{
	WORLD_UNTIL(world, world_is(world, disk, "completed") && world_is_quiet(world));
	cr_assert_eq(world_disk(world, disk)->depth, 1);
	cr_assert_eq(world->domain->link->finalizing, 0);
	cr_assert_eq(world->qemu->in_danger, 0);
}

static void look_at_every_moment(bool daemon)
{
	struct world world;

	world_new(&world, 2);
	if (daemon)
		qemu_set_daemon(world.qemu);
	world_connect(&world);
	world.qemu->before = look_again;
	world.qemu->before_data = &world;
	start(&world, "vda");
	start(&world, "vdb");
	pend(&world, 0);
	for (int i = 0; i < 5; i++)
		world_turn(&world);
	pend(&world, 1);
	WORLD_UNTIL(&world,
		    world_is(&world, "vda", "completed") && world_is(&world, "vdb", "completed"));
	cr_assert_eq(world.qemu->in_danger, 0);
	world.qemu->before = NULL;
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_eq(world_events(&world, "job-completed"), 2);
	world_free(&world);
}

Test(jobs_end, no_listing_before_dismissed_on_a_machine)
{
	/* Catches a look that lists while a job is between finalize and dismiss, and a job that looks keep from its end. */
	look_at_every_moment(false);
}

Test(jobs_end, no_listing_before_dismissed_on_a_daemon)
{
	/* The same where such a listing is QEMU's death. */
	look_at_every_moment(true);
}

Test(jobs_end, no_listing_while_the_answer_to_dismiss_is_awaited)
{
	/* Catches one job's end that lets the listing through while another's is still on its way. */
	struct world world;
	size_t listings;

	world_new(&world, 2);
	world_connect(&world);
	start(&world, "vda");
	start(&world, "vdb");
	WORLD_UNTIL(&world, world_is_quiet(&world));
	listings = peer_count_of(world.peer, "query-block");
	qemu_hang(world.qemu, "job-dismiss");
	pend(&world, 0);
	pend(&world, 1);
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 2, WORLD_WAIT_MS));
	for (int i = 0; i < 10; i++) {
		world_look(&world);
		world_turn(&world);
	}
	cr_assert_eq(world.domain->link->finalizing, 2);
	cr_assert_eq(peer_count_of(world.peer, "query-block"), listings);
	cr_assert(world_is(&world, "vda", "running"));
	qemu_release(world.qemu);
	expect_completed(&world, "vda");
	expect_completed(&world, "vdb");
	world_free(&world);
}

Test(jobs_end, pending_during_a_sync)
{
	/* Catches a job finalized under a listing that is on its way, and one that nobody comes back to. */
	struct world world;
	size_t listings;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	WORLD_UNTIL(&world, world_is_quiet(&world));
	listings = peer_count_of(world.peer, "query-block");
	qemu_hold(world.qemu, "query-block", true);
	world_look(&world);
	cr_assert(peer_run_until_command(world.peer, "query-block", listings + 1, WORLD_WAIT_MS));
	pend(&world, 0);
	WORLD_UNTIL(&world, !strcmp(world_job(&world, "vda")->qemu_state, "pending"));
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-finalize") == 0, 20);
	qemu_release(world.qemu);
	expect_completed(&world, "vda");
	world_free(&world);
}

Test(jobs_end, whole_life_before_the_answer)
{
	/* Catches a job that is not known yet when its events come, and one that a late answer revives. */
	struct world world;
	struct answer_slip pull;

	world_new(&world, 1);
	world_connect(&world);
	world.qemu->quick = true;
	start(&world, "vda");
	expect_completed(&world, "vda");
	world.qemu->disks[0].pulled = false;
	world_look(&world);
	WORLD_UNTIL(&world, world_disk(&world, "vda")->depth == 3);

	/* And with the answer behind its very last event, sent by hand: nobody waits for it. */
	world.qemu->left = "block-stream";
	peer_set_answer(world.peer, "block-stream", NULL);
	world_write(&world, "vda", "pull", "", &pull);
	cr_assert(peer_run_until_command(world.peer, "block-stream", 2, WORLD_WAIT_MS));
	{
		struct qemu_job *job =
			qemu_add_job(world.qemu, 0, world_job(&world, "vda")->id, "created");

		qemu_move(world.qemu, job, "created");
		qemu_move(world.qemu, job, "running");
		WORLD_UNTIL(&world, !pull.op);
		cr_assert_eq(pull.status, 0);
		cr_assert(strstr(pull.text, "started blockjobfs-vda-"), "%s", pull.text);
		qemu_pend(world.qemu, job);
	}
	expect_completed(&world, "vda");
	peer_reply(world.peer, peer_last_of(world.peer, "block-stream"), "{}");
	world_look(&world);
	cr_assert(world_is(&world, "vda", "completed"));
	cr_assert_eq(world_events(&world, "job-started"), 2);
	cr_assert_eq(world_events(&world, "job-completed"), 2);
	world_free(&world);
}

Test(jobs_end, failed_jobs_keep_the_chain)
{
	/* Catches a failure shown as something else, a chain that it changed, and figures that claim the end. */
	struct world world;
	int64_t cur, end;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	qemu_job(world.qemu, 0)->offset = 64 << 20;
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "Input/output error");
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
	cr_assert_str_eq(world_job(&world, "vda")->error, "Input/output error");
	cr_assert_eq(world_disk(&world, "vda")->depth, 3);
	job_progress(world_job(&world, "vda"), &cur, &end);
	cr_assert_lt(cur, end);
	cr_assert_eq(world_count(&world, "\"error\":\"Input/output error\",\"result\":\"failed\","
					 "\"released\":[],\"shared\":[]"),
		     1);
	cr_assert_null(world.qemu->jobs, "it was not dismissed");
	cr_assert_eq(peer_count_of(world.peer, "blockdev-del"), 0);
	world_free(&world);
}

Test(jobs_end, dismiss_without_an_answer)
{
	/* Catches a job that never ends because the answer to its dismissal did not come in time, or never. */
	struct world world;

	world_new(&world, 1);
	world.timeout_ms = 150;
	world_connect(&world);
	start(&world, "vda");
	/* QEMU hangs and goes on later: nothing was done. */
	qemu_hang(world.qemu, "job-dismiss");
	pend(&world, 0);
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	WORLD_UNTIL(&world, !world_job(&world, "vda")->dismissing);
	cr_assert(world_is(&world, "vda", "running"));
	qemu_release(world.qemu);
	expect_completed(&world, "vda");

	/* It was done, and the answer is lost. */
	world.qemu->disks[0].pulled = false;
	world_look(&world);
	WORLD_UNTIL(&world, world_disk(&world, "vda")->depth == 3);
	start(&world, "vda");
	qemu_hold(world.qemu, "job-dismiss", false);
	pend(&world, 0);
	WORLD_UNTIL(&world, !world.qemu->jobs);
	expect_completed(&world, "vda");
	world_free(&world);
}

Test(jobs_end, dismiss_that_is_lost)
{
	/* Catches a job called completed, or nodes listed, though it is still there: its dismissal never came to QEMU. */
	struct world world;
	size_t dismissals;

	world_new(&world, 1);
	world.timeout_ms = 100;
	world_connect(&world);
	start(&world, "vda");
	qemu_hang(world.qemu, "job-dismiss");
	pend(&world, 0);
	WORLD_UNTIL(&world, world_job(&world, "vda")->dismiss_lost);
	qemu_drop_held(world.qemu);
	dismissals = peer_count_of(world.peer, "job-dismiss");
	cr_assert_not_null(world.qemu->jobs);
	expect_completed(&world, "vda");
	cr_assert_eq(peer_count_of(world.peer, "job-dismiss"), dismissals + 1);
	cr_assert_null(world.qemu->jobs);
	world_free(&world);
}

Test(jobs_end, finalize_without_an_answer)
{
	/* Catches a job that is finalized twice, or never ends, because QEMU was slow. */
	struct world world;

	world_new(&world, 1);
	world.timeout_ms = 150;
	world_connect(&world);
	start(&world, "vda");
	qemu_hold(world.qemu, "job-finalize", true);
	pend(&world, 0);
	cr_assert(peer_run_until_command(world.peer, "job-finalize", 1, WORLD_WAIT_MS));
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-finalize") == 1, 400);
	cr_assert_eq(world.domain->link->finalizing, 1);
	qemu_release(world.qemu);
	expect_completed(&world, "vda");
	cr_assert_eq(peer_count_of(world.peer, "job-finalize"), 1);
	world_free(&world);
}

Test(jobs_end, somebody_else_dismisses_it)
{
	/* Catches a job that waits for ever for what another client has done. */
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	world.qemu->left = "job-dismiss";
	peer_set_refusal(world.peer, "job-dismiss", "GenericError", "Job not found");
	pend(&world, 0);
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	qemu_forget(world.qemu, world.qemu->jobs);
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
	world_free(&world);
}

Test(jobs_end, too_many_commands_in_flight)
{
	/* Catches a job that is stuck because its finalize or its dismissal was not sent: QMP_COMMANDS_MAX were waiting. */
	static struct answer_slip speeds[QMP_COMMANDS_MAX];
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	start(&world, "vda");
	WORLD_UNTIL(&world, world_is_quiet(&world));
	world.qemu->left = "block-job-set-speed";
	peer_set_answer(world.peer, "block-job-set-speed", NULL);
	for (int i = 0; i < QMP_COMMANDS_MAX; i++)
		world_write(&world, "vda", "speed", "1", &speeds[i]);
	cr_assert(peer_run_until_command(world.peer, "block-job-set-speed", QMP_COMMANDS_MAX,
					 WORLD_WAIT_MS));
	pend(&world, 0);
	WORLD_UNTIL(&world, job_qemu_says(world_job(&world, "vda"), "pending"));
	WORLD_WHILE(&world, peer_count_of(world.peer, "job-finalize") == 0, 20);
	for (size_t i = 0; i < peer_count(world.peer); i++)
		if (!strcmp(peer_command(world.peer, i), "block-job-set-speed"))
			peer_reply(world.peer, i, "{}");
	expect_completed(&world, "vda");
	world_free(&world);
}

Test(jobs_end, nodes_that_cannot_be_dropped)
{
	/* Catches a peer that makes us drop the same node for ever: the final word must come. */
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	world.qemu->left = "blockdev-del";
	start(&world, "vda");
	pend(&world, 0);
	expect_completed(&world, "vda");
	cr_assert_leq(peer_count_of(world.peer, "blockdev-del"), 10);

	world.qemu->disks[0].pulled = false;
	peer_set_refusal(world.peer, "blockdev-del", "GenericError", "Node 'vda-mid' is in use");
	world_look(&world);
	WORLD_UNTIL(&world, world_disk(&world, "vda")->depth == 3);
	start(&world, "vda");
	pend(&world, 0);
	expect_completed(&world, "vda");
	world_free(&world);
}
