/*
 * The log of events, and the places of its readers.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/event_log.h"
#include "jobs/topic.h"

static void append(struct event_log *log, unsigned number)
{
	char line[100];
	/* Lines of many lengths, so that offsets and line numbers have nothing to do with each other. */
	int length = snprintf(line, sizeof(line), "{\"n\":%u,\"x\":\"%.*s\"}\n", number,
			      (int)(number * 7 % 40), "........................................");

	event_log_append(log, line, (size_t)length);
}

/* A reader as tail -f is: reads on, and begins at 0 again when the file has become shorter. */
struct tail {
	struct event_place place;
	uint64_t offset;
	size_t seen_size;
	bool torn, told;
	bool at_end; /* it looks at the size only then */
	char line[300];
	size_t length;
	unsigned next, lost, lines, overruns;
};

static void take_line(struct tail *tail)
{
	unsigned number;

	tail->lines++;
	if (sscanf(tail->line, "{\"event\":\"overrun\",\"lost\":%u}", &number) == 1) {
		tail->overruns++;
		tail->lost += number;
		tail->torn = false;
		tail->told = true;
		return;
	}
	cr_assert(!tail->torn, "a torn line, and no word about it: %s", tail->line);
	if (tail->line[strlen(tail->line) - 2] != '}') {
		tail->torn = true; /* the rest of it was dropped: it counts as lost */
		return;
	}
	cr_assert_eq(sscanf(tail->line, "{\"n\":%u,", &number), 1, "torn: %s", tail->line);
	/* A line of which only the newline was missing counts as lost. */
	if (tail->told && number + 1 == tail->next + tail->lost)
		tail->lost--;
	tail->told = false;
	cr_assert_eq(number, tail->next + tail->lost, "%u after %u and %u lost", number, tail->next,
		     tail->lost);
	tail->next++;
}

/* Reads once, with a buffer of @size; false: nothing came. */
static bool tail_read(struct tail *tail, const struct event_log *log, size_t size)
{
	char out[5000];
	size_t length;

	if (tail->at_end && event_log_size(log) < tail->seen_size)
		tail->offset = 0;
	tail->seen_size = event_log_size(log);
	length = event_log_read(log, &tail->place, tail->offset, out, size);
	cr_assert_leq(length, size);
	tail->at_end = !length;
	tail->offset += length;
	for (size_t i = 0; i < length; i++) {
		cr_assert_lt(tail->length, sizeof(tail->line) - 1);
		tail->line[tail->length++] = out[i];
		if (out[i] != '\n')
			continue;
		tail->line[tail->length] = 0;
		take_line(tail);
		tail->length = 0;
	}
	return length > 0;
}

Test(jobs_event_log, grows)
{
	/* Catches bytes lost or changed while nothing is dropped yet. */
	struct event_log log = { 0 };
	struct tail tail = { 0 };

	event_log_open(&log, &tail.place);
	cr_assert_eq(event_log_size(&log), 0);
	cr_assert(!tail_read(&tail, &log, 100));
	for (unsigned i = 0; i < 2000; i++)
		append(&log, i);
	while (tail_read(&tail, &log, 4096))
		;
	cr_assert_eq(tail.next, 2000);
	cr_assert_eq(tail.offset, event_log_size(&log));
	event_log_clear(&log);
}

Test(jobs_event_log, keeps_enough)
{
	/* Catches a log without end, and one that keeps fewer lines than was promised. */
	struct event_log log = { 0 };

	for (unsigned i = 0; i < 20000; i++) {
		append(&log, i);
		cr_assert_leq(log.lines - log.lines_dropped, EVENT_LOG_MOST);
		cr_assert_geq(log.lines - log.lines_dropped,
			      i + 1 < EVENT_LOG_KEEP ? i + 1 : EVENT_LOG_KEEP);
		cr_assert_eq(log.bytes[log.length - 1], '\n');
		cr_assert_eq(log.bytes[0], '{');
	}
	cr_assert_lt(log.room, 2000000);
	event_log_clear(&log);
	cr_assert_eq(event_log_size(&log), 0);
}

static void keep_up(size_t size, unsigned seed)
{
	struct event_log log = { 0 };
	struct tail tail = { 0 };
	unsigned written = 0;

	event_log_open(&log, &tail.place);
	srandom(seed);
	while (written < 9000) {
		for (long i = random() % 50; i >= 0; i--)
			append(&log, written++);
		while (tail_read(&tail, &log, size))
			;
	}
	cr_assert_eq(tail.next, written, "%u of %u, buffer of %zu", tail.next, written, size);
	cr_assert_eq(tail.overruns, 0);
	event_log_clear(&log);
}

Test(jobs_event_log, who_keeps_up_loses_nothing)
{
	/* Catches a line lost or seen twice at the moment when the log is shortened, with buffers of every size. */
	static const size_t sizes[] = { 1, 2, 13, 40, 41, 100, 1000, 4096 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		keep_up(sizes[i], (unsigned)i);
}

Test(jobs_event_log, nothing_more_yet_at_the_beginning)
{
	/* Catches all that is kept told once more to tail, which goes back to the beginning when the log was shortened and finds nothing new. */
	struct event_log log = { 0 };
	struct event_place place;
	char out[4096];
	unsigned written = 0;
	uint64_t offset = 0;
	size_t length;

	event_log_open(&log, &place);
	cr_assert_eq(event_log_read(&log, &place, 0, out, sizeof(out)), 0);
	while (written < EVENT_LOG_MOST + 1) {
		append(&log, written++);
		while ((length = event_log_read(&log, &place, offset, out, sizeof(out))))
			offset += length;
	}
	cr_assert_lt(event_log_size(&log), offset);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(event_log_read(&log, &place, 0, out, sizeof(out)), 0);
	append(&log, written++);
	length = event_log_read(&log, &place, 0, out, sizeof(out));
	cr_assert_gt(length, 0);
	cr_assert_eq((char *)memchr(out, '\n', length), out + length - 1, "more than the one line");
	/* Once it has read something, the beginning is the beginning. */
	cr_assert_eq(event_log_read(&log, &place, 0, out, sizeof(out)), sizeof(out));
	event_log_clear(&log);
}

static void fall_behind(size_t size, unsigned seed)
{
	struct event_log log = { 0 };
	struct tail tail = { 0 };
	unsigned written = 0;

	event_log_open(&log, &tail.place);
	srandom(seed);
	while (written < 30000) {
		for (long i = random() % 4000; i >= 0; i--)
			append(&log, written++);
		for (long i = random() % (long)(60000 / size + 2); i >= 0; i--)
			tail_read(&tail, &log, size);
	}
	while (tail_read(&tail, &log, size))
		;
	cr_assert_eq(tail.next + tail.lost, written, "%u read, %u lost, %u written, buffer of %zu",
		     tail.next, tail.lost, written, size);
	cr_assert_gt(tail.overruns, 0);
	event_log_clear(&log);
}

/*
 * With a buffer that may end inside a line: a line that is cut off by the loss is followed by a newline, and the number of lines told
 * as lost has it in it.
 */
static void fall_behind_torn(size_t size)
{
	struct event_log log = { 0 };
	static const char wanted[] = "{\"n\":\n{\"event\":\"overrun\",\"lost\":3000}\n{\"n\":3000,";
	struct event_place place;
	char out[5000] = "", *at = out;
	size_t offset, length;

	event_log_open(&log, &place);
	append(&log, 0);
	offset = event_log_read(&log, &place, 0, out, 5);
	for (unsigned i = 1; i < EVENT_LOG_MOST + 1; i++)
		append(&log, i);
	for (at += offset; at < out + 300; at += length, offset += length) {
		length = event_log_read(&log, &place, offset, at, size);
		cr_assert_gt(length, 0);
	}
	cr_assert_eq(strncmp(out, wanted, strlen(wanted)), 0, "%.80s", out);
	/* What was read once reads so again, as long as nothing is dropped. */
	length = (size_t)(strchr(out + 6, '\n') + 1 - (out + 5));
	cr_assert_eq(event_log_read(&log, &place, 5, at, 200), length);
	cr_assert_eq(memcmp(at, out + 5, length), 0);
	cr_assert_eq(event_log_read(&log, &place, 5 + length, at, 50), 50);
	cr_assert_eq(memcmp(at, out + 5 + length, 50), 0);
	event_log_clear(&log);
}

Test(jobs_event_log, who_falls_behind_is_told)
{
	/* Catches lines lost without a word, a wrong number, a reader who never comes back, and whole lines torn. */
	for (unsigned seed = 0; seed < 20; seed++)
		fall_behind(4096, seed);
	fall_behind_torn(1);
	fall_behind_torn(7);
	fall_behind_torn(33);
	fall_behind_torn(1000);
}

Test(jobs_event_log, from_the_beginning_again)
{
	/* Catches a program that reads the file twice and sees something else the second time; and one that opens late. */
	struct event_log log = { 0 };
	struct event_place place, late;
	char one[20000], two[20000];

	for (unsigned i = 0; i < 300; i++)
		append(&log, i);
	event_log_open(&log, &place);
	cr_assert_eq(event_log_read(&log, &place, 0, one, sizeof(one)), event_log_size(&log));
	cr_assert_eq(event_log_read(&log, &place, 0, two, sizeof(two)), event_log_size(&log));
	cr_assert_eq(memcmp(one, two, event_log_size(&log)), 0);
	cr_assert_eq(event_log_read(&log, &place, event_log_size(&log), one, 10), 0);
	cr_assert_eq(event_log_read(&log, &place, UINT64_MAX / 4, one, 10), 0);
	for (unsigned i = 300; i < 5000; i++)
		append(&log, i);
	event_log_open(&log, &late);
	cr_assert_gt(event_log_read(&log, &late, 0, one, 1000), 0);
	cr_assert_eq(strncmp(one, "{\"n\":", 5), 0, "%.50s", one);
	event_log_clear(&log);
}

Test(jobs_event_log, long_lines)
{
	/* Catches a log that a peer makes grow with the length of its lines: paths and errors are the peer's. */
	struct event_log log = { 0 };
	size_t length = 300000;
	char *line = malloc(length);

	memset(line, 'x', length);
	line[length - 1] = '\n';
	for (int i = 0; i < 200; i++) {
		event_log_append(&log, line, length);
		cr_assert_leq(event_log_size(&log), EVENT_LOG_BYTES_MAX);
		cr_assert_eq(event_log_size(&log) % length, 0);
	}
	cr_assert_geq(event_log_size(&log), EVENT_LOG_BYTES_MAX / 3);
	free(line);
	event_log_clear(&log);
}

Test(jobs_event_log, any_offset)
{
	/* Catches a read outside of the log, whatever offsets and sizes come in whatever order. */
	struct event_log log = { 0 };
	struct event_place place;
	char out[300];
	unsigned written = 0;

	event_log_open(&log, &place);
	srandom(7);
	for (int i = 0; i < 20000; i++) {
		uint64_t offset = (uint64_t)random() % 200000;

		if (i % 3 == 0)
			append(&log, written++);
		if (i % 1000 == 0)
			offset = UINT64_MAX - (uint64_t)(random() % 100);
		cr_assert_leq(event_log_read(&log, &place, offset, out, (size_t)(random() % 300)),
			      300);
	}
	event_log_clear(&log);
}

Test(jobs_stamp, rises_strictly)
{
	/* Catches an mtime that stands still between two changes, is 0, or goes back with the clock. */
	struct stamp stamps[TOPIC_COUNT];

	stamps_init(stamps);
	cr_assert_eq(stamps[TOPIC_JOB].version, 0);
	cr_assert_gt(stamps[TOPIC_JOB].time.tv_sec, 0);
	for (uint64_t i = 1; i < 100000; i++) {
		struct timespec before = stamps[TOPIC_JOB].time;
		struct timespec *now = &stamps[TOPIC_JOB].time;

		if (i == 500) /* the clock was ahead, and was set back */
			before = *now = (struct timespec){ before.tv_sec + 1000, 999999999 };
		stamp_touch(&stamps[TOPIC_JOB]);
		cr_assert_eq(stamps[TOPIC_JOB].version, i);
		cr_assert(now->tv_sec > before.tv_sec ||
			  (now->tv_sec == before.tv_sec && now->tv_nsec > before.tv_nsec));
		cr_assert(now->tv_nsec >= 0 && now->tv_nsec < 1000000000);
	}
}
