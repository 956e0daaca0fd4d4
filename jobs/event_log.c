/*
 * An append-only log with a place for each reader. Used by the mount, by domains and by disks for their `events`; knows nothing of
 * what the lines say.
 */
#include "jobs/event_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void event_log_clear(struct event_log *log)
{
	free(log->bytes);
	*log = (struct event_log){ 0 };
}

/* Drops the oldest lines so that EVENT_LOG_KEEP of them stay. */
static void log_shorten(struct event_log *log)
{
	uint64_t drop = log->lines - log->lines_dropped - EVENT_LOG_KEEP;
	char *at = log->bytes;

	for (uint64_t line = 0; line < drop; line++)
		at = (char *)memchr(at, '\n', (size_t)(log->bytes + log->length - at)) + 1;
	log->start += (uint64_t)(at - log->bytes);
	log->length -= (size_t)(at - log->bytes);
	log->lines_dropped += drop;
	memmove(log->bytes, at, log->length);
}

void event_log_append(struct event_log *log, const char *line, size_t length)
{
	if (log->lines - log->lines_dropped >= 2 * EVENT_LOG_KEEP)
		log_shorten(log);
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
	*place = (struct event_place){ log->start, log->start, log->lines_dropped };
}

static uint64_t count_lines(const char *bytes, size_t length)
{
	uint64_t lines = 0;

	for (const char *end = bytes + length; (bytes = memchr(bytes, '\n', (size_t)(end - bytes)));
	     bytes++)
		lines++;
	return lines;
}

/* The reader wants what has been dropped: it gets a line that says so, and goes on with the oldest line kept. */
static size_t read_overrun(const struct event_log *log, struct event_place *place, uint64_t offset,
			   char *out, size_t size)
{
	char line[96];
	int length = snprintf(line, sizeof(line), "{\"event\":\"overrun\",\"lost\":%llu}\n",
			      (unsigned long long)(log->lines_dropped - place->lines));

	if ((size_t)length > size)
		length =
			(int)size; /* a reader with a buffer of 40 bytes sees the beginning of it */
	memcpy(out, line, (size_t)length);
	/* What follows the inserted line in the reader's file is the oldest line kept. */
	place->next = log->start;
	place->lines = log->lines_dropped;
	place->base = log->start - (offset + (uint64_t)length);
	return (size_t)length;
}

size_t event_log_read(const struct event_log *log, struct event_place *place, uint64_t offset,
		      char *out, size_t size)
{
	uint64_t at = place->base + offset; /* may wrap round: base is an offset modulo 2^64 */
	uint64_t end = log->start + log->length;

	if (offset == 0) {
		/* Shortened under a reader who had read what is gone, and more: go on there. */
		if (place->base != log->start && place->next > log->start &&
		    place->base < log->start)
			place->base = place->next;
		else
			event_log_open(log, place);
		at = place->base;
	}
	if (at < log->start)
		return read_overrun(log, place, offset, out, size);
	if (at >= end)
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
	return size;
}
