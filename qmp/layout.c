/*
 * Owns what a disk and its chain are, in QEMU's words: query-block (a machine) or query-named-block-nodes (a storage daemon),
 * with the block graph beside it. Called by jobs/domain.c; must not know what happens to a layout (jobs/inventory.c).
 *
 * A node's name that is wrong sends a job to the wrong image. So no name is guessed: what the two answers do not agree on
 * has none.
 */
#include "qmp/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "qmp/graph.h"

enum {
	/* Deeper than any chain that QEMU can open (its own tools give up at about 1000, libvirt at 200)... */
	CHAIN_MAX = 1000,
	/* ...and more images than any monitor has: only a hostile peer gets here, with chains that share their ends. */
	IMAGES_MAX = 1 << 16,
	FILTERS_MAX = 64, /* one on another */
	PATH_DEPTH_MAX = 64,
};

#define NO_DISK ((size_t)-1)

/* The drivers that QEMU marks as filters: what they show is what is below them. */
static const char *const filter_drivers[] = {
	"blkdebug",    "blklogwrites",	    "blkreplay",    "blkverify",  "commit_top",
	"compress",    "copy-before-write", "copy-on-read", "mirror_top", "preallocate",
	"replication", "snapshot-access",   "throttle",
};

static bool is_filter(const char *driver)
{
	for (size_t i = 0; i < sizeof(filter_drivers) / sizeof(filter_drivers[0]); i++)
		if (!strcmp(driver, filter_drivers[i]))
			return true;
	return false;
}

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static char *copy(const char *text)
{
	return text ? must(strdup(text)) : NULL;
}

void node_name_new(char name[NODE_NAME_BYTES], const char *prefix)
{
	uint64_t number = 0;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = (uint64_t)time(NULL);
	snprintf(name, NODE_NAME_BYTES, "%s%016llx", prefix, (unsigned long long)number);
}

/* --- images --- */

/* The path in json:{"driver": "qcow2", "file": {"driver": "file", "filename": PATH}}, with or without dotted keys; blkdebug says image. */
static const char *json_path(const struct qmp_value *options)
{
	for (int i = 0; i < PATH_DEPTH_MAX && options; i++) {
		const char *path = qmp_value_text(options, "filename", NULL);

		if (!path)
			path = qmp_value_text(options, "file.filename", NULL);
		if (!path)
			path = qmp_value_text(options, "file.file.filename", NULL);
		if (path)
			return path;
		path = qmp_value_text(options, "file.image.filename", NULL);
		if (path)
			return path;
		options = qmp_value_get(options, qmp_value_get(options, "file") ? "file" : "image");
	}
	return NULL;
}

static const char *without_scheme(const char *path)
{
	return strncmp(path, "file:", 5) ? path : path + 5;
}

/*
 * QEMU cuts names at 4095 bytes, and those of long chains, whose options are all in the name, get there: two images could be called the same then,
 * so that such a one is known by its node.
 */
static char *image_path(const char *filename, const char *node)
{
	struct qmp_value *options = NULL;
	const char *path = NULL;
	char *result;

	if (!strncmp(filename, "json:", 5)) {
		options = qmp_value_parse(filename + 5, strlen(filename + 5), NULL);
		path = json_path(options);
		if (!options && node && asprintf(&result, "node:%s", node) >= 0)
			return result;
	}
	result = copy(without_scheme(path ? path : filename));
	qmp_value_free(options);
	return result;
}

static void image_fill(struct qmp_image *image, const char *node, const char *format,
		       const struct qmp_value *info)
{
	const char *filename = qmp_value_text(info, "filename", "");

	*image = (struct qmp_image){
		.node = copy(node),
		.filename = copy(filename),
		.path = image_path(filename, node),
		.backing = copy(qmp_value_text(info, "backing-filename", NULL)),
		.format = copy(format),
		.size = qmp_value_number(info, "virtual-size", 0),
	};
}

static void image_forget_node(struct qmp_image *image)
{
	free(image->node);
	image->node = NULL;
}

static void disk_clear(struct qmp_disk_info *disk)
{
	for (size_t i = 0; i < disk->depth; i++) {
		free(disk->chain[i].node);
		free(disk->chain[i].filename);
		free(disk->chain[i].path);
		free(disk->chain[i].backing);
		free(disk->chain[i].format);
	}
	free(disk->chain);
	free(disk->qdev);
	free(disk->file_node);
	free(disk->device);
	free(disk->node);
	*disk = (struct qmp_disk_info){ 0 };
}

/* --- a machine: query-block --- */

/* "vda", /machine/peripheral/vda and /machine/peripheral/vda/virtio-backend are the device vda; others have no id. */
static char *qdev_id(const char *qdev)
{
	static const char prefix[] = "/machine/peripheral/";

	if (!qdev || !*qdev)
		return NULL;
	if (*qdev != '/')
		return copy(qdev);
	if (strncmp(qdev, prefix, sizeof(prefix) - 1))
		return NULL;
	qdev += sizeof(prefix) - 1;
	return *qdev && *qdev != '/' ? must(strndup(qdev, strcspn(qdev, "/"))) : NULL;
}

/* Notes that the node belongs to a disk, if to no other already. NO_DISK: notes nothing. */
static void node_mark(struct qmp_node *node, size_t disk)
{
	if (node && !node->disk && disk != NO_DISK)
		node->disk = disk + 1;
}

/* It came to no disk after all: takes back what was noted, which is on filters only. */
static void unmark_filters(struct qmp_node *node, size_t disk)
{
	while (node && node->disk == disk + 1) {
		node->disk = 0;
		node = qmp_node_below_filter(node);
	}
}

/* The node that query-block shows next; NULL: the graph has none where query-block tells of one. */
static struct qmp_node *next_shown(const struct qmp_node *node, bool filter, size_t disk)
{
	struct qmp_node *next = filter ? qmp_node_below_filter(node) : node->backing;

	for (int i = 0; next && next->implicit; i++) {
		node_mark(next, disk);
		next = i < FILTERS_MAX ? qmp_node_below_filter(next) : NULL;
	}
	return next;
}

static size_t count_images(const struct qmp_value *image)
{
	size_t count = 0;

	for (; qmp_value_is_object(image); image = qmp_value_get(image, "backing-image"))
		count++;
	return count;
}

/*
 * Walks down the images of query-block and, in step, the graph from the active node on. Returns true if both come to an end
 * together; if not, the names of the nodes below the active one mean nothing.
 */
static bool machine_chain(struct qmp_disk_info *disk, size_t index, const struct qmp_value *image,
			  const char *active, struct qmp_node *node)
{
	bool agree = node != NULL;

	disk->chain = must(calloc(count_images(image) + 1, sizeof(*disk->chain)));
	while (qmp_value_is_object(image)) {
		const struct qmp_value *below = qmp_value_get(image, "backing-image");
		const char *format = qmp_value_text(image, "format", "");
		bool filter = is_filter(format), last = !qmp_value_is_object(below);

		if (!filter)
			image_fill(&disk->chain[disk->depth++], node ? node->name : active, format,
				   image);
		node_mark(node, index);
		if (node && last)
			agree = !filter && !node->backing;
		node = node && !last ? next_shown(node, filter, index) : NULL;
		agree = agree && (node || last);
		active = NULL;
		image = below;
	}
	return agree;
}

/* False: there is nothing in it, or no node that a job could be started on. */
static bool machine_disk(struct qmp_disk_info *disk, size_t index, const struct qmp_value *device,
			 struct qmp_graph *graph)
{
	const struct qmp_value *inserted = qmp_value_get(device, "inserted");
	const char *active = qmp_value_text(inserted, "node-name", NULL);
	const char *name = qmp_value_text(device, "device", "");
	struct qmp_node *node = qmp_graph_find(graph, active);
	bool agree;

	if (!active)
		return false;
	agree = machine_chain(disk, index, qmp_value_get(inserted, "image"), active, node);
	/* The first one is QEMU's own word, or the child of a filter that query-block names. */
	for (size_t i = 1; i < disk->depth && !agree; i++)
		image_forget_node(&disk->chain[i]);
	if (!disk->depth || !disk->chain[0].node) {
		disk_clear(disk);
		unmark_filters(node, index);
		return false;
	}
	disk->qdev = qdev_id(qmp_value_text(device, "qdev", NULL));
	disk->device = *name ? copy(name) : NULL;
	disk->node = copy(disk->chain[0].node);
	return true;
}

/* --- a storage daemon: query-named-block-nodes --- */

static void note_drivers(struct qmp_graph *graph, const struct qmp_value *named_nodes)
{
	for (size_t i = 0; i < qmp_value_count(named_nodes); i++) {
		const struct qmp_value *info = qmp_value_item(named_nodes, i);
		struct qmp_node *node =
			qmp_graph_find(graph, qmp_value_text(info, "node-name", NULL));

		if (!node)
			continue;
		node->info = info;
		node->filter = is_filter(qmp_value_text(info, "drv", ""));
	}
}

/* What a job only writes to: the target of a backup, or of a mirror. */
static bool is_target(const struct qmp_node *node)
{
	for (const struct qmp_edge *edge = node->up; edge; edge = edge->next_up)
		if (edge->parent->kind == QMP_NODE_JOB && !strcmp(edge->name, "target"))
			return true;
	return false;
}

/*
 * Marks every node that is a part of another image: a child of a node that is no filter, or of a filter that is such a
 * child itself. What only a job, an export or a free filter holds is not owned.
 */
static void mark_owned(struct qmp_graph *graph)
{
	struct qmp_node **todo = must(calloc(graph->node_count + 1, sizeof(struct qmp_node *)));
	size_t count = 0;

	/* The target of a backup may have the disk below it, which is one all the same. */
	for (size_t i = 0; i < graph->driver_count; i++)
		if (!graph->drivers[i]->filter && !is_target(graph->drivers[i]))
			todo[count++] = graph->drivers[i];
	while (count) {
		struct qmp_node *parent = todo[--count];

		for (struct qmp_edge *edge = parent->down; edge; edge = edge->next_down) {
			struct qmp_node *child = edge->child;

			if (child->owned ||
			    (parent->filter && child != parent->file && child != parent->backing))
				continue;
			child->owned = true;
			if (child->filter)
				todo[count++] = child;
		}
	}
	free(todo);
}

/* The next image of a chain, or NULL; *@steps counts the nodes met. */
static struct qmp_node *next_image(struct qmp_node *node, size_t disk, size_t *steps)
{
	node_mark(node, disk);
	node = node->backing;
	while (node && node->filter && ++*steps < CHAIN_MAX) {
		node_mark(node, disk);
		node = qmp_node_below_filter(node);
	}
	++*steps;
	return node;
}

static bool begins_with(const char *name, const char *prefix)
{
	return !strncmp(name, prefix, strlen(prefix));
}

static bool is_disk(const struct qmp_node *node)
{
	return node && qmp_node_is_named(node) && !begins_with(node->name, NODE_OF_TARGET) &&
	       !node->filter && !node->owned && node->down;
}

/* How deep the chain is, or 0: it has no end. */
static size_t chain_depth(struct qmp_node *node)
{
	size_t steps = 0, depth = 0;

	for (; node && steps < CHAIN_MAX; depth++)
		node = next_image(node, NO_DISK, &steps);
	return node ? 0 : depth;
}

static bool daemon_disk(struct qmp_disk_info *disk, size_t index, struct qmp_node *node)
{
	size_t depth = chain_depth(node), steps = 0;

	if (!depth)
		return false;
	disk->node = copy(node->name);
	disk->chain = must(calloc(depth, sizeof(*disk->chain)));
	for (; node; node = next_image(node, index, &steps))
		image_fill(&disk->chain[disk->depth++], node->name,
			   qmp_value_text(node->info, "drv", ""),
			   qmp_value_get(node->info, "image"));
	return true;
}

/* --- both --- */

/* The disk that a job's node belongs to: it is one of its chain, or a filter on top of that. 1 + index, or 0. */
static size_t disk_of(const struct qmp_node *node)
{
	for (int i = 0; node && i < FILTERS_MAX; i++) {
		if (node->disk)
			return node->disk;
		node = qmp_node_below_filter(node);
	}
	return 0;
}

static size_t job_disk(const struct qmp_node *job)
{
	static const char *const first[] = { "main node", "active node" };
	size_t disk = 0;

	for (int i = 0; i < 2 && !disk; i++)
		for (struct qmp_edge *edge = job->down; edge && !disk; edge = edge->next_down)
			if (!strcmp(edge->name, first[i]))
				disk = disk_of(edge->child);
	for (struct qmp_edge *edge = job->down; edge && !disk; edge = edge->next_down)
		disk = disk_of(edge->child);
	return disk;
}

static void find_jobs(struct qmp_layout *layout, const struct qmp_graph *graph)
{
	layout->jobs = must(calloc(graph->node_count + 1, sizeof(*layout->jobs)));
	for (size_t i = 0; i < graph->node_count; i++) {
		const struct qmp_node *node = &graph->nodes[i];
		size_t disk = node->kind == QMP_NODE_JOB && *node->name ? job_disk(node) : 0;

		if (disk)
			layout->jobs[layout->job_count++] =
				(struct qmp_job_place){ copy(node->name), disk - 1 };
	}
}

static void find_loose(struct qmp_layout *layout, const struct qmp_graph *graph)
{
	layout->loose = must(calloc(graph->driver_count + 1, sizeof(*layout->loose)));
	for (size_t i = 0; i < graph->driver_count; i++)
		if (qmp_node_is_named(graph->drivers[i]) && !graph->drivers[i]->up)
			layout->loose[layout->loose_count++] = copy(graph->drivers[i]->name);
}

static void name_nodes(struct qmp_layout *layout, const struct qmp_graph *graph)
{
	layout->nodes = must(calloc(graph->driver_count + 1, sizeof(*layout->nodes)));
	for (size_t i = 0; i < graph->driver_count; i++)
		layout->nodes[layout->node_count++] = copy(graph->drivers[i]->name);
}

static void find_files(struct qmp_layout *layout, const struct qmp_graph *graph)
{
	for (size_t i = 0; i < layout->disk_count; i++) {
		const struct qmp_node *node = qmp_graph_find(graph, layout->disks[i].node);

		if (node && node->file)
			layout->disks[i].file_node = copy(node->file->name);
	}
}

static struct qmp_layout *layout_new(size_t disks_max)
{
	struct qmp_layout *layout = must(calloc(1, sizeof(*layout)));

	layout->disks = must(calloc(disks_max + 1, sizeof(*layout->disks)));
	return layout;
}

static struct qmp_layout *layout_finish(struct qmp_layout *layout, struct qmp_graph *graph)
{
	if (graph) {
		find_jobs(layout, graph);
		find_loose(layout, graph);
		name_nodes(layout, graph);
		find_files(layout, graph);
	}
	qmp_graph_free(graph);
	return layout;
}

void qmp_layout_free(struct qmp_layout *layout)
{
	if (!layout)
		return;
	for (size_t i = 0; i < layout->disk_count; i++)
		disk_clear(&layout->disks[i]);
	for (size_t i = 0; i < layout->job_count; i++)
		free(layout->jobs[i].job);
	for (size_t i = 0; i < layout->loose_count; i++)
		free(layout->loose[i]);
	free(layout->disks);
	free(layout->jobs);
	for (size_t i = 0; i < layout->node_count; i++)
		free(layout->nodes[i]);
	free(layout->nodes);
	free(layout->loose);
	free(layout);
}

struct qmp_layout *qmp_layout_from_machine(const struct qmp_value *query_block,
					   const struct qmp_value *graph_value)
{
	struct qmp_graph *graph = qmp_graph_read(graph_value);
	size_t count = qmp_value_count(query_block);
	struct qmp_layout *layout = layout_new(count);

	for (size_t i = 0; i < count; i++)
		layout->disk_count +=
			machine_disk(&layout->disks[layout->disk_count], layout->disk_count,
				     qmp_value_item(query_block, i), graph);
	return layout_finish(layout, graph);
}

struct qmp_layout *qmp_layout_from_nodes(const struct qmp_value *named_nodes,
					 const struct qmp_value *graph_value)
{
	struct qmp_graph *graph = qmp_graph_read(graph_value);
	size_t count = qmp_value_count(named_nodes), images = 0;
	struct qmp_layout *layout = layout_new(count);

	/* Without the graph there is no telling a disk from what backs one. */
	if (!graph)
		return layout;
	note_drivers(graph, named_nodes);
	mark_owned(graph);
	for (size_t i = 0; i < count && images < IMAGES_MAX; i++) {
		const struct qmp_value *info = qmp_value_item(named_nodes, i);
		struct qmp_node *node =
			qmp_graph_find(graph, qmp_value_text(info, "node-name", NULL));
		struct qmp_disk_info *disk = &layout->disks[layout->disk_count];

		if (!is_disk(node))
			continue;
		node->owned = true; /* a name that is listed twice is still one disk */
		if (daemon_disk(disk, layout->disk_count, node)) {
			images += disk->depth;
			layout->disk_count++;
		} else {
			images += CHAIN_MAX;
		}
	}
	return layout_finish(layout, graph);
}
