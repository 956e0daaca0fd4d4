/*
 * What the two halves of the fake kernel share: tests/fake/kernel.c (the transport and the tree) and
 * tests/fake/kernel_calls.c (one function a system call).
 */
#ifndef TESTS_FAKE_KERNEL_PRIVATE_H
#define TESTS_FAKE_KERNEL_PRIVATE_H

#include "tests/fake/kernel.h"

struct session;

/* Not assert(): also where that is compiled out. */
#define MUST(condition)                                                                 \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)

struct kernel {
	uv_loop_t loop;
	struct face face;
	struct model *model;
	struct peer *peer; /* NULL: alone */
	struct session *session;
	int fd; /* our end */
	uv_poll_t poll;
	int descriptors; /* open before */
	bool settled, ready, ended, stopped;
	uint32_t uid, gid, pid;

	uint64_t last_unique;
	bool *expects; /* by unique: a reply is still to come */
	uint32_t *sent; /* by unique: the opcode */
	size_t room;
	struct kernel_reply **replies; /* by unique */
	uint64_t woken[4096];
	size_t woken_count;
};

#endif
