/*
 * Long answers that one QEMU gives like the other, to the letter: a schema is 200 KiB, and to take it apart is most of what it costs to reach a
 * machine. So an answer is compared with those that have come before, as it comes; only one that is new is read. Part of link.c.
 */
#ifndef QMP_SAME_H
#define QMP_SAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp_known;
struct same;

enum {
	SAME_TEXTS_MAX = 8, /* answers that one is compared with */
	SAME_BYTES_MAX = 1 << 20, /* a longer one is not kept */
};

enum same_state {
	SAME_SO_FAR, /* all bytes are those of one that is known, but it has not come to its end */
	SAME_WHOLE,
	SAME_NOT, /* it is none of them, or another message comes first: read it, after what has come of it (same_begun()) */
};

/* For the answer to command @id. Never NULL. @known must outlive it. */
struct same *same_new(const struct qmp_known *known, uint64_t id);
void same_free(struct same *same);

/* The next bytes, from the beginning of a message on. Returns how many of them are taken; none with SAME_NOT. */
size_t same_take(struct same *same, const char *bytes, size_t length, enum same_state *state);
/* Which it is, after SAME_WHOLE. */
size_t same_number(const struct same *same);
/* After SAME_NOT: what had been taken of the message, in pieces: *@length is 0 behind the last. Borrowed. */
const char *same_begun(struct same *same, size_t *length);

/* Bytes of a message that is being read. @first: its first. */
void same_note(struct same *same, const char *bytes, size_t length, bool first);
/* What stood in the noted message as "return", or NULL: it is too long, or not written as QEMU writes it. Borrowed. */
const char *same_noted(const struct same *same, size_t *length);

#endif
