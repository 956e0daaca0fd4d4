/*
 * The file that the journal is kept in: found and read at the start, appended to with one write(2) a record, written anew when it has
 * become long or cannot be trusted. Called by journal.c alone; what the records mean it does not know.
 *
 * write(2) is all it takes to outlive the daemon. In a folder that outlives the machine the bytes are also synced, in the work pool.
 */
#ifndef JOBS_JOURNAL_FILE_H
#define JOBS_JOURNAL_FILE_H

#include "jobs/journal.h"

struct journal_file;
struct text;

/* The table that the file keeps. */
struct journal_table {
	/* What was found; @value is NULL where the key is dropped. */
	void (*found)(void *data, const char *key, const char *value);
	/* Calls @put for all that there is. */
	void (*each)(void *data, void (*put)(void *to, const char *key, const char *value),
		     void *to);
	void *data;
};

/*
 * Reads what is there and is ready to append. Never fails: what cannot be read is set aside, and where nothing can be written nothing
 * is, with a line in the log. @table is copied.
 */
struct journal_file *journal_file_open(const struct journal_settings *settings,
				       const struct journal_table *table);
/* Appends one record, which is in the table already. @live: bytes of all that is in the table. */
void journal_file_append(struct journal_file *file, const char *key, const char *value,
			 size_t live);
/* No more timers and pool work; what is in the pool keeps the loop until it is done. */
void journal_file_stop(struct journal_file *file);
/* @remove: nothing is in the table, so the file goes. After journal_file_stop(). */
void journal_file_free(struct journal_file *file, bool remove);

#endif
