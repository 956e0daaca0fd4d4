/*
 * The journal: texts by key, in memory and in a file (jobs/journal_file.c). Opened by fs/main.c, used by whoever in jobs/ has something
 * to keep.
 */
#include "jobs/journal.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>
#include "jobs/journal_file.h"
#include "jobs/journal_format.h"
#include "jobs/journal_memory.h"
#include "jobs/text.h"

struct record {
	char *key, *value;
	struct kind *kind;
	struct record *prev, *next; /* of its kind */
	UT_hash_handle hh;
};

/* All records whose keys are the same up to the first '/'. Each domain looks for its own of a few kinds: not among those of all others. */
struct kind {
	char *name;
	struct record *records;
	UT_hash_handle hh;
};

struct journal {
	struct record *records;
	struct kind *kinds;
	size_t live; /* bytes that the records are in the file */
	struct journal_file *file; /* NULL: there is none */
	struct journal_memory *memory; /* the same */
};

/* --- the table --- */

static struct record *find(const struct journal *journal, const char *key)
{
	struct record *record;

	HASH_FIND_STR(journal->records, key, record);
	return record;
}

static struct kind *find_kind(const struct journal *journal, const char *key)
{
	struct kind *kind;

	HASH_FIND(hh, journal->kinds, key, strcspn(key, "/"), kind);
	return kind;
}

static struct kind *kind_of(struct journal *journal, const char *key)
{
	struct kind *kind = find_kind(journal, key);

	if (kind)
		return kind;
	kind = calloc(1, sizeof(*kind));
	if (!kind || !(kind->name = strndup(key, strcspn(key, "/"))))
		abort();
	HASH_ADD_KEYPTR(hh, journal->kinds, kind->name, strlen(kind->name), kind);
	return kind;
}

static void forget(struct journal *journal, struct record *record)
{
	DL_DELETE(record->kind->records, record);
	journal->live -= journal_format_length(record->key, record->value);
	HASH_DEL(journal->records, record);
	free(record->key);
	free(record->value);
	free(record);
}

static void keep(struct journal *journal, const char *key, const char *value)
{
	struct record *record = find(journal, key);

	if (record) {
		journal->live -= journal_format_length(key, record->value);
	} else {
		record = calloc(1, sizeof(*record));
		if (!record || !(record->key = strdup(key)))
			abort();
		HASH_ADD_KEYPTR(hh, journal->records, record->key, strlen(record->key), record);
		record->kind = kind_of(journal, key);
		DL_APPEND(record->kind->records, record);
	}
	free(record->value);
	record->value = strdup(value);
	if (!record->value)
		abort();
	journal->live += journal_format_length(key, value);
}

const char *journal_get(const struct journal *journal, const char *key)
{
	const struct record *record = find(journal, key);

	return record ? record->value : NULL;
}

bool journal_is_empty(const struct journal *journal)
{
	return !journal->records;
}

static void append(struct journal *journal, const char *key, const char *value)
{
	if (journal->file)
		journal_file_append(journal->file, key, value, journal->live);
	if (journal->memory)
		journal_memory_append(journal->memory, key, value, journal->live);
}

void journal_put(struct journal *journal, const char *key, const char *value)
{
	const struct record *record = find(journal, key);

	if (record && !strcmp(record->value, value))
		return;
	keep(journal, key, value);
	append(journal, key, value);
}

void journal_drop(struct journal *journal, const char *key)
{
	struct record *record = find(journal, key);
	char *copy; /* @key may be the record's own */

	if (!record)
		return;
	copy = strdup(key);
	if (!copy)
		abort();
	forget(journal, record);
	append(journal, copy, NULL);
	free(copy);
}

static void each_of(const struct kind *kind, const char *prefix,
		    void (*each)(void *data, const char *key, const char *value), void *data)
{
	struct record *record, *next;

	DL_FOREACH_SAFE(kind->records, record, next)
		if (!strncmp(record->key, prefix, strlen(prefix)))
			each(data, record->key, record->value);
}

void journal_each(struct journal *journal, const char *prefix,
		  void (*each)(void *data, const char *key, const char *value), void *data)
{
	const struct kind *kind = find_kind(journal, prefix);

	if (strchr(prefix, '/')) {
		if (kind)
			each_of(kind, prefix, each, data);
		return;
	}
	for (kind = journal->kinds; kind; kind = kind->hh.next)
		each_of(kind, prefix, each, data);
}

/* --- the file, or the shared memory --- */

static void found(void *data, const char *key, const char *value)
{
	struct journal *journal = data;
	struct record *record;

	if (value)
		keep(journal, key, value);
	else if ((record = find(journal, key)))
		forget(journal, record);
}

static void each(void *data, void (*put)(void *to, const char *key, const char *value), void *to)
{
	const struct journal *journal = data;
	const struct record *record;

	for (record = journal->records; record; record = record->hh.next)
		put(to, record->key, record->value);
}

struct journal *journal_new(void)
{
	struct journal *journal = calloc(1, sizeof(*journal));

	if (!journal)
		abort();
	return journal;
}

struct journal *journal_open(const struct journal_settings *settings)
{
	struct journal *journal = journal_new();
	const struct journal_table table = { found, each, journal };

	journal->file = journal_file_open(settings, &table);
	return journal;
}

struct journal *journal_share(int fd)
{
	struct journal *journal = journal_new();
	const struct journal_table table = { found, each, journal };

	journal->memory = journal_memory_open(fd, &table);
	if (journal->memory)
		return journal;
	journal_free(journal);
	return NULL;
}

void journal_stop(struct journal *journal)
{
	if (journal->file)
		journal_file_stop(journal->file);
}

void journal_free(struct journal *journal)
{
	struct kind *kind, *next_kind;
	struct record *record, *next;

	if (!journal)
		return;
	if (journal->file)
		journal_file_free(journal->file, !journal->records);
	if (journal->memory)
		journal_memory_free(journal->memory);
	HASH_ITER(hh, journal->records, record, next)
		forget(journal, record);
	HASH_ITER(hh, journal->kinds, kind, next_kind) {
		HASH_DEL(journal->kinds, kind);
		free(kind->name);
		free(kind);
	}
	free(journal);
}
