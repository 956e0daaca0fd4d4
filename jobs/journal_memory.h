/*
 * A journal in memory that outlives the process: a memfd that somebody else holds, too (fs/store.h), for what only matters as long as
 * the machine and the mount do. Nothing that is written costs a system call. Called by journal.c alone.
 *
 * The memory has two halves, of which one counts. Records are put behind each other there, and count when the number of bytes used
 * says so: a process that is killed in the middle of one leaves none. When much of it is outdated, all that there is is written into the other half,
 * which counts from then on.
 */
#ifndef JOBS_JOURNAL_MEMORY_H
#define JOBS_JOURNAL_MEMORY_H

#include "jobs/journal_file.h"

struct journal_memory;

/* A new memfd, for journal_memory_open(). Returns it, or -errno. */
int journal_memory_new(void);
/*
 * Reads what is in @fd, which stays the caller's and may be closed. Returns NULL, with nothing found, if it is not such a memory, or of another version
 * of it. @table is copied.
 */
struct journal_memory *journal_memory_open(int fd, const struct journal_table *table);
/* Appends one record, which is in the table already. @live: bytes of all that is in the table. What there is no room for is left out. */
void journal_memory_append(struct journal_memory *memory, const char *key, const char *value,
			   size_t live);
/* What is in it stays. */
void journal_memory_free(struct journal_memory *memory);

#endif
