/*
 * The command grammar (see grammar.h): text or JSON into words, checked against the keys of a row. Called by fs/ for each write; knows
 * no command and no file.
 */
#include "jobs/grammar.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/value.h"

struct parser {
	const struct key *keys;
	const char *bytes;
	size_t length;
	struct command *command;
	struct fault *fault;
};

__attribute__((format(printf, 5, 6))) static int fail(struct parser *p, int error, size_t offset,
						      size_t length, const char *format, ...)
{
	va_list arguments;

	p->fault->error = error;
	p->fault->offset = offset;
	p->fault->length = length;
	va_start(arguments, format);
	vsnprintf(p->fault->reason, sizeof(p->fault->reason), format, arguments);
	va_end(arguments);
	return error;
}

static bool has_choice(const char *choices, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = choices; length && (at = strstr(at, word)); at += length)
		if ((at == choices || at[-1] == ' ') && (at[length] == ' ' || !at[length]) &&
		    !strchr(word, ' '))
			return true;
	return false;
}

int grammar_bytes(const char *text, int64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	uint64_t number = 0;
	const char *unit;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number) ||
		    number > INT64_MAX)
			return -EINVAL;
	if (*text && (unit = strchr(units, *text))) {
		shift = 10 * (unsigned)(unit - units + 1);
		text++;
		if (!strcmp(text, "iB"))
			text += 2;
	}
	if (*text || number > (uint64_t)INT64_MAX >> shift)
		return -EINVAL;
	*bytes = (int64_t)(number << shift);
	return 0;
}

/* Checks the text of @word against its key and fills the number. */
static int check_value(struct parser *p, struct word *word)
{
	const struct key *key = word->key;

	switch (key->kind) {
	case KEY_FLAG:
		word->number = 1;
		return 0;
	case KEY_LIST:
		if (!*word->text)
			return fail(p, -EINVAL, word->offset, word->length, "an empty name");
		return 0;
	case KEY_TEXT:
	case KEY_LINE:
		if (!*word->text)
			return fail(p, -EINVAL, word->offset, word->length, "%s= has no value",
				    key->name);
		return 0;
	case KEY_CHOICE:
		if (!has_choice(key->choices, word->text))
			return fail(p, -EINVAL, word->offset, word->length, "%s is one of: %s",
				    key->name, key->choices);
		return 0;
	case KEY_BYTES:
		if (!strcmp(word->text, "max"))
			word->number = 0;
		else if (grammar_bytes(word->text, &word->number))
			return fail(p, -EINVAL, word->offset, word->length,
				    "%s is a whole number of bytes, with K, M, G or T behind it if "
				    "wanted, or max",
				    key->name);
		return 0;
	case KEY_NUMBER:
		if (strspn(word->text, "0123456789") != strlen(word->text) ||
		    grammar_bytes(word->text, &word->number))
			return fail(p, -EINVAL, word->offset, word->length, "%s is a whole number",
				    key->name);
		return 0;
	case KEY_SWITCH:
		if (strcmp(word->text, "0") && strcmp(word->text, "1"))
			return fail(p, -EINVAL, word->offset, word->length, "%s is 1 or 0",
				    key->name);
		word->number = *word->text == '1';
		return 0;
	}
	return 0;
}

static bool is_repeated(const struct command *command, const struct key *key, const char *text)
{
	if (key->kind != KEY_LIST)
		return command_word(command, key->name);
	for (size_t i = 0; i < command->count; i++)
		if (command->words[i].key == key && !strcmp(command->words[i].text, text))
			return true;
	return false;
}

/* Takes @text (malloc'ed) as the value of @key. */
static int add_word(struct parser *p, const struct key *key, char *text, size_t offset,
		    size_t length)
{
	struct command *command = p->command;
	struct word *word = &command->words[command->count];

	if (command->count == COMMAND_WORDS_MAX || is_repeated(command, key, text)) {
		free(text);
		if (command->count == COMMAND_WORDS_MAX)
			return fail(p, -EINVAL, offset, length, "too many words");
		return fail(p, -EINVAL, offset, length, "%s is given twice",
			    key->kind == KEY_LIST ? "this one" : key->name);
	}
	command->count++;
	*word = (struct word){ .key = key, .text = text, .offset = offset, .length = length };
	return check_value(p, word);
}

static const struct key *find_key(const struct parser *p, const char *name, size_t length)
{
	for (const struct key *key = p->keys; key && key->name; key++)
		if (strlen(key->name) == length && !memcmp(key->name, name, length))
			return key;
	return NULL;
}

static const struct key *positional_key(const struct parser *p)
{
	for (const struct key *key = p->keys; key && key->name; key++)
		if (key->positional && key->kind != KEY_LIST)
			return key;
	return NULL;
}

static const struct key *list_key(const struct parser *p)
{
	for (const struct key *key = p->keys; key && key->name; key++)
		if (key->kind == KEY_LIST)
			return key;
	return NULL;
}

static int unknown_key(struct parser *p, size_t offset, size_t length, const char *name,
		       size_t name_length)
{
	struct text *known = text_new();
	int error;

	for (const struct key *key = p->keys; key && key->name; key++)
		if (key->kind != KEY_LIST)
			text_printf(known, "%s%s%s", text_length(known) ? " " : "", key->name,
				    key->kind == KEY_FLAG ? "" : "=");
	if (text_length(known))
		error = fail(p, -EINVAL, offset, length, "unknown word \"%.*s\"; known here: %s",
			     (int)(name_length > 64 ? 64 : name_length), name, text_bytes(known));
	else
		error = fail(p, -EINVAL, offset, length, "this file takes no words");
	text_free(known);
	return error;
}

static int octal(const char *at, const char *end)
{
	int value = 0;

	if (end - at < 3)
		return -1;
	for (int digit = 0; digit < 3; digit++) {
		if (at[digit] < '0' || at[digit] > '7')
			return -1;
		value = value * 8 + at[digit] - '0';
	}
	return value > 255 ? -1 : value;
}

/* The byte that the escape at @at (behind the backslash) means, and how long it is; 0: there is no such escape. */
static int unescape(const char *at, const char *end, size_t *used)
{
	int value;

	*used = 1;
	switch (at < end ? *at : 0) {
	case '"':
	case '\\':
		return *at;
	case 'n':
		return '\n';
	case 't':
		return '\t';
	}
	*used = 3;
	value = octal(at, end);
	return value > 0 ? value : 0;
}

/* Reads a quoted value that begins at *@at into @out and moves *@at behind it. One of @ends, or nothing, comes next. */
static int read_quoted(struct parser *p, size_t *at, char *out, const char *ends)
{
	size_t start = *at, i = start + 1;

	while (i < p->length && p->bytes[i] != '"') {
		int byte = (unsigned char)p->bytes[i];
		size_t used = 1;

		if (byte == '\\') {
			byte = unescape(p->bytes + i + 1, p->bytes + p->length, &used);
			if (!byte)
				return fail(p, -EINVAL, i, 2,
					    "inside quotes a backslash goes before \", \\, n, t or "
					    "three octal digits");
			used++;
		}
		*out++ = (char)byte;
		i += used;
	}
	if (i == p->length)
		return fail(p, -EINVAL, start, 1, "the quote is not closed");
	if (i + 1 < p->length && !strchr(ends, p->bytes[i + 1]))
		return fail(p, -EINVAL, i, 1, "a blank is missing behind the closing quote");
	*out = 0;
	*at = i + 1;
	return 0;
}

/* A quote inside is a byte like others: paths have them. */
static int read_plain(struct parser *p, size_t *at, char *out)
{
	while (*at < p->length && p->bytes[*at] != ' ' && p->bytes[*at] != '\t')
		*out++ = p->bytes[(*at)++];
	*out = 0;
	return 0;
}

/* One word of text that begins at *@at. */
static int read_word(struct parser *p, size_t *at)
{
	size_t start = *at, end = start;
	const struct key *key;
	bool has_value;
	char *value;
	int error;

	while (end < p->length && !strchr(" \t=\"", p->bytes[end]))
		end++;
	key = find_key(p, p->bytes + start, end - start);
	if (key && key->kind == KEY_LIST)
		key = NULL;
	has_value = end < p->length && p->bytes[end] == '=';
	if (has_value) {
		size_t word_end = end;

		while (word_end < p->length && p->bytes[word_end] != ' ' &&
		       p->bytes[word_end] != '\t')
			word_end++;
		if (!key)
			return unknown_key(p, start, end - start, p->bytes + start, end - start);
		if (key->kind == KEY_FLAG)
			return fail(p, -EINVAL, start, word_end - start,
				    "%s is a flag and takes no value", key->name);
		*at = end + 1;
	} else if (key && key->kind != KEY_FLAG) {
		return fail(p, -EINVAL, start, end - start, "%s= needs a value", key->name);
	} else if (!key) {
		key = positional_key(p);
		if (!key)
			return unknown_key(p, start, end > start ? end - start : 1,
					   p->bytes + start, end - start);
	}
	value = malloc(p->length - start + 1);
	if (!value)
		abort();
	error = *at < p->length && p->bytes[*at] == '"' ? read_quoted(p, at, value, " \t")
							: read_plain(p, at, value);
	if (error) {
		free(value);
		return error;
	}
	return add_word(p, key, value, start, *at - start);
}

static void skip_blanks(const struct parser *p, size_t *at)
{
	while (*at < p->length && (p->bytes[*at] == ' ' || p->bytes[*at] == '\t'))
		++*at;
}

/* One value of the list, that begins at *@at. 1: a ':' ends the list behind it. */
static int read_item(struct parser *p, const struct key *key, size_t *at)
{
	size_t start = *at, length;
	char *value = malloc(p->length - start + 1);
	bool quoted = p->bytes[start] == '"', last;
	int error;

	if (!value)
		abort();
	error = quoted ? read_quoted(p, at, value, " \t:") : read_plain(p, at, value);
	if (error) {
		free(value);
		return error;
	}
	length = strlen(value);
	last = quoted ? *at < p->length && p->bytes[*at] == ':'
		      : length && value[length - 1] == ':';
	if (last && quoted)
		++*at;
	else if (last && length)
		value[--length] = 0;
	if (last && *at < p->length && p->bytes[*at] != ' ' && p->bytes[*at] != '\t') {
		free(value);
		return fail(p, -EINVAL, *at, 1, "a blank is missing behind the colon");
	}
	if (last && !quoted && !length && p->command->count) {
		free(value); /* "a b : ..." */
		return 1;
	}
	error = add_word(p, key, value, start, *at - start - last);
	return error ? error : last;
}

static int parse_list(struct parser *p, const struct key *key, size_t *at)
{
	int result = 0;

	while (!result) {
		skip_blanks(p, at);
		if (*at == p->length)
			return fail(p, -EINVAL, 0, 0, "%s", key->help);
		result = read_item(p, key, at);
	}
	return result < 0 ? result : 0;
}

static int parse_words(struct parser *p)
{
	const struct key *list = list_key(p);
	size_t at = 0;

	if (list) {
		int error = parse_list(p, list, &at);

		if (error)
			return error;
	}
	for (;;) {
		int error;

		skip_blanks(p, &at);
		if (at == p->length)
			return 0;
		error = read_word(p, &at);
		if (error)
			return error;
	}
}

static int json_list(struct parser *p, const struct key *key, const struct qmp_value *list)
{
	for (size_t i = 0; i < qmp_value_count(list); i++) {
		const char *text = qmp_value_text(qmp_value_item(list, i), NULL, NULL);
		int error = text ? add_word(p, key, strdup(text), 0, 0)
				 : fail(p, -EINVAL, 0, 0, "%s has a value of the wrong type",
					key->name);

		if (error)
			return error;
	}
	return 0;
}

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t';
}

/* A line that is one value. */
static int parse_line(struct parser *p)
{
	size_t start = 0, end = p->length;
	char *value;

	while (start < end && is_blank(p->bytes[start]))
		start++;
	while (start < end && is_blank(p->bytes[end - 1]))
		end--;
	if (start == end || p->bytes[start] == '"')
		return parse_words(p);
	value = strndup(p->bytes + start, end - start);
	if (!value)
		abort();
	return add_word(p, p->keys, value, start, end - start);
}

static int json_member(void *data, const char *name, const struct qmp_value *value)
{
	struct parser *p = data;
	const struct key *key = find_key(p, name, strlen(name));
	char number[32];
	const char *text = NULL;

	if (!key)
		return unknown_key(p, 0, 0, name, strlen(name));
	if (key->kind == KEY_LIST && qmp_value_is_list(value))
		return json_list(p, key, value);
	if (key->kind == KEY_FLAG || (key->kind == KEY_SWITCH && qmp_value_is_flag(value))) {
		if (!qmp_value_is_flag(value))
			return fail(p, -EINVAL, 0, 0, "%s is a flag: true or false", name);
		if (key->kind == KEY_FLAG && !qmp_value_flag(value, NULL, false))
			return 0;
		text = qmp_value_flag(value, NULL, false) ? "1" : "0";
	} else if (qmp_value_is_number(value) && qmp_value_number(value, NULL, 0) == INT64_MAX) {
		return fail(p, -EINVAL, 0, 0, "%s is too large", name);
	} else if (qmp_value_is_number(value) && key->kind != KEY_CHOICE && key->kind != KEY_TEXT &&
		   key->kind != KEY_LIST && key->kind != KEY_LINE) {
		snprintf(number, sizeof(number), "%lld",
			 (long long)qmp_value_number(value, NULL, -1));
		text = number;
	} else if (qmp_value_is_text(value)) {
		text = qmp_value_text(value, NULL, "");
	} else {
		return fail(p, -EINVAL, 0, 0, "%s has a value of the wrong type", name);
	}
	return add_word(p, key, strdup(text), 0, 0);
}

static int parse_json(struct parser *p)
{
	size_t at = 0;
	struct qmp_value *value = qmp_value_parse(p->bytes, p->length, &at);
	int error;

	if (value && memmem(p->bytes, p->length, "\\u0000", 6)) {
		qmp_value_free(value);
		return fail(p, -EINVAL, 0, 0, "a NUL inside a value");
	}
	if (!value)
		return fail(p, -EINVAL, at < p->length ? at : p->length - 1, 1,
			    "this is not a JSON object");
	error = qmp_value_each(value, json_member, p);
	if (!error && qmp_value_has_twice(value, p->bytes, p->length))
		error = fail(p, -EINVAL, 0, 0, "a key is given twice");
	qmp_value_free(value);
	return error;
}

static int check_required(struct parser *p)
{
	for (const struct key *key = p->keys; key && key->name; key++)
		if (key->required && !command_word(p->command, key->name))
			return fail(p, -EINVAL, 0, 0,
				    key->positional ? "%s is missing" : "%s= is missing",
				    key->positional && key->shown ? key->shown : key->name);
	return 0;
}

static int check_bytes(struct parser *p)
{
	const char *nul = memchr(p->bytes, 0, p->length);
	const char *newline;

	if (p->length > COMMAND_BYTES_MAX)
		return fail(p, -E2BIG, 0, 0, "a command has at most %d bytes", COMMAND_BYTES_MAX);
	if (nul)
		return fail(p, -EINVAL, (size_t)(nul - p->bytes), 1, "a NUL byte");
	if (p->length && p->bytes[p->length - 1] == '\n')
		p->length--;
	if (p->length && p->bytes[0] == '{')
		return 0; /* JSON may be written over several lines */
	newline = memchr(p->bytes, '\n', p->length);
	if (newline)
		return fail(p, -EINVAL, (size_t)(newline - p->bytes), 1,
			    "one write is one command: a second line");
	return 0;
}

int grammar_parse(const struct key *keys, const char *bytes, size_t length, struct command *command,
		  struct fault *fault)
{
	struct parser p = { keys, bytes, length, command, fault };
	int error;

	command->count = 0;
	error = check_bytes(&p);
	if (!error)
		error = p.length && bytes[0] == '{'	 ? parse_json(&p)
			: keys && keys->kind == KEY_LINE ? parse_line(&p)
							 : parse_words(&p);
	if (!error)
		error = check_required(&p);
	if (error)
		command_clear(command);
	return error;
}

void command_clear(struct command *command)
{
	for (size_t i = 0; i < command->count; i++)
		free(command->words[i].text);
	command->count = 0;
}

const struct word *command_word(const struct command *command, const char *key)
{
	for (size_t i = 0; i < command->count; i++)
		if (!strcmp(command->words[i].key->name, key))
			return &command->words[i];
	return NULL;
}

const char *command_text(const struct command *command, const char *key)
{
	const struct word *word = command_word(command, key);

	return word ? word->text : NULL;
}

int64_t command_number(const struct command *command, const char *key, int64_t fallback)
{
	const struct word *word = command_word(command, key);

	return word ? word->number : fallback;
}

bool command_flag(const struct command *command, const char *key)
{
	return command_number(command, key, 0) != 0;
}

static void put_synopsis(struct text *out, const struct key *key, const char *blank)
{
	const char *shown = key->shown ? key->shown : key->name;

	if (key->positional)
		text_put_all(out, blank, shown, NULL);
	else if (key->kind == KEY_FLAG)
		text_put_all(out, blank, "[", key->name, "]", NULL);
	else if (key->required)
		text_put_all(out, blank, key->name, "=", shown, NULL);
	else
		text_put_all(out, blank, "[", key->name, "=", shown, "]", NULL);
}

void grammar_usage(struct text *out, const char *file, const struct key *keys, const char *help)
{
	static const char blanks[] = "            "; /* the names' column */

	text_puts(out, "usage: echo \"");
	for (const struct key *key = keys; key && key->name; key++)
		put_synopsis(out, key, key == keys ? "" : " ");
	text_put_all(out, "\" > ", file, "\n", help, "\n", NULL);
	for (const struct key *key = keys; key && key->name; key++) {
		size_t length = strlen(key->name), column = sizeof(blanks) - 1;

		text_put_all(out, "  ", key->name, blanks + (length < column ? length : column),
			     " ", key->help, NULL);
		if (key->choices)
			text_put_all(out, " (", key->choices, ")", NULL);
		text_puts(out, "\n");
	}
}
