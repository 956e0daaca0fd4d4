/*
 * Answers to reads and writes; see fs/reply.h.
 */
#include "fs/reply.h"

#include <assert.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include "fs/kept.h"

static unsigned pending;

struct reply *reply_new(struct fuse_req *req, struct face *face, const char *kind)
{
	struct reply *reply = calloc(1, sizeof(*reply));

	if (!reply)
		abort();
	reply->req = req;
	reply->face = face;
	reply->request = face->request;
	reply->kind = kind;
	pending++;
	reply->arrived_ns = kept_waits(face->files.kept, reply->request.unique,
				       reply->request.number, uv_hrtime());
	return reply;
}

void reply_free(struct reply *reply)
{
	assert(!reply->req);
	free(reply);
}

unsigned reply_pending(void)
{
	return pending;
}

/*
 * libfuse calls this inside INTERRUPT, where answering is safe, but also inside its own registration if the
 * interrupt has overtaken the request: there it holds the request's lock, and the answer would free it.
 */
static void on_interrupt(struct fuse_req *req, void *data)
{
	struct reply *reply = data;

	reply->interrupted = true;
	if (!reply->parking && reply->op)
		op_interrupt(reply->op);
}

bool reply_park(struct reply *reply, struct op *op)
{
	reply->op = op;
	reply->parking = true;
	fuse_req_interrupt_func(reply->req, on_interrupt, reply);
	reply->parking = false;
	if (!reply->interrupted)
		return true;
	op_interrupt(op);
	return false;
}

static struct fuse_req *take(struct reply *reply)
{
	struct fuse_req *req = reply->req;

	assert(req);
	assert(!reply->op);
	reply->req = NULL;
	pending--;
	metrics_request(&reply->face->model->metrics, reply->kind, uv_hrtime() - reply->arrived_ns);
	return req;
}

static void given(const struct reply *reply)
{
	kept_answered(reply->face->files.kept, reply->request.unique);
}

/* That the kernel no longer wants an answer (ENOENT) is nobody's concern: nothing hangs on it. */
void reply_error(struct reply *reply, int error)
{
	fuse_reply_err(take(reply), -error);
	given(reply);
}

void reply_bytes(struct reply *reply, const char *bytes, size_t length)
{
	fuse_reply_buf(take(reply), bytes, length);
	given(reply);
}

void reply_written(struct reply *reply, size_t length)
{
	fuse_reply_write(take(reply), length);
	given(reply);
}
