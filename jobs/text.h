/*
 * Growing text: what a file shows, an answer, an event's line. A thin cover over json-c's printbuf, which only text.c sees.
 */
#ifndef JOBS_TEXT_H
#define JOBS_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct text;

struct text *text_new(void);
void text_free(struct text *text);
void text_clear(struct text *text);
void text_append(struct text *text, const char *bytes, size_t length);
void text_puts(struct text *text, const char *string);
/* Appends all strings up to a NULL. For what is asked for often: text_printf() takes ten times as long. */
void text_put_all(struct text *text, const char *first, ...) __attribute__((sentinel));
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *text, const char *format, va_list arguments);
/* Appends @string with blanks, tabs, newlines, backslashes and '#' as \ooo, as /proc/mounts has paths. */
void text_put_path(struct text *text, const char *string);
/* Appends bytes from anywhere so that a terminal may show them: control characters and what is no UTF-8 as \\xNN. */
void text_put_safe(struct text *text, const char *bytes, size_t length);
/* The length of the UTF-8 character at @bytes, or 0 if there is none within @length bytes. */
size_t text_utf8_length(const char *bytes, size_t length);
/* True if the UTF-8 character at @bytes is a control character. */
bool text_is_control(const char *bytes);
/* The bytes, also NUL-terminated; borrowed until the text is changed. */
const char *text_bytes(const struct text *text);
size_t text_length(const struct text *text);

/* A string of its own, malloc'ed: what an error is told in. */
char *text_sentence(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
