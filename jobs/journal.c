/*
 * The journal: texts by key. Made by main(), used by whoever in jobs/ has something to keep.
 */
#include "jobs/journal.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct record {
	char *key, *value;
	UT_hash_handle hh;
};

struct journal {
	struct record *records;
};

struct journal *journal_new(void)
{
	struct journal *journal = calloc(1, sizeof(*journal));

	if (!journal)
		abort();
	return journal;
}

static struct record *find(const struct journal *journal, const char *key)
{
	struct record *record;

	HASH_FIND_STR(journal->records, key, record);
	return record;
}

static void forget(struct journal *journal, struct record *record)
{
	HASH_DEL(journal->records, record);
	free(record->key);
	free(record->value);
	free(record);
}

void journal_free(struct journal *journal)
{
	struct record *record, *next;

	if (!journal)
		return;
	HASH_ITER(hh, journal->records, record, next)
		forget(journal, record);
	free(journal);
}

const char *journal_get(const struct journal *journal, const char *key)
{
	const struct record *record = find(journal, key);

	return record ? record->value : NULL;
}

void journal_put(struct journal *journal, const char *key, const char *value)
{
	struct record *record = find(journal, key);

	if (!record) {
		record = calloc(1, sizeof(*record));
		if (!record || !(record->key = strdup(key)))
			abort();
		HASH_ADD_KEYPTR(hh, journal->records, record->key, strlen(record->key), record);
	}
	free(record->value);
	record->value = strdup(value);
	if (!record->value)
		abort();
}

void journal_drop(struct journal *journal, const char *key)
{
	struct record *record = find(journal, key);

	if (record)
		forget(journal, record);
}

void journal_each(struct journal *journal, const char *prefix,
		  void (*each)(void *data, const char *key, const char *value), void *data)
{
	struct record *record, *next;

	HASH_ITER(hh, journal->records, record, next)
		if (!strncmp(record->key, prefix, strlen(prefix)))
			each(data, record->key, record->value);
}
