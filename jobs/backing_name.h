/*
 * How the header of an image should name its new backing image, when those in between go: relative names stay relative, which QEMU would
 * not do by itself, so that a folder of images can still be moved as a whole.
 */
#ifndef JOBS_BACKING_NAME_H
#define JOBS_BACKING_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include "qmp/layout.h"

/*
 * The name of chain[@base] as seen from chain[@from], where @from < @base: by the names in the headers in between, if all of these are
 * relative. malloc'ed; NULL if one is not, or is no path of a file: QEMU's own way is right then.
 */
char *backing_name(const struct qmp_image *chain, size_t from, size_t base);

/*
 * The name of chain[@index], the active image or the one below, for the header of a new image at @path: relative if the active image's
 * own header keeps to relative names, or @relative says so, and the two are in one folder; else absolute. malloc'ed.
 */
char *backing_name_new(const struct qmp_image *chain, size_t index, const char *path,
		       bool relative);

#endif
