/*
 * The journal's records: written, and read from bytes of any kind.
 */
#include "jobs/journal_format.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/text.h"

enum {
	LENGTHS = 2 + 9 + 9, /* kind and lengths, with their blanks */
	HEADER = LENGTHS + 17,
};

static uint64_t checksum(const char *header, const char *body, size_t length)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < LENGTHS; i++)
		hash = (hash ^ (unsigned char)header[i]) * 0x100000001b3;
	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)body[i]) * 0x100000001b3;
	return hash;
}

size_t journal_format_length(const char *key, const char *value)
{
	return JOURNAL_FRAME + strlen(key) + (value ? strlen(value) : 0);
}

void journal_format_record(struct text *out, const char *key, const char *value)
{
	char header[HEADER + 1], *body;
	int length;

	if (value && strlen(key) + strlen(value) > JOURNAL_RECORD_MAX)
		return;
	snprintf(header, sizeof(header), "%c %08zx %08zx ", value ? '+' : '-', strlen(key),
		 value ? strlen(value) : 0);
	length = asprintf(&body, "%s %s", key, value ? value : "");
	if (length < 0)
		abort();
	snprintf(header + LENGTHS, sizeof(header) - LENGTHS, "%016llx ",
		 (unsigned long long)checksum(header, body, (size_t)length));
	text_append(out, header, HEADER);
	text_append(out, body, (size_t)length);
	text_append(out, "\n", 1);
	free(body);
}

/* --- reading --- */

static const char digits[] = "0123456789abcdef";

/* Lower-case digits and a blank, exactly as they are written. */
static bool read_hex(const char *at, size_t count, uint64_t *number)
{
	*number = 0;
	for (size_t i = 0; i < count; i++) {
		const char *digit = memchr(digits, at[i], 16);

		if (!digit)
			return false;
		*number = *number << 4 | (uint64_t)(digit - digits);
	}
	return at[count] == ' ';
}

struct header {
	uint64_t key, value, sum;
	bool puts;
};

static bool read_header(const char *bytes, struct header *header)
{
	header->puts = bytes[0] == '+';
	return (header->puts || bytes[0] == '-') && bytes[1] == ' ' &&
	       read_hex(bytes + 2, 8, &header->key) && read_hex(bytes + 11, 8, &header->value) &&
	       read_hex(bytes + LENGTHS, 16, &header->sum) &&
	       header->key + header->value <= JOURNAL_RECORD_MAX && header->key &&
	       (header->puts || !header->value);
}

enum found { NO_RECORD, TORN_RECORD, WHOLE_RECORD };

/* A header that is cut off is the beginning of one, as far as can be seen. */
static bool may_be_torn_header(const char *bytes, size_t length)
{
	static const char form[] = "? xxxxxxxx xxxxxxxx xxxxxxxxxxxxxxxx ";

	for (size_t i = 0; i < length; i++) {
		if (form[i] == ' '   ? bytes[i] != ' '
		    : form[i] == '?' ? bytes[i] != '+' && bytes[i] != '-'
				     : !memchr(digits, bytes[i], 16))
			return false;
	}
	return true;
}

/* Looks at what begins at @bytes; *@size is its length if it is whole. */
static enum found look(const char *bytes, size_t length, struct header *header, size_t *size)
{
	const char *body = bytes + HEADER;
	size_t body_length;

	if (length < HEADER)
		return may_be_torn_header(bytes, length) ? TORN_RECORD : NO_RECORD;
	if (!read_header(bytes, header))
		return NO_RECORD;
	body_length = header->key + 1 + header->value;
	if (length < HEADER + body_length + 1)
		return TORN_RECORD;
	if (body[body_length] != '\n' || body[header->key] != ' ' ||
	    checksum(bytes, body, body_length) != header->sum)
		return NO_RECORD;
	*size = HEADER + body_length + 1;
	return WHOLE_RECORD;
}

static void tell(const struct journal_scan *scan, const char *body, const struct header *header)
{
	char *key = strndup(body, header->key);
	char *value = header->puts ? strndup(body + header->key + 1, header->value) : NULL;

	if (!key || (header->puts && !value))
		abort();
	scan->each(scan->data, key, value);
	free(key);
	free(value);
}

void journal_format_scan(struct journal_scan *scan, const char *bytes, size_t length)
{
	size_t at = 0, torn = 0; /* where the last thing that may be a torn record begins, +1 */
	bool broken = false;

	scan->whole = scan->damaged = 0;
	while (at < length) {
		struct header header;
		size_t size = 0;
		enum found found = look(bytes + at, length - at, &header, &size);

		if (found == WHOLE_RECORD) {
			/* What seemed to be torn has something behind it: it was damaged. */
			tell(scan, bytes + at + HEADER, &header);
			if (torn)
				scan->damaged += at - (torn - 1);
			torn = 0;
			at += size;
			if (!broken)
				scan->whole = at;
			continue;
		}
		/* The next one may begin anywhere: the newline may be what is damaged. */
		broken = true;
		if (!torn && found == TORN_RECORD)
			torn = at + 1;
		if (!torn)
			scan->damaged++;
		at++;
	}
	/* A record that ends in its newline was written to its end. */
	if (torn && bytes[length - 1] == '\n')
		scan->damaged += length - (torn - 1);
}
