/*
 * Having QEMU make the file of an image: blockdev-create, a job of its own kind, which is no block job. jobs/make_image.c knows the steps.
 */
#ifndef QMP_CREATE_H
#define QMP_CREATE_H

#include "qmp/command.h"

struct qmp_create {
	const char *job; /* the new job's id */
	const char *path;
	const char *format;
	int64_t size; /* of the disk, bytes */
	const char *backing, *backing_format; /* as the header is to name them; NULL: none */
};

/* The file itself: empty, or of the disk's size for a raw image. It cuts off what is there: look before. */
void qmp_create_file(struct qmp_link *link, const struct qmp_create *create, qmp_done_fn done,
		     void *data);
/* The format in the file; a raw image needs none. */
void qmp_create_format(struct qmp_link *link, const struct qmp_create *create, qmp_done_fn done,
		       void *data);

/* Why the job has failed: @error is that, -EREMOTEIO, or why it cannot be told; NULL: it went well. */
void qmp_query_job_error(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);

/* Dismisses what is over and was not dismissed of the jobs whose ids begin with @prefix, which is a string constant. */
void qmp_create_sweep(struct qmp_link *link, const char *prefix);

#endif
