/*
 * The journal as bytes: a head, and behind it records, each with a checksum, so that what was not written to its end, or has been
 * damaged since, is known for that. Called by journal_file.c; sees no file.
 *
 *	blockjobfs journal 1
 *	+ KEY-LENGTH VALUE-LENGTH CHECKSUM KEY VALUE
 *	- KEY-LENGTH 00000000 CHECKSUM KEY
 *
 * Lengths are 8 hexadecimal digits, the checksum 16 (FNV-1a of all in front of it and all behind it). '+' puts, '-' drops.
 */
#ifndef JOBS_JOURNAL_FORMAT_H
#define JOBS_JOURNAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

struct text;

#define JOURNAL_MAGIC "blockjobfs journal "
#define JOURNAL_HEAD  JOURNAL_MAGIC "1\n"

enum {
	JOURNAL_RECORD_MAX = 4 << 20, /* bytes of key and value: more is not kept */
	/* What a record has beside them: kind, two lengths, checksum, blanks and the newline. */
	JOURNAL_FRAME = 2 + 9 + 9 + 17 + 1 + 1,
};

/* Appends a record. A NULL @value drops the key. One that is too long is left out. */
void journal_format_record(struct text *out, const char *key, const char *value);
/* How many bytes that are. */
size_t journal_format_length(const char *key, const char *value);

struct journal_scan {
	/* For each whole record, in order; @value is NULL where the key is dropped. */
	void (*each)(void *data, const char *key, const char *value);
	void *data;
	size_t whole; /* bytes from the start that are whole records */
	size_t damaged; /* bytes behind that which are no records, but for a torn end */
};

/*
 * Reads the records in @bytes (behind the head). What cannot be read is skipped. The last one may be torn: its beginning is there and
 * its end is not; that is no damage.
 */
void journal_format_scan(struct journal_scan *scan, const char *bytes, size_t length);

#endif
