/*
 * Domains that are removed while the daemon runs, at every moment; made by hand; and in folders of sockets.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/attach.h"
#include "jobs/grammar.h"
#include "jobs/journal.h"
#include "tests/fake/world.h"

static void remove_it(struct world *world)
{
	struct domain *domain = world->domain;

	world->domain = NULL;
	model_remove(domain, "the test wants it");
	cr_assert_null(model_find_domain(world->model, "vm"));
}

static void expect_gone(struct world *world)
{
	cr_assert_eq(world->shown_count, 0, "something of it is still shown");
	WORLD_UNTIL(world, !world->model->leaving);
	cr_assert_null(world->model->domains);
	cr_assert_null(world->model->ops_by_id);
	cr_assert_eq(world_events(world, "domain-removed"), 1);
}

static void add_again(struct world *world)
{
	struct source source = { .kind = SOURCE_UNIX,
				 .name = (char *)"vm",
				 .path = (char *)peer_path(world->peer) };
	char *error = NULL;

	cr_assert_eq(model_add(world->model, &source, &error), 0, "%s", error);
	world->domain = model_find_domain(world->model, "vm");
	WORLD_UNTIL(world, world->domain->state == DOMAIN_CONNECTED && world_is_quiet(world));
}

Test(jobs_remove, at_every_turn_of_its_beginning)
{
	/* Catches a reply, a timer or a handle of a domain that is gone, from the connect to the first sync. */
	struct world world;

	for (int turns = 0; turns < 40; turns++) {
		world_new(&world, 2);
		world_start(&world);
		for (int i = 0; i < turns; i++)
			world_turn(&world);
		remove_it(&world);
		expect_gone(&world);
		world_free(&world);
	}
}

Test(jobs_remove, and_the_next_of_the_name)
{
	/* Catches what an old domain leaves to a new one of its name, its answers among it. */
	struct world world;

	world_new(&world, 2);
	world_connect(&world);
	for (int i = 0; i < 5; i++) {
		remove_it(&world);
		add_again(&world);
		cr_assert_eq(world.shown_count, 3);
		cr_assert(world_is(&world, "vda", "idle"));
	}
	world_free(&world);
}

Test(jobs_remove, with_everything_under_way)
{
	/* Catches a writer or a reader without an answer, and an answer to one that is gone: pool, QEMU, parked. */
	struct answer_slip pull, found, waiting, fresh, wait_too;
	struct world world;

	for (int turns = 0; turns < 24; turns++) {
		world_new(&world, 3);
		world_connect(&world);
		world_write(&world, "vda", "pull", "", &pull);
		WORLD_UNTIL(&world, !pull.op);
		world_wait(&world, "vda", &waiting);
		world_wait(&world, "vda", &wait_too);
		qemu_hold(world.qemu, "block-stream", turns % 2);
		world_write(&world, "vdb", "pull", "", &pull);
		world_write(&world, "vdc", "pull", "base=/vm/not-there.qcow2", &found);
		world_refresh(&world, "vda", &fresh);
		for (int i = 0; i < turns / 2; i++)
			world_turn(&world);
		remove_it(&world);
		cr_assert_null(pull.op);
		cr_assert_null(found.op);
		cr_assert_null(waiting.op);
		cr_assert_null(wait_too.op);
		cr_assert_null(fresh.op);
		cr_assert_eq(waiting.times, 1);
		cr_assert_eq(waiting.status, 0, "its job has had its last word: %d",
			     waiting.status);
		cr_assert(pull.status == -ENODEV || pull.status == 0, "%d", pull.status);
		cr_assert(found.status == -ENODEV || found.status == -ENOENT, "%d", found.status);
		cr_assert_eq(world_events(&world, "job-lost"), world_events(&world, "job-started"),
			     "a job without a last word");
		expect_gone(&world);
		world_free(&world);
	}
}

Test(jobs_remove, in_the_middle_of_the_end_of_a_job)
{
	/* Catches a finalize, a flush, a dismissal or a drop whose answer comes for a domain that is gone. */
	static const char *const held[] = { "job-finalize", "job-dismiss", "blockdev-del",
					    "query-block", "x-debug-query-block-graph" };
	struct answer_slip pull;
	struct world world;

	for (size_t i = 0; i < sizeof(held) / sizeof(*held); i++) {
		size_t before;

		world_new(&world, 1);
		world_connect(&world);
		world_write(&world, "vda", "pull", "", &pull);
		WORLD_UNTIL(&world, !pull.op && world_is_quiet(&world));
		before = peer_count_of(world.peer, held[i]);
		qemu_hold(world.qemu, held[i], true);
		qemu_pend(world.qemu, qemu_job(world.qemu, 0));
		cr_assert(peer_run_until_command(world.peer, held[i], before + 1, WORLD_WAIT_MS));
		remove_it(&world);
		expect_gone(&world);
		qemu_drop_held(world.qemu);
		world_free(&world);
	}
}

Test(jobs_remove, while_all_ends)
{
	/* Catches an end of the model that does not wait for a domain that is just leaving. */
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	remove_it(&world);
	world_begin_stop(&world);
	WORLD_UNTIL(&world, world.stopped);
	cr_assert_null(world.model->leaving);
	world_free(&world);
}

/* --- made by hand --- */

struct asked {
	int status;
	char text[1000];
};

static void answered(struct op *op, int status, void *data)
{
	struct asked *asked = data;

	asked->status = status;
	snprintf(asked->text, sizeof(asked->text), "%s", text_bytes(op->answer));
}

static struct op *ask(struct world *world, struct domain *domain, uid_t uid, struct asked *asked)
{
	struct target target = { .model = world->model, .domain = domain };
	struct who who = { uid, uid, 4711 };
	struct op *op;

	*asked = (struct asked){ .status = 1 };
	op = op_new(&target, &who, answered, asked);
	op_set_written(op, "test", 4);
	return op;
}

static int make(struct world *world, const char *name, uid_t uid)
{
	struct asked asked;

	attach_make(ask(world, NULL, uid, &asked), name);
	return asked.status;
}

static int take_away(struct world *world, const char *name, uid_t uid)
{
	struct asked asked;

	attach_remove(ask(world, model_find_domain(world->model, name), uid, &asked));
	return asked.status;
}

static struct asked write_address(struct world *world, const char *name, const char *text)
{
	static const struct key keys[] = {
		{ .name = "address", .kind = KEY_LINE, .positional = true, .required = true },
		{ 0 },
	};
	struct command command;
	struct asked asked;
	struct fault fault;
	struct op *op = ask(world, model_find_domain(world->model, name), 0, &asked);

	if (grammar_parse(keys, text, strlen(text), &command, &fault)) {
		op_refuse_fault(op, &fault);
		return asked;
	}
	attach_write(op, &command);
	command_clear(&command);
	return asked;
}

static void expect_refused(struct world *world, const char *text, int error, const char *reason)
{
	struct asked asked = write_address(world, "hand", text);

	cr_assert_eq(asked.status, error, "%s: %d %s", text, asked.status, asked.text);
	cr_assert(strstr(asked.text, reason), "%s: %s", text, asked.text);
}

Test(jobs_attach, names)
{
	/* Catches a name that a folder cannot bear, or that is taken, and somebody who may not. */
	char name[300];
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	cr_assert_eq(make(&world, "vm", 0), -EEXIST);
	cr_assert_eq(make(&world, "hand", 65534), -EPERM);
	cr_assert_eq(make(&world, ".hidden", 0), -EINVAL);
	cr_assert_eq(make(&world, "a\nb", 0), -EINVAL);
	cr_assert_eq(make(&world, "a\\b", 0), -EINVAL);
	cr_assert_eq(make(&world, "\xff", 0), -EINVAL);
	memset(name, 'x', 256);
	name[256] = 0;
	cr_assert_eq(make(&world, name, 0), -EINVAL);
	name[255] = 0;
	cr_assert_eq(make(&world, name, 0), 0);
	cr_assert_eq(make(&world, name, 0), -EEXIST);
	cr_assert_eq(take_away(&world, name, 65534), -EPERM);
	cr_assert_eq(take_away(&world, name, 0), 0);
	world.refuse = "";
	cr_assert_eq(make(&world, "hand", 0), -EEXIST);
	cr_assert_eq(world_events(&world, "domain-added"), 2);
	cr_assert_eq(world_events(&world, "command-refused"), 10);
	world_free(&world);
}

Test(jobs_attach, addresses)
{
	/* Catches an address that starts a program, waits for a file, or is somebody else's; and one that is not gone to. */
	struct domain *hand;
	struct world world;
	char address[200];

	world_new(&world, 1);
	world_connect(&world);
	cr_assert_eq(make(&world, "hand", 0), 0);
	hand = model_find_domain(world.model, "hand");
	cr_assert_eq(hand->state, DOMAIN_DISCONNECTED);
	cr_assert(strstr(hand->error, "no address yet"));
	expect_refused(&world, "exec:sh -c 'rm -rf /'", -EPERM, "command line");
	expect_refused(&world, "image:/vm/x.qcow2", -EPERM, "command line");
	expect_refused(&world, "dir:/run/vm", -EPERM, "command line");
	expect_refused(&world, "unix:rel", -EINVAL, "an address is");
	expect_refused(&world, "x=unix:/a", -EINVAL, "an address is");
	expect_refused(&world, "", -EINVAL, "missing");
	expect_refused(&world, "bogus", -EINVAL, "an address is");
	snprintf(address, sizeof(address), "unix:%s\n", peer_path(world.peer));
	expect_refused(&world, address, -EEXIST, "vm has this monitor");
	cr_assert_str_eq(hand->address, "");
	cr_assert_eq(write_address(&world, "vm", address).status, -EPERM);
	/* Blanks, and what looks like a key: the whole line is the address. */
	cr_assert_eq(write_address(&world, "hand", " \t").status, -EINVAL);
	cr_assert_eq(write_address(&world, "hand", " unix:/no where/a=b c \n").status, 0);
	cr_assert_str_eq(hand->address, "unix:/no where/a=b c");
	WORLD_UNTIL(&world, hand->error && strstr(hand->error, "no such file"));
	/* The other one goes, and it takes its place; then away from there, with disks. */
	remove_it(&world);
	cr_assert_eq(write_address(&world, "hand", address).status, 0);
	WORLD_UNTIL(&world, hand->state == DOMAIN_CONNECTED && hand->disks);
	cr_assert_eq(write_address(&world, "hand", address).status, 0);
	cr_assert_eq(hand->state, DOMAIN_CONNECTED, "the same address is no reason to hang up");
	cr_assert_eq(write_address(&world, "hand", "/else/where").status, 0);
	cr_assert_null(hand->disks);
	cr_assert_eq(hand->state, DOMAIN_CONNECTING);
	cr_assert_eq(world_events(&world, "domain-disconnected"), 1);
	/* And back at once, with what was asked of the other connection not answered yet. */
	cr_assert_eq(write_address(&world, "hand", address).status, 0);
	WORLD_UNTIL(&world, hand->state == DOMAIN_CONNECTED && hand->disks);
	world_free(&world);
}

Test(jobs_attach, a_live_job_holds_on)
{
	/* Catches a job that loses its domain because somebody tidied up. */
	struct answer_slip pull;
	struct world world;

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	cr_assert_eq(take_away(&world, "vm", 0), -EBUSY);
	cr_assert(strstr(world.domain->error, "live job"));
	world.domain->by_hand = true;
	cr_assert_eq(write_address(&world, "vm", "unix:/else/where").status, -EBUSY);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "Input/output error");
	WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
	world.domain = NULL;
	cr_assert_eq(take_away(&world, "vm", 0), 0);
	world_free(&world);
}

Test(jobs_attach, remembered)
{
	/* Catches a domain that is forgotten with the daemon's end, and one that takes the name of the command line's. */
	struct domain *hand;
	struct world world;
	char *records[2];

	world_new(&world, 1);
	world_connect(&world);
	cr_assert_eq(make(&world, "hand", 0), 0);
	cr_assert_eq(make(&world, "empty", 0), 0);
	cr_assert_eq(make(&world, "gone", 0), 0);
	cr_assert_eq(take_away(&world, "gone", 0), 0);
	cr_assert_null(journal_get(world.model->journal, "attached/gone"));
	cr_assert_eq(write_address(&world, "hand", "unix:/else/\xffwhere").status, -EINVAL);
	cr_assert_eq(write_address(&world, "hand", "unix:/else/wh\"\u00e9re").status, 0);
	records[0] = strdup(journal_get(world.model->journal, "attached/hand"));
	records[1] = strdup(journal_get(world.model->journal, "attached/empty"));
	world_stop(&world);

	world_connect(&world);
	journal_put(world.model->journal, "attached/hand", records[0]);
	journal_put(world.model->journal, "attached/empty", records[1]);
	journal_put(world.model->journal, "attached/vm", records[0]);
	journal_put(world.model->journal, "attached/bad", "{\"address\":\"exec:true\"}");
	journal_put(world.model->journal, "attached/b\\d", records[1]);
	journal_put(world.model->journal, "attached/junk", "no JSON");
	attach_remembered(world.model);
	hand = model_find_domain(world.model, "hand");
	cr_assert_not_null(hand);
	cr_assert(hand->by_hand);
	cr_assert_str_eq(hand->address, "unix:/else/wh\"\u00e9re");
	cr_assert_not_null(model_find_domain(world.model, "empty"));
	cr_assert(!world.domain->by_hand);
	cr_assert_null(journal_get(world.model->journal, "attached/vm"));
	cr_assert_null(model_find_domain(world.model, "bad"));
	cr_assert_null(model_find_domain(world.model, "b\\d"));
	cr_assert(strstr(world.log, "vm, which was made in the tree, is given up"), "%s",
		  world.log);
	free(records[0]);
	free(records[1]);
	world_free(&world);
}
