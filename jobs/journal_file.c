/*
 * The journal's file. A record is appended with one write(2). The file is written anew, beside the old one and then in its place, when
 * less than half of it counts, when a record could not be written, and at the start if it was not there or is not fit. That is work
 * for the pool; what is put meanwhile goes to both files.
 */
#include "jobs/journal_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/journal_format.h"
#include "jobs/text.h"

enum {
	SPARE_BYTES = 128 << 10, /* so much more than what counts may be in the file */
	FILE_BYTES_MAX = 256 << 20, /* a larger one is none of ours */
	RETRY_MS = 1000,
	SYNC_AFTER_MS =
		20, /* what is written is there for the next life at once, and on its way to the disk then: whoever has caused it comes first */
	ASIDE_MAX =
		20, /* files that were set aside are not collected for ever: the last one is overwritten */
};

#define NAME	 "journal"
#define NEW_NAME "journal.new"

/* The file being written anew, by the pool or at once. */
struct rewrite {
	uv_work_t work;
	struct journal_file *file; /* NULL: nobody waits for it any more */
	const struct journal_ops *ops;
	bool lasting;
	int dir, fd;
	struct text *bytes; /* all of it; the pool's until it is done */
	struct text *since; /* what was put meanwhile */
	int error;
};

struct sync {
	uv_work_t work;
	struct journal_file *file;
	const struct journal_ops *ops;
	int fd, dir;
	int error;
};

struct journal_file {
	struct journal_settings settings;
	struct journal_table table;
	const struct journal_ops *ops;
	char *path;
	int fd; /* -1: there is none */
	off_t size;
	off_t crowded; /* the last try to make it shorter failed at this size: not again at once */
	struct text *line; /* the record being written */
	bool stale; /* a record is missing in it, or half there */
	bool closed; /* what is there can neither be read nor moved: nothing is written */
	bool told; /* the log says that it cannot be written */
	bool stopping;
	struct rewrite *rewrite;
	struct sync *sync;
	bool sync_again;
	uv_timer_t *retry, *soon; /* NULL: there is no loop, or it ends */
};

/* --- the system's calls --- */

static ssize_t system_write(int fd, const void *bytes, size_t count)
{
	return write(fd, bytes, count);
}

static int system_truncate(int fd, off_t length)
{
	return ftruncate(fd, length);
}

static int system_sync(int fd)
{
	return fdatasync(fd);
}

static int system_rename(int dir, const char *from, const char *to)
{
	return renameat(dir, from, dir, to);
}

static const struct journal_ops system_ops = { system_write, system_truncate, system_sync,
					       system_rename };

/* 0 or -errno. */
static int write_all(const struct journal_ops *ops, int fd, const char *bytes, size_t length)
{
	while (length) {
		ssize_t count = ops->write(fd, bytes, length);

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count == 0)
			return -EIO;
		if (count > 0) {
			bytes += count;
			length -= (size_t)count;
		}
	}
	return 0;
}

/* --- what the log is told --- */

__attribute__((format(printf, 2, 3))) static void tell(const struct journal_file *file,
						       const char *format, ...)
{
	struct text *line = text_new();
	va_list arguments;

	text_printf(line, "the journal %s ", file->path);
	va_start(arguments, format);
	text_vprintf(line, format, arguments);
	va_end(arguments);
	if (file->settings.log)
		file->settings.log(file->settings.log_data, text_bytes(line));
	text_free(line);
}

static void try_again_later(struct journal_file *file);

static void cannot_write(struct journal_file *file, int error)
{
	file->stale = true;
	if (!file->told)
		tell(file,
		     "cannot be written: %s; until it can, what is new is in memory only and "
		     "would be lost with the daemon",
		     strerror(-error));
	file->told = true;
	try_again_later(file);
}

/* --- syncing --- */

static void sync_work(uv_work_t *work)
{
	struct sync *sync = work->data;

	if (sync->ops->sync(sync->fd) < 0)
		sync->error = -errno;
	if (sync->dir >= 0)
		fsync(sync->dir); /* not every file system can; then it needs none */
}

static void sync_file(struct journal_file *file, bool folder);

static void sync_done(uv_work_t *work, int status)
{
	struct sync *sync = work->data;
	struct journal_file *file = sync->file;

	close(sync->fd);
	if (sync->dir >= 0)
		close(sync->dir);
	if (file) {
		file->sync = NULL;
		/* What the kernel could not write it has dropped: only all anew will do. */
		if (sync->error)
			cannot_write(file, sync->error);
		else if (file->sync_again)
			sync_file(file, true);
	}
	free(sync);
}

/* What has been written shall reach the disk. At most one is under way; what is written meanwhile takes the next. */
static void sync_file(struct journal_file *file, bool folder)
{
	struct sync *sync;

	if (!file->settings.lasting || file->fd < 0)
		return;
	if (file->sync) {
		file->sync_again = true;
		return;
	}
	file->sync_again = false;
	sync = calloc(1, sizeof(*sync));
	if (!sync)
		abort();
	sync->work.data = sync;
	sync->file = file;
	sync->ops = file->ops;
	sync->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	sync->dir = folder ? fcntl(file->settings.dir, F_DUPFD_CLOEXEC, 0) : -1;
	file->sync = sync;
	if (!file->settings.loop || file->stopping) {
		sync_work(&sync->work);
		sync_done(&sync->work, 0);
	} else {
		uv_queue_work(file->settings.loop, &sync->work, sync_work, sync_done);
	}
}

static void sync_now(uv_timer_t *timer)
{
	sync_file(timer->data, false);
}

/* A start and what follows from it are several records, and one sync. */
static void sync_soon(struct journal_file *file)
{
	if (!file->soon)
		sync_file(file, false);
	else if (file->settings.lasting && !uv_is_active((uv_handle_t *)file->soon))
		uv_timer_start(file->soon, sync_now, SYNC_AFTER_MS, 0);
}

/* --- writing it anew --- */

static void rewrite_work(uv_work_t *work)
{
	struct rewrite *rewrite = work->data;

	unlinkat(rewrite->dir, NEW_NAME, 0);
	rewrite->fd = openat(rewrite->dir, NEW_NAME,
			     O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (rewrite->fd < 0) {
		rewrite->error = -errno;
		return;
	}
	rewrite->error = write_all(rewrite->ops, rewrite->fd, text_bytes(rewrite->bytes),
				   text_length(rewrite->bytes));
	if (!rewrite->error && rewrite->lasting && rewrite->ops->sync(rewrite->fd) < 0)
		rewrite->error = -errno;
}

/* On the loop: what was put since goes behind it, and it takes the old one's place. */
static void take_over(struct journal_file *file, struct rewrite *rewrite)
{
	size_t length = text_length(rewrite->bytes) + text_length(rewrite->since);

	if (!rewrite->error)
		rewrite->error = write_all(rewrite->ops, rewrite->fd, text_bytes(rewrite->since),
					   text_length(rewrite->since));
	if (!rewrite->error && file->ops->rename(rewrite->dir, NEW_NAME, NAME) < 0)
		rewrite->error = -errno;
	if (rewrite->error) {
		if (rewrite->fd >= 0) {
			close(rewrite->fd);
			unlinkat(rewrite->dir, NEW_NAME, 0);
		}
		file->crowded = file->size;
		/* If nothing is missing in the old one it still serves. */
		if (file->stale || file->fd < 0)
			cannot_write(file, rewrite->error);
		return;
	}
	if (file->fd >= 0)
		close(file->fd);
	file->fd = rewrite->fd;
	file->size = (off_t)length;
	file->crowded = 0;
	file->stale = false;
	if (file->told)
		tell(file, "is written again, and nothing is missing in it");
	file->told = false;
	sync_file(file, true);
}

static void rewrite_done(uv_work_t *work, int status)
{
	struct rewrite *rewrite = work->data;

	if (rewrite->file) {
		rewrite->file->rewrite = NULL;
		take_over(rewrite->file, rewrite);
	} else if (rewrite->fd >= 0) {
		close(rewrite->fd);
	}
	text_free(rewrite->bytes);
	text_free(rewrite->since);
	free(rewrite);
}

static void append_record(void *to, const char *key, const char *value)
{
	journal_format_record(to, key, value);
}

static void rewrite_start(struct journal_file *file, bool at_once)
{
	struct rewrite *rewrite;

	if (file->rewrite || file->closed)
		return;
	rewrite = calloc(1, sizeof(*rewrite));
	if (!rewrite)
		abort();
	rewrite->work.data = rewrite;
	rewrite->file = file;
	rewrite->ops = file->ops;
	rewrite->lasting = file->settings.lasting;
	rewrite->dir = file->settings.dir;
	rewrite->fd = -1;
	rewrite->bytes = text_new();
	text_puts(rewrite->bytes, JOURNAL_HEAD);
	file->table.each(file->table.data, append_record, rewrite->bytes);
	rewrite->since = text_new();
	file->rewrite = rewrite;
	if (at_once || !file->settings.loop) {
		rewrite_work(&rewrite->work);
		rewrite_done(&rewrite->work, 0);
	} else {
		uv_queue_work(file->settings.loop, &rewrite->work, rewrite_work, rewrite_done);
	}
}

/* --- trying again --- */

static void retry(uv_timer_t *timer)
{
	struct journal_file *file = timer->data;

	if (file->stale)
		rewrite_start(file, false);
}

static void try_again_later(struct journal_file *file)
{
	if (file->retry && !file->stopping && !uv_is_active((uv_handle_t *)file->retry))
		uv_timer_start(file->retry, retry, RETRY_MS, 0);
}

static uv_timer_t *timer_new(struct journal_file *file)
{
	uv_timer_t *timer = malloc(sizeof(*timer));

	if (!timer)
		abort();
	uv_timer_init(file->settings.loop, timer);
	timer->data = file;
	return timer;
}

static void timer_closed(uv_handle_t *handle)
{
	free(handle);
}

static void timer_close(uv_timer_t **timer)
{
	if (*timer)
		uv_close((uv_handle_t *)*timer, timer_closed);
	*timer = NULL;
}

/* --- appending --- */

/* 0, or -errno and nothing of it is in the file, or it is not known what is. */
static int append_line(struct journal_file *file)
{
	size_t length = text_length(file->line);
	int error = write_all(file->ops, file->fd, text_bytes(file->line), length);

	if (!error)
		file->size += (off_t)length;
	else
		(void)!file->ops->truncate(
			file->fd, file->size); /* half a record is passed over by the reader, too */
	return error;
}

/* Somebody has removed it: what was written to it would be gone with us. */
static bool is_removed(const struct journal_file *file)
{
	struct stat status;

	return fstat(file->fd, &status) == 0 && !status.st_nlink;
}

void journal_file_append(struct journal_file *file, const char *key, const char *value, size_t live)
{
	int error;

	if (file->closed)
		return;
	text_clear(file->line);
	if (value && strlen(key) + strlen(value) > JOURNAL_RECORD_MAX)
		value = NULL; /* no earlier one must be taken for it */
	journal_format_record(file->line, key, value);
	if (file->rewrite)
		text_append(file->rewrite->since, text_bytes(file->line), text_length(file->line));
	if (!file->stale) {
		error = is_removed(file) ? -ENOENT : append_line(file);
		if (error)
			cannot_write(file, error);
		else
			sync_soon(file);
	}
	if (file->stopping)
		return;
	/* On a loop a timer tries again: not with each record. */
	if ((file->stale && !file->settings.loop) ||
	    (!file->stale && (size_t)file->size > 2 * live + SPARE_BYTES &&
	     file->size > file->crowded + (file->crowded ? SPARE_BYTES : 0)))
		rewrite_start(file, false);
}

/* --- reading --- */

/* Gives it another name, so that a new one can be begun. */
static void set_aside(struct journal_file *file, const char *reason)
{
	char name[32];
	struct stat status;
	int number = 1;

	do
		snprintf(name, sizeof(name), NAME ".aside-%d", number);
	while (fstatat(file->settings.dir, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       number++ < ASIDE_MAX);
	if (file->ops->rename(file->settings.dir, NAME, name) < 0) {
		tell(file, "%s, and cannot be renamed: %s; nothing is kept", reason,
		     strerror(errno));
		file->closed = true;
		return;
	}
	tell(file, "%s: it is %s now, and a new one was begun with what could be read", reason,
	     name);
}

/* Why it is not one of ours; NULL: it is, as far as can be seen from outside. */
static const char *why_foreign(const struct stat *status)
{
	if (!S_ISREG(status->st_mode))
		return "is not a file";
	if (status->st_uid != geteuid())
		return "belongs to another user";
	if (status->st_size > FILE_BYTES_MAX)
		return "is far too long";
	return NULL;
}

/* Returns what could be read, malloc'ed. *@error: 0 or -errno. */
static char *read_bytes(int fd, size_t size, size_t *length, int *error)
{
	char *bytes = malloc(size + 1);

	if (!bytes)
		abort();
	*length = 0;
	*error = 0;
	while (*length < size) {
		ssize_t count = pread(fd, bytes + *length, size - *length, (off_t)*length);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			*error = -errno;
		if (count <= 0)
			break;
		*length += (size_t)count;
	}
	return bytes;
}

/* True if the file can go on as it is. */
static bool read_records(struct journal_file *file, const char *bytes, size_t length, int error)
{
	const size_t head = strlen(JOURNAL_HEAD);
	struct journal_scan scan = { .each = file->table.found, .data = file->table.data };
	char *reason = NULL;

	if (length < head && !memcmp(bytes, JOURNAL_HEAD, length) && !error)
		return false; /* killed when it was begun */
	if (length >= head && !memcmp(bytes, JOURNAL_HEAD, head)) {
		journal_format_scan(&scan, bytes + head, length - head);
		if (error && asprintf(&reason, "cannot be read: %s", strerror(-error)) < 0)
			abort();
		else if (!error && scan.damaged &&
			 asprintf(&reason, "is damaged in %zu bytes", scan.damaged) < 0)
			abort();
	} else if (length > strlen(JOURNAL_MAGIC) &&
		   !memcmp(bytes, JOURNAL_MAGIC, strlen(JOURNAL_MAGIC))) {
		reason = strdup("was written by another version of blockjobfs");
	} else {
		reason = strdup("is none of blockjobfs");
	}
	if (reason) {
		set_aside(file, reason);
		free(reason);
		return false;
	}
	file->size = (off_t)(head + scan.whole);
	return file->size == (off_t)length || file->ops->truncate(file->fd, file->size) == 0;
}

/* True if the file that is there goes on. */
static bool take_what_is_there(struct journal_file *file)
{
	const char *reason = "cannot be looked at";
	struct stat status;
	size_t length;
	char *bytes;
	bool fit;
	int error;

	file->fd = openat(file->settings.dir, NAME,
			  O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (file->fd < 0) {
		if (errno != ENOENT)
			set_aside(file, errno == ELOOP ? "is a symbolic link" : "cannot be opened");
		return false;
	}
	if (fstat(file->fd, &status) < 0 || (reason = why_foreign(&status))) {
		set_aside(file, reason);
		return false;
	}
	bytes = read_bytes(file->fd, (size_t)status.st_size, &length, &error);
	fit = read_records(file, bytes, length, error);
	free(bytes);
	return fit;
}

struct journal_file *journal_file_open(const struct journal_settings *settings,
				       const struct journal_table *table)
{
	struct journal_file *file = calloc(1, sizeof(*file));

	if (!file || asprintf(&file->path, "%s/" NAME, settings->path) < 0)
		abort();
	file->settings = *settings;
	file->table = *table;
	file->ops = settings->ops ? settings->ops : &system_ops;
	file->line = text_new();
	unlinkat(settings->dir, NEW_NAME, 0);
	if (!take_what_is_there(file)) {
		if (file->fd >= 0)
			close(file->fd);
		file->fd = -1;
		file->stale = true;
		rewrite_start(file, true);
	}
	if (settings->loop) {
		file->retry = timer_new(file);
		file->soon = timer_new(file);
	}
	if (file->stale)
		try_again_later(file);
	return file;
}

/* --- the end --- */

void journal_file_stop(struct journal_file *file)
{
	bool due = file->soon && uv_is_active((uv_handle_t *)file->soon);

	file->stopping = true;
	timer_close(&file->retry);
	timer_close(&file->soon);
	if (due)
		sync_file(file, false);
}

void journal_file_free(struct journal_file *file, bool remove)
{
	if (file->stale && !file->rewrite)
		rewrite_start(file, true); /* the last chance */
	if (file->rewrite)
		file->rewrite->file = NULL;
	if (file->sync)
		file->sync->file = NULL;
	if (file->fd >= 0)
		close(file->fd);
	if (remove && !file->closed)
		unlinkat(file->settings.dir, NAME, 0);
	text_free(file->line);
	free(file->path);
	free(file);
}
