/*
 * Asks QEMU for its layout: two commands, one answer. What is in them is read by layout.c. Called by jobs/sync.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/graph.h"
#include "qmp/layout.h"

enum {
	FEW = 4, /* nodes: of an image and what backs it */
	TRIES_MAX = 4, /* answers that do not belong together are asked for again */
};

/* Two questions, one answer: when both are in. */
struct layout_query {
	struct qmp_link *link;
	struct qmp_features features;
	bool machine, few;
	int waiting, tries;
	struct qmp_value *disks, *graph;
	int code; /* of the first error, 0: none */
	char *class, *text;
	qmp_layout_fn done;
	void *data;
};

static void query_answer(struct layout_query *query)
{
	struct qmp_error error = { query->code, query->class, query->text };
	struct qmp_layout *layout = NULL;

	if (!query->code)
		layout = query->machine ? qmp_layout_from_machine(query->disks, query->graph)
					: qmp_layout_from_nodes(query->disks, query->graph);
	query->done(query->data, query->code ? &error : NULL, layout);
	qmp_value_free(query->disks);
	qmp_value_free(query->graph);
	free(query->class);
	free(query->text);
	free(query);
}

static void query_send(struct layout_query *query);

/*
 * A job that ended between the two answers has taken its filter along: the disk would be taken for gone. A backup's filter is one that
 * query-block names.
 */
static bool is_of_two_moments(const struct layout_query *query)
{
	struct qmp_graph *graph = query->machine ? qmp_graph_read(query->graph) : NULL;
	bool missing = false;

	for (size_t i = 0; graph && i < qmp_value_count(query->disks); i++) {
		const struct qmp_value *inserted =
			qmp_value_get(qmp_value_item(query->disks, i), "inserted");
		const char *active = qmp_value_text(inserted, "node-name", NULL);

		missing |= active && !qmp_graph_find(graph, active);
	}
	qmp_graph_free(graph);
	return missing;
}

static void query_finish(struct layout_query *query)
{
	if (!query->code && --query->tries && is_of_two_moments(query)) {
		qmp_value_free(query->disks);
		qmp_value_free(query->graph);
		query->disks = query->graph = NULL;
		query_send(query);
		return;
	}
	query_answer(query);
}

static void query_fail(struct layout_query *query, int code, const char *class, const char *text)
{
	if (query->code)
		return;
	query->code = code;
	query->class = strdup(class);
	query->text = strdup(text);
}

static void disks_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct layout_query *query = data;

	if (error)
		query_fail(query, error->code, error->class, error->text);
	else if (!qmp_value_is_list(value))
		query_fail(query, -EPROTO, "", "a list of block devices was asked for");
	else
		query->disks = qmp_value_share(value);
	if (!--query->waiting)
		query_finish(query);
}

static void graph_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct layout_query *query = data;

	if (error)
		query_fail(query, error->code, error->class, error->text);
	else
		query->graph = qmp_value_share(value);
	if (!--query->waiting)
		query_finish(query);
}

static void query_send(struct layout_query *query)
{
	bool graph = qmp_has(query->features, QMP_HAS_BLOCK_GRAPH);
	struct qmp_value *flat = NULL;

	query->waiting = graph ? 2 : 1;
	/* Else each node tells of all images below it, which with a few is less than it takes QEMU to read the word. */
	if (!query->machine && !query->few && qmp_has(query->features, QMP_HAS_FLAT_NODES))
		flat = qmp_add_flag(qmp_object(), "flat", true);
	qmp_link_send(query->link, query->machine ? "query-block" : "query-named-block-nodes", flat,
		      disks_reply, query);
	if (graph)
		qmp_link_send(query->link, "x-debug-query-block-graph", NULL, graph_reply, query);
}

void qmp_query_layout(struct qmp_link *link, struct qmp_features features, size_t node_count,
		      qmp_layout_fn done, void *data)
{
	struct layout_query *query = calloc(1, sizeof(*query));

	if (!query)
		abort();
	query->link = link;
	query->features = features;
	query->few = node_count && node_count <= FEW;
	query->machine = qmp_has(features, QMP_HAS_QUERY_STATUS);
	query->tries = TRIES_MAX;
	query->done = done;
	query->data = data;
	query_send(query);
}
