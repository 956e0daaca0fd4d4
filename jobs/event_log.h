/*
 * An append-only log of lines with a place for each reader. It looks like a file that grows: its size is the number of bytes
 * kept, and offsets count from the oldest byte kept when the reader began. When it has become long its older half is
 * dropped; a reader who had not read all of that gets one line that says how many were lost and goes on.
 */
#ifndef JOBS_EVENT_LOG_H
#define JOBS_EVENT_LOG_H

#include <stddef.h>
#include <stdint.h>

enum {
	EVENT_LOG_KEEP = 1000, /* at least so many lines stay when older ones are dropped */
};

struct event_log {
	char *bytes; /* the lines kept */
	size_t length, room;
	uint64_t start; /* bytes dropped in front of them, ever */
	uint64_t lines_dropped; /* lines dropped, ever */
	uint64_t lines; /* lines appended, ever */
};

/* A reader's place. All zero is not a valid place: use event_log_open(). */
struct event_place {
	uint64_t base; /* where in the log the reader's offset 0 is */
	uint64_t next; /* where in the log the next read in sequence goes on */
	uint64_t lines; /* lines of the log before `next` */
};

void event_log_clear(struct event_log *log);
/* Appends one line, which must end in a newline and have no other. */
void event_log_append(struct event_log *log, const char *line, size_t length);
/* What stat shows. */
size_t event_log_size(const struct event_log *log);

void event_log_open(const struct event_log *log, struct event_place *place);
/*
 * Reads at the reader's @offset into @out. Returns the number of bytes, 0 at the end. Offset 0 begins anew with the oldest line kept,
 * unless the log was shortened under a reader who had kept up with it: that one goes on where it was (tail -f does just this when it
 * sees the file become shorter).
 */
size_t event_log_read(const struct event_log *log, struct event_place *place, uint64_t offset,
		      char *out, size_t size);

#endif
