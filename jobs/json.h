/*
 * JSON that is written and not looked at: events, history, and what lies in the journals. A line is written from its first key to its last, into a growing text;
 * building values and printing them costs four times as much, and a job's start and its end write some ten. To read JSON, and for what QEMU is
 * sent: qmp/value.h.
 *
 * @key is a literal, or NULL for an item of a list. Strings may be any bytes: what is no UTF-8 becomes U+FFFD.
 */
#ifndef JOBS_JSON_H
#define JOBS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include "jobs/text.h"

/* A new text with an open object. The caller closes it, and frees the text. */
struct text *json_new(void);
/* Opens a list, '[', or an object, '{'; closes the innermost one that is open, ']' or '}'. */
void json_open(struct text *text, const char *key, char bracket);
void json_close(struct text *text, char bracket);
void json_text(struct text *text, const char *key, const char *value); /* NULL: null */
void json_texts(struct text *text, const char *key, char *const *values, size_t count);
void json_number(struct text *text, const char *key, int64_t value);
void json_flag(struct text *text, const char *key, bool value);

#endif
