/*
 * Putting an overlay on a disk; see snapshot.h. Called by jobs/snapshot.c.
 */
#include "qmp/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool in_one_step(struct qmp_features features)
{
	return qmp_has(features, QMP_HAS_QUERY_STATUS);
}

/* --- arguments --- */

static struct qmp_value *sync_arguments(const struct qmp_snapshot *snapshot)
{
	struct qmp_value *arguments = qmp_object();

	qmp_add_text(arguments, "node-name", snapshot->node);
	qmp_add_text(arguments, "snapshot-file", snapshot->path);
	qmp_add_text(arguments, "snapshot-node-name", snapshot->overlay_node);
	qmp_add_text(arguments, "format", snapshot->format);
	return qmp_add_text(arguments, "mode", "existing");
}

static struct qmp_value *add_arguments(const struct qmp_snapshot *snapshot)
{
	struct qmp_value *arguments = qmp_object(), *file = qmp_object();

	qmp_add_text(file, "driver", "file");
	qmp_add_text(file, "filename", snapshot->path);
	qmp_add_text(file, "node-name", snapshot->file_node);
	qmp_add_text(arguments, "driver", snapshot->format);
	qmp_add_text(arguments, "node-name", snapshot->overlay_node);
	qmp_add_value(arguments, "file", file);
	return qmp_add_text(arguments, "backing", NULL); /* that is the disk, in a moment */
}

static struct qmp_value *put_arguments(const struct qmp_snapshot *snapshot)
{
	struct qmp_value *arguments = qmp_add_text(qmp_object(), "node", snapshot->node);

	return qmp_add_text(arguments, "overlay", snapshot->overlay_node);
}

/* --- as text --- */

static char *command_text(const char *command, struct qmp_value *arguments)
{
	struct qmp_value *message = qmp_add_text(qmp_object(), "execute", command);
	char *text;

	qmp_add_value(message, "arguments", arguments);
	text = strdup(qmp_value_print(message));
	qmp_value_free(message);
	if (!text)
		abort();
	return text;
}

char *qmp_snapshot_text(struct qmp_features features, const struct qmp_snapshot *snapshot)
{
	char *add, *put, *both;

	if (in_one_step(features))
		return command_text("blockdev-snapshot-sync", sync_arguments(snapshot));
	add = command_text("blockdev-add", add_arguments(snapshot));
	put = command_text("blockdev-snapshot", put_arguments(snapshot));
	if (asprintf(&both, "%s\n%s", add, put) < 0)
		abort();
	free(add);
	free(put);
	return both;
}

/* --- sending --- */

struct snapshot_call {
	struct qmp_link *link;
	struct qmp_value *put; /* the arguments of the second step */
	char *overlay_node;
	int code; /* why that was refused ... */
	char *reason; /* ... while the first is being undone */
	qmp_done_fn done;
	void *data;
};

static void call_end(struct snapshot_call *call, const struct qmp_error *error)
{
	call->done(call->data, error);
	qmp_value_free(call->put);
	free(call->overlay_node);
	free(call->reason);
	free(call);
}

static void replied(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	call_end(data, error);
}

static void removed(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct snapshot_call *call = data;

	call_end(call, &(struct qmp_error){ call->code, "", call->reason });
}

static void put_replied(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct snapshot_call *call = data;

	if (!error || (error->code != -EREMOTEIO && error->code != -EAGAIN)) {
		call_end(call, error);
		return;
	}
	call->code = error->code;
	call->reason = strdup(error->text);
	qmp_link_send(call->link, "blockdev-del",
		      qmp_add_text(qmp_object(), "node-name", call->overlay_node), removed, call);
}

static void added(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	struct snapshot_call *call = data;
	struct qmp_value *put = call->put;

	if (error) {
		call_end(call, error);
		return;
	}
	call->put = NULL;
	qmp_link_send(call->link, "blockdev-snapshot", put, put_replied, call);
}

void qmp_snapshot(struct qmp_link *link, struct qmp_features features,
		  const struct qmp_snapshot *snapshot, qmp_done_fn done, void *data)
{
	struct snapshot_call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	call->link = link;
	call->done = done;
	call->data = data;
	if (in_one_step(features)) {
		qmp_link_send(link, "blockdev-snapshot-sync", sync_arguments(snapshot), replied,
			      call);
		return;
	}
	call->put = put_arguments(snapshot);
	call->overlay_node = strdup(snapshot->overlay_node);
	qmp_link_send(link, "blockdev-add", add_arguments(snapshot), added, call);
}
