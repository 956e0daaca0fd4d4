/*
 * What QEMU says most often, read where it lies, without building a tree of it: the answer to query-block-jobs, since figures of a thousand jobs are asked
 * for at once by whoever reads `jobs`; and the events of jobs, which come before the answer that somebody waits for. Building trees was most of that work. Only what QEMU writes itself is read so; of anything else,
 * however right it may be as JSON, these functions say that they cannot, and it is read as all other messages are (value.h).
 */
#ifndef QMP_BRIEF_H
#define QMP_BRIEF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp_event;
struct qmp_job_info;

enum {
	BRIEF_BYTES_MAX = 4096, /* of a line */
	BRIEF_JOBS_MAX = 16,
};

/*
 * If @bytes begin with a whole line that may be the answer to command @id (0: to one without a number), copies what stands there as "return" to @text, which has
 * room for BRIEF_BYTES_MAX, and returns how many bytes that line takes; else 0. What was copied may still be anything: the line is
 * JSON if what was copied is.
 */
size_t brief_answer(const char *bytes, size_t length, uint64_t id, char *text);

/*
 * Reads a list of jobs. False: it is none, or none of this kind. Changes @text, which the strings of @jobs are in. @jobs has room for
 * BRIEF_JOBS_MAX.
 */
bool brief_jobs(char *text, struct qmp_job_info *jobs, size_t *count);

/*
 * If @bytes begin with a whole line that is an event of a job, fills in @event and returns how many bytes that line takes; else 0. Its strings are in
 * @text, which has room for BRIEF_BYTES_MAX.
 */
size_t brief_event(const char *bytes, size_t length, char *text, struct qmp_event *event);

#endif
