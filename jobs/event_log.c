/*
 * An append-only log with a place for each reader. Used by the mount, by domains and by disks for their `events`; knows nothing of
 * what the lines say.
 */
#include "jobs/event_log.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void event_log_clear(struct event_log *log)
{
	free(log->bytes);
	*log = (struct event_log){ 0 };
}

static void drop_oldest(struct event_log *log, uint64_t lines)
{
	char *at = log->bytes;

	for (uint64_t line = 0; line < lines; line++)
		at = (char *)memchr(at, '\n', (size_t)(log->bytes + log->length - at)) + 1;
	log->start += (uint64_t)(at - log->bytes);
	log->length -= (size_t)(at - log->bytes);
	log->lines_dropped += lines;
	memmove(log->bytes, at, log->length);
}

void event_log_append(struct event_log *log, const char *line, size_t length)
{
	uint64_t kept = log->lines - log->lines_dropped;

	if (kept >= EVENT_LOG_MOST)
		drop_oldest(log, kept - EVENT_LOG_KEEP);
	for (; log->length && log->length + length > EVENT_LOG_BYTES_MAX;
	     kept = log->lines - log->lines_dropped)
		drop_oldest(log, (kept + 1) / 2);
	if (log->length + length > log->room) {
		size_t room = log->room + log->room / 2 + length;
		char *bytes = realloc(log->bytes, room);

		if (!bytes)
			abort();
		log->bytes = bytes;
		log->room = room;
	}
	memcpy(log->bytes + log->length, line, length);
	log->length += length;
	log->lines++;
}

size_t event_log_size(const struct event_log *log)
{
	return log->length;
}

void event_log_open(const struct event_log *log, struct event_place *place)
{
	*place = (struct event_place){
		.base = log->start,
		.next = log->start,
		.lines = log->lines_dropped,
		.start = log->start,
	};
}

static uint64_t count_lines(const char *bytes, size_t length)
{
	uint64_t lines = 0;

	for (const char *end = bytes + length; (bytes = memchr(bytes, '\n', (size_t)(end - bytes)));
	     bytes++)
		lines++;
	return lines;
}

/* Positions are compared by their distance: the base may lie before the log's beginning, modulo 2^64. */
static bool is_before(uint64_t a, uint64_t b)
{
	return (int64_t)(a - b) < 0;
}

/* What stands at @offset has been dropped: a line there says so, and what follows it is the oldest line kept. */
static void put_notice(const struct event_log *log, struct event_place *place, uint64_t offset)
{
	bool torn =
		place->last && place->last != '\n'; /* in the middle of a line that is gone now */

	place->notice_length = (size_t)snprintf(
		place->notice, sizeof(place->notice), "%s{\"event\":\"overrun\",\"lost\":%llu}\n",
		torn ? "\n" : "", (unsigned long long)(log->lines_dropped - place->lines));
	place->notice_at = offset;
	place->notices++;
	place->next = place->start = log->start;
	place->lines = log->lines_dropped;
	place->base = log->start - (offset + place->notice_length);
	place->last = '\n';
}

static size_t read_notice(const struct event_place *place, uint64_t offset, char *out, size_t size)
{
	size_t at = (size_t)(offset - place->notice_at);

	if (size > place->notice_length - at)
		size = place->notice_length - at;
	memcpy(out, place->notice + at, size);
	return size;
}

/* A read at offset 0. */
static void begin_again(const struct event_log *log, struct event_place *place)
{
	/* One that was told at offset 0 that there is nothing more yet asks there again: tail does, after "file truncated". */
	bool has_read = place->next != place->base;

	if (place->start == log->start && has_read) {
		unsigned notices = place->notices;

		event_log_open(log, place);
		place->notices = notices;
	} else if (is_before(place->next, log->start)) {
		place->last = 0;
		put_notice(log, place, 0);
	} else {
		/* Shortened under a reader who had read what is gone: it goes on. */
		place->base = place->next;
		place->start = log->start;
		place->notice_length = 0;
	}
}

static size_t read_lines(const struct event_log *log, struct event_place *place, uint64_t at,
			 char *out, size_t size)
{
	uint64_t end = log->start + log->length;

	if (!is_before(at, end) || !size)
		return 0;
	if (size > end - at)
		size = (size_t)(end - at);
	memcpy(out, log->bytes + (at - log->start), size);
	if (at == place->next)
		place->lines += count_lines(out, size);
	else
		place->lines = log->lines_dropped +
			       count_lines(log->bytes, (size_t)(at - log->start) + size);
	place->next = at + size;
	place->last = out[size - 1];
	return size;
}

size_t event_log_read(const struct event_log *log, struct event_place *place, uint64_t offset,
		      char *out, size_t size)
{
	if (offset == 0)
		begin_again(log, place);
	else if (offset - place->notice_at >= place->notice_length &&
		 is_before(place->base + offset, log->start))
		put_notice(log, place, offset);
	if (offset - place->notice_at < place->notice_length)
		return read_notice(place, offset, out, size);
	return read_lines(log, place, place->base + offset, out, size);
}
