/*
 * Jobs of somebody else's, and a storage daemon, where a listing at the wrong time is QEMU's death.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "tests/fake/world.h"

static int write_and_wait(struct world *world, const char *file, const char *text)
{
	struct answer_slip slip;

	world_write(world, "vda", file, text, &slip);
	WORLD_UNTIL(world, !slip.op);
	return slip.status;
}

Test(jobs_foreign, shown_and_steered)
{
	/* Catches somebody else's job that is not shown, cannot be steered, or is taken for ours. */
	struct world world;
	struct qemu_job *job;

	world_new(&world, 1);
	world_connect(&world);
	job = qemu_add_job(world.qemu, 0, "theirs", "created");
	job->auto_finalize = job->auto_dismiss = true;
	qemu_move(world.qemu, job, "created");
	qemu_move(world.qemu, job, "running");
	WORLD_UNTIL(&world, world_is(&world, "vda", "running"));
	cr_assert_eq(world_job(&world, "vda")->by.uid, (uid_t)-1);
	cr_assert_str_eq(world_job(&world, "vda")->type, "pull");
	cr_assert_eq(world_count(&world, "\"by\":\"foreign\""), 1);
	cr_assert_eq(write_and_wait(&world, "speed", "5M"), 0);
	cr_assert_eq(job->speed, 5 << 20);
	cr_assert_eq(write_and_wait(&world, "pull", ""), -EBUSY);
	cr_assert_eq(write_and_wait(&world, "abort", ""), 0);
	cr_assert(world_is(&world, "vda", "cancelled"));
	cr_assert_eq(peer_count_of(world.peer, "job-dismiss"), 0);
	cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
	world_free(&world);
}

Test(jobs_foreign, neither_finalized_nor_dismissed)
{
	/* Catches us ending a job that another client has kept for itself. */
	struct world world;
	struct qemu_job *job;

	world_new(&world, 1);
	job = qemu_add_job(world.qemu, 0, "theirs", "running");
	world_connect(&world);
	cr_assert(world_is(&world, "vda", "running"));
	qemu_pend(world.qemu, job);
	WORLD_UNTIL(&world, !strcmp(world_job(&world, "vda")->qemu_state, "pending"));
	qemu_end(world.qemu, job, "Input/output error");
	WORLD_UNTIL(&world, !strcmp(world_job(&world, "vda")->qemu_state, "concluded"));
	world_look(&world);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_eq(write_and_wait(&world, "pull", ""), -EBUSY);
	cr_assert_eq(peer_count_of(world.peer, "job-finalize"), 0);
	cr_assert_eq(peer_count_of(world.peer, "job-dismiss"), 0);
	/* Its owner dismisses it. */
	qemu_move(world.qemu, job, "null");
	qemu_forget(world.qemu, job);
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
	cr_assert_str_eq(world_job(&world, "vda")->error, "Input/output error");
	world_free(&world);
}

Test(jobs_foreign, told_though_its_owner_does_not_dismiss_it)
{
	/* Catches an end that is told when its owner comes to it, which may be never; and a disk taken for free too early. */
	struct world world;
	struct answer_slip abort;
	struct qemu_job *job;

	world_new(&world, 1);
	job = qemu_add_job(world.qemu, 0, "theirs", "running");
	world_connect(&world);
	cr_assert(world_is(&world, "vda", "running"));
	world_write(&world, "vda", "abort", "", &abort);
	WORLD_UNTIL(&world, !strcmp(world_job(&world, "vda")->qemu_state, "concluded"));
	cr_assert_str_eq(job->status, "concluded");
	cr_assert(abort.op);
	WORLD_UNTIL(&world, !abort.op);
	cr_assert(world_is(&world, "vda", "cancelled"));
	cr_assert_eq(peer_count_of(world.peer, "job-dismiss"), 0);
	/* It is left alone, and not found anew at every look. */
	world_look(&world);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
	world_free(&world);
}

Test(jobs_foreign, daemon_with_a_stream_that_stays)
{
	/* Catches a storage daemon asked for its nodes while somebody else's stream may be concluded there. */
	struct world world;
	struct qemu_job *job;
	size_t lines;

	world_new(&world, 1);
	qemu_set_daemon(world.qemu);
	job = qemu_add_job(world.qemu, 0, "theirs", "running");
	world_start(&world);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED);
	qemu_end(world.qemu, job, "Input/output error");
	for (int i = 0; i < 20; i++) {
		world_look(&world);
		world_turn(&world);
	}
	cr_assert_eq(peer_count_of(world.peer, "query-named-block-nodes"), 0);
	cr_assert_null(world.domain->disks);
	cr_assert(strstr(world.domain->error, "theirs"));
	lines = world.log_lines;
	WORLD_WHILE(&world, world.log_lines == lines, 1100);
	qemu_move(world.qemu, job, "null");
	qemu_forget(world.qemu, job);
	WORLD_UNTIL(&world, world.domain->disks && world_is_quiet(&world));
	cr_assert_null(world.domain->error);
	cr_assert_eq(world.qemu->in_danger, 0);
	world_free(&world);
}

Test(jobs_foreign, daemon_during_an_abort)
{
	/* Catches a look that lists the nodes when an abort is on its way: the job is concluded before QEMU comes to the look. */
	struct world world;
	struct answer_slip pull, abort;

	world_new(&world, 2);
	qemu_set_daemon(world.qemu);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op && world_is_quiet(&world));
	qemu_hold(world.qemu, "query-block-jobs", true);
	world_look(&world);
	WORLD_UNTIL(&world, world.qemu->held_count);
	world_write(&world, "vda", "abort", "", &abort);
	qemu_release(world.qemu);
	for (int i = 0; i < 20; i++) {
		world_look(&world);
		world_turn(&world);
	}
	WORLD_UNTIL(&world, !abort.op && world_is_quiet(&world));
	cr_assert(world_is(&world, "vda", "cancelled"));
	cr_assert_eq(world.qemu->in_danger, 0);
	world_free(&world);
}

Test(jobs_foreign, daemon_with_a_job_that_fails)
{
	/* Catches looks that list the nodes while a job of ours runs, which may fail at any moment. */
	struct world world;
	struct answer_slip pull;
	size_t listings;

	world_new(&world, 2);
	qemu_set_daemon(world.qemu);
	world_connect(&world);
	listings = peer_count_of(world.peer, "query-named-block-nodes");
	world_write(&world, "vda", "pull", "", &pull);
	for (int i = 0; i < 50; i++) {
		world_look(&world);
		world_turn(&world);
	}
	cr_assert_null(pull.op);
	cr_assert_leq(peer_count_of(world.peer, "query-named-block-nodes"), listings + 1);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "Input/output error");
	for (int i = 0; i < 20; i++) {
		world_look(&world);
		world_turn(&world);
	}
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
	cr_assert_eq(world.qemu->in_danger, 0);
	/* What was not looked at meanwhile is looked at now. */
	cr_assert_gt(peer_count_of(world.peer, "query-named-block-nodes"), listings);
	world_free(&world);
}

Test(jobs_foreign, daemon_shows_a_word_while_another_job_runs)
{
	/* Catches a final word that waits for the end of another disk's job, which may take hours. */
	struct world world;
	struct answer_slip pull;

	world_new(&world, 2);
	qemu_set_daemon(world.qemu);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	world_write(&world, "vdb", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	cr_assert(world_is(&world, "vdb", "running"));
	cr_assert_eq(world_disk(&world, "vda")->depth, 1);
	cr_assert_eq(world.qemu->in_danger, 0);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_eq(world.qemu->disks[0].left, 0);
	world_free(&world);
}

Test(jobs_foreign, disks_of_a_daemon)
{
	/* Catches nodes that back a disk shown as disks, and disks that come and go without a restart. */
	struct world world;

	world_new(&world, 2);
	qemu_set_daemon(world.qemu);
	world.qemu->disks[1].gone = true;
	world_connect(&world);
	cr_assert_str_eq(world.domain->disks->name, "vda");
	cr_assert_null(world.domain->disks->next);
	cr_assert_null(world.domain->run_state);
	world.qemu->disks[1].gone = false;
	world_look(&world);
	WORLD_UNTIL(&world, domain_find_disk(world.domain, "vdb"));
	world.qemu->disks[0].gone = true;
	peer_send_event(world.peer, "BLOCK_EXPORT_DELETED", "{'id': 'x'}");
	WORLD_UNTIL(&world, !domain_find_disk(world.domain, "vda"));
	world_free(&world);
}
