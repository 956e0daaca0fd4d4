/*
 * The disks of one QEMU and their backing chains: what query-block (a machine) or query-named-block-nodes (a storage daemon) tell,
 * with node names and the places of jobs from the block graph.
 *
 * Filters (copy-on-read, throttle, commit_top, mirror_top, ...) are skipped: a chain has format nodes only.
 */
#ifndef QMP_LAYOUT_H
#define QMP_LAYOUT_H

#include <stdbool.h>
#include "qmp/link.h"
#include "qmp/schema.h"

/*
 * Names of nodes that we have QEMU open. The target of a backup is no disk; an overlay of ours is one, and what it is called by
 * is below it.
 */
#define NODE_OF_TARGET	"bjfs-to-"
#define NODE_OF_OVERLAY "bjfs-on-"
#define NODE_OF_FILE	"bjfs-fi-"
enum {
	NODE_NAME_BYTES = 32, /* QEMU's limit, with the NUL */
};
/* A name that no node has had. */
void node_name_new(char name[NODE_NAME_BYTES], const char *prefix);

struct qmp_image {
	char *node; /* node name, or NULL if it cannot be told for certain: such an image cannot be named to QEMU */
	char *filename; /* as QEMU gives it: a path, "json:{...}", "nbd://..." */
	char *path; /* the path of a file or device behind it (relative if QEMU was given a relative one), else as filename */
	char *backing; /* the backing file as the image's header names it, or NULL */
	char *format; /* qcow2, raw, ... */
	int64_t size; /* virtual size in bytes */
};

struct qmp_disk_info {
	char *qdev; /* id of the guest's device, taken out of a QOM path if need be; or NULL */
	char *device; /* name of the drive (-drive id=), or NULL */
	char *node; /* node name of the active image: chain[0].node; never NULL */
	char *file_node; /* that the active image's format lies on; NULL: not known, or it is the protocol itself */
	struct qmp_image *chain; /* active image first */
	size_t depth; /* at least 1 */
};

/* A job and the disk it works on. */
struct qmp_job_place {
	char *job;
	size_t disk; /* index in disks */
};

struct qmp_layout {
	struct qmp_disk_info *disks;
	size_t disk_count;
	struct qmp_job_place *jobs; /* only those that work on one of the disks */
	size_t job_count;
	char **loose; /* named nodes without any parent, disks of a storage daemon included: what blockdev-del could drop */
	size_t loose_count;
	char **nodes; /* names of all format and protocol nodes that QEMU has */
	size_t node_count;
};

void qmp_layout_free(struct qmp_layout *layout);

typedef void (*qmp_layout_fn)(void *data, const struct qmp_error *error, struct qmp_layout *layout);
/*
 * Asks for the layout: two commands in one round trip. @layout is taken by the callback (qmp_layout_free()), NULL with an error.
 * On a storage daemon this sends query-named-block-nodes: not to be called while a stream is concluded and not dismissed there. @node_count: how many nodes it is
 * thought to have; 0: not known.
 */
void qmp_query_layout(struct qmp_link *link, struct qmp_features features, size_t node_count,
		      qmp_layout_fn done, void *data);

/*
 * The two halves without a link, for tests with recorded answers. @graph may be NULL (not known to this QEMU, or it made no
 * sense): of a machine's disks only the active images have node names then, and of a storage daemon's nodes none is known to be a disk.
 */
struct qmp_layout *qmp_layout_from_machine(const struct qmp_value *query_block,
					   const struct qmp_value *graph);
struct qmp_layout *qmp_layout_from_nodes(const struct qmp_value *named_nodes,
					 const struct qmp_value *graph);

#endif
