/*
 * Owns what the disks of a QEMU in small look like to query-block, query-named-block-nodes and x-debug-query-block-graph.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "tests/fake/qemu.h"

static const char *const levels[] = { "top", "mid", "base" };

enum {
	LEVELS = 3,
	IDS = 8, /* numbers in the graph for each disk: a node and its file for each level, the device */
};

const char *qemu_node_name(const struct qemu_disk *disk, int level)
{
	static char name[300];
	bool bare = disk->bare && !level;

	snprintf(name, sizeof(name), "%s%s%s", disk->name, bare ? "" : "-",
		 bare ? "" : levels[level]);
	return name;
}

static bool is_there(const struct qemu_disk *disk, int level)
{
	return !disk->gone && (!level || !disk->pulled || LEVELS - level <= disk->left);
}

/* The image of @level and, if @whole, those behind it. */
static struct qmp_value *image(const struct qemu_disk *disk, int level, bool whole)
{
	struct qmp_value *info = qmp_object();
	char file[320];

	snprintf(file, sizeof(file), "/vm/%s-%s.qcow2", disk->name, levels[level]);
	qmp_add_text(info, "filename", file);
	qmp_add_text(info, "format", "qcow2");
	qmp_add_number(info, "virtual-size", 64 << 20);
	if (whole && level + 1 < LEVELS && !(level == 0 && disk->pulled))
		qmp_add_value(info, "backing-image", image(disk, level + 1, true));
	return info;
}

struct qmp_value *qemu_block(const struct qemu *qemu)
{
	struct qmp_value *list = qmp_array();

	for (size_t i = 0; i < qemu->disk_count; i++) {
		const struct qemu_disk *disk = &qemu->disks[i];
		struct qmp_value *device = qmp_object(), *inserted = qmp_object();

		qmp_add_text(inserted, "node-name", qemu_node_name(disk, 0));
		qmp_add_value(inserted, "image", image(disk, 0, true));
		qmp_add_text(device, "device", "");
		qmp_add_text(device, "qdev", disk->name);
		qmp_append_value(list, qmp_add_value(device, "inserted", inserted));
		if (disk->gone)
			qmp_add_value(device, "inserted", qmp_object());
	}
	return list;
}

struct qmp_value *qemu_nodes(const struct qemu *qemu)
{
	struct qmp_value *list = qmp_array();

	for (size_t i = 0; i < qemu->disk_count; i++) {
		for (int level = 0; level < LEVELS; level++) {
			struct qmp_value *node = qmp_object();

			qmp_add_text(node, "node-name", qemu_node_name(&qemu->disks[i], level));
			qmp_add_text(node, "drv", "qcow2");
			qmp_add_value(node, "image", image(&qemu->disks[i], level, false));
			if (is_there(&qemu->disks[i], level))
				qmp_append_value(list, node);
			else
				qmp_value_free(node);
		}
	}
	return list;
}

static void add_node(struct qmp_value *nodes, int64_t id, const char *type, const char *name)
{
	struct qmp_value *node = qmp_add_number(qmp_object(), "id", id);

	qmp_add_text(node, "type", type);
	qmp_append_value(nodes, qmp_add_text(node, "name", name));
}

static void add_edge(struct qmp_value *edges, int64_t parent, int64_t child, const char *name)
{
	struct qmp_value *edge = qmp_add_number(qmp_object(), "parent", parent);

	qmp_add_number(edge, "child", child);
	qmp_append_value(edges, qmp_add_text(edge, "name", name));
}

static void add_disk(const struct qemu_disk *disk, int64_t id, struct qmp_value *nodes,
		     struct qmp_value *edges, bool device)
{
	char file[40];

	for (int level = 0; level < LEVELS; level++) {
		int64_t node = id + 2 * level;

		if (!is_there(disk, level))
			continue;
		snprintf(file, sizeof(file), "#block%03d", (int)node);
		add_node(nodes, node, "block-driver", qemu_node_name(disk, level));
		add_node(nodes, node + 1, "block-driver", file);
		add_edge(edges, node, node + 1, "file");
		if (level + 1 < LEVELS && !(level == 0 && disk->pulled))
			add_edge(edges, node, node + 2, "backing");
	}
	if (device) {
		add_node(nodes, id + 6, "block-backend", disk->name);
		add_edge(edges, id + 6, id, "root");
	}
}

struct qmp_value *qemu_graph(const struct qemu *qemu)
{
	struct qmp_value *nodes = qmp_array(), *edges = qmp_array();
	struct qemu_job *job;
	int64_t id = 1000;

	for (size_t i = 0; i < qemu->disk_count; i++)
		if (!qemu->disks[i].gone)
			add_disk(&qemu->disks[i], (int64_t)(1 + i * IDS), nodes, edges,
				 !qemu->daemon);
	DL_FOREACH(qemu->jobs, job) {
		add_node(nodes, ++id, "block-job", job->id);
		add_edge(edges, id, (int64_t)(1 + job->disk * IDS), "main node");
	}
	return qmp_add_value(qmp_add_value(qmp_object(), "nodes", nodes), "edges", edges);
}

bool qemu_drop_node(struct qemu *qemu, const char *node)
{
	for (size_t i = 0; i < qemu->disk_count; i++) {
		struct qemu_disk *disk = &qemu->disks[i];

		/* Only the uppermost of those that are left has no parent. */
		if (disk->pulled && disk->left &&
		    !strcmp(node, qemu_node_name(disk, LEVELS - disk->left))) {
			disk->left--;
			return true;
		}
	}
	return false;
}
