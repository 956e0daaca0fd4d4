/*
 * Making what was written to an image reach its file. QMP has no command for it, and QEMU itself does not do it at the end of a stream: the
 * new header, which names no backing file any more, is written at once, but the tables that say where the pulled data is stay in
 * QEMU's memory until a guest happens to flush. A QEMU that is killed then leaves an image that has lost its data (measured with
 * QEMU 7.2 and 10.0). So a job is not finalized, and not shown as completed, before its image is flushed.
 */
#ifndef QMP_FLUSH_H
#define QMP_FLUSH_H

#include <stdbool.h>
#include "qmp/command.h"
#include "qmp/schema.h"

struct qmp_flush {
	const char *node; /* of the active image */
	const char *file_node; /* that its format lies on; NULL: not known */
	const char *format, *backing_node; /* backing_node NULL: nothing backs it */
	bool ours; /* the node was opened by us, with its format and its file as the only options */
};

/*
 * Flushes the image while a job on it is pending. Returns false, and never calls @done, if there is no way to do that with this QEMU:
 * a machine is told by its human monitor, a node of ours is reopened as it is.
 */
bool qmp_flush_pending(struct qmp_link *link, struct qmp_features features,
		       const struct qmp_flush *flush, qmp_done_fn done, void *data);

/*
 * Flushes the image when no job is on it. Where there is no human monitor, by a snapshot that QEMU flushes for and then refuses, since
 * the overlay offered is a node in use. The same return.
 */
bool qmp_flush_idle(struct qmp_link *link, struct qmp_features features,
		    const struct qmp_flush *flush, qmp_done_fn done, void *data);

/*
 * Flushes what a job writes to, a backup while it is pending, which QEMU has opened itself in this format: it would flush it when it
 * closes it, too, but tells nobody when that fails. The same return.
 */
bool qmp_flush_target(struct qmp_link *link, struct qmp_features features, const char *job,
		      const char *format, qmp_done_fn done, void *data);

#endif
