/*
 * QEMU's block graph, from x-debug-query-block-graph: who has whom for a child. Used by layout.c and flush.c.
 *
 * The answer may come from a hostile peer: a graph may have circles, so whoever walks counts steps; and one that contradicts
 * itself is no graph at all.
 */
#ifndef QMP_GRAPH_H
#define QMP_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qmp/value.h"

enum qmp_node_kind {
	QMP_NODE_DRIVER, /* a block node: an image's format, a protocol, a filter */
	QMP_NODE_JOB, /* its name is the job's id */
	QMP_NODE_OTHER, /* a device's or export's hold on a node */
};

struct qmp_edge {
	struct qmp_node *parent, *child;
	const char *name; /* file, backing, target, main node, ... */
	struct qmp_edge *next_down; /* same parent */
	struct qmp_edge *next_up; /* same child */
};

struct qmp_node {
	int64_t id;
	enum qmp_node_kind kind;
	const char *name;
	struct qmp_node *file, *backing; /* a driver's children, or NULL */
	struct qmp_edge *down, *up; /* all edges to children, to parents; in QEMU's order */
	bool implicit; /* a filter that a job has put in, which query-block does not show */

	/* layout.c's own notes, all zero at first */
	const struct qmp_value *info; /* its entry in query-named-block-nodes */
	bool filter;
	bool owned; /* something other than filters and users has it for a child */
	size_t disk; /* 1 + index of the disk that it belongs to, 0: none */
};

struct qmp_graph {
	struct qmp_node *nodes; /* sorted by id */
	size_t node_count;
	struct qmp_edge *edges;
	struct qmp_node **drivers; /* sorted by name */
	size_t driver_count;
};

/* The names in it are borrowed from @value. NULL: it is not there, or makes no sense. Time is n log n in its size. */
struct qmp_graph *qmp_graph_read(const struct qmp_value *value);
void qmp_graph_free(struct qmp_graph *graph);

/* The driver node of that name, or NULL; @graph and @name may be NULL. */
struct qmp_node *qmp_graph_find(const struct qmp_graph *graph, const char *name);

/* A name that a user gave: QEMU's own ones begin with #. */
bool qmp_node_is_named(const struct qmp_node *node);

/* What a filter filters. */
struct qmp_node *qmp_node_below_filter(const struct qmp_node *node);

#endif
