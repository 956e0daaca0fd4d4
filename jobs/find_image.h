/*
 * An image named by a user, found in the chain of a disk: `[N]`, a path as `chain` shows it, or any other path of the same file.
 */
#ifndef JOBS_FIND_IMAGE_H
#define JOBS_FIND_IMAGE_H

#include "jobs/op.h"

struct word;

/*
 * Called once, now or later: with the image's index in the chain as it is now; with -1 when the op has been refused; with a NULL
 * op when it has ended meanwhile.
 */
typedef void (*find_image_fn)(struct op *op, long index, void *data);

/* Finds what @word names in the chain of the op's disk. Refuses the op with ENOENT or EINVAL, a caret under the word, if it is not there. */
void disk_find_image(struct op *op, const struct word *word, find_image_fn found, void *data);

#endif
