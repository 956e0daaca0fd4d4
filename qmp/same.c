/*
 * Answers that have come before; see same.h. Called by link.c; must not know what they mean.
 */
#include "qmp/same.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/link.h"

/* What stands around the text in QEMU's answer. */
static const char before[] = "{\"return\": ";

enum {
	BEFORE = sizeof(before) - 1,
};

struct same {
	const struct qmp_known *known;
	char after[40];
	size_t after_length;
	unsigned candidates; /* a bit for each text that it may be */
	size_t taken; /* bytes of the message, as they are in those */
	size_t given; /* of these, back to who reads it */
	unsigned last; /* the candidates before it was none */
	char *noted;
	size_t noted_length, noted_room;
	bool too_long;
	bool whole; /* what is noted began with the first byte of a message */
};

struct same *same_new(const struct qmp_known *known, uint64_t id)
{
	struct same *same = calloc(1, sizeof(*same));

	if (!same)
		abort();
	same->known = known;
	same->after_length =
		(size_t)snprintf(same->after, sizeof(same->after), ", \"id\": %" PRIu64 "}", id);
	return same;
}

void same_free(struct same *same)
{
	if (!same)
		return;
	free(same->noted);
	free(same);
}

/* --- comparing --- */

/* The bytes of message @number from @at on, as far as they lie together; *@length is 0 behind its end. */
static const char *piece(const struct same *same, size_t number, size_t at, size_t *length)
{
	size_t text_length;
	const char *text = same->known->text(number, &text_length);

	if (at < BEFORE) {
		*length = BEFORE - at;
		return before + at;
	}
	at -= BEFORE;
	if (at < text_length) {
		*length = text_length - at;
		return text + at;
	}
	at -= text_length;
	*length = same->after_length - at;
	return same->after + at;
}

/* How many of the bytes go on as message @number does from @at on. */
static size_t agreement(const struct same *same, size_t number, size_t at, const char *bytes,
			size_t length)
{
	size_t done = 0, there;

	while (done < length) {
		const char *expected = piece(same, number, at + done, &there);

		if (there > length - done)
			there = length - done;
		if (!there || memcmp(expected, bytes + done, there))
			break;
		done += there;
	}
	return done;
}

static bool is_blank(char byte)
{
	return byte == '\r' || byte == '\n';
}

static bool is_whole(const struct same *same, size_t number, size_t taken)
{
	size_t left;

	piece(same, number, taken, &left);
	return !left;
}

static unsigned all_known(const struct same *same)
{
	unsigned all = 0;
	size_t length;

	for (size_t i = 0; i < SAME_TEXTS_MAX && same->known->text(i, &length); i++)
		all |= 1u << i;
	return all;
}

size_t same_take(struct same *same, const char *bytes, size_t length, enum same_state *state)
{
	size_t blanks = 0;

	if (!same->taken) {
		same->candidates = all_known(same);
		while (blanks < length && is_blank(bytes[blanks]))
			blanks++;
	}
	same->given = 0;
	same->last = same->candidates;
	for (size_t i = 0; i < SAME_TEXTS_MAX; i++) {
		size_t done;

		if (!(same->candidates & 1u << i))
			continue;
		done = agreement(same, i, same->taken, bytes + blanks, length - blanks);
		if (is_whole(same, i, same->taken + done)) {
			same->candidates = 1u << i;
			same->taken = 0;
			*state = SAME_WHOLE;
			return blanks + done;
		}
		if (done < length - blanks)
			same->candidates &= ~(1u << i);
	}
	if (!same->candidates) {
		*state = SAME_NOT;
		return 0;
	}
	*state = SAME_SO_FAR;
	same->taken += length - blanks;
	return length;
}

size_t same_number(const struct same *same)
{
	return (size_t)__builtin_ctz(same->candidates);
}

const char *same_begun(struct same *same, size_t *length)
{
	const char *bytes = "";

	*length = 0;
	if (same->given < same->taken) {
		bytes = piece(same, (size_t)__builtin_ctz(same->last), same->given, length);
		if (*length > same->taken - same->given)
			*length = same->taken - same->given;
		same->given += *length;
	} else {
		same->taken = same->given = 0;
	}
	return bytes;
}

/* --- one that is new --- */

void same_note(struct same *same, const char *bytes, size_t length, bool first)
{
	if (first) {
		same->noted_length = 0;
		same->too_long = false;
		same->whole = true;
	}
	/* The question may have been sent in the middle of a message: its end is none. */
	if (!same->whole)
		return;
	while (!same->noted_length && length && is_blank(*bytes)) {
		bytes++;
		length--;
	}
	same->too_long |= length > SAME_BYTES_MAX - same->noted_length;
	if (same->too_long)
		return;
	if (same->noted_length + length > same->noted_room) {
		same->noted_room = 2 * (same->noted_length + length);
		same->noted = realloc(same->noted, same->noted_room);
		if (!same->noted)
			abort();
	}
	memcpy(same->noted + same->noted_length, bytes, length);
	same->noted_length += length;
}

const char *same_noted(const struct same *same, size_t *length)
{
	const char *bytes = same->noted;
	size_t count = same->too_long ? 0 : same->noted_length;

	while (count && is_blank(bytes[count - 1]))
		count--;
	if (count <= BEFORE + same->after_length || memcmp(bytes, before, BEFORE) ||
	    memcmp(bytes + count - same->after_length, same->after, same->after_length))
		return NULL;
	*length = count - BEFORE - same->after_length;
	return bytes + BEFORE;
}
