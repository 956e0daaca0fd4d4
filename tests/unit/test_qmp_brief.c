/*
 * Answers read without a tree: all that is taken so means the same to json-c, whatever a peer makes of it; and what QEMU writes is
 * taken.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/brief.h"
#include "qmp/command.h"
#include "qmp/event.h"
#include "qmp/value.h"

#define JOB                                                                                     \
	"{\"auto-finalize\": false, \"io-status\": \"ok\", \"device\": \"job0\", "              \
	"\"auto-dismiss\": false, \"busy\": true, \"len\": 1073741824, \"offset\": 524288, "    \
	"\"status\": \"running\", \"paused\": false, \"speed\": 0, \"ready\": true, \"type\": " \
	"\"stream\"}"
#define FAILED                                                                           \
	"{\"device\": \"job1\", \"error\": \"No space left on device\", \"len\": -1, "   \
	"\"status\": \"concluded\", \"auto-dismiss\": true, \"type\": \"mirror\", \"io-" \
	"status\": \"nospace\"}"

static bool read_list(const char *list, struct qmp_job_info *jobs, size_t *count, char *text)
{
	strcpy(text, list);
	return brief_jobs(text, jobs, count);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* True if json-c reads the same from @value. */
static bool is_job(const struct qmp_job_info *job, const struct qmp_value *value)
{
	return same_text(job->id, qmp_value_text(value, "device", NULL)) &&
	       same_text(job->type, qmp_value_text(value, "type", "")) &&
	       same_text(job->status, qmp_value_text(value, "status", "")) &&
	       same_text(job->io_status, qmp_value_text(value, "io-status", NULL)) &&
	       same_text(job->error, qmp_value_text(value, "error", NULL)) &&
	       job->offset == qmp_value_number(value, "offset", 0) &&
	       job->length == qmp_value_number(value, "len", 0) &&
	       job->speed == qmp_value_number(value, "speed", 0) &&
	       job->paused == qmp_value_flag(value, "paused", false) &&
	       job->ready == qmp_value_flag(value, "ready", false) &&
	       job->auto_finalize == qmp_value_flag(value, "auto-finalize", true) &&
	       job->auto_dismiss == qmp_value_flag(value, "auto-dismiss", true);
}

/* Fails if @list is taken and does not mean to json-c what was taken. True: it was taken. */
static bool compare(const char *list)
{
	struct qmp_job_info jobs[BRIEF_JOBS_MAX];
	char text[BRIEF_BYTES_MAX];
	struct qmp_value *value;
	size_t count, next = 0;

	if (!read_list(list, jobs, &count, text))
		return false;
	value = qmp_value_parse(list, strlen(list), NULL);
	cr_assert(qmp_value_is_list(value), "%s", list);
	for (size_t i = 0; i < qmp_value_count(value); i++) {
		const struct qmp_value *item = qmp_value_item(value, i);

		if (!*qmp_value_text(item, "device", ""))
			continue;
		cr_assert(next < count && is_job(&jobs[next], item), "%s", list);
		next++;
	}
	cr_assert_eq(next, count, "%s", list);
	qmp_value_free(value);
	return true;
}

Test(qmp_brief, what_qemu_writes)
{
	static const char *const lists[] = {
		"[]",
		"[" JOB "]",
		"[" FAILED "]",
		"[" JOB ", " FAILED ", " JOB "]",
		"[{\"device\":\"x\",\"len\":-0}]",
		"[{\"device\":\"\"}]",
		"[{\"device\":\"x\",\"len\":1,\"len\":2}]",
		"[ { \"device\" : \"x\" } ]",
		"[{\"device\":\"x\",\"len\":999999999999999999}]",
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		cr_assert(compare(lists[i]), "%s", lists[i]);
}

Test(qmp_brief, what_is_left_to_others)
{
	/* Some of it is JSON, and means something: it is not for brief_jobs() to say what. */
	static const char *const lists[] = {
		"",
		"[",
		"{}",
		"null",
		"[{}]",
		"[],",
		"[] []",
		"[" JOB ",]",
		"[" JOB,
		"[{\"device\":\"a\\u0062\"}]",
		"[{\"device\":\"\xc3\xa9\"}]",
		"[{\"device\":\"a\nb\"}]",
		"[{\"device\":1}]",
		"[{\"device\":true}]",
		"[{\"len\":\"1\"}]",
		"[{\"paused\":0}]",
		"[{\"paused\":null}]",
		"[{\"paused\":tru}]",
		"[{\"len\":01}]",
		"[{\"len\":1.5}]",
		"[{\"len\":1e3}]",
		"[{\"len\":- 1}]",
		"[{\"len\":+1}]",
		"[{\"len\":9999999999999999999}]",
		"[{\"device\":{\"device\":\"x\"}}]",
		"[{\"device\":[\"x\"]}]",
		"[{\"device\" \"x\"}]",
		"[{\"device\":\"x\",}]",
		"[{device:\"x\"}]",
	};

	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		cr_assert_not(compare(lists[i]), "%s", lists[i]);
}

Test(qmp_brief, every_other_byte)
{
	/* Catches whatever is taken and is no JSON, or means something else: a hostile peer's way in. */
	static const char odd[] = "\"\\{}[]:,-+.0123eE truefalsn\x01\x7f\x80\n\t/'";
	static const char list[] = "[" JOB ", " FAILED "]";
	char changed[sizeof(list) + 1];

	for (size_t i = 0; i < sizeof(list) - 1; i++) {
		for (const char *byte = odd; *byte; byte++) {
			memcpy(changed, list, sizeof(list)); /* another one */
			changed[i] = *byte;
			compare(changed);
			memcpy(changed + i + 1, list + i, sizeof(list) - i); /* one more */
			compare(changed);
		}
		memcpy(changed, list, i); /* one less */
		memcpy(changed + i, list + i + 1, sizeof(list) - i - 1);
		compare(changed);
		changed[i] = '\0'; /* cut off */
		cr_assert_not(compare(changed), "%s", changed);
	}
}

Test(qmp_brief, many_jobs)
{
	char list[BRIEF_BYTES_MAX] = "[{\"device\":\"x\"}";

	for (int i = 1; i < BRIEF_JOBS_MAX; i++)
		strcat(list, ",{\"device\":\"x\"}");
	strcat(list, "]");
	cr_assert(compare(list));
	strcpy(list + strlen(list) - 1, ",{\"device\":\"x\"}]");
	cr_assert_not(compare(list));
}

static size_t answer(const char *bytes, char *text)
{
	return brief_answer(bytes, strlen(bytes), 7, text);
}

Test(qmp_brief, the_line_around_it)
{
	/* Catches an answer that is cut off, another command's, and what only looks like the end of one. */
	char text[BRIEF_BYTES_MAX], *line;

	cr_assert_eq(answer("{\"return\": [], \"id\": 7}\r\n{\"ev", text), 25);
	cr_assert_str_eq(text, "[]");
	cr_assert_eq(answer("\r\n{\"return\": [], \"id\": 7}\n", text), 26);
	cr_assert_str_eq(text, "[]");
	cr_assert_eq(answer("{\"return\": [1], \"x\": 2, \"id\": 7}\n", text), 33);
	cr_assert_str_eq(text, "[1], \"x\": 2");
	cr_assert_eq(answer("{\"return\": [], \"id\": 7}", text), 0);
	cr_assert_eq(answer("{\"return\": [], \"id\": 17}\n", text), 0);
	cr_assert_eq(answer("{\"return\": [], \"id\": 77}\n", text), 0);
	cr_assert_eq(answer("{\"return\": [], \"id\": 7} \n", text), 0);
	cr_assert_eq(answer("{\"return\": , \"id\": 7}\n", text), 22);
	cr_assert_eq(answer("{\"return\": \"id\": 7}\n", text), 0);
	cr_assert_eq(answer("{\"error\": {}, \"id\": 7}\n", text), 0);
	cr_assert_eq(brief_answer("{\"return\": []}\r\n", 16, 0, text), 16);
	cr_assert_str_eq(text, "[]");
	cr_assert_eq(answer("{\"return\": []}\r\n", text), 0);
	cr_assert_eq(brief_answer("{\"return\": [], \"id\": 7}\n", 24, 0, text), 24);
	cr_assert_str_eq(text, "[], \"id\": 7");
	cr_assert_eq(answer("\n", text), 0);
	cr_assert_eq(answer("", text), 0);
	cr_assert_eq(brief_answer("{\"return\": [\0], \"id\": 7}\n", 25, 7, text), 0);
	if (asprintf(&line, "{\"return\": %*s, \"id\": 7}\n", BRIEF_BYTES_MAX, "[]") < 0)
		abort();
	cr_assert_eq(answer(line, text), 0);
	free(line);
}

/* --- events --- */

#define STAMP "{\"timestamp\": {\"seconds\": 1795911696, \"microseconds\": 150813}, "
#define STATUS                                                                                 \
	STAMP "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"status\": \"running\", \"id\": " \
	      "\"job0\"}}"
#define COMPLETED                                                                     \
	STAMP "\"event\": \"BLOCK_JOB_COMPLETED\", \"data\": {\"device\": \"job0\", " \
	      "\"len\": 1073741824, \"offset\": 524288, \"speed\": 0, \"type\": "     \
	      "\"stream\", \"error\": \"No space left on device\"}}"
#define FAULT                                                                     \
	STAMP "\"event\": \"BLOCK_JOB_ERROR\", \"data\": {\"device\": \"job0\", " \
	      "\"operation\": \"write\", \"action\": \"stop\"}}"

static bool is_event(const struct qmp_event *event, const struct qmp_event *other)
{
	return event->kind == other->kind && same_text(event->name, other->name) &&
	       same_text(event->job, other->job) && same_text(event->type, other->type) &&
	       same_text(event->status, other->status) && same_text(event->error, other->error) &&
	       same_text(event->operation, other->operation) &&
	       same_text(event->action, other->action) && event->offset == other->offset &&
	       event->length == other->length && event->speed == other->speed;
}

/* Fails if @line is taken and does not mean to json-c what was taken. True: it was taken. */
static bool compare_event(const char *line)
{
	struct qmp_event event, other;
	char text[BRIEF_BYTES_MAX];
	struct qmp_value *value;

	if (!brief_event(line, strlen(line), text, &event))
		return false;
	value = qmp_value_parse(line, strlen(line), NULL);
	cr_assert(qmp_value_get(value, "event"), "%s", line);
	qmp_event_read(&other, value);
	cr_assert(is_event(&event, &other), "%s", line);
	qmp_value_free(value);
	return true;
}

static const char *const events[] = { STATUS "\r\n", COMPLETED "\r\n", FAULT "\r\n" };

Test(qmp_brief, events_that_qemu_writes)
{
	struct qmp_event event;
	char text[BRIEF_BYTES_MAX];

	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		cr_assert(compare_event(events[i]), "%s", events[i]);
	cr_assert_eq(
		brief_event("\r\n" STATUS "\n{\"return\"", sizeof("\r\n" STATUS), text, &event),
		sizeof("\r\n" STATUS));
	cr_expect_str_eq(event.job, "job0");
	cr_expect_str_eq(event.status, "running");
}

Test(qmp_brief, events_that_are_left_to_others)
{
	/* Catches one that is cut off, is about no job, or says what a flat object does not. */
	static const char *const lines[] = {
		"",
		"\n",
		STATUS,
		"[" STATUS "]\n",
		STATUS " {}\n",
		STAMP "\"event\": \"STOP\"}\n",
		STAMP "\"event\": \"STOP\", \"data\": {\"id\": \"job0\"}}\n",
		STAMP "\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"vd0\"}}\n",
		STAMP "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"status\": \"running\"}}\n",
		STAMP "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"id\": {\"id\": \"job0\"}}}\n",
		STAMP "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"device\": \"job0\"}}\n",
		STAMP "\"event\": \"BLOCK_JOB_READY\", \"data\": {\"id\": \"job0\"}}\n",
		STAMP "\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"id\": \"job\\u0030\"}}\n",
		"{\"event\": \"JOB_STATUS_CHANGE\", \"data\": {\"id\": \"job0\"}}\n",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		cr_assert_not(compare_event(lines[i]), "%s", lines[i]);
}

Test(qmp_brief, every_other_byte_of_an_event)
{
	static const char odd[] = "\"\\{}[]:,-+.0123eE truefalsn\x01\x7f\x80\n\t/'";

	for (size_t e = 0; e < sizeof(events) / sizeof(*events); e++) {
		char changed[BRIEF_BYTES_MAX];

		for (size_t i = 0; i < strlen(events[e]); i++) {
			for (const char *byte = odd; *byte; byte++) {
				strcpy(changed, events[e]);
				changed[i] = *byte;
				compare_event(changed);
				strcpy(changed + i + 1, events[e] + i);
				compare_event(changed);
			}
			strcpy(changed, events[e]);
			strcpy(changed + i, events[e] + i + 1);
			compare_event(changed);
		}
	}
}
