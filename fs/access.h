/*
 * Who may do what with a folder or a file: its mode and owner, and chown and chmod. The kernel checks each access against what is
 * shown here (default_permissions). Called by fs/ops.c.
 */
#ifndef FS_ACCESS_H
#define FS_ACCESS_H

#include "fs/face.h"
#include "jobs/delegation.h"

/* Fills in mode, owner and time of change of a stat by place_stat(). */
void access_stat(const struct face *face, const struct place *place, struct stat *stat);
/*
 * chown and chmod: sets those of @wanted that @what (DELEGATE_...) names. Returns 0, or -EPERM if @who may not, or the place is not in
 * a domain; -EROFS; -ENOSPC.
 */
int access_set(const struct face *face, const struct place *place, const struct who *who,
	       unsigned what, const struct access *wanted);

#endif
