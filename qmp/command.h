/*
 * One function for each QMP command that is used. Every one answers through its callback exactly once, from the loop, as
 * qmp_link_send() does; @error is NULL on success. Strings in arguments are copied before the function returns, those in answers are
 * borrowed until the callback returns.
 */
#ifndef QMP_COMMAND_H
#define QMP_COMMAND_H

#include <stdbool.h>
#include "qmp/link.h"

typedef void (*qmp_done_fn)(void *data, const struct qmp_error *error);

struct qmp_stream {
	const char *job; /* the new job's id */
	const char *node; /* the active image's node name */
	const char *base_node; /* what stays below it, or NULL: nothing */
	const char *
		backing_file; /* how the header names the base; NULL: as QEMU likes, which is by an absolute path */
	const char *on_error; /* report, ignore, enospc, stop; or NULL: QEMU's default (report) */
	int64_t speed; /* bytes a second, 0: no limit */
};

/* Starts the job with auto-finalize=false and auto-dismiss=false (docs/architecture.md tells why). */
void qmp_block_stream(struct qmp_link *link, const struct qmp_stream *stream, qmp_done_fn done,
		      void *data);

/* The command as it would be sent; malloc'ed. */
char *qmp_block_stream_text(const struct qmp_stream *stream);

struct qmp_commit {
	const char *job; /* the new job's id */
	const char *node; /* the active image's node name */
	const char *top_node; /* NULL: the active image, and the job becomes ready */
	const char *base_node;
	const char *
		backing_file; /* how the header of the image above top names the base; NULL: as QEMU likes */
	const char *on_error; /* or NULL */
	int64_t speed; /* bytes a second, 0: no limit */
};

/* Starts the job with auto-dismiss=false. */
void qmp_block_commit(struct qmp_link *link, const struct qmp_commit *commit, qmp_done_fn done,
		      void *data);
char *qmp_block_commit_text(const struct qmp_commit *commit);

struct qmp_mirror {
	const char *job; /* the new job's id */
	const char *node; /* the active image's node name */
	const char *target; /* path of the copy */
	const char *format; /* of the copy */
	bool shallow; /* only the active image is copied; the copy has the same backing image */
	bool reuse; /* the target is there, else QEMU makes it */
	const char *copy_mode; /* background, write-blocking; or NULL */
	const char *on_error; /* for source and target; or NULL */
	int64_t speed; /* bytes a second, 0: no limit */
	int64_t granularity, buffer_size; /* bytes; 0: as QEMU likes */
};

/* Starts the job with auto-dismiss=false. */
void qmp_drive_mirror(struct qmp_link *link, const struct qmp_mirror *mirror, qmp_done_fn done,
		      void *data);
char *qmp_drive_mirror_text(const struct qmp_mirror *mirror);

struct qmp_backup {
	const char *job; /* the new job's id */
	const char *node; /* the active image's node name */
	const char *target; /* path of the backup, which is there */
	const char *format; /* of the backup */
	const char *target_node; /* the name of its node while the job is there */
	const char *sync; /* full, top, none, incremental, bitmap */
	const char *bitmap; /* for the last two; or NULL */
	const char *on_error; /* for source and target; or NULL */
	int64_t speed; /* bytes a second, 0: no limit */
};

/* Starts the job with auto-finalize=false and auto-dismiss=false. A bitmap is left as it is by sync=bitmap. */
void qmp_drive_backup(struct qmp_link *link, const struct qmp_backup *backup, qmp_done_fn done,
		      void *data);
char *qmp_drive_backup_text(const struct qmp_backup *backup);

/*
 * Finds out whether QEMU would take the bitmap, and changes nothing: @error is what it has against it. drive-backup would have made the
 * target by the time that it looks.
 */
void qmp_backup_probe(struct qmp_link *link, const struct qmp_backup *backup, qmp_done_fn done,
		      void *data);

/* A job that is ready: the disk goes over to the other image. */
void qmp_job_complete(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
/* A job that is ready: it ends, and the disk stays on its image. */
void qmp_job_end_softly(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);

void qmp_job_pause(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
void qmp_job_resume(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
void qmp_job_finalize(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
void qmp_job_dismiss(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
/* Forced: whatever state the job is in. The reply means accepted; the job ends later. */
void qmp_job_cancel(struct qmp_link *link, const char *job, qmp_done_fn done, void *data);
void qmp_job_set_speed(struct qmp_link *link, const char *job, int64_t speed, qmp_done_fn done,
		       void *data);
/* A node for the file @path, opened for reading and without a lock. A node's name has at most 31 bytes. */
void qmp_blockdev_add_file(struct qmp_link *link, const char *node, const char *path,
			   qmp_done_fn done, void *data);
void qmp_blockdev_del(struct qmp_link *link, const char *node, qmp_done_fn done, void *data);
void qmp_quit(struct qmp_link *link, qmp_done_fn done, void *data);

/* One job as query-block-jobs shows it, with what query-jobs adds. */
struct qmp_job_info {
	const char *id;
	const char *type; /* stream, commit, mirror, backup, ... */
	const char *
		status; /* created, running, paused, ready, standby, waiting, pending, aborting, concluded, null */
	const char *io_status; /* ok, failed, nospace; or NULL */
	const char *error; /* why it failed, or NULL */
	int64_t offset, length, speed;
	bool paused, ready;
	bool auto_finalize, auto_dismiss;
};

typedef void (*qmp_jobs_fn)(void *data, const struct qmp_error *error,
			    const struct qmp_job_info *jobs, size_t count);
/* query-block-jobs: every block job, live or concluded and not dismissed. One round trip. */
void qmp_query_block_jobs(struct qmp_link *link, qmp_jobs_fn done, void *data);

typedef void (*qmp_text_fn)(void *data, const struct qmp_error *error, const char *text);
/* query-status: the run state ("running", "paused", "prelaunch", ...). */
void qmp_query_run_state(struct qmp_link *link, qmp_text_fn done, void *data);

#endif
