/*
 * How the header of an image should name its new backing image, when those in between go: relative names stay relative, which QEMU would
 * not do by itself, so that a folder of images can still be moved as a whole.
 */
#ifndef JOBS_BACKING_NAME_H
#define JOBS_BACKING_NAME_H

#include <stddef.h>
#include "qmp/layout.h"

/*
 * The name of chain[@base] as seen from chain[@from], where @from < @base: by the names in the headers in between, if all of these are
 * relative. malloc'ed; NULL if one is not, or is no path of a file: QEMU's own way is right then.
 */
char *backing_name(const struct qmp_image *chain, size_t from, size_t base);

#endif
