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

/* --- schemas that have been read, the same in all QEMUs of a build --- */

enum {
	SCHEMAS_MAX = 4,
};

/*
 * Kept for the life of the process: a few builds of QEMU are all that one machine runs. When the table is full, be it of odd answers of a peer that
 * means no good, schemas that are not in it are read as any answer is, which takes its 3 ms.
 */
static struct schema {
	char *text;
	size_t length;
	struct qmp_features features;
} schemas[SCHEMAS_MAX];
static size_t schema_count;

static const char *schema_text(size_t number, size_t *length)
{
	if (number >= schema_count)
		return NULL;
	*length = schemas[number].length;
	return schemas[number].text;
}

static void schema_keep(const char *text, size_t length, struct qmp_features what)
{
	if (schema_count == SCHEMAS_MAX)
		return;
	for (size_t i = 0; i < schema_count; i++)
		if (schemas[i].length == length && !memcmp(schemas[i].text, text, length))
			return; /* two were asked at once */
	schemas[schema_count] = (struct schema){ malloc(length), length, what };
	if (!schemas[schema_count].text)
		abort();
	memcpy(schemas[schema_count].text, text, length);
	schema_count++;
}

/* --- asking --- */

struct features_call {
	qmp_features_fn done;
	void *data;
	const char *text; /* of the answer, if it is a new one */
	size_t length;
};

static void schema_is(void *data, size_t number)
{
	struct features_call call = *(struct features_call *)data;

	free(data);
	call.done(call.data, NULL, schemas[number].features);
}

static void schema_came(void *data, const char *text, size_t length)
{
	struct features_call *call = data;

	call->text = text;
	call->length = length;
}

static const struct qmp_known known = { schema_text, schema_is, schema_came };

static void features_reply(void *data, const struct qmp_error *error, const struct qmp_value *value)
{
	static const struct qmp_error no_schema = { -EPROTO, "",
						    "query-qmp-schema was answered with no list" };
	struct features_call call = *(struct features_call *)data;
	struct qmp_features found = { 0 };

	free(data);
	if (!error && !qmp_value_count(value))
		error = &no_schema;
	if (!error)
		found = qmp_features_read(value);
	if (!error && call.text)
		schema_keep(call.text, call.length, found);
	call.done(call.data, error, found);
}

void qmp_query_features(struct qmp_link *link, qmp_features_fn done, void *data)
{
	struct features_call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	call->done = done;
	call->data = data;
	qmp_link_ask_known(link, "query-qmp-schema", &known, features_reply, call);
}
