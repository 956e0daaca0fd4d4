/*
 * What a completed job has released: the images that were in the chain when it began and are not in it now. Whoever manages access revokes
 * it by that list, so in doubt an image is not on it.
 */
#ifndef JOBS_RELEASED_H
#define JOBS_RELEASED_H

#include "jobs/disk.h"

/* True if @path, of a chain that the job remembers, may be the image. */
bool released_may_be(const struct job *job, const char *path, const struct qmp_image *image);
/* Fills in the `released` of the disk's job, from the chain as it is now, if it has completed. */
void released_find(struct disk *disk);

#endif
