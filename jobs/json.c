/*
 * Writing JSON; see json.h.
 */
#include "jobs/json.h"

#include <assert.h>
#include <string.h>

enum {
	KEY_MAX = 40,
	VALUE_MAX = 20, /* the digits of a number */
};

/* Appends a comma, unless an opening bracket is right before; the key; and the value, or how it begins. */
static void put(struct text *text, const char *key, const char *value)
{
	size_t length = text_length(text);
	char last = length ? text_bytes(text)[length - 1] : '{';
	char bytes[KEY_MAX + VALUE_MAX + 8], *at = bytes;

	assert(!key || strlen(key) <= KEY_MAX);
	assert(strlen(value) <= VALUE_MAX);
	if (last != '{' && last != '[')
		*at++ = ',';
	if (key)
		at = stpcpy(stpcpy(stpcpy(at, "\""), key), "\":");
	at = stpcpy(at, value);
	text_append(text, bytes, (size_t)(at - bytes));
}

struct text *json_new(void)
{
	struct text *text = text_new();

	text_append(text, "{", 1);
	return text;
}

void json_open(struct text *text, const char *key, char bracket)
{
	put(text, key, (char[]){ bracket, 0 });
}

void json_close(struct text *text, char bracket)
{
	text_append(text, &bracket, 1);
}

static bool is_plain(char byte)
{
	return (unsigned char)byte >= ' ' && (unsigned char)byte < 0x80 && byte != '"' &&
	       byte != '\\';
}

/* Appends the character at @at, which is not plain or not ASCII; returns its length. */
static size_t put_other(struct text *text, const char *at, size_t length)
{
	static const char escaped[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
	const char *found = strchr(escaped, *at);
	size_t whole = text_utf8_length(at, length);

	if (found)
		text_append(text, (char[]){ '\\', letters[found - escaped] }, 2);
	else if (whole == 1)
		text_printf(text, "\\u%04x", (unsigned)*at);
	else if (whole)
		text_append(text, at, whole);
	else
		text_puts(text, "\xef\xbf\xbd");
	return whole ? whole : 1;
}

/* What comes behind the first quotation mark. */
static void put_rest(struct text *text, const char *string)
{
	const char *end = string + strlen(string);

	while (string < end) {
		const char *plain = string;

		while (plain < end && is_plain(*plain))
			plain++;
		text_append(text, string, (size_t)(plain - string));
		string = plain;
		if (string < end)
			string += put_other(text, string, (size_t)(end - string));
	}
	text_append(text, "\"", 1);
}

void json_text(struct text *text, const char *key, const char *value)
{
	put(text, key, value ? "\"" : "null");
	if (value)
		put_rest(text, value);
}

void json_texts(struct text *text, const char *key, char *const *values, size_t count)
{
	json_open(text, key, '[');
	for (size_t i = 0; i < count; i++)
		json_text(text, NULL, values[i]);
	json_close(text, ']');
}

/* Without printf(3), which would be most of the work for a short line. */
void json_number(struct text *text, const char *key, int64_t value)
{
	uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
	char digits[VALUE_MAX + 1], *at = digits + VALUE_MAX;

	*at = 0;
	do
		*--at = (char)('0' + rest % 10);
	while (rest /= 10);
	if (value < 0)
		*--at = '-';
	put(text, key, at);
}

void json_flag(struct text *text, const char *key, bool value)
{
	put(text, key, value ? "true" : "false");
}
