/*
 * One operation in flight: something that somebody waits for (a command that was written, a read of fresh figures, a parked
 * `wait`). It completes exactly once, in op_complete(), whichever comes first: QEMU's reply, a refusal, a deadline, the end of the
 * link, an interrupt, the removal of its disk, or shutdown.
 *
 * An op is owned by whoever started it (fs/ for FUSE requests) until it completes; `done` is called then, once, and the op frees itself
 * when `done` has returned. `done` may be called inside the function that the op was given to.
 *
 * Whoever waits for something outside on behalf of an op (a QMP reply, the work pool) keeps op->id, not the pointer, and
 * finds it again with op_find(): NULL means that it is over and nobody is interested any more.
 */
#ifndef JOBS_OP_H
#define JOBS_OP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>
#include "jobs/text.h"

struct model;
struct domain;
struct disk;
struct op;
struct fault;

/* Who asked: the credentials at open(2). */
struct who {
	uid_t uid;
	gid_t gid;
	pid_t pid;
};

/* What an operation is about: exactly one of the two may be set; neither: the whole mount. */
struct target {
	struct model *model;
	struct domain *domain;
	struct disk *disk;
};

/* @status: 0 or -errno. @op->answer is what the writer may read back; borrowed. */
typedef void (*op_done_fn)(struct op *op, int status, void *data);

struct op {
	uint64_t id; /* never 0, never used again */
	struct target target;
	struct who by;
	char *written; /* the command as written, for `error`; NULL for a read: its failure is not recorded */
	size_t written_length;
	struct text *answer;
	/* Called on the end of the disk's live job, with the op still pending. Set by whoever waits for that (`wait`, `abort`). */
	void (*job_ended)(struct op *op);
	/* Called when the disk's live job is ready, for the first time or after a pause, with the op still pending. */
	void (*job_ready)(struct op *op);
	bool needs_qemu; /* it ends, too, when QEMU does not answer, or the link is lost */
	/* The number of the query-block-jobs that answers this op (jobs/refresh.c); 0: it waits for none. */
	uint64_t refresh;
	/* Called when the domain is reached, or not, after the server was started anew in the middle of it all (jobs/resume.h). */
	void (*resumed)(struct op *op);
	uint64_t
		request; /* the kernel's number of the request, the same in all lives of the server; 0: it did not come from there */
	bool again; /* an earlier life has had it, and has not answered */
	int64_t deadline_s; /* of the job that the command starts; 0: none */
	op_done_fn done;
	void *data;
	bool completed;
	struct op *prev, *next; /* the ops of the same disk, domain or model */
	UT_hash_handle hh; /* by id */
};

/* A new op on @target. */
struct op *op_new(const struct target *target, const struct who *by, op_done_fn done, void *data);
/* Makes it the op of a command: refusals are recorded in the target's `error` with the text as it was written. */
void op_set_written(struct op *op, const char *bytes, size_t length);
/* NULL if there is no such op any more. */
struct op *op_find(struct model *model, uint64_t id);

/*
 * Completes the op with 0 or -errno and frees it. The op must not be completed yet. A command that succeeded clears the target's
 * `error`. A read that fails records nothing.
 */
void op_complete(struct op *op, int status);
/* Completes the op with @error (-errno) and the reason: in `error` of the target, as event command-refused, and as the answer. */
void op_refuse(struct op *op, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with a caret under a place of the written command. */
void op_refuse_at(struct op *op, int error, size_t offset, size_t length, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
/* The same for a command that did not parse. */
void op_refuse_fault(struct op *op, const struct fault *fault);
/* The caller was interrupted: -EINTR. What was sent to QEMU goes on. */
void op_interrupt(struct op *op);

/* Completes every op on a list (of a disk, a domain, the model) with @status: removal, shutdown. */
void op_list_end(struct op **list, int error, const char *reason);

#endif
