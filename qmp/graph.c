/*
 * Owns the reading of QEMU's block graph into nodes that know their children and parents. Called by layout.c and flush.c; must not know
 * what a disk is.
 */
#include "qmp/graph.h"

#include <stdlib.h>
#include <string.h>

/* Sorted arrays and not hash tables: names and ids are the peer's, who could make them all collide. */

static int compare_ids(const void *one, const void *other)
{
	const struct qmp_node *a = one, *b = other;

	return (a->id > b->id) - (a->id < b->id);
}

static int compare_names(const void *one, const void *other)
{
	const struct qmp_node *const *a = one, *const *b = other;

	return strcmp((*a)->name, (*b)->name);
}

static struct qmp_node *find_id(const struct qmp_graph *graph, const struct qmp_value *id)
{
	struct qmp_node key = { .id = qmp_value_number(id, NULL, -1) };

	if (!qmp_value_is_number(id))
		return NULL;
	return bsearch(&key, graph->nodes, graph->node_count, sizeof(key), compare_ids);
}

struct qmp_node *qmp_graph_find(const struct qmp_graph *graph, const char *name)
{
	struct qmp_node key = { .name = name }, *pointer = &key, **found;

	if (!graph || !name)
		return NULL;
	found = bsearch(&pointer, graph->drivers, graph->driver_count, sizeof(pointer),
			compare_names);
	return found ? *found : NULL;
}

bool qmp_node_is_named(const struct qmp_node *node)
{
	return *node->name && *node->name != '#';
}

struct qmp_node *qmp_node_below_filter(const struct qmp_node *node)
{
	return node->file ? node->file : node->backing;
}

static void *array(size_t count, size_t size)
{
	void *memory = calloc(count + 1, size);

	if (!memory)
		abort();
	return memory;
}

static enum qmp_node_kind kind_of(const char *type)
{
	if (!strcmp(type, "block-driver"))
		return QMP_NODE_DRIVER;
	return strcmp(type, "block-job") ? QMP_NODE_OTHER : QMP_NODE_JOB;
}

/* False: a node has no id, or two have the same. */
static bool read_nodes(struct qmp_graph *graph, const struct qmp_value *list)
{
	size_t count = qmp_value_count(list);

	graph->nodes = array(count, sizeof(*graph->nodes));
	for (size_t i = 0; i < count; i++) {
		const struct qmp_value *entry = qmp_value_item(list, i);

		if (!qmp_value_is_number(qmp_value_get(entry, "id")))
			return false;
		graph->nodes[i] = (struct qmp_node){
			.id = qmp_value_number(entry, "id", 0),
			.kind = kind_of(qmp_value_text(entry, "type", "")),
			.name = qmp_value_text(entry, "name", ""),
		};
	}
	graph->node_count = count;
	qsort(graph->nodes, count, sizeof(*graph->nodes), compare_ids);
	for (size_t i = 1; i < count; i++)
		if (graph->nodes[i - 1].id == graph->nodes[i].id)
			return false;
	return true;
}

/* False: two block nodes have the same name. */
static bool index_names(struct qmp_graph *graph)
{
	graph->drivers = array(graph->node_count, sizeof(*graph->drivers));
	for (size_t i = 0; i < graph->node_count; i++)
		if (graph->nodes[i].kind == QMP_NODE_DRIVER)
			graph->drivers[graph->driver_count++] = &graph->nodes[i];
	qsort(graph->drivers, graph->driver_count, sizeof(*graph->drivers), compare_names);
	for (size_t i = 1; i < graph->driver_count; i++)
		if (!strcmp(graph->drivers[i - 1]->name, graph->drivers[i]->name))
			return false;
	return true;
}

/* False: it has one already, or that is none. */
static bool set_child(struct qmp_node **place, struct qmp_node *child)
{
	if (*place || child->kind != QMP_NODE_DRIVER)
		return false;
	*place = child;
	return true;
}

static bool add_edge(struct qmp_edge *edge)
{
	struct qmp_node *parent = edge->parent;

	edge->next_down = parent->down;
	parent->down = edge;
	edge->next_up = edge->child->up;
	edge->child->up = edge;
	if (parent->kind != QMP_NODE_DRIVER)
		return true;
	if (!strcmp(edge->name, "file"))
		return set_child(&parent->file, edge->child);
	if (!strcmp(edge->name, "backing"))
		return set_child(&parent->backing, edge->child);
	return true;
}

/* False: an edge has an end that is none of the nodes, or a node has two backing files. */
static bool read_edges(struct qmp_graph *graph, const struct qmp_value *list)
{
	size_t count = qmp_value_count(list);

	graph->edges = array(count, sizeof(*graph->edges));
	/* From the last on, so that each node's list comes to stand in QEMU's order. */
	for (size_t i = count; i-- > 0;) {
		const struct qmp_value *entry = qmp_value_item(list, i);
		struct qmp_edge *edge = &graph->edges[i];

		edge->parent = find_id(graph, qmp_value_get(entry, "parent"));
		edge->child = find_id(graph, qmp_value_get(entry, "child"));
		edge->name = qmp_value_text(entry, "name", "");
		if (!edge->parent || !edge->child || !add_edge(edge))
			return false;
	}
	return true;
}

/*
 * The copy-on-read filter of a stream looks like an image without backing file: an unnamed node with a "file". What gives
 * it away is the job, whose main node it is, and which holds the node below it too, the one that it streams into.
 */
static void find_stream_filter(const struct qmp_node *job)
{
	struct qmp_node *main = NULL;

	for (struct qmp_edge *edge = job->down; edge; edge = edge->next_down)
		if (!strcmp(edge->name, "main node"))
			main = edge->child;
	if (!main || main->kind != QMP_NODE_DRIVER || !main->file || main->backing ||
	    qmp_node_is_named(main))
		return;
	for (struct qmp_edge *edge = job->down; edge; edge = edge->next_down)
		if (edge->child == main->file)
			main->implicit = true;
}

static void find_implicit_filters(struct qmp_graph *graph)
{
	for (size_t i = 0; i < graph->node_count; i++) {
		struct qmp_node *node = &graph->nodes[i];

		if (node->kind == QMP_NODE_JOB)
			find_stream_filter(node);
		/* commit_top and mirror_top: an image would have a file to be in. */
		else if (node->kind == QMP_NODE_DRIVER && node->backing && !node->file &&
			 !qmp_node_is_named(node))
			node->implicit = true;
	}
}

struct qmp_graph *qmp_graph_read(const struct qmp_value *value)
{
	struct qmp_graph *graph;

	if (!qmp_value_is_list(qmp_value_get(value, "nodes")))
		return NULL;
	graph = array(1, sizeof(*graph));
	if (!read_nodes(graph, qmp_value_get(value, "nodes")) || !index_names(graph) ||
	    !read_edges(graph, qmp_value_get(value, "edges"))) {
		qmp_graph_free(graph);
		return NULL;
	}
	find_implicit_filters(graph);
	return graph;
}

void qmp_graph_free(struct qmp_graph *graph)
{
	if (!graph)
		return;
	free(graph->nodes);
	free(graph->edges);
	free(graph->drivers);
	free(graph);
}
