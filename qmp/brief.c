/*
 * Answers and events read without building a tree; see brief.h. Used by link.c and command.c.
 *
 * What is taken here is a part of JSON so small that it can be seen at a glance to be one: flat objects, strings of plain ASCII
 * without a backslash, whole numbers that fit, true and false. tests/unit/test_qmp_brief.c holds it against json-c.
 */
#include "qmp/brief.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "qmp/command.h"
#include "qmp/event.h"

enum {
	DIGITS_MAX = 18, /* more might not fit */
};

/*
 * The whole line that @*bytes begin with, behind newlines left by the one before, if @begin is how it begins: moves @*bytes to it, sets @*line to its
 * length without its end, and returns how many bytes it takes with all that. 0: there is none, or it is too long.
 */
static size_t find_line(const char **bytes, size_t length, const char *begin, size_t *line)
{
	const char *first = *bytes, *newline;
	size_t least = strlen(begin);

	while (length && (**bytes == '\r' || **bytes == '\n')) {
		++*bytes;
		length--;
	}
	if (length < least || memcmp(*bytes, begin, least))
		return 0;
	newline = memchr(*bytes, '\n', length < BRIEF_BYTES_MAX ? length : BRIEF_BYTES_MAX);
	if (!newline)
		return 0;
	*line = (size_t)(newline - *bytes);
	*line -= newline[-1] == '\r';
	return (size_t)(newline + 1 - first);
}

size_t brief_answer(const char *bytes, size_t length, uint64_t id, char *text)
{
	static const char begin[] = "{\"return\": ";
	const size_t begin_length = sizeof(begin) - 1;
	size_t line, end_length, used = find_line(&bytes, length, begin, &line);
	char end[48];

	if (!used)
		return 0;
	end_length = id ? (size_t)snprintf(end, sizeof(end), ", \"id\": %" PRIu64 "}", id)
			: (size_t)snprintf(end, sizeof(end), "}");
	if (line < begin_length + end_length || memcmp(bytes + line - end_length, end, end_length))
		return 0;
	line -= begin_length + end_length;
	memcpy(text, bytes + begin_length, line);
	text[line] = '\0';
	return strlen(text) == line ? used : 0;
}

/* --- the parts; each moves *@at behind what it has read --- */

static bool take(char **at, char byte)
{
	while (**at == ' ')
		++*at;
	if (**at != byte)
		return false;
	++*at;
	return true;
}

/* Plain ASCII without a quote or a backslash. */
static const bool plain[256] = {
	[' ' ... '!'] = true,
	['#' ... '['] = true,
	[']' ... '~'] = true,
};

/* NULL: there is none. */
static char *take_string(char **at)
{
	char *string;

	if (!take(at, '"'))
		return NULL;
	string = *at;
	while (plain[(unsigned char)**at])
		++*at;
	if (**at != '"')
		return NULL;
	*(*at)++ = '\0';
	return string;
}

static bool is_digit(char byte)
{
	return byte >= '0' && byte <= '9';
}

static bool take_number(char **at, int64_t *number)
{
	bool negative = take(at, '-');
	const char *first = *at;

	*number = 0;
	while (is_digit(**at) && *at - first < DIGITS_MAX)
		*number = *number * 10 + (*(*at)++ - '0');
	if (negative)
		*number = -*number;
	/* "-" alone, or "01", is no number; one that goes on ends no member. */
	return is_digit(*first) && (*first != '0' || *at == first + 1);
}

static bool take_flag(char **at, bool *flag)
{
	const char *word;

	*flag = **at == 't';
	word = *flag ? "true" : "false";
	if (strncmp(*at, word, strlen(word)))
		return false;
	*at += strlen(word);
	return true;
}

/* --- flat objects --- */

enum kind { TEXT, NUMBER, FLAG };

struct field {
	const char *key;
	enum kind kind;
	size_t at; /* in what is filled in */
};

struct table {
	const struct field *fields; /* in the order in which QEMU tells them */
	size_t count;
};

#define TABLE(fields)                                      \
	{                                                  \
		fields, sizeof(fields) / sizeof(*(fields)) \
	}

/* @next: where to look first; behind the one that was found, afterwards. */
static const struct field *find_field(const struct table *table, const char *key, size_t *next)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct field *field = &table->fields[(*next + i) % table->count];

		if (*field->key == *key && !strcmp(field->key, key)) {
			*next = (*next + i + 1) % table->count;
			return field;
		}
	}
	return NULL;
}

static bool take_value(char **at, void *object, const struct field *field)
{
	void *into = field ? (char *)object + field->at : NULL;
	char *string;
	int64_t number;
	bool flag;

	while (**at == ' ')
		++*at;
	if (**at == '"') {
		string = take_string(at);
		if (field && field->kind == TEXT)
			*(const char **)into = string;
		return string && (!field || field->kind == TEXT);
	}
	if (**at == 't' || **at == 'f') {
		if (field && field->kind == FLAG)
			return take_flag(at, into);
		return !field && take_flag(at, &flag);
	}
	if (field && field->kind == NUMBER)
		return take_number(at, into);
	return !field && take_number(at, &number);
}

/* Fills in the fields of @object that are in @table; what else there is may be anything flat. */
static bool take_object(char **at, void *object, const struct table *table)
{
	size_t next = 0;

	if (!take(at, '{'))
		return false;
	do {
		const char *key = take_string(at);

		if (!key || !take(at, ':') ||
		    !take_value(at, object, find_field(table, key, &next)))
			return false;
	} while (take(at, ','));
	return take(at, '}');
}

/* --- jobs --- */

#define FIELD(what) offsetof(struct qmp_job_info, what)

static const struct field job_fields[] = {
	{ "auto-finalize", FLAG, FIELD(auto_finalize) },
	{ "io-status", TEXT, FIELD(io_status) },
	{ "device", TEXT, FIELD(id) },
	{ "auto-dismiss", FLAG, FIELD(auto_dismiss) },
	{ "len", NUMBER, FIELD(length) },
	{ "offset", NUMBER, FIELD(offset) },
	{ "status", TEXT, FIELD(status) },
	{ "paused", FLAG, FIELD(paused) },
	{ "speed", NUMBER, FIELD(speed) },
	{ "ready", FLAG, FIELD(ready) },
	{ "type", TEXT, FIELD(type) },
	{ "error", TEXT, FIELD(error) },
};

static const struct table job_table = TABLE(job_fields);

static bool take_job(char **at, struct qmp_job_info *job)
{
	*job = (struct qmp_job_info){
		.type = "",
		.status = "",
		.auto_finalize = true,
		.auto_dismiss = true,
	};
	return take_object(at, job, &job_table);
}

bool brief_jobs(char *text, struct qmp_job_info *jobs, size_t *count)
{
	char *at = text;

	*count = 0;
	if (!take(&at, '['))
		return false;
	if (take(&at, ']'))
		return !*at;
	do {
		if (*count == BRIEF_JOBS_MAX || !take_job(&at, &jobs[*count]))
			return false;
		*count += jobs[*count].id && *jobs[*count].id;
	} while (take(&at, ','));
	return take(&at, ']') && !*at;
}

/* --- events --- */

/* What an event tells of a job. The older ones call its id "device" (event.c). */
struct event_data {
	struct qmp_event event;
	const char *id, *device;
};

#undef FIELD
#define FIELD(what) offsetof(struct event_data, what)

static const struct field event_fields[] = {
	{ "status", TEXT, FIELD(event.status) },
	{ "id", TEXT, FIELD(id) },
	{ "device", TEXT, FIELD(device) },
	{ "len", NUMBER, FIELD(event.length) },
	{ "offset", NUMBER, FIELD(event.offset) },
	{ "speed", NUMBER, FIELD(event.speed) },
	{ "type", TEXT, FIELD(event.type) },
	{ "error", TEXT, FIELD(event.error) },
	{ "operation", TEXT, FIELD(event.operation) },
	{ "action", TEXT, FIELD(event.action) },
};

static const struct table event_table = TABLE(event_fields), empty_table;

static bool take_key(char **at, const char *wanted)
{
	const char *key = take_string(at);

	return key && !strcmp(key, wanted) && take(at, ':');
}

static bool take_event(char *at, struct event_data *data)
{
	struct qmp_event *event = &data->event;
	const char *key;

	*data = (struct event_data){ .event = { .offset = -1, .length = -1, .speed = -1 } };
	if (!take(&at, '{') || !take_key(&at, "timestamp") ||
	    !take_object(&at, NULL, &empty_table) || !take(&at, ',') || !take_key(&at, "event") ||
	    !(event->name = take_string(&at)) || !take(&at, ',') || !take_key(&at, "data") ||
	    !take_object(&at, data, &event_table) || !take(&at, '}'))
		return false;
	event->kind = qmp_event_kind(event->name);
	key = qmp_event_job_key(event->kind);
	event->job = !key ? NULL : !strcmp(key, "id") ? data->id : data->device;
	return event->job && !*at;
}

size_t brief_event(const char *bytes, size_t length, char *text, struct qmp_event *event)
{
	struct event_data data;
	size_t line, used = find_line(&bytes, length, "{\"timestamp\": {", &line);

	if (!used)
		return 0;
	memcpy(text, bytes, line);
	text[line] = '\0';
	if (strlen(text) != line || !take_event(text, &data))
		return 0;
	*event = data.event;
	return used;
}
