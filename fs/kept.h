/*
 * What a session keeps for the next server of the same mount, in memory that outlives the process (a memfd in the store, fs/store.h): the kernel's INIT, which it
 * sends only once; the requests that wait for an answer, for kernels that do not send them again; and the open files, whose
 * numbers the kernel goes on to use. Of the model nothing: that is in jobs/.
 *
 * A process can be killed between any two of its instructions. So what counts is written last: the number of an open file,
 * the length of the INIT.
 *
 * Every function takes NULL for "nothing is kept".
 */
#ifndef FS_KEPT_H
#define FS_KEPT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "jobs/event_log.h"

struct kept;

/* An open file, as fs/open_file.h has it. */
struct kept_file {
	_Atomic uint64_t number; /* 0: there is none here */
	uint64_t node;
	uint64_t request; /* the OPEN that it was made for */
	uint64_t poll;
	uint64_t end; /* of the content that was read, if it was read whole; 0: it was not */
	uid_t uid;
	gid_t gid;
	pid_t pid;
	int32_t flags;
	uint32_t writes;
	uint8_t touch, adopted, gone;
	_Atomic uint8_t place; /* which of the two counts: the other one may be half written */
	struct event_place places[2];
};

/* A new memfd, for kept_open(). Returns it, or -errno. */
int kept_new(void);
/* @fd stays the caller's and may be closed. NULL: it is not such a memory, or of another version of it. */
struct kept *kept_open(int fd);
void kept_close(struct kept *kept);

/* The first message of the kernel. */
void kept_set_init(struct kept *kept, const void *bytes, size_t length);
/* NULL: it has not come yet. Borrowed. */
const void *kept_init(const struct kept *kept, size_t *length);

/* Where to read the next message into, so that it is not lost with us; NULL: there is no such room of @size bytes. */
void *kept_message(struct kept *kept, size_t size);
/*
 * The request of that number is without an answer, for a while; kept_answered() when it has one. Returns since when it is, by uv_hrtime(): @now, or, of one that is sent
 * again (@number is what it was first), when an earlier life had it.
 */
uint64_t kept_waits(struct kept *kept, uint64_t unique, uint64_t number, uint64_t now);
void kept_answered(struct kept *kept, uint64_t unique);
/* Calls @each for every request that an earlier life may have left without an answer, and forgets them. */
void kept_each_waiting(struct kept *kept, void (*each)(void *data, uint64_t unique), void *data);

/* A place for an open file, with a number of 0; NULL: there is no more room, and the next life will not know it. */
struct kept_file *kept_file_new(struct kept *kept);
void kept_file_free(struct kept *kept, struct kept_file *file);
/* Calls @each for every open file of an earlier life. */
void kept_each_file(struct kept *kept, void (*each)(void *data, struct kept_file *file),
		    void *data);

#endif
