/*
 * Flushing an image; see flush.h for why, and why so. Called by jobs/finish.c.
 */
#include "qmp/flush.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/graph.h"

struct flush_call {
	qmp_done_fn done;
	void *data;
};

static struct flush_call *call_new(qmp_done_fn done, void *data)
{
	struct flush_call *call = malloc(sizeof(*call));

	if (!call)
		abort();
	*call = (struct flush_call){ done, data };
	return call;
}

/* qemu-io says nothing if all is well. */
static void monitor_said(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct flush_call *call = data;
	char *said = strdup(qmp_value_text(value, NULL, ""));
	struct qmp_error failed = { -EREMOTEIO, "", said };

	if (!said)
		abort();
	said[strcspn(said, "\r\n")] = 0;
	if (!error && *said)
		error = &failed;
	call->done(call->data, error);
	free(said);
	free(call);
}

static bool by_monitor(struct qmp_link *link, struct qmp_features features,
		       const struct qmp_flush *flush, qmp_done_fn done, void *data)
{
	struct qmp_value *arguments;
	char line[128];

	if (!qmp_has(features, QMP_HAS_HUMAN_MONITOR) ||
	    snprintf(line, sizeof(line), "qemu-io %s flush", flush->node) >= (int)sizeof(line))
		return false;
	arguments = qmp_add_text(qmp_object(), "command-line", line);
	qmp_link_send(link, "human-monitor-command", arguments, monitor_said, call_new(done, data));
	return true;
}

static void reopened(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct flush_call *call = data;

	call->done(call->data, error);
	free(call);
}

/* QEMU flushes a node before it is reopened: block.c, bdrv_reopen_prepare(). */
static bool by_reopen(struct qmp_link *link, struct qmp_features features,
		      const struct qmp_flush *flush, qmp_done_fn done, void *data)
{
	struct qmp_value *options;

	if (!flush->ours || !flush->file_node || !qmp_has(features, QMP_HAS_REOPEN))
		return false;
	options = qmp_object();
	qmp_add_text(options, "driver", flush->format);
	qmp_add_text(options, "node-name", flush->node);
	qmp_add_text(options, "file", flush->file_node);
	if (flush->backing_node) /* formats without backing files do not take the word */
		qmp_add_text(options, "backing", flush->backing_node);
	qmp_link_send(
		link, "blockdev-reopen",
		qmp_add_value(qmp_object(), "options", qmp_append_value(qmp_array(), options)),
		reopened, call_new(done, data));
	return true;
}

/*
 * Refused for the overlay is what is wanted; refused for anything else, the flush has failed. Only the text tells them apart ("The overlay is
 * already in use" of 7.2 and 10): rather a pull that is called failed for nothing, with another QEMU's words, than one called completed
 * that is not.
 */
static void refused(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct flush_call *call = data;
	bool flushed = !error || (error->code == -EREMOTEIO && strcasestr(error->text, "overlay"));

	call->done(call->data, flushed ? NULL : error);
	free(call);
}

/* QEMU flushes before it looks at the overlay: blockdev.c, external_snapshot_prepare(). A protocol node can never be one. */
static bool by_refusal(struct qmp_link *link, struct qmp_features features,
		       const struct qmp_flush *flush, qmp_done_fn done, void *data)
{
	struct qmp_value *arguments;

	if (!flush->file_node || !qmp_has(features, QMP_HAS_SNAPSHOT))
		return false;
	arguments = qmp_add_text(qmp_object(), "node", flush->node);
	qmp_add_text(arguments, "overlay", flush->file_node);
	qmp_link_send(link, "blockdev-snapshot", arguments, refused, call_new(done, data));
	return true;
}

bool qmp_flush_pending(struct qmp_link *link, struct qmp_features features,
		       const struct qmp_flush *flush, qmp_done_fn done, void *data)
{
	return by_monitor(link, features, flush, done, data) ||
	       by_reopen(link, features, flush, done, data);
}

bool qmp_flush_idle(struct qmp_link *link, struct qmp_features features,
		    const struct qmp_flush *flush, qmp_done_fn done, void *data)
{
	return by_monitor(link, features, flush, done, data) ||
	       by_refusal(link, features, flush, done, data);
}

/* --- the target of a job --- */

struct target_call {
	struct qmp_link *link;
	struct qmp_features features;
	char *job, *format;
	qmp_done_fn done;
	void *data;
};

static const struct qmp_node *find_target(const struct qmp_graph *graph, const char *job)
{
	for (size_t i = 0; graph && i < graph->node_count; i++) {
		const struct qmp_node *node = &graph->nodes[i];

		if (node->kind != QMP_NODE_JOB || strcmp(node->name, job))
			continue;
		for (const struct qmp_edge *edge = node->down; edge; edge = edge->next_down)
			if (!strcmp(edge->name, "target"))
				return edge->child;
	}
	return NULL;
}

static void target_done(struct target_call *call, const struct qmp_error *error)
{
	call->done(call->data, error);
	free(call->job);
	free(call->format);
	free(call);
}

static void target_flushed(void *data, const struct qmp_error *error)
{
	target_done(data, error);
}

static void graph_known(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct target_call *call = data;
	struct qmp_graph *graph = error ? NULL : qmp_graph_read(value);
	const struct qmp_node *node = find_target(graph, call->job);
	struct qmp_flush flush = { .format = call->format, .ours = true };

	if (node) {
		flush.node = node->name;
		flush.file_node = node->file ? node->file->name : NULL;
		flush.backing_node = node->backing ? node->backing->name : NULL;
	}
	/*
	 * The human monitor is the second choice: that a flush has failed goes to QEMU's own standard output. What is not in the
	 * graph, or cannot be flushed, is left to QEMU.
	 */
	if (!node || (!by_reopen(call->link, call->features, &flush, target_flushed, call) &&
		      !by_monitor(call->link, call->features, &flush, target_flushed, call)))
		target_done(call, error && error->code != -EREMOTEIO ? error : NULL);
	qmp_graph_free(graph);
}

bool qmp_flush_target(struct qmp_link *link, struct qmp_features features, const char *job,
		      const char *format, qmp_done_fn done, void *data)
{
	struct target_call *call;

	if (!qmp_has(features, QMP_HAS_BLOCK_GRAPH) ||
	    (!qmp_has(features, QMP_HAS_HUMAN_MONITOR) && !qmp_has(features, QMP_HAS_REOPEN)))
		return false;
	call = calloc(1, sizeof(*call));
	if (!call || !(call->job = strdup(job)) || !(call->format = strdup(format)))
		abort();
	call->link = link;
	call->features = features;
	call->done = done;
	call->data = data;
	qmp_link_send(link, "x-debug-query-block-graph", NULL, graph_known, call);
	return true;
}
