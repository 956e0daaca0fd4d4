/*
 * Absolute paths for images that QEMU was given by relative ones: what they are relative to is known to the QEMU process alone, and
 * the kernel shows which files that has open.
 */
#ifndef JOBS_QEMU_FILES_H
#define JOBS_QEMU_FILES_H

#include <sys/types.h>
#include "qmp/layout.h"

/*
 * Replaces relative paths in @layout by those of the files that process @pid (0: not known) has open. A path stays as it is if no open
 * file, or more than one, has a name that ends in it, or if we may not look.
 */
void qemu_files_make_absolute(struct qmp_layout *layout, pid_t pid);

#endif
