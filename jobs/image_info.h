/*
 * What qemu-img tells of an image that is there already and is to be used: its size, and what its header names as its backing image.
 * Private to jobs/.
 */
#ifndef JOBS_IMAGE_INFO_H
#define JOBS_IMAGE_INFO_H

#include "jobs/model.h"

struct image_info {
	const char *complaint; /* why it cannot be told; NULL: it can */
	int64_t size; /* of the disk in it, bytes; -1: not told */
	const char *backing; /* the full path of its backing image, or NULL; borrowed */
	bool backing_is_expected; /* it is the file that it was compared with */
};

typedef void (*image_info_fn)(void *data, const struct image_info *info);

/* Calls @known once, from the loop. @expected: a file that the backing image may be, or NULL. */
void image_info_get(struct model *model, const char *path, const char *format, const char *expected,
		    image_info_fn known, void *data);

#endif
