/*
 * read(2) and write(2): the only requests that may wait. Each takes the reply, answers it now or later
 * and frees it. Called by fs/ops.c.
 */
#ifndef FS_IO_H
#define FS_IO_H

#include "fs/reply.h"

/* Uses the reply's node, fh, offset and size. */
void io_read(struct reply *reply);
/* Also @bytes, reply->size of them. */
void io_write(struct reply *reply, const char *bytes);

/* Answers reads that have been parked so long that the kernel would soon give up on us: with the live word. */
void io_expire_waits(struct face *face);

#endif
