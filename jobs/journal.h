/*
 * The journal: what must outlive the daemon and QEMU does not know, as a table of texts by key. Whoever has something to keep puts it
 * under a key of its own and finds it there in the daemon's next life:
 *
 *	job/ID				a live job, or one whose end is not told yet (jobs/job_record.c)
 *	history/DOMAIN/DISK/SLOT	the finished jobs of a disk (jobs/history.c)
 *	mode/DOMAIN...			who may do what with a folder or a file
 *
 * Names in keys are those of folders, which have no '/'. Values are one line of JSON each.
 *
 * A record that was put is in the file when journal_put() returns, and from there on survives the death of the daemon at any
 * moment; in a folder that outlives the machine it is synced soon after. If it cannot be written the daemon goes on with what it
 * has in memory, says so once, and tries again.
 */
#ifndef JOBS_JOURNAL_H
#define JOBS_JOURNAL_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct journal;

/* The calls that can fail, so that tests can make them. Each returns -1 and errno as the system's. */
struct journal_ops {
	ssize_t (*write)(int fd, const void *bytes, size_t count);
	int (*truncate)(int fd, off_t length);
	int (*sync)(int fd);
	int (*rename)(int dir, const char *from, const char *to);
};

struct journal_settings {
	const char *path; /* the folder, for messages */
	int dir; /* the folder itself; stays the caller's, and outlives the journal */
	bool lasting; /* it outlives the machine: sync */
	uv_loop_t *
		loop; /* for the work pool and the next try; NULL: all is done at once, and only with the next record */
	const struct journal_ops *ops; /* NULL: the system's */
	/* A line for the daemon's log. */
	void (*log)(void *data, const char *line);
	void *log_data;
};

/* A journal that is kept in memory only. */
struct journal *journal_new(void);
/* One that is kept in the file `journal` of a folder, with what is there already. Never fails. */
struct journal *journal_open(const struct journal_settings *settings);
/*
 * One that is kept in a memfd (jobs/journal_memory.h), with what is there already: it outlives this process as long as somebody else holds @fd, which stays
 * the caller's. NULL: it is not such a memory.
 */
struct journal *journal_share(int fd);
/* Nothing more is put. The loop ends when what is under way is done. */
void journal_stop(struct journal *journal);
/* If it was opened: after journal_stop() and the end of the loop. */
void journal_free(struct journal *journal);
/* True if nothing is in it. */
bool journal_is_empty(const struct journal *journal);

/* Borrowed until the key is put or dropped; NULL: nothing is there. */
const char *journal_get(const struct journal *journal, const char *key);
void journal_put(struct journal *journal, const char *key, const char *value);
/* Does nothing if nothing is there. */
void journal_drop(struct journal *journal, const char *key);
/* Calls @each for every key that begins with @prefix, which has a '/', in no order. @each may put or drop that key, and no other. */
void journal_each(struct journal *journal, const char *prefix,
		  void (*each)(void *data, const char *key, const char *value), void *data);

#endif
