/*
 * Growing text, on json-c's printbuf. Used by all of jobs/ and by the file handlers of fs/; knows nothing of either.
 */
#include "jobs/text.h"

#include <json-c/printbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text {
	struct printbuf *buffer;
};

static void *or_die(void *memory)
{
	/* Out of memory is not an answer that a command could be given half way: the next life takes over. */
	if (!memory)
		abort();
	return memory;
}

struct text *text_new(void)
{
	struct text *text = or_die(calloc(1, sizeof(*text)));

	text->buffer = or_die(printbuf_new());
	return text;
}

void text_free(struct text *text)
{
	if (!text)
		return;
	printbuf_free(text->buffer);
	free(text);
}

void text_clear(struct text *text)
{
	printbuf_reset(text->buffer);
}

void text_append(struct text *text, const char *bytes, size_t length)
{
	if (length && printbuf_memappend(text->buffer, bytes, (int)length) < 0)
		abort();
}

void text_puts(struct text *text, const char *string)
{
	text_append(text, string, strlen(string));
}

void text_put_all(struct text *text, const char *first, ...)
{
	va_list others;

	va_start(others, first);
	for (const char *string = first; string; string = va_arg(others, const char *))
		text_puts(text, string);
	va_end(others);
}

void text_vprintf(struct text *text, const char *format, va_list arguments)
{
	char *line = NULL, brief[200];
	va_list again;
	int length;

	/* Most of what is formatted is a few words: no memory is asked for. */
	va_copy(again, arguments);
	length = vsnprintf(brief, sizeof(brief), format, again);
	va_end(again);
	if (length >= 0 && (size_t)length < sizeof(brief)) {
		text_append(text, brief, (size_t)length);
		return;
	}
	length = vasprintf(&line, format, arguments);
	if (length < 0)
		abort();
	text_append(text, line, (size_t)length);
	free(line);
}

void text_printf(struct text *text, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	text_vprintf(text, format, arguments);
	va_end(arguments);
}

void text_put_path(struct text *text, const char *string)
{
	for (const char *at = string; *at; at++) {
		if (strchr(" \t\n\\#", *at))
			text_printf(text, "\\%03o", (unsigned char)*at);
		else
			text_append(text, at, 1);
	}
}

size_t text_utf8_length(const char *bytes, size_t length)
{
	const unsigned char *at = (const unsigned char *)bytes;
	size_t need;

	if (!length)
		return 0;
	if (*at < 0x80)
		return 1;
	need = *at >= 0xc2 && *at < 0xe0   ? 2
	       : (*at & 0xf0) == 0xe0	   ? 3
	       : *at >= 0xf0 && *at < 0xf5 ? 4
					   : 0;
	if (!need || need > length)
		return 0;
	for (size_t i = 1; i < need; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	/* overlong, a surrogate, beyond the last character */
	if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] >= 0xa0) ||
	    (*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] >= 0x90))
		return 0;
	return need;
}

bool text_is_control(const char *bytes)
{
	unsigned char byte = (unsigned char)*bytes;

	/* U+0080 to U+009F are controls too: a terminal takes U+009B for ESC [. */
	return byte < ' ' || byte == 127 || (byte == 0xc2 && (unsigned char)bytes[1] < 0xa0);
}

void text_put_safe(struct text *text, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length;) {
		size_t whole = text_utf8_length(bytes + i, length - i);
		unsigned char byte = (unsigned char)bytes[i];

		if (!whole || text_is_control(bytes + i)) {
			text_printf(text, "\\x%02x", byte);
			i++;
		} else {
			text_append(text, bytes + i, whole);
			i += whole;
		}
	}
}

const char *text_bytes(const struct text *text)
{
	return text->buffer->bpos ? text->buffer->buf : "";
}

size_t text_length(const struct text *text)
{
	return (size_t)text->buffer->bpos;
}

char *text_sentence(const char *format, ...)
{
	va_list arguments;
	char *sentence;

	va_start(arguments, format);
	if (vasprintf(&sentence, format, arguments) < 0)
		abort();
	va_end(arguments);
	return sentence;
}
