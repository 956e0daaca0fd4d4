/*
 * An append-only log of lines with a place for each reader. It looks like a file that grows: its size is the number of bytes
 * kept, and offsets count from the oldest byte kept when the reader began. When it has become long all but its newest lines are
 * dropped; a reader who had not read all of that gets one line that says how many were lost and goes on.
 */
#ifndef JOBS_EVENT_LOG_H
#define JOBS_EVENT_LOG_H

#include <stddef.h>
#include <stdint.h>

enum {
	EVENT_LOG_KEEP = 1000, /* at least so many lines stay when older ones are dropped ... */
	/*
	 * So many there may be before. tail -f takes a file that has become shorter for a new one, and from then on reads no further than
	 * the file is long, counted from there: with fewer than 3 times as many to drop as to keep it would stop short of the end after
	 * the second time, or not see that the file is shorter.
	 */
	EVENT_LOG_MOST = 4 * EVENT_LOG_KEEP,
	EVENT_LOG_BYTES_MAX = 8 << 20, /* ... unless a peer makes them very long */
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
	uint64_t base; /* where in the log the reader's offset 0 is, modulo 2^64 */
	uint64_t next; /* where in the log the next read in sequence goes on */
	uint64_t lines; /* lines of the log before `next` */
	uint64_t
		start; /* of the log when `base` was set: another one means that it was shortened since */
	char last; /* byte read in sequence */
	char notice
		[64]; /* the line that tells of a loss; it stands in front of the oldest line kept ... */
	size_t notice_length;
	uint64_t notice_at; /* ... at this offset of the reader's */
	unsigned notices; /* how many losses there have been */
};

void event_log_clear(struct event_log *log);
/* Appends one line, which must end in a newline and have no other. */
void event_log_append(struct event_log *log, const char *line, size_t length);
/* What stat shows. */
size_t event_log_size(const struct event_log *log);

void event_log_open(const struct event_log *log, struct event_place *place);
/*
 * Reads at the reader's @offset into @out. Returns the number of bytes, 0 at the end. Offset 0 begins anew with the oldest line kept,
 * unless the log was shortened since: then the reader goes on where it was, or where it can (tail -f reads at 0 when it sees the
 * file become shorter).
 */
size_t event_log_read(const struct event_log *log, struct event_place *place, uint64_t offset,
		      char *out, size_t size);

#endif
