/* A layout as text, for the tests of layouts. */
#ifndef TESTS_TEST_QMP_LAYOUT_H
#define TESTS_TEST_QMP_LAYOUT_H

#include <stdio.h>
#include <stdlib.h>
#include "qmp/layout.h"

static const char *or_dash(const char *text)
{
	return text ? text : "-";
}

/* "disk QDEV DEVICE NODE: NODE=FORMAT:PATH:MiB ..." and so on; - for what is not known. Frees @layout. */
static char *render(struct qmp_layout *layout)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (size_t i = 0; i < layout->disk_count; i++) {
		const struct qmp_disk_info *disk = &layout->disks[i];

		fprintf(out, "disk %s %s %s:", or_dash(disk->qdev), or_dash(disk->device),
			disk->node);
		for (size_t j = 0; j < disk->depth; j++)
			fprintf(out, " %s=%s:%s:%lld", or_dash(disk->chain[j].node),
				disk->chain[j].format, disk->chain[j].path,
				(long long)disk->chain[j].size >> 20);
		fprintf(out, "\n");
	}
	for (size_t i = 0; i < layout->job_count; i++)
		fprintf(out, "job %s on %zu\n", layout->jobs[i].job, layout->jobs[i].disk);
	for (size_t i = 0; i < layout->loose_count; i++)
		fprintf(out, "loose %s\n", layout->loose[i]);
	fclose(out);
	qmp_layout_free(layout);
	return text;
}

static char *layout_of(const struct qmp_value *data, const struct qmp_value *graph)
{
	const struct qmp_value *machine = qmp_value_get(data, "query-block");
	const struct qmp_value *nodes = qmp_value_get(data, "query-named-block-nodes");

	return render(machine ? qmp_layout_from_machine(machine, graph)
			      : qmp_layout_from_nodes(nodes, graph));
}

#endif
