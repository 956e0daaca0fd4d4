/*
 * Peers that mean ill: what they send must not crash the daemon, hold it up, or make it grow.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fake/world.h"

/* query-block with @count disks; a '#' at the end of @name becomes a number. Freed by the caller. */
static char *many_disks(size_t count, const char *name)
{
	struct qmp_value *list = qmp_array();
	char text[300], *json;

	for (size_t i = 0; i < count; i++) {
		struct qmp_value *device = qmp_object(), *inserted = qmp_object();
		struct qmp_value *image = qmp_object();

		snprintf(text, sizeof(text), "%s", name);
		if (strchr(text, '#'))
			sprintf(strchr(text, '#'), "%zu", i);
		qmp_add_text(device, "qdev", text);
		qmp_add_text(inserted, "node-name", text);
		qmp_add_text(image, "filename", "/vm/x.qcow2");
		qmp_add_text(image, "format", "qcow2");
		qmp_add_value(inserted, "image", image);
		qmp_append_value(list, qmp_add_value(device, "inserted", inserted));
	}
	json = strdup(qmp_value_print(list));
	qmp_value_free(list);
	return json;
}

static size_t count_disks(const struct world *world)
{
	const struct disk *disk;
	size_t count = 0;

	for (disk = world->domain->disks; disk; disk = disk->next)
		count++;
	return count;
}

static void set_disks(struct world *world, size_t count, const char *name)
{
	char *json = many_disks(count, name);

	world->qemu->left = "query-block";
	peer_set_answer(world->peer, "query-block", json);
	free(json);
}

Test(jobs_hostile, a_thousand_disks)
{
	/* Catches work that grows with the square or the cube of what a peer sends: all other domains would wait. */
	struct world world;
	uint64_t began;

	world_new(&world, 0);
	set_disks(&world, 1000, "disk#");
	world_connect(&world);
	cr_assert_eq(count_disks(&world), 1000);
	began = uv_hrtime();
	for (int i = 0; i < 5; i++) {
		world_look(&world);
		WORLD_UNTIL(&world, world_is_quiet(&world));
	}
	cr_assert_lt(uv_hrtime() - began, 5000000000u, "a look takes %llu ms",
		     (unsigned long long)(uv_hrtime() - began) / 5000000);
	/* All gone, and all others there. */
	set_disks(&world, 1000, "other#");
	world_look(&world);
	WORLD_UNTIL(&world, world_is_quiet(&world) && count_disks(&world) == 1000);
	cr_assert_not_null(domain_find_disk(world.domain, "other999"));
	cr_assert_eq(world.shown_count, 1001);
	world_free(&world);
}

Test(jobs_hostile, more_disks_than_anybody_has)
{
	/* Catches a tree without end: what is too much is not shown, and the log says so once. */
	struct world world;

	world_new(&world, 0);
	set_disks(&world, 20000, "disk#");
	world_connect(&world);
	cr_assert_leq(count_disks(&world), 1024);
	cr_assert_geq(count_disks(&world), 1000);
	world_look(&world);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	cr_assert_leq(world.log_lines, 2);
	world_free(&world);
}

Test(jobs_hostile, the_same_disk_twice)
{
	/* Catches two folders of one name, and a disk whose chain flaps with every look. */
	struct world world;

	world_new(&world, 0);
	set_disks(&world, 30, "disk");
	world_connect(&world);
	cr_assert_eq(count_disks(&world), 1);
	for (int i = 0; i < 5; i++) {
		world_look(&world);
		WORLD_UNTIL(&world, world_is_quiet(&world));
	}
	cr_assert_eq(world_events(&world, "chain-changed"), 0);
	cr_assert_eq(world_events(&world, "disk-added"), 1);
	world_free(&world);
}

Test(jobs_hostile, names)
{
	/* Catches a name that leads out of its folder, or is none. */
	static const char *const names[] = {
		"../../etc/passwd", ".", "..", "a/b", "x\ny", "", "\\x2e"
	};
	struct qmp_value *list = qmp_array();
	struct world world;

	world_new(&world, 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char *one = many_disks(1, names[i]);
		struct qmp_value *value = qmp_value_parse(one, strlen(one), NULL);

		qmp_append_value(list, qmp_value_share(qmp_value_item(value, 0)));
		qmp_value_free(value);
		free(one);
	}
	world.qemu->left = "query-block";
	peer_set_answer(world.peer, "query-block", qmp_value_print(list));
	qmp_value_free(list);
	world_connect(&world);
	for (struct disk *disk = world.domain->disks; disk; disk = disk->next) {
		cr_assert_null(strchr(disk->name, '/'), "%s", disk->name);
		cr_assert_neq(*disk->name, '.', "%s", disk->name);
		cr_assert_null(strchr(disk->name, '\n'), "%s", disk->name);
		cr_assert_neq(*disk->name, 0);
	}
	cr_assert_not_null(domain_find_disk(world.domain, "a\\x2fb"));
	cr_assert_not_null(domain_find_disk(world.domain, "\\x2e."));
	cr_assert_geq(count_disks(&world), 6);
	world_free(&world);
}

Test(jobs_hostile, answers_of_other_types)
{
	/* Catches a shape that is believed: each command is answered with each kind of value, and the domain lives on. */
	static const char *const commands[] = { "query-qmp-schema", "query-block-jobs",
						"query-block", "x-debug-query-block-graph",
						"query-status" };
	static const char *const values[] = {

		"5",
		"'text'",
		"true",
		"[]",
		"{}",
		"[[[]]]",
		"[null, 5, 'x', {}, []]",
		"[{'device': 5, 'inserted': {'node-name': {}, 'image': []}, 'id': [], 'name': 1}]",
		"[{'device': 'j', 'type': 7, 'status': null, 'offset': 'x', 'len': -1, 'speed': "
		"{}}]",
	};
	struct world world;

	for (size_t c = 0; c < sizeof(commands) / sizeof(*commands); c++) {
		world_new(&world, 1);
		world_start(&world);
		world.qemu->left = commands[c];
		for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
			size_t before = peer_count_of(world.peer, commands[c]);

			peer_set_answer(world.peer, commands[c], values[v]);
			world.domain->link->retry_ms = 1;
			peer_hang_up(world.peer);
			cr_assert(peer_run_until_command(world.peer, commands[c], before + 1,
							 WORLD_WAIT_MS),
				  "%s is not asked again after %s", commands[c],
				  v ? values[v - 1] : "");
			for (int i = 0; i < 5; i++)
				world_turn(&world);
		}
		world_free(&world);
	}
}

static void send_about(struct world *world, const char *event, const char *data, const char *job)
{
	char text[400];

	snprintf(text, sizeof(text), "{'id': '%s', 'device': '%s'%s%s", job, job,
		 data[1] == '}' ? "" : ", ", data + 1);
	peer_send_event(world->peer, event, text);
}

Test(jobs_hostile, events_of_other_types)
{
	/* Catches events that are believed: unknown jobs, states that do not exist, figures that cannot be. */
	struct world world;
	struct answer_slip pull;
	static const char *const data[] = {
		"{'status': 'nonsense'}",
		"{'status': 7}",
		"{}",
		"{'len': -5, 'offset': 9223372036854775807, 'speed': -1}",
		"{'error': [], 'operation': 7, 'action': {}}",
	};
	static const char *const names[] = { "JOB_STATUS_CHANGE", "BLOCK_JOB_READY",
					     "BLOCK_JOB_ERROR", "BLOCK_JOB_PENDING", "STOP" };

	world_new(&world, 1);
	world_connect(&world);
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	for (size_t n = 0; n < 5; n++) {
		for (size_t d = 0; d < 5; d++) {
			send_about(&world, names[n], data[d], world_job(&world, "vda")->id);
			send_about(&world, names[n], data[d], "nobody");
		}
		peer_send_event(world.peer, names[n], "{}");
		peer_send_event(world.peer, names[n], "[]");
	}
	WORLD_WHILE(&world, world_disk(&world, "vda"), 30);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	qemu_job(world.qemu, 0)->offset = INT64_MIN;
	qemu_job(world.qemu, 0)->length = INT64_MAX;
	domain_refresh(world.domain);
	WORLD_UNTIL(&world, world_is_quiet(&world));
	qemu_job(world.qemu, 0)->length = 64 << 20;
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed"));
	world_free(&world);
}

Test(jobs_hostile, a_job_that_is_never_dismissed)
{
	/* Catches an endless loop, and a list that grows: a job of ours that stays concluded whatever it is told. */
	struct world world;
	size_t asked;

	for (int i = 0; i < 2; i++) {
		world_new(&world, 1);
		if (i)
			qemu_set_daemon(world.qemu);
		world.qemu->stubborn = true;
		qemu_add_job(world.qemu, 0, "blockjobfs-vda-0.1-01234567", "concluded");
		world_start(&world);
		WORLD_WHILE(&world, true, 100);
		asked = peer_count(world.peer);
		cr_assert_lt(asked, 60, "it was told %zu times", asked);
		world.qemu->stubborn = false;
		WORLD_UNTIL(&world, !world.qemu->jobs || i == 0);
		WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED);
		world_free(&world);
	}
}

Test(jobs_hostile, a_flood_of_jobs)
{
	/* Catches work that grows with the square of the jobs a peer claims to have. */
	struct world world;
	struct qmp_value *list = qmp_array();
	uint64_t began;
	char id[60];

	world_new(&world, 4);
	for (int i = 0; i < 8000; i++) {
		struct qmp_value *job = qmp_object();

		snprintf(id, sizeof(id), "blockjobfs-vd%c-0.1-%08x", 'a' + i % 5, i);
		qmp_add_text(job, "device", id);
		qmp_add_text(job, "type", "stream");
		qmp_append_value(list,
				 qmp_add_text(job, "status", i % 3 ? "concluded" : "running"));
	}
	world.qemu->left = "query-block-jobs";
	peer_set_answer(world.peer, "query-block-jobs", qmp_value_print(list));
	qmp_value_free(list);
	began = uv_hrtime();
	world_start(&world);
	WORLD_UNTIL(&world, world.domain->state == DOMAIN_CONNECTED);
	cr_assert_lt(uv_hrtime() - began, 4500000000u);
	world_free(&world);
}

Test(jobs_hostile, what_may_not_be_added)
{
	/* Catches a disk, or a domain, that is shown although its folder may not be; and what is lost with it. */
	struct source source = { .kind = SOURCE_UNIX,
				 .name = (char *)"other",
				 .path = (char *)"/nowhere/x" };
	struct world world;
	char *error = NULL;

	world_new(&world, 2);
	world.refuse = "vda";
	world_connect(&world);
	cr_assert_null(domain_find_disk(world.domain, "vda"));
	cr_assert_not_null(domain_find_disk(world.domain, "vdb"));
	cr_assert(strstr(world.log, "vm: disk vda is not shown: the test does not want it"));
	cr_assert_eq(world_events(&world, "disk-added"), 1);
	world.refuse = NULL;
	world_look(&world);
	WORLD_UNTIL(&world, domain_find_disk(world.domain, "vda"));

	world.refuse = "";
	cr_assert_eq(model_add(world.model, &source, &error), -EEXIST);
	cr_assert(strstr(error, "the test does not want it"));
	free(error);
	cr_assert_eq(world_events(&world, "domain-added"), 1);
	source.name = (char *)"vm";
	cr_assert_eq(model_add(world.model, &source, &error), -EEXIST);
	cr_assert(strstr(error, "two sources have this name"));
	free(error);
	world_free(&world);
}
