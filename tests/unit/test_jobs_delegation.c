/*
 * Owners and modes that were changed: what holds, what disks that come later inherit, what the journal has of it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/delegation.h"
#include "jobs/journal.h"
#include "tests/fake/world.h"

/* The access of a control file (0644), or with a NULL file of a folder (0755), of root's. */
static struct access get(struct world *world, const char *disk, const char *file)
{
	struct access access = { .mode = file ? 0644 : 0755 };
	struct delegated what = {
		.domain = world->domain,
		.disk = disk ? world_disk(world, disk) : NULL,
		.file = file,
	};

	delegation_get(&what, &access);
	return access;
}

static bool is(struct world *world, const char *disk, const char *file, mode_t mode, unsigned owner)
{
	struct access access = get(world, disk, file);

	return access.mode == mode && access.uid == owner && access.gid == owner;
}

static int give(struct world *world, const char *disk, const char *file, unsigned owner)
{
	struct access access = { .uid = owner, .gid = owner };
	struct delegated what = {
		.domain = world->domain,
		.disk = disk ? world_disk(world, disk) : NULL,
		.file = file,
	};

	return delegation_set(&what, DELEGATE_UID | DELEGATE_GID, &access);
}

static int set_mode(struct world *world, const char *disk, const char *file, mode_t mode)
{
	struct access access = { .mode = mode };
	struct delegated what = {
		.domain = world->domain,
		.disk = disk ? world_disk(world, disk) : NULL,
		.file = file,
	};

	return delegation_set(&what, DELEGATE_MODE, &access);
}

/* A disk is unplugged, or plugged in again. */
static void plug(struct world *world, size_t disk, bool in)
{
	world->qemu->disks[disk].gone = !in;
	world_look(world);
	WORLD_UNTIL(world, !!domain_find_disk(world->domain, world->qemu->disks[disk].name) == in);
	WORLD_UNTIL(world, world_is_quiet(world));
}

static void begin(struct world *world)
{
	world_new(world, 3);
	world->qemu->disks[2].gone = true;
	world_connect(world);
}

Test(jobs_delegation, what_was_set_holds_and_nothing_else)
{
	struct world world;

	begin(&world);
	cr_assert(is(&world, NULL, NULL, 0755, 0));
	cr_assert_eq(give(&world, "vda", "pull", 7), 0);
	cr_assert(is(&world, "vda", "pull", 0644, 7));
	cr_assert(get(&world, "vda", "pull").changed.tv_sec);
	cr_assert(is(&world, "vda", "speed", 0644, 0) && is(&world, "vda", NULL, 0755, 0));
	cr_assert(is(&world, "vdb", "pull", 0644, 0) && is(&world, NULL, "pull", 0644, 0));
	cr_assert_eq(set_mode(&world, NULL, "vda", 0600), 0, "a file of the domain, not the disk");
	cr_assert(is(&world, NULL, "vda", 0600, 0) && is(&world, "vda", NULL, 0755, 0));
	cr_assert_eq(set_mode(&world, "vda", "pull", 07660), 0);
	cr_assert(is(&world, "vda", "pull", 0660, 7));
	world_free(&world);
}

/* Would catch: a chown of a folder that gives away what is in it, and disks that come later and belong to nobody. */
Test(jobs_delegation, disks_that_come_later_inherit)
{
	struct world world;

	begin(&world);
	cr_assert_eq(give(&world, NULL, NULL, 7), 0);
	cr_assert(is(&world, "vda", NULL, 0755, 0) && is(&world, "vda", "pull", 0644, 0));
	plug(&world, 2, true);
	cr_assert(is(&world, "vdc", NULL, 0755, 7) && is(&world, "vdc", "pull", 0644, 7));

	/* It stays with whom it came to. */
	cr_assert_eq(give(&world, NULL, NULL, 8), 0);
	cr_assert(is(&world, "vdc", "pull", 0644, 7) && is(&world, "vda", "pull", 0644, 0));
	plug(&world, 2, false);
	plug(&world, 2, true);
	cr_assert(is(&world, "vdc", "pull", 0644, 7));
	cr_assert_eq(give(&world, "vdc", NULL, 9), 0);
	cr_assert(is(&world, "vdc", NULL, 0755, 9) && is(&world, "vdc", "pull", 0644, 7));
	world_free(&world);
}

Test(jobs_delegation, modes_are_inherited_as_far_as_they_let_others_write)
{
	struct access access = { .mode = 0444 };
	struct delegated status;
	struct world world;

	begin(&world);
	cr_assert_eq(set_mode(&world, NULL, NULL, 0770), 0);
	plug(&world, 2, true);
	cr_assert(is(&world, "vdc", NULL, 0775, 0));
	cr_assert(is(&world, "vdc", "pull", 0664, 0));
	cr_assert(is(&world, "vda", "pull", 0644, 0));
	status = (struct delegated){ world.domain, world_disk(&world, "vdc"), "status" };
	delegation_get(&status, &access);
	cr_assert_eq(access.mode, 0444, "what nobody writes stays so");
	cr_assert_eq(set_mode(&world, NULL, NULL, 0755), 0);
	cr_assert(is(&world, "vdc", "pull", 0664, 0));
	world_free(&world);
}

static void count(void *data, const char *key, const char *value)
{
	++*(unsigned *)data;
}

static unsigned count_records(struct world *world, const char *prefix)
{
	unsigned records = 0;

	journal_each(world->model->journal, prefix, count, &records);
	return records;
}

/* As after a restart: the table is read from the journal. */
static void read_again(struct world *world)
{
	delegation_free(world->domain);
	delegation_read(world->domain);
}

/* Would catch: a restart that gives disks to somebody else, and a removed domain's rights that come back with its name. */
Test(jobs_delegation, the_journal_has_it_until_the_domain_is_removed)
{
	struct journal *journal;
	struct world world;

	begin(&world);
	journal = world.model->journal;
	cr_assert_eq(give(&world, "vda", "pull", 7), 0);
	cr_assert_eq(set_mode(&world, NULL, "allow", 0600), 0);
	cr_assert_eq(give(&world, NULL, NULL, 8), 0);
	cr_assert_eq(count_records(&world, "mode/vm"), 5);
	journal_put(journal, "mode/vm2", "{\"uid\":99}");
	journal_put(journal, "mode/vm2/vda/pull", "{\"uid\":99}");
	read_again(&world);
	cr_assert(is(&world, "vda", "pull", 0644, 7) && is(&world, "vda", "speed", 0644, 0));
	cr_assert(is(&world, NULL, "allow", 0600, 0) && is(&world, NULL, NULL, 0755, 8));
	plug(&world, 2, true);
	cr_assert(is(&world, "vdc", "pull", 0644, 8));
	delegation_forget(world.domain);
	cr_assert(is(&world, "vda", "pull", 0644, 0) && is(&world, "vdc", "pull", 0644, 0));
	cr_assert_eq(count_records(&world, "mode/"), 2, "those of vm2");
	world_free(&world);
}

/* Would catch: a record that was written by something else and lets somebody in. */
Test(jobs_delegation, records_that_make_no_sense)
{
	static const char *const values[] = {
		"",
		"{",
		"[]",
		"7",
		"{\"mode\":-1,\"uid\":-5,\"gid\":4294967295}",
		"{\"mode\":512,\"uid\":\"7\",\"gid\":1e30}",
		"{\"born\":7}",
		"{\"born\":{\"uid\":-1,\"mode\":99999}}",
	};
	struct world world;

	begin(&world);
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		journal_put(world.model->journal, "mode/vm/vda", values[i]);
		read_again(&world);
		cr_assert(is(&world, "vda", NULL, 0755, 0), "%s", values[i]);
		cr_assert(is(&world, "vda", "pull", 0644, 0), "%s", values[i]);
	}
	world_free(&world);
}

/* Would catch: a table that grows with every name that a user or a guest can think of. */
Test(jobs_delegation, the_table_is_bounded)
{
	struct world world;
	char name[32];

	begin(&world);
	for (int i = 0; i < DELEGATION_RECORDS_MAX; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		cr_assert_eq(set_mode(&world, "vda", name, 0600), 0);
	}
	cr_assert_eq(set_mode(&world, "vda", "file0", 0640), 0);
	cr_assert_eq(set_mode(&world, "vda", "more", 0600), -ENOSPC);
	cr_assert_eq(give(&world, NULL, NULL, 7), -ENOSPC);
	cr_assert(is(&world, NULL, NULL, 0755, 0));
	world_free(&world);
}
