/*
 * Who else uses an image: other disks under the mount, by whatever name they call its file.
 */
#ifndef JOBS_IMAGE_USERS_H
#define JOBS_IMAGE_USERS_H

#include "jobs/op.h"

/* Called once: true if nobody else does; false when the op has been refused (EBUSY), or has ended meanwhile (@op is NULL then). */
typedef void (*image_free_fn)(struct op *op, bool is_free, void *data);

/* Looks whether another disk has one of the images [@first] to [@last] of the op's disk in its chain. */
void disk_check_users(struct op *op, size_t first, size_t last, image_free_fn checked, void *data);

#endif
