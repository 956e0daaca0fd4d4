/*
 * What this QEMU can do, told by query-qmp-schema and never by its version. A set of bits, one for each command or argument that
 * we would use: schema.c has the table.
 */
#ifndef QMP_SCHEMA_H
#define QMP_SCHEMA_H

#include <stdbool.h>
#include "qmp/link.h"

enum qmp_feature {
	QMP_HAS_QUERY_STATUS, /* a machine, not a storage daemon */
	QMP_HAS_QUERY_JOBS,
	QMP_HAS_JOB_CANCEL,
	QMP_HAS_JOB_PAUSE,
	QMP_HAS_SET_SPEED,
	QMP_HAS_STREAM, /* block-stream */
	QMP_HAS_STREAM_BASE_NODE,
	QMP_HAS_STREAM_FINALIZE, /* auto-finalize and auto-dismiss */
	QMP_HAS_COMMIT, /* block-commit */
	QMP_HAS_COMMIT_NODES, /* base-node */
	QMP_HAS_COMMIT_DISMISS, /* auto-dismiss */
	QMP_HAS_MIRROR, /* drive-mirror */
	QMP_HAS_MIRROR_DISMISS, /* auto-dismiss */
	QMP_HAS_MIRROR_COPY_MODE,
	QMP_HAS_JOB_COMPLETE,
	QMP_HAS_BLOCK_JOB_CANCEL, /* the soft one */
	QMP_HAS_BLOCK_GRAPH, /* x-debug-query-block-graph */
	QMP_HAS_FLAT_NODES, /* query-named-block-nodes flat */
	QMP_HAS_BLOCKDEV_ADD,
	QMP_HAS_BLOCKDEV_DEL,
	QMP_HAS_HUMAN_MONITOR,
	QMP_HAS_REOPEN, /* blockdev-reopen, with a list of options */
	QMP_HAS_SNAPSHOT, /* blockdev-snapshot */
	QMP_HAS_BACKUP, /* drive-backup */
	QMP_HAS_BACKUP_FINALIZE, /* auto-finalize and auto-dismiss */
	QMP_HAS_BACKUP_BITMAP, /* bitmap-mode */
	QMP_HAS_BACKUP_PROBE, /* blockdev-backup, as qmp_backup_probe() uses it */
	QMP_HAS_BLOCKDEV_CREATE,
	QMP_HAS_SNAPSHOT_SYNC, /* blockdev-snapshot-sync with snapshot-node-name */
	QMP_FEATURE_COUNT,
};

struct qmp_features {
	unsigned long bits;
};

static inline bool qmp_has(struct qmp_features features, enum qmp_feature feature)
{
	return features.bits >> feature & 1;
}

/* "block-stream base-node": for a refusal that says what is missing. Static. */
const char *qmp_feature_name(enum qmp_feature feature);

/* Reads the "return" of query-qmp-schema. */
struct qmp_features qmp_features_read(const struct qmp_value *schema);

typedef void (*qmp_features_fn)(void *data, const struct qmp_error *error,
				struct qmp_features features);
void qmp_query_features(struct qmp_link *link, qmp_features_fn done, void *data);

#endif
