/*
 * JSON values, as far as QMP needs them. The only file that sees json-c is value.c; it is used by all of qmp/, and by jobs/
 * wherever JSON is read or written (the JSON form of a command, events, history).
 *
 * A value has one owner. "borrowed" results live as long as the value they came from. Reading functions take NULL and
 * values of another type than asked for, and give the fallback: what a peer sends is never trusted to be of the right type.
 */
#ifndef QMP_VALUE_H
#define QMP_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp_value;

enum {
	/* A message that is larger, deeper, or made of more parts (counted by their commas and opening brackets) ends
	 * the link: a peer cannot make us grow. libvirt's limit for a monitor's message is 10 MiB too. */
	QMP_MESSAGE_BYTES_MAX = 10 << 20,
	QMP_MESSAGE_DEPTH_MAX = 64,
	/* query-block nests a chain of images, one level an image, as the value of "backing-image": those levels do not count up to
	 * this number of images. (QEMU's own limit of nesting is 1024.) */
	QMP_MESSAGE_CHAIN_MAX = 960,
	QMP_MESSAGE_PARTS_MAX = 1 << 20,
	/* Characters of a number. json-c reads one from its start again with each piece of it that comes. */
	QMP_MESSAGE_NUMBER_MAX = 64,
};

/*
 * An incremental reader of JSON texts that follow each other, with or without blanks, CR and LF between them. Bytes may come
 * in any split.
 */
struct qmp_reader;
struct qmp_reader *qmp_reader_new(void);
void qmp_reader_free(struct qmp_reader *reader);
/*
 * Reads from @bytes. Returns a value (owned by the caller) as soon as one is complete, else NULL. *@used is set to the number
 * of bytes consumed: call again with the rest until it is all used. *@error is set to NULL, or to a static sentence that
 * tells what is wrong with the stream, which cannot be read any further then.
 */
struct qmp_value *qmp_reader_feed(struct qmp_reader *reader, const char *bytes, size_t length,
				  size_t *used, const char **error);
/* True if it is between two messages. */
bool qmp_reader_is_idle(const struct qmp_reader *reader);

/* Parses exactly one JSON text of @length bytes (blanks around it allowed). NULL, and *@error_at its offset, if it is not one. */
struct qmp_value *qmp_value_parse(const char *text, size_t length, size_t *error_at);
void qmp_value_free(struct qmp_value *value);
/* True if @text, which was parsed as @object, has a key of it twice: of two the last one is kept. */
bool qmp_value_has_twice(const struct qmp_value *object, const char *text, size_t length);
/* The same value with one more owner, who frees it too: it is not to be changed any more. Of a part, that lives on when the whole has been freed. */
struct qmp_value *qmp_value_share(const struct qmp_value *value);

/* --- reading; @key is one key, and NULL means the value itself --- */
const struct qmp_value *qmp_value_get(const struct qmp_value *object, const char *key);
/* The text of a string (borrowed, UTF-8, ends at the first NUL inside), else @fallback. */
const char *qmp_value_text(const struct qmp_value *object, const char *key, const char *fallback);
/* An integer, saturated to int64; a double is truncated; else @fallback. */
int64_t qmp_value_number(const struct qmp_value *object, const char *key, int64_t fallback);
bool qmp_value_flag(const struct qmp_value *object, const char *key, bool fallback);
/* Length of an array; 0 if it is none. */
size_t qmp_value_count(const struct qmp_value *array);
const struct qmp_value *qmp_value_item(const struct qmp_value *array, size_t index);
bool qmp_value_is_object(const struct qmp_value *value);
bool qmp_value_is_text(const struct qmp_value *value);
bool qmp_value_is_number(const struct qmp_value *value); /* a whole number */
bool qmp_value_is_flag(const struct qmp_value *value);
bool qmp_value_is_list(const struct qmp_value *value);
/* Calls @each for every member of an object, in order, until it returns nonzero, and returns that. */
int qmp_value_each(const struct qmp_value *object,
		   int (*each)(void *data, const char *key, const struct qmp_value *value),
		   void *data);

/* --- building; adders take ownership of @value and return @object so that calls can be chained. A @key is a literal: it is not copied --- */
struct qmp_value *qmp_object(void);
struct qmp_value *qmp_array(void);
struct qmp_value *qmp_add_text(struct qmp_value *object, const char *key,
			       const char *text); /* NULL text: JSON null */
struct qmp_value *qmp_add_number(struct qmp_value *object, const char *key, int64_t number);
struct qmp_value *qmp_add_flag(struct qmp_value *object, const char *key, bool flag);
struct qmp_value *qmp_add_value(struct qmp_value *object, const char *key, struct qmp_value *value);
struct qmp_value *qmp_append_text(struct qmp_value *array, const char *text);
struct qmp_value *qmp_append_value(struct qmp_value *array, struct qmp_value *value);
/* The value on one line, without a newline. Owned by @value, valid until it is printed again, changed or freed. */
const char *qmp_value_print(struct qmp_value *value);

#endif
