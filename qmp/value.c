/*
 * Owns JSON values: parsing with limits, reading by key, building, printing. A struct qmp_value is a json_object by another
 * name; this is the only file that knows. Called by all of qmp/ and by jobs/; must not know what the values mean.
 */
#include "qmp/value.h"

#include <json-c/json.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	/*
	 * So much goes to the tokener at once. Limits are looked at after each piece; and as a piece is looked through for
	 * broken UTF-8 once for each message that begins in it, a larger one would cost more.
	 */
	PIECE_BYTES = 1 << 10,
	LEVELS_MAX = QMP_MESSAGE_DEPTH_MAX + QMP_MESSAGE_CHAIN_MAX,
	SPARE_BYTES_MAX = 16 << 10, /* of a message whose tokener is kept for the next one */
};

struct qmp_reader {
	struct json_tokener *
		tokener; /* of the message being read; NULL between messages: it takes some 40 KiB */
	const char *dead; /* the sentence, once something was wrong */
	size_t bytes, parts; /* of the message being read */
	unsigned char tail; /* bytes that are still to come of a UTF-8 character... */
	unsigned char low, high; /* ...and what the next one may be */
	bool in_string, escaped;
	bool chain_key; /* the string just read, or what there is of it, is "backing-image" */
	size_t matched; /* bytes of it */
	size_t word; /* length of the number or the like that is being read */
	size_t levels, deep; /* open ones; those that count */
	bool uncounted[LEVELS_MAX];
};

static bool is_too_deep(const struct qmp_reader *reader)
{
	return reader->deep > QMP_MESSAGE_DEPTH_MAX || reader->levels > LEVELS_MAX;
}

static bool is_too_long(const struct qmp_reader *reader)
{
	return reader->word > QMP_MESSAGE_NUMBER_MAX;
}

static struct json_object *json(const struct qmp_value *value)
{
	return (struct json_object *)value;
}

static struct qmp_value *wrap(struct json_object *object)
{
	return (struct qmp_value *)object;
}

/* json-c answers NULL when memory is out; there is nothing sensible to do without it. */
static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* --- UTF-8 --- */

/*
 * Takes one more byte; false: it cannot be there. json-c has a check of its own, but that takes a character which is split
 * between two reads for a broken one (0.16), and lets overlong forms and surrogates pass.
 */
static bool utf8_step(struct qmp_reader *reader, unsigned char byte)
{
	if (reader->tail) {
		if (byte < reader->low || byte > reader->high)
			return false;
		reader->tail--;
		reader->low = 0x80;
		reader->high = 0xbf;
		return true;
	}
	if (byte < 0x80)
		return true;
	if (byte < 0xc2 || byte > 0xf4)
		return false;
	reader->tail = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
	reader->low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
	reader->high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
	return true;
}

/* How many of the bytes may go to the tokener: all before a NUL (which it would take for the end) or broken UTF-8. */
static size_t clean_length(struct qmp_reader *reader, const char *bytes, size_t length)
{
	size_t i = 0;

	while (i < length && bytes[i] &&
	       ((bytes[i] > 0 && !reader->tail) || utf8_step(reader, bytes[i])))
		i++;
	return i;
}

/* A JSON string from bytes that need not be UTF-8 (a Linux path): what cannot be told is U+FFFD, as QEMU does it. */
static struct json_object *json_text(const char *text)
{
	struct qmp_reader utf8 = { 0 };
	size_t length = strlen(text), at = 0;
	struct json_object *string;
	struct printbuf *clean;

	if (clean_length(&utf8, text, length) == length && !utf8.tail)
		return must(json_object_new_string_len(text, length));
	clean = must(printbuf_new());
	while (at < length) {
		size_t end = at;

		utf8 = (struct qmp_reader){ 0 };
		while (end < length && utf8_step(&utf8, text[end]) && (end++, utf8.tail))
			continue;
		if (end > at && !utf8.tail)
			printbuf_memappend(clean, text + at, end - at);
		else
			printbuf_memappend(clean, "\xef\xbf\xbd", 3);
		at = end > at ? end : at + 1;
	}
	string = must(json_object_new_string_len(clean->buf, printbuf_length(clean)));
	printbuf_free(clean);
	return string;
}

/* --- reading a stream --- */

/*
 * The one that was used last, for whoever reads next: to make one takes longer than to read a short message with it. One that was large
 * is not kept, since the tokener's buffer has grown with it. (Atomic for the pool and for threads of tests.)
 */
static _Atomic(struct json_tokener *) spare;

static struct json_tokener *tokener_new(void)
{
	struct json_tokener *tokener = atomic_exchange(&spare, NULL);

	if (tokener)
		return tokener;
	tokener = must(json_tokener_new_ex(LEVELS_MAX));
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	return tokener;
}

static void tokener_end(struct qmp_reader *reader)
{
	struct json_tokener *none = NULL, *tokener = reader->tokener;

	reader->tokener = NULL;
	if (!tokener)
		return;
	json_tokener_reset(tokener);
	if (reader->bytes > SPARE_BYTES_MAX ||
	    !atomic_compare_exchange_strong(&spare, &none, tokener))
		json_tokener_free(tokener);
}

struct qmp_reader *qmp_reader_new(void)
{
	return must(calloc(1, sizeof(struct qmp_reader)));
}

void qmp_reader_free(struct qmp_reader *reader)
{
	if (!reader)
		return;
	tokener_end(reader);
	free(reader);
}

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Of a number, true, false or null. */
static bool is_of_word(char byte)
{
	switch (byte) {
	case '{':
	case '}':
	case '[':
	case ']':
	case ',':
	case ':':
	case '"':
		return false;
	default:
		return !is_blank(byte);
	}
}

/*
 * Counts the parts and the levels of what is read. A level that is the value of "backing-image" does not count: query-block nests a
 * chain of images so.
 */
static void scan_byte(struct qmp_reader *reader, char byte)
{
	static const char chain[] = "backing-image";

	reader->word = !reader->in_string && is_of_word(byte) ? reader->word + 1 : 0;
	if (reader->in_string) {
		if (!reader->escaped && byte == '"') {
			reader->in_string = false;
			reader->chain_key =
				reader->chain_key && reader->matched == sizeof(chain) - 1;
		} else {
			reader->chain_key = reader->chain_key &&
					    reader->matched < sizeof(chain) - 1 &&
					    byte == chain[reader->matched];
			reader->matched++;
		}
		reader->escaped = !reader->escaped && byte == '\\';
	} else if (byte == '"') {
		reader->in_string = reader->chain_key = true;
		reader->matched = 0;
	} else if (byte == '{' || byte == '[') {
		if (reader->levels < LEVELS_MAX)
			reader->uncounted[reader->levels] = byte == '{' && reader->chain_key;
		reader->deep += reader->levels < LEVELS_MAX && !reader->uncounted[reader->levels];
		reader->levels++;
		reader->parts++;
		reader->chain_key = false;
	} else if ((byte == '}' || byte == ']') && reader->levels) {
		reader->levels--;
		reader->deep -= reader->levels < LEVELS_MAX && !reader->uncounted[reader->levels];
		reader->chain_key = false;
	} else if (byte == ',') {
		reader->parts++;
		reader->chain_key = false;
	}
}

/* How many of the bytes are inside a string and mean nothing: of most strings all but their first. */
static size_t skip_string(const struct qmp_reader *reader, const char *bytes, size_t length)
{
	size_t i = 0;

	if (!reader->in_string || reader->escaped || reader->chain_key)
		return 0;
	while (i < length && bytes[i] != '"' && bytes[i] != '\\')
		i++;
	return i;
}

/* Stops at the byte that makes it too deep. */
static void scan(struct qmp_reader *reader, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length && !is_too_deep(reader) && !is_too_long(reader); i++) {
		i += skip_string(reader, bytes + i, length - i);
		if (i < length)
			scan_byte(reader, bytes[i]);
	}
}

/* The message is complete: the next one starts from nothing, and an idle reader holds no memory. */
static void reader_start_over(struct qmp_reader *reader)
{
	tokener_end(reader);
	reader->bytes = reader->parts = 0;
	reader->levels = reader->deep = reader->word = 0;
	reader->in_string = reader->escaped = reader->chain_key = false;
	reader->tail = 0;
}

static const char *reader_complaint(const struct qmp_reader *reader, enum json_tokener_error state,
				    bool unclean)
{
	if (reader->bytes > QMP_MESSAGE_BYTES_MAX)
		return "a message is larger than 10 MiB";
	if (reader->parts > QMP_MESSAGE_PARTS_MAX)
		return "a message has more than 1048576 parts";
	if (is_too_long(reader))
		return "a message has a number of more than 64 characters";
	if (state == json_tokener_error_depth || is_too_deep(reader))
		return "a message is nested deeper than 64 levels";
	if (state != json_tokener_success && state != json_tokener_continue)
		return "not JSON";
	if (unclean)
		return "a NUL or broken UTF-8";
	return NULL;
}

/* Gives at most one piece to the tokener. */
static struct qmp_value *reader_take(struct qmp_reader *reader, const char *bytes, size_t length,
				     size_t *used)
{
	size_t piece = length < PIECE_BYTES ? length : PIECE_BYTES;
	size_t clean = clean_length(reader, bytes, piece);
	enum json_tokener_error state = json_tokener_continue;
	struct json_object *object = NULL;

	*used = 0;
	if (!reader->tokener)
		reader->tokener = tokener_new();
	if (clean) {
		object = json_tokener_parse_ex(reader->tokener, bytes, clean);
		state = json_tokener_get_error(reader->tokener);
		*used = json_tokener_get_parse_end(reader->tokener);
	}
	reader->bytes += *used;
	scan(reader, bytes, *used);
	reader->dead =
		reader_complaint(reader, state, clean < piece && state == json_tokener_continue);
	if (!reader->dead && state == json_tokener_success) {
		reader_start_over(reader);
		if (!object)
			reader->dead = "a message is null";
	}
	if (reader->dead && object) {
		json_object_put(object);
		object = NULL;
	}
	return wrap(object);
}

struct qmp_value *qmp_reader_feed(struct qmp_reader *reader, const char *bytes, size_t length,
				  size_t *used, const char **error)
{
	struct qmp_value *value = NULL;
	size_t taken;

	*used = 0;
	/* Blanks between messages belong to none, or they would add up to one that is too large. */
	while (!reader->dead && !reader->bytes && *used < length && is_blank(bytes[*used]))
		(*used)++;
	while (!reader->dead && !value && *used < length) {
		value = reader_take(reader, bytes + *used, length - *used, &taken);
		*used += taken;
	}
	*error = reader->dead;
	return value;
}

bool qmp_reader_is_idle(const struct qmp_reader *reader)
{
	return !reader->bytes && !reader->dead;
}

struct qmp_value *qmp_value_parse(const char *text, size_t length, size_t *error_at)
{
	struct qmp_reader *reader = qmp_reader_new();
	struct qmp_value *value;
	const char *error;
	size_t used, more;

	value = qmp_reader_feed(reader, text, length, &used, &error);
	/* A number ends only where something else begins. */
	if (!value && !error)
		value = qmp_reader_feed(reader, " ", 1, &more, &error);
	while (value && used < length && is_blank(text[used]))
		used++;
	if (used < length) {
		qmp_value_free(value);
		value = NULL;
	}
	if (!value && error_at)
		*error_at = used;
	qmp_reader_free(reader);
	return value;
}

bool qmp_value_has_twice(const struct qmp_value *object, const char *text, size_t length)
{
	size_t keys = 0, depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < length; i++) {
		if (in_string && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			in_string = !in_string;
		else if (!in_string && (text[i] == '{' || text[i] == '['))
			depth++;
		else if (!in_string && (text[i] == '}' || text[i] == ']'))
			depth--;
		else if (!in_string && text[i] == ':' && depth == 1)
			keys++;
	}
	return qmp_value_is_object(object) &&
	       keys > (size_t)json_object_object_length(json(object));
}

void qmp_value_free(struct qmp_value *value)
{
	json_object_put(json(value));
}

struct qmp_value *qmp_value_share(const struct qmp_value *value)
{
	return wrap(json_object_get(json(value)));
}

/* --- reading values --- */

static struct json_object *member(const struct qmp_value *object, const char *key)
{
	struct json_object *found = NULL;

	if (!key)
		return json(object);
	if (json_object_is_type(json(object), json_type_object))
		json_object_object_get_ex(json(object), key, &found);
	return found;
}

const struct qmp_value *qmp_value_get(const struct qmp_value *object, const char *key)
{
	return wrap(member(object, key));
}

const char *qmp_value_text(const struct qmp_value *object, const char *key, const char *fallback)
{
	struct json_object *found = member(object, key);

	return json_object_is_type(found, json_type_string) ? json_object_get_string(found)
							    : fallback;
}

int64_t qmp_value_number(const struct qmp_value *object, const char *key, int64_t fallback)
{
	struct json_object *found = member(object, key);

	if (json_object_is_type(found, json_type_int))
		return json_object_get_int64(found);
	/* "NaN" passes json-c's tokener, and has no integer. */
	if (json_object_is_type(found, json_type_double) && !isnan(json_object_get_double(found)))
		return json_object_get_int64(found);
	return fallback;
}

bool qmp_value_flag(const struct qmp_value *object, const char *key, bool fallback)
{
	struct json_object *found = member(object, key);

	return qmp_value_is_flag(wrap(found)) ? json_object_get_boolean(found) : fallback;
}

size_t qmp_value_count(const struct qmp_value *array)
{
	return json_object_is_type(json(array), json_type_array)
		       ? json_object_array_length(json(array))
		       : 0;
}

const struct qmp_value *qmp_value_item(const struct qmp_value *array, size_t index)
{
	return index < qmp_value_count(array) ? wrap(json_object_array_get_idx(json(array), index))
					      : NULL;
}

bool qmp_value_is_object(const struct qmp_value *value)
{
	return json_object_is_type(json(value), json_type_object);
}

bool qmp_value_is_text(const struct qmp_value *value)
{
	return json_object_is_type(json(value), json_type_string);
}

bool qmp_value_is_number(const struct qmp_value *value)
{
	return json_object_is_type(json(value), json_type_int);
}

bool qmp_value_is_flag(const struct qmp_value *value)
{
	return json_object_is_type(json(value), json_type_boolean);
}

bool qmp_value_is_list(const struct qmp_value *value)
{
	return json_object_is_type(json(value), json_type_array);
}

int qmp_value_each(const struct qmp_value *object,
		   int (*each)(void *data, const char *key, const struct qmp_value *value),
		   void *data)
{
	struct json_object_iter at;

	if (!qmp_value_is_object(object))
		return 0;
	json_object_object_foreachC(json(object), at)
	{
		int result = each(data, at.key, wrap(at.val));

		if (result)
			return result;
	}
	return 0;
}

/* --- building --- */

struct qmp_value *qmp_object(void)
{
	return wrap(must(json_object_new_object()));
}

struct qmp_value *qmp_array(void)
{
	return wrap(must(json_object_new_array()));
}

struct qmp_value *qmp_add_value(struct qmp_value *object, const char *key, struct qmp_value *value)
{
	if (json_object_object_add_ex(json(object), key, json(value),
				      JSON_C_OBJECT_KEY_IS_CONSTANT) < 0)
		abort();
	return object;
}

struct qmp_value *qmp_add_text(struct qmp_value *object, const char *key, const char *text)
{
	return qmp_add_value(object, key, text ? wrap(json_text(text)) : NULL);
}

struct qmp_value *qmp_add_number(struct qmp_value *object, const char *key, int64_t number)
{
	return qmp_add_value(object, key, wrap(must(json_object_new_int64(number))));
}

struct qmp_value *qmp_add_flag(struct qmp_value *object, const char *key, bool flag)
{
	return qmp_add_value(object, key, wrap(must(json_object_new_boolean(flag))));
}

struct qmp_value *qmp_append_value(struct qmp_value *array, struct qmp_value *value)
{
	if (json_object_array_add(json(array), json(value)) < 0)
		abort();
	return array;
}

struct qmp_value *qmp_append_text(struct qmp_value *array, const char *text)
{
	return qmp_append_value(array, text ? wrap(json_text(text)) : NULL);
}

const char *qmp_value_print(struct qmp_value *value)
{
	return must((char *)json_object_to_json_string_ext(
		json(value), JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}
