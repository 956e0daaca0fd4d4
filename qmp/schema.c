/*
 * Owns what a QEMU can do: the table of commands and arguments that we would use, looked up in query-qmp-schema.
 * Called by jobs/domain.c after a connect; must not know QEMU's version.
 */
#include "qmp/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct feature {
	const char *command;
	const char *argument; /* or NULL: the command itself */
	const char *name;
} features[QMP_FEATURE_COUNT] = {
	[QMP_HAS_QUERY_STATUS] = { "query-status", NULL, "query-status" },
	[QMP_HAS_QUERY_JOBS] = { "query-jobs", NULL, "query-jobs" },
	[QMP_HAS_JOB_CANCEL] = { "job-cancel", NULL, "job-cancel" },
	[QMP_HAS_JOB_PAUSE] = { "job-pause", NULL, "job-pause" },
	[QMP_HAS_SET_SPEED] = { "block-job-set-speed", NULL, "block-job-set-speed" },
	[QMP_HAS_STREAM] = { "block-stream", NULL, "block-stream" },
	[QMP_HAS_STREAM_BASE_NODE] = { "block-stream", "base-node", "block-stream base-node" },
	[QMP_HAS_STREAM_FINALIZE] = { "block-stream", "auto-finalize",
				      "block-stream auto-finalize" },
	[QMP_HAS_COMMIT] = { "block-commit", NULL, "block-commit" },
	[QMP_HAS_COMMIT_NODES] = { "block-commit", "base-node", "block-commit base-node" },
	[QMP_HAS_COMMIT_DISMISS] = { "block-commit", "auto-dismiss", "block-commit auto-dismiss" },
	[QMP_HAS_MIRROR] = { "drive-mirror", NULL, "drive-mirror" },
	[QMP_HAS_MIRROR_DISMISS] = { "drive-mirror", "auto-dismiss", "drive-mirror auto-dismiss" },
	[QMP_HAS_MIRROR_COPY_MODE] = { "drive-mirror", "copy-mode", "drive-mirror copy-mode" },
	[QMP_HAS_JOB_COMPLETE] = { "job-complete", NULL, "job-complete" },
	[QMP_HAS_BLOCK_JOB_CANCEL] = { "block-job-cancel", "force", "block-job-cancel force" },
	[QMP_HAS_BLOCK_GRAPH] = { "x-debug-query-block-graph", NULL, "x-debug-query-block-graph" },
	[QMP_HAS_FLAT_NODES] = { "query-named-block-nodes", "flat",
				 "query-named-block-nodes flat" },
	[QMP_HAS_BLOCKDEV_ADD] = { "blockdev-add", NULL, "blockdev-add" },
	[QMP_HAS_BLOCKDEV_DEL] = { "blockdev-del", NULL, "blockdev-del" },
	[QMP_HAS_HUMAN_MONITOR] = { "human-monitor-command", NULL, "human-monitor-command" },
	[QMP_HAS_REOPEN] = { "blockdev-reopen", "options", "blockdev-reopen" },
	[QMP_HAS_SNAPSHOT] = { "blockdev-snapshot", NULL, "blockdev-snapshot" },
	[QMP_HAS_BACKUP] = { "drive-backup", NULL, "drive-backup" },
	[QMP_HAS_BACKUP_FINALIZE] = { "drive-backup", "auto-finalize",
				      "drive-backup auto-finalize" },
	[QMP_HAS_BACKUP_BITMAP] = { "drive-backup", "bitmap-mode", "drive-backup bitmap-mode" },
	[QMP_HAS_BACKUP_PROBE] = { "blockdev-backup", "bitmap-mode",
				   "blockdev-backup bitmap-mode" },
	[QMP_HAS_BLOCKDEV_CREATE] = { "blockdev-create", NULL, "blockdev-create" },
	[QMP_HAS_SNAPSHOT_SYNC] = { "blockdev-snapshot-sync", "snapshot-node-name",
				    "blockdev-snapshot-sync snapshot-node-name" },
};

/* For each feature the name of the type that has its command's arguments, NULL as long as the command was not met. */
struct argument_types {
	const char *of[QMP_FEATURE_COUNT];
};

const char *qmp_feature_name(enum qmp_feature feature)
{
	return features[feature].name;
}

static void note_command(struct argument_types *types, const struct qmp_value *entry)
{
	const char *name = qmp_value_text(entry, "name", "");

	for (int i = 0; i < QMP_FEATURE_COUNT; i++)
		if (!strcmp(features[i].command, name))
			types->of[i] = qmp_value_text(entry, "arg-type", "");
}

static bool has_member(const struct qmp_value *type, const char *name)
{
	const struct qmp_value *members = qmp_value_get(type, "members");

	for (size_t i = 0; i < qmp_value_count(members); i++)
		if (!strcmp(qmp_value_text(qmp_value_item(members, i), "name", ""), name))
			return true;
	return false;
}

static void note_type(struct qmp_features *found, const struct argument_types *types,
		      const struct qmp_value *entry)
{
	const char *name = qmp_value_text(entry, "name", "");

	for (int i = 0; i < QMP_FEATURE_COUNT; i++)
		if (features[i].argument && types->of[i] && !strcmp(types->of[i], name) &&
		    has_member(entry, features[i].argument))
			found->bits |= 1ul << i;
}

struct qmp_features qmp_features_read(const struct qmp_value *schema)
{
	struct qmp_features found = { 0 };
	struct argument_types types = { { NULL } };
	size_t count = qmp_value_count(schema);

	/* Types may stand before or after the commands that use them. */
	for (size_t i = 0; i < count; i++) {
		const struct qmp_value *entry = qmp_value_item(schema, i);

		if (!strcmp(qmp_value_text(entry, "meta-type", ""), "command"))
			note_command(&types, entry);
	}
	for (int i = 0; i < QMP_FEATURE_COUNT; i++)
		if (types.of[i] && !features[i].argument)
			found.bits |= 1ul << i;
	for (size_t i = 0; i < count; i++) {
		const struct qmp_value *entry = qmp_value_item(schema, i);

		if (!strcmp(qmp_value_text(entry, "meta-type", ""), "object"))
			note_type(&found, &types, entry);
	}
	return found;
}

struct features_call {
	qmp_features_fn done;
	void *data;
};

static void features_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	static const struct qmp_error no_schema = { -EPROTO, "",
						    "query-qmp-schema was answered with no list" };
	struct features_call call = *(struct features_call *)data;

	free(data);
	if (!error && !qmp_value_count(value))
		error = &no_schema;
	call.done(call.data, error, error ? (struct qmp_features){ 0 } : qmp_features_read(value));
}

void qmp_query_features(struct qmp_link *link, qmp_features_fn done, void *data)
{
	struct features_call *call = malloc(sizeof(*call));

	if (!call)
		abort();
	*call = (struct features_call){ done, data };
	qmp_link_send(link, "query-qmp-schema", NULL, features_reply, call);
}
