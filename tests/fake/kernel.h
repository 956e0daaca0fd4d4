/*
 * A kernel: the other end of the FUSE session, over a socket pair. It sends requests as the kernel does, collects
 * the replies by their numbers, and asserts that each request gets exactly one (and forgets get none).
 * Around it a whole tree: face, model, and a scripted QMP peer with the domain "vm" and its disk "vda".
 */
#ifndef TESTS_FAKE_KERNEL_H
#define TESTS_FAKE_KERNEL_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>
#include "fs/face.h"
#include "tests/fake/peer.h"

enum {
	KERNEL_WAIT_MS = 5000, /* no reply within this is a failure */
};

struct kernel;

/* What came back. */
struct kernel_reply {
	uint64_t unique;
	int error; /* 0 or -errno */
	char *bytes; /* NUL-terminated */
	size_t length;
};

/* With a machine that is connected, unless @alone: then the domain "vm" has no monitor, and no disk. */
struct kernel *kernel_new(bool alone);
/*
 * Unmounts and ends all; asserts that no request is left without its answer, and that there are as many open
 * descriptors as before. Requests that are waiting may be left: they are to be answered by the end.
 */
void kernel_free(struct kernel *kernel);

struct face *kernel_face(struct kernel *kernel);
struct peer *kernel_peer(struct kernel *kernel);
uv_loop_t *kernel_loop(struct kernel *kernel);
/* Runs the model's end, as a signal would. */
void kernel_stop_model(struct kernel *kernel);
/* Who the requests come from; root at first. */
void kernel_set_user(struct kernel *kernel, uint32_t uid, uint32_t gid, uint32_t pid);

/* --- raw --- */

/* Sends a request: header, @args, then @more. Returns its number. */
uint64_t kernel_send(struct kernel *kernel, uint32_t opcode, uint64_t node, const void *args,
		     size_t size, const void *more, size_t more_size);
/* The reply, if it is there; borrowed until kernel_free(). */
const struct kernel_reply *kernel_reply(struct kernel *kernel, uint64_t unique);
/* Runs the loop until it is. */
const struct kernel_reply *kernel_wait(struct kernel *kernel, uint64_t unique);
/* Runs the loop until nothing happens for a moment. */
void kernel_idle(struct kernel *kernel);
/* How many requests have no reply yet. */
size_t kernel_unanswered(const struct kernel *kernel);
/* How often the poll handle @kh has been woken. */
unsigned kernel_woken(const struct kernel *kernel, uint64_t kh);

/* --- one call each; 0 or -errno --- */

int kernel_lookup(struct kernel *kernel, uint64_t parent, const char *name,
		  struct fuse_entry_out *entry);
/* Walks a path from the root; asserts that it is there. */
uint64_t kernel_walk(struct kernel *kernel, const char *path);
int kernel_getattr(struct kernel *kernel, uint64_t node, struct fuse_attr *attr);
int kernel_open(struct kernel *kernel, uint64_t node, uint32_t flags, uint64_t *fh);
int kernel_release(struct kernel *kernel, uint64_t node, uint64_t fh);
/* The reply has the bytes. */
const struct kernel_reply *kernel_read(struct kernel *kernel, uint64_t node, uint64_t fh,
				       uint64_t offset, uint32_t size);
uint64_t kernel_send_read(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
			  uint32_t size);
/* 0 if all was taken. */
int kernel_write(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
		 const char *text);
int kernel_write_bytes(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
		       const void *bytes, size_t size);
uint64_t kernel_send_write(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
			   const void *bytes, size_t size);
void kernel_interrupt(struct kernel *kernel, uint64_t unique);
/* Returns the events; @kh 0: does not ask to be woken. */
unsigned kernel_poll(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t kh);
/* Names of a folder, each followed by a newline, read @size bytes at a time; malloc'ed. */
char *kernel_list(struct kernel *kernel, uint64_t node, uint32_t size);

/* Opens, reads whole and releases @path; malloc'ed. */
char *kernel_cat(struct kernel *kernel, const char *path);
/* Opens, writes and releases. */
int kernel_echo(struct kernel *kernel, const char *path, const char *text);
/* The machine now has a running pull, started through the tree. */
void kernel_start_pull(struct kernel *kernel);
/* That job, as query-block-jobs shows it: fractions of 64 MiB. */
void kernel_set_progress(struct kernel *kernel, long long offset);

#endif
