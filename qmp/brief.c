/*
 * Answers read without building a tree; see brief.h. Used by link.c and command.c.
 *
 * What is taken here is a part of JSON so small that it can be seen at a glance to be one: flat objects, strings of plain ASCII
 * without a backslash, whole numbers that fit, true and false. tests/unit/test_qmp_brief.c holds it against json-c.
 */
#include "qmp/brief.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "qmp/command.h"

enum {
	DIGITS_MAX = 18, /* more might not fit */
};

size_t brief_answer(const char *bytes, size_t length, uint64_t id, char *text)
{
	static const char begin[] = "{\"return\": ";
	const size_t begin_length = sizeof(begin) - 1;
	char end[48];
	size_t blanks = 0, line, end_length;
	const char *newline;

	while (blanks < length && (bytes[blanks] == '\r' || bytes[blanks] == '\n'))
		blanks++;
	bytes += blanks;
	length -= blanks;
	if (length < begin_length || memcmp(bytes, begin, begin_length))
		return 0;
	newline = memchr(bytes, '\n', length < BRIEF_BYTES_MAX ? length : BRIEF_BYTES_MAX);
	if (!newline)
		return 0;
	line = (size_t)(newline - bytes);
	line -= bytes[line - 1] == '\r';
	end_length = id ? (size_t)snprintf(end, sizeof(end), ", \"id\": %" PRIu64 "}", id)
			: (size_t)snprintf(end, sizeof(end), "}");
	if (line < begin_length + end_length || memcmp(bytes + line - end_length, end, end_length))
		return 0;
	line -= begin_length + end_length;
	memcpy(text, bytes + begin_length, line);
	text[line] = '\0';
	return strlen(text) == line ? blanks + (size_t)(newline - bytes) + 1 : 0;
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

/* --- a job --- */

enum kind { TEXT, NUMBER, FLAG };

#define FIELD(what) offsetof(struct qmp_job_info, what)

/* In the order in which QEMU tells them. */
static const struct field {
	const char *key;
	enum kind kind;
	size_t at;
} fields[] = {
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

enum {
	FIELDS = sizeof(fields) / sizeof(*fields),
};

/* @next: where to look first; behind the one that was found, afterwards. */
static const struct field *find_field(const char *key, size_t *next)
{
	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *field = &fields[(*next + i) % FIELDS];

		if (*field->key == *key && !strcmp(field->key, key)) {
			*next = (*next + i + 1) % FIELDS;
			return field;
		}
	}
	return NULL;
}

static bool take_value(char **at, struct qmp_job_info *job, const struct field *field)
{
	void *into = field ? (char *)job + field->at : NULL;
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

static bool take_job(char **at, struct qmp_job_info *job)
{
	size_t next = 0;

	*job = (struct qmp_job_info){
		.type = "",
		.status = "",
		.auto_finalize = true,
		.auto_dismiss = true,
	};
	if (!take(at, '{'))
		return false;
	do {
		const char *key = take_string(at);

		if (!key || !take(at, ':') || !take_value(at, job, find_field(key, &next)))
			return false;
	} while (take(at, ','));
	return take(at, '}');
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
