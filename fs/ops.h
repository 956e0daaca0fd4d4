/*
 * The table of FUSE requests. Its one user is fs/session.c; the session's userdata is the face.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include "fs/face.h"

struct fuse_lowlevel_ops;
extern const struct fuse_lowlevel_ops face_ops;

/* Tells those who poll on something that has changed. Never while a request is being served. */
void ops_wake_pollers(struct face *face);
/* Forgets them, before the session's end. */
void ops_drop_pollers(struct face *face);

#endif
