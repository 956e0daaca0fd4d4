/*
 * A domain at a scripted QEMU: how it comes up, and the ordinary life of a pull from the command to its last word.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "tests/fake/world.h"

Test(jobs_domain, comes_up_and_finds_its_disks)
{
	/* Catches disks that are not found or get other names, and a state that says connected too early. */
	struct world world;

	world_new(&world, 2);
	world_start(&world);
	cr_assert_eq(world.domain->state, DOMAIN_CONNECTING);
	cr_assert_null(world.domain->disks);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED);
	cr_assert_str_eq(world.domain->disks->name, "vda");
	cr_assert_str_eq(world.domain->disks->next->name, "vdb");
	cr_assert_null(world.domain->disks->next->next);
	cr_assert_eq(world_disk(&world, "vda")->depth, 3);
	cr_assert_str_eq(world_disk(&world, "vda")->chain[2].path, "/vm/vda-base.qcow2");
	cr_assert(world_is(&world, "vda", "idle"));
	cr_assert_null(world.domain->error);
	WORLD_UNTIL(&world, world.domain->run_state);
	cr_assert_str_eq(world.domain->run_state, "running");
	cr_assert_eq(world_events(&world, "disk-added"), 2);
	cr_assert_eq(world_events(&world, "domain-connected"), 1);
	cr_assert_eq(peer_count_of(world.peer, "query-named-block-nodes"), 0);
	world_free(&world);
}

Test(jobs_domain, pull_from_command_to_completed)
{
	/* Catches a writer answered before QEMU did, a word shown before the chain is the new one, and nodes left behind. */
	struct world world;
	struct answer_slip pull, waiting;

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "bandwidth=1M on-error=stop\n", &pull);
	world_wait(&world, "vda", &waiting);
	cr_assert_not_null(pull.op);
	WORLD_UNTIL(&world, !pull.op);
	cr_assert_eq(pull.status, 0);
	cr_assert(strstr(pull.text, "started blockjobfs-vda-1000.4711-"));
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert_not_null(waiting.op);
	cr_assert(strstr(peer_message(world.peer, peer_last_of(world.peer, "block-stream")),
			 "\"device\":\"vda-top\",\"speed\":1048576,\"on-error\":\"stop\""));

	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	while (!world_is(&world, "vda", "completed")) {
		cr_assert_eq(world_disk(&world, "vda")->depth == 1,
			     world_events(&world, "chain-changed") == 1);
		cr_assert_not_null(waiting.op);
		world_turn(&world);
	}
	cr_assert_eq(waiting.times, 1);
	cr_assert_eq(waiting.status, 0);
	cr_assert_eq(world_disk(&world, "vda")->depth, 1);
	cr_assert_eq(world_disk(&world, "vda")->generation, 2);
	cr_assert_null(world.qemu->jobs);
	cr_assert_eq(world.qemu->disks[0].left, 0, "nodes of the old chain are still there");
	cr_assert_eq(world_events(&world, "job-started"), 1);
	cr_assert_eq(world_events(&world, "job-completed"), 1);
	cr_assert_eq(world_count(&world,
				 "\"result\":\"pulled\",\"released\":[\"/vm/vda-mid.qcow2\","
				 "\"/vm/vda-base.qcow2\"]"),
		     1);
	cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
	cr_assert_eq(world.qemu->in_danger, 0);
	world_free(&world);
}

Test(jobs_domain, refused_start_changes_nothing)
{
	/* Catches a refusal, early or late in QEMU, that takes away the last job's word or leaves a trace of one that never was. */
	struct world world;
	struct answer_slip pull, waiting;
	struct job *last;

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "No space left on device");
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
	last = world_job(&world, "vda");
	cr_assert_str_eq(last->error, "No space left on device");

	/* After the job was created, with its events; then before. */
	world.qemu->refuse = "Permission conflict on node 'vda-top'";
	for (int late = 1; late >= 0; late--) {
		world_write(&world, "vda", "pull", "bandwidth=5", &pull);
		world_wait(&world, "vda", &waiting);
		WORLD_UNTIL(&world, !pull.op && !waiting.op);
		cr_assert_eq(pull.status, -EREMOTEIO);
		cr_assert(strstr(world_disk(&world, "vda")->error, "Permission conflict"));
		WORLD_WHILE(&world, world_job(&world, "vda") == last, 20);
		cr_assert(world_is(&world, "vda", "failed"));
		cr_assert_eq(world_events(&world, "job-started"), 1);
		cr_assert_eq(world_events(&world, "job-lost"), 0);
		cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
		cr_assert_eq(world_disk(&world, "vda")->generation, 1);
		peer_set_refusal(world.peer, "block-stream", "GenericError",
				 "Permission conflict on node 'vda-top'");
		world.qemu->left = "block-stream";
	}
	cr_assert_eq(world_events(&world, "command-refused"), 2);
	world_free(&world);
}
