/*
 * A read or a write that the kernel waits for, from its arrival to its one answer. Made by fs/ops.c,
 * carried through fs/io.c and the model, answered there. Answering twice, or dropping one that has no
 * answer, is caught by assert().
 */
#ifndef FS_REPLY_H
#define FS_REPLY_H

#include "fs/face.h"

struct fuse_req;

struct reply {
	struct fuse_req *req; /* NULL: answered */
	struct face *face;
	struct request request; /* as the kernel has sent it */
	uint64_t node;
	uint64_t fh; /* number of the open file */
	uint64_t offset;
	size_t size; /* bytes wanted, or written */
	struct op *op; /* what it waits for; NULL: it does not */
	const char *kind; /* "read" or "write", for the metrics */
	uint64_t arrived_ns;
	bool parking, interrupted;
	bool cached; /* a read into the page cache, for sendfile or splice: cut off at the size told last */
	uint64_t since; /* when it was parked until a job ends, by uv_now(); 0: it is not */
	struct reply *prev, *next; /* those that are */
};

/* @kind: "read" or "write". */
struct reply *reply_new(struct fuse_req *req, struct face *face, const char *kind);
/* It must have been answered. */
void reply_free(struct reply *reply);
/* How many requests are without an answer: for the tests. */
unsigned reply_pending(void);

/*
 * The request now waits for @op: an interrupt of the caller ends it with -EINTR. False if the caller
 * was interrupted already: the op is over then, and the reply with it. To be called before the op is
 * handed to anybody; whoever completes the op sets reply->op to NULL.
 */
bool reply_park(struct reply *reply, struct op *op);

/* The answers. @error is -errno. */
void reply_error(struct reply *reply, int error);
void reply_bytes(struct reply *reply, const char *bytes, size_t length);
void reply_written(struct reply *reply, size_t length);

#endif
