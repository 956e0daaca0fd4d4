/*
 * Node ids: pure functions of names, the same in every life of the daemon, never one for two files.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "fs/node.h"
#include "jobs/journal.h"

/* Would catch: a change of the hash. Every inode number would change under those who watch, across an upgrade. */
Test(fs_node, ids_are_known_by_heart)
{
	cr_assert_eq(node_id_of(NULL, NULL, NULL), 1);
	cr_assert_eq(node_id_of(NULL, NULL, "README"), UINT64_C(8832978290816510456));
	cr_assert_eq(node_id_of(NULL, NULL, "domains"), UINT64_C(8832978290816463949));
	cr_assert_eq(node_id_of("top", NULL, NULL), UINT64_C(2619788451724722176));
	cr_assert_eq(node_id_of("top", NULL, "state"), UINT64_C(2619788451724756358));
	cr_assert_eq(node_id_of("top", "disk", NULL), UINT64_C(2575892073623191552));
	cr_assert_eq(node_id_of("top", "disk", "pull"), UINT64_C(2575892073623213545));
	cr_assert_eq(node_link_id("top", "\\x2fvm\\x2fa.qcow2"), UINT64_C(9055768417920338325));
}

static void check_table(const struct file *table)
{
	for (const struct file *a = table; a->name; a++) {
		cr_assert_neq(node_name_hash(a->name), 0);
		for (const struct file *b = table; b != a; b++)
			cr_assert_neq(node_name_hash(a->name), node_name_hash(b->name), "%s and %s",
				      a->name, b->name);
	}
}

/* Would catch: a new row whose file would be taken for another one. */
Test(fs_node, no_two_rows_of_a_table_collide)
{
	check_table(root_files);
	check_table(domain_files);
	check_table(disk_files);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Would catch: names that are much alike falling together, ids out of the range that FUSE and off_t bear. */
Test(fs_node, many_similar_names_have_ids_of_their_own)
{
	enum {
		DOMAINS = 300,
		DISKS = 30,
	};
	static uint64_t ids[DOMAINS * (DISKS + 1)];
	size_t count = 0;
	char domain[32], disk[32];

	for (int i = 0; i < DOMAINS; i++) {
		snprintf(domain, sizeof(domain), "web%d", i);
		ids[count++] = node_id_of(domain, NULL, NULL);
		for (int j = 0; j < DISKS; j++) {
			snprintf(disk, sizeof(disk), "disk%d", j);
			ids[count++] = node_id_of(domain, disk, NULL);
		}
	}
	qsort(ids, count, sizeof(*ids), compare);
	for (size_t i = 0; i < count; i++) {
		cr_assert_gt(ids[i], UINT64_C(65535));
		cr_assert_lt(ids[i], UINT64_C(1) << 63);
		if (i)
			cr_assert_neq(ids[i], ids[i - 1]);
	}
}

/* Would catch: "a" + "b" and "ab" being the same folder. */
Test(fs_node, the_place_of_the_slash_matters)
{
	cr_assert_neq(node_id_of("ab", "c", NULL), node_id_of("a", "bc", NULL));
	cr_assert_neq(node_id_of("ab", NULL, NULL), node_id_of("a", "b", NULL));
	cr_assert_neq(node_id_of("a", NULL, "events"), node_id_of(NULL, NULL, "events"));
}

/* Would catch: the two halves of an id being looked up differently from how they are made; removal by a twin. */
Test(fs_node, what_is_added_is_found_until_it_is_removed)
{
	struct model model = { .handover = journal_new() };
	struct domain domain = { .model = &model, .name = (char[]){ "web1" } };
	struct disk disk = { .domain = &domain, .name = (char[]){ "disk0" } };
	struct domain twin = domain;
	struct nodes nodes;
	struct place place;
	uint64_t pull = node_id_of("web1", "disk0", "pull");

	nodes_init(&nodes, &model);
	cr_assert(nodes_may_add(&nodes, &domain, &disk));
	nodes_add(&nodes, &domain, NULL);
	nodes_add(&nodes, &domain, &disk);
	cr_assert_not(nodes_may_add(&nodes, &twin, NULL));
	cr_assert(node_find(&nodes, pull, &place));
	cr_assert(place.domain == &domain && place.disk == &disk);
	cr_assert_str_eq(place.file->name, "pull");
	cr_assert_eq(node_id(&place), pull);
	cr_assert_not(node_find(&nodes, pull + 1, &place));
	cr_assert_not(node_find(&nodes, 0, &place));
	cr_assert_not(node_find(&nodes, UINT64_MAX, &place));
	nodes_remove(&nodes, &twin, NULL);
	cr_assert(node_find(&nodes, node_id_of("web1", NULL, NULL), &place));
	nodes_remove(&nodes, &domain, &disk);
	cr_assert_not(node_find(&nodes, pull, &place));
	nodes_clear(&nodes);
	journal_free(model.handover);
}
