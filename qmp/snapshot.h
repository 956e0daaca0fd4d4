/*
 * Putting an overlay on a disk. On a machine QEMU opens the overlay inside blockdev-snapshot-sync, with the options of the disk, and drops it when
 * the guest's device has gone over to another image. A storage daemon's disk may have nobody that holds it: an overlay that was put on
 * it so is gone at once. There it is added as a node of its own, and then put on top.
 */
#ifndef QMP_SNAPSHOT_H
#define QMP_SNAPSHOT_H

#include "qmp/command.h"
#include "qmp/schema.h"

struct qmp_snapshot {
	const char *node; /* the active image's node name */
	const char *path, *format; /* of the overlay, which is there */
	const char *overlay_node; /* what it is to be called ... */
	const char *file_node; /* ... and what it lies on; a storage daemon only */
};

/* In two steps on a storage daemon; if the second is refused, the first is undone before @done is called. */
void qmp_snapshot(struct qmp_link *link, struct qmp_features features,
		  const struct qmp_snapshot *snapshot, qmp_done_fn done, void *data);
/* The commands as they would be sent, a line each; malloc'ed. */
char *qmp_snapshot_text(struct qmp_features features, const struct qmp_snapshot *snapshot);

#endif
