/*
 * Operations: one answer each, and the text of a refusal.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "jobs/grammar.h"
#include "tests/fake/world.h"

static void done(struct op *op, int status, void *data)
{
	struct answer_slip *slip = data;

	slip->op = NULL;
	slip->times++;
	slip->status = status;
	snprintf(slip->text, sizeof(slip->text), "%s", text_bytes(op->answer));
}

static struct op *new_op(struct world *world, const char *written, struct answer_slip *slip)
{
	struct target target = { world->model, world->domain, world_disk(world, "vda") };
	struct who who = { 1, 2, 3 };
	struct op *op;

	*slip = (struct answer_slip){ 0 };
	op = slip->op = op_new(&target, &who, done, slip);
	if (written)
		op_set_written(op, written, strlen(written));
	return op;
}

static void open_world(struct world *world)
{
	world_new(world, 1);
	world_connect(world);
}

Test(jobs_op, completes_once_and_is_gone)
{
	/* Catches an op that can be found after its end, a number used twice, and a list that keeps it. */
	struct world world;
	struct answer_slip one, two;
	uint64_t id;

	open_world(&world);
	id = new_op(&world, "x", &one)->id;
	cr_assert_neq(new_op(&world, "y", &two)->id, id);
	cr_assert_eq(op_find(world.model, id), one.op);
	op_complete(one.op, 0);
	cr_assert_eq(one.times, 1);
	cr_assert_null(op_find(world.model, id));
	cr_assert_null(op_find(world.model, 0));
	cr_assert_eq(world_disk(&world, "vda")->ops, two.op);
	op_interrupt(two.op);
	cr_assert_eq(two.status, -EINTR);
	cr_assert_null(world_disk(&world, "vda")->ops);
	cr_assert_gt(new_op(&world, NULL, &one)->id, id + 1);
	op_complete(one.op, -EIO);
	cr_assert_eq(one.status, -EIO);
	cr_assert_null(world_disk(&world, "vda")->error);
	world_free(&world);
}

static void expect_refusal(struct world *world, const char *written, size_t offset, size_t length,
			   const char *wanted)
{
	struct answer_slip slip;
	struct disk *disk = world_disk(world, "vda");
	uint64_t version = disk->stamps[TOPIC_ERROR].version;

	new_op(world, written, &slip);
	op_refuse_at(slip.op, -EINVAL, offset, length, "%s", "no");
	cr_assert_eq(slip.status, -EINVAL);
	cr_assert_str_eq(slip.text, wanted, "%s", slip.text);
	cr_assert_str_eq(disk->error, wanted);
	cr_assert_eq(disk->stamps[TOPIC_ERROR].version, version + 1);
}

Test(jobs_op, refusal_with_a_caret)
{
	/* Catches a caret under something else: characters of several bytes, and those that are shown as \xNN. */
	struct world world;
	char text[3000], wanted[3000];

	open_world(&world);
	expect_refusal(&world, "base=/x\n", 0, 7, "base=/x\n^^^^^^^\nEINVAL: no\n");
	expect_refusal(&world, "a base=/x", 2, 4, "a base=/x\n  ^^^^\nEINVAL: no\n");
	expect_refusal(&world, "\xc3\xa9\xe2\x82\xac b", 6, 1,
		       "\xc3\xa9\xe2\x82\xac b\n   ^\nEINVAL: no\n");
	expect_refusal(&world, "\xc3\xa9 b", 0, 2, "\xc3\xa9 b\n^\nEINVAL: no\n");
	expect_refusal(&world, "a\tb\x1b[31mc", 8, 1,
		       "a\\x09b\\x1b[31mc\n              ^\nEINVAL: no\n");
	expect_refusal(&world, "\xff x", 2, 1, "\\xff x\n     ^\nEINVAL: no\n");
	expect_refusal(&world, "x", 0, 0, "x\nEINVAL: no\n");
	expect_refusal(&world, "", 0, 0, "\nEINVAL: no\n");
	expect_refusal(&world, "x", 1, 1, "x\n ^\nEINVAL: no\n");
	expect_refusal(&world, "one\ntwo\n", 3, 1, "one\\x0atwo\n   ^^^^\nEINVAL: no\n");
	/* Long ones are cut, and a caret behind the cut is none. */
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	snprintf(wanted, sizeof(wanted), "%.1024s...\nEINVAL: no\n", text);
	expect_refusal(&world, text, 2000, 5, wanted);
	cr_assert_eq(world_events(&world, "command-refused"), 11);
	cr_assert_eq(
		world_count(&world, "\"errno\":\"EINVAL\",\"error\":\"no\",\"uid\":1,\"pid\":3"),
		11);
	world_free(&world);
}

Test(jobs_op, error_is_the_last_command)
{
	/* Catches an error that outlives the next command, and a read that leaves one. */
	struct world world;
	struct answer_slip slip;
	struct disk *disk;

	open_world(&world);
	disk = world_disk(&world, "vda");
	expect_refusal(&world, "x", 0, 1, "x\n^\nEINVAL: no\n");
	op_refuse(new_op(&world, NULL, &slip), -ETIMEDOUT, "%s", "too slow");
	cr_assert_eq(slip.status, -ETIMEDOUT);
	cr_assert_str_eq(disk->error, "x\n^\nEINVAL: no\n");
	cr_assert_eq(world_events(&world, "command-refused"), 1);
	op_interrupt(new_op(&world, "y", &slip));
	cr_assert_str_eq(disk->error, "x\n^\nEINVAL: no\n");
	op_complete(new_op(&world, "z", &slip), 0);
	cr_assert_null(disk->error);
	world_free(&world);
}

Test(jobs_op, fault_of_the_grammar)
{
	/* Catches a reason that is lost, or more than one line. */
	struct world world;
	struct answer_slip slip;
	struct fault fault = { .error = -E2BIG, .reason = "a\nb" };

	open_world(&world);
	op_refuse_fault(new_op(&world, "w", &slip), &fault);
	cr_assert_eq(slip.status, -E2BIG);
	cr_assert_str_eq(slip.text, "w\nE2BIG: a\\x0ab\n");
	world_free(&world);
}

Test(jobs_op, end_of_a_list)
{
	/* Catches one that is left, and a domain's or the mount's op that is treated as a disk's. */
	struct world world;
	struct answer_slip slips[6];
	struct target mount = { 0 }, domain;
	struct who who = { 0 };

	open_world(&world);
	for (int i = 0; i < 4; i++)
		new_op(&world, i % 2 ? "x" : NULL, &slips[i]);
	op_list_end(&world_disk(&world, "vda")->ops, -ENODEV, "gone");
	for (int i = 0; i < 4; i++) {
		cr_assert_eq(slips[i].times, 1);
		cr_assert_eq(slips[i].status, -ENODEV);
	}
	mount.model = world.model;
	domain = mount;
	domain.domain = world.domain;
	slips[4] = slips[5] = (struct answer_slip){ 0 };
	op_set_written(op_new(&mount, &who, done, &slips[4]), "a", 1);
	op_set_written(op_new(&domain, &who, done, &slips[5]), "b", 1);
	op_list_end(&world.model->ops, -ESHUTDOWN, "over");
	op_list_end(&world.domain->ops, -ESHUTDOWN, "over");
	cr_assert_eq(slips[4].status, -ESHUTDOWN);
	cr_assert_str_eq(world.domain->error, "b\nESHUTDOWN: over\n");
	cr_assert_null(world.model->ops_by_id);
	world_free(&world);
}
