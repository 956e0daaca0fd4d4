/*
 * The journal: what must outlive the daemon and QEMU does not know, as a table of texts by key. Whoever has something to keep puts it
 * under a key of its own and finds it there in the daemon's next life:
 *
 *	job/DOMAIN/DISK		the live job of a disk (jobs/job_record.c)
 *	history/DOMAIN/DISK	its finished jobs
 *	mode/DOMAIN...		who may do what with a folder or a file
 *
 * Names in keys are those of folders, which have no '/'. Values are one line of JSON each.
 */
#ifndef JOBS_JOURNAL_H
#define JOBS_JOURNAL_H

struct journal;

/* A journal that is kept in memory only. */
struct journal *journal_new(void);
void journal_free(struct journal *journal);

/* Borrowed until the key is put or dropped; NULL: nothing is there. */
const char *journal_get(const struct journal *journal, const char *key);
void journal_put(struct journal *journal, const char *key, const char *value);
/* Does nothing if nothing is there. */
void journal_drop(struct journal *journal, const char *key);
/* Calls @each for every key that begins with @prefix, in no order. @each may put or drop that key, and no other. */
void journal_each(struct journal *journal, const char *prefix,
		  void (*each)(void *data, const char *key, const char *value), void *data);

#endif
