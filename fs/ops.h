/*
 * The table of FUSE requests. Its one user is fs/session.c; the session's userdata is the face.
 */
#ifndef FS_OPS_H
#define FS_OPS_H

#include "fs/face.h"

struct fuse_lowlevel_ops;
extern const struct fuse_lowlevel_ops face_ops;

/* Calls @wake for each poll handle that waits for something that has changed. Never while a request is being served. */
void ops_wake_pollers(struct face *face, void (*wake)(void *data, uint64_t poll), void *data);

#endif
