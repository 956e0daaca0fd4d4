/*
 * Images made by QEMU; see make_image.h. The file is made by blockdev-create, which is a job: it is accepted, ends (an event tells), says
 * in query-jobs how it went, and is dismissed.
 *
 * The format is put into it by qemu-img, if the file can be seen from here. blockdev-create could do that, too, but while it opens the
 * new image, query-named-block-nodes, which any client of any monitor may send, makes QEMU abort (7.2: qcow2_get_specific_info()). So
 * it does that only for a QEMU that is elsewhere, and no listing of ours is sent meanwhile.
 */
#include "jobs/make_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/program.h"

/* No id of a disk's job begins so, whatever the disk is called: those begin with JOB_ID_PREFIX. */
#define CREATE_PREFIX "blockjobfs.create-"

struct making {
	struct domain *domain;
	uint64_t number; /* by which replies find it */
	struct qmp_create image; /* its strings are ours */
	time_t since_s;
	bool file_made; /* the first step is done */
	bool by_qemu; /* the format, too */
	bool concluded; /* QEMU has said so, and is being asked how it went */
	bool told; /* the caller has been told that it took too long: what comes of it is to be taken away */
	int code; /* why it failed ... */
	char *reason; /* ... while the file is being taken away */
	uv_timer_t timer;
	make_image_fn made;
	void *data;
	struct making *prev, *next;
};

static void timer_closed(uv_handle_t *handle)
{
	struct making *making = handle->data;

	free((char *)making->image.job);
	free((char *)making->image.path);
	free((char *)making->image.format);
	free((char *)making->image.backing);
	free((char *)making->image.backing_format);
	free(making->reason);
	free(making);
}

static void tell(struct making *making, const struct qmp_error *error)
{
	if (!making->told)
		making->made(making->data, error);
	making->told = true;
}

static void taken_away(void *data)
{
	struct making *making = data;
	struct qmp_error error = { making->code, "", making->reason };

	tell(making, &error);
	uv_close((uv_handle_t *)&making->timer, timer_closed);
}

enum undo_kind {
	UNDO_ALL,
	UNDO_EMPTY, /* if it is empty yet */
	UNDO_UNUSED, /* if nobody has it open */
};

static void undo_start(struct domain *domain, const char *path, time_t since_s, enum undo_kind kind,
		       void (*removed)(void *data), void *data);

/* It is over. The file goes if it was made in vain. */
static void end(struct making *making, const struct qmp_error *error)
{
	struct domain *domain = making->domain;

	DL_DELETE(domain->link->makings, making);
	uv_timer_stop(&making->timer);
	if (making->by_qemu && domain->link->sync_again)
		domain_pump(domain); /* it has waited for this */
	if (!error && !making->told) {
		tell(making, NULL);
		uv_close((uv_handle_t *)&making->timer, timer_closed);
		return;
	}
	making->code = error ? error->code : -ETIMEDOUT;
	making->reason = strdup(error ? error->text : "");
	undo_start(making->domain, making->image.path, making->since_s,
		   making->file_made ? UNDO_ALL : UNDO_EMPTY, taken_away, making);
}

/* --- replies find it by its number, since it may be gone --- */

struct slip {
	struct domain *domain;
	uint64_t number;
};

static struct slip *slip_new(const struct making *making)
{
	struct slip *slip = malloc(sizeof(*slip));

	if (!slip)
		abort();
	*slip = (struct slip){ making->domain, making->number };
	return slip;
}

static struct making *slip_take(void *data)
{
	struct slip slip = *(struct slip *)data;
	struct making *making;

	free(data);
	DL_FOREACH(slip.domain->link->makings, making)
		if (making->number == slip.number)
			return making;
	return NULL;
}

/* --- the steps --- */

static void accepted(void *data, const struct qmp_error *error);

static void next_job_id(struct making *making)
{
	uint64_t number = 0;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = (uint64_t)time(NULL);
	free((char *)making->image.job);
	if (asprintf((char **)&making->image.job, CREATE_PREFIX "%016llx",
		     (unsigned long long)number) < 0)
		abort();
}

static void send_step(struct making *making)
{
	struct qmp_link *qmp = making->domain->link->qmp;

	next_job_id(making);
	making->concluded = false;
	if (making->file_made)
		qmp_create_format(qmp, &making->image, accepted, slip_new(making));
	else
		qmp_create_file(qmp, &making->image, accepted, slip_new(making));
}

static void accepted(void *data, const struct qmp_error *error)
{
	struct making *making = slip_take(data);

	/* One that was not answered may be carried out yet: its event, or the end of the link, ends it. */
	if (making && error && error->code != -ETIMEDOUT)
		end(making, error);
}

/* --- the format --- */

struct opening {
	uv_work_t work;
	struct slip *slip;
	char *path;
	int fd; /* or -errno */
};

/* In the pool. What is not the empty file that QEMU has just made is not touched. */
static void open_it(uv_work_t *work)
{
	struct opening *opening = work->data;
	struct stat status;

	opening->fd = open(opening->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (opening->fd < 0) {
		opening->fd = -errno;
	} else if (fstat(opening->fd, &status) || !S_ISREG(status.st_mode) || status.st_size) {
		close(opening->fd);
		opening->fd = -EEXIST;
	}
}

static void formatted(void *data, const struct program_end *result)
{
	struct making *making = slip_take(data);
	struct qmp_error error = { -EREMOTEIO, "", result->complaint };

	if (!making)
		return;
	if (result->error)
		error = (struct qmp_error){ -EOPNOTSUPP, "",
					    "qemu-img cannot be run: install qemu-utils" };
	end(making, result->error || result->status ? &error : NULL);
}

static void run_qemu_img(struct making *making, int fd)
{
	const struct model *model = making->domain->model;
	const char *program = model->settings.qemu_img;
	char size[24];
	char *arguments[16] = { (char *)(program ? program : "qemu-img"), "create", "-q", "-f",
				(char *)making->image.format };
	int count = 5;

	snprintf(size, sizeof(size), "%" PRId64, making->image.size);
	if (making->image.backing) {
		arguments[count++] = "-u"; /* it is not looked for: it would be beside /dev/fd/3 */
		arguments[count++] = "-b";
		arguments[count++] = (char *)making->image.backing;
		arguments[count++] = "-F";
		arguments[count++] = (char *)making->image.backing_format;
	}
	arguments[count++] = "/dev/fd/3"; /* whatever has become of the path meanwhile */
	arguments[count++] = size;
	program_run_on(model->loop, arguments, fd, formatted, slip_new(making));
}

static void format_by_qemu(struct making *making)
{
	making->by_qemu = true;
	send_step(making);
}

static void opened(uv_work_t *work, int status)
{
	struct opening *opening = work->data;
	struct making *making = slip_take(opening->slip);
	struct qmp_error error = { opening->fd, "", NULL };
	char *text = NULL;

	if (making && opening->fd >= 0) {
		run_qemu_img(making, opening->fd);
	} else if (making && opening->fd == -ENOENT) {
		format_by_qemu(making); /* QEMU has a root folder of its own */
	} else if (making) {
		if (asprintf(&text, "%s, made by QEMU, cannot be written to by blockjobfs: %s",
			     opening->path, strerror(-opening->fd)) < 0)
			abort();
		error.text = text;
		end(making, &error);
	}
	if (opening->fd >= 0)
		close(opening->fd);
	free(text);
	free(opening->path);
	free(opening);
}

static void open_file(struct making *making)
{
	struct opening *opening = calloc(1, sizeof(*opening));

	if (!opening)
		abort();
	opening->slip = slip_new(making);
	opening->path = strdup(making->image.path);
	opening->work.data = opening;
	if (uv_queue_work(making->domain->model->loop, &opening->work, open_it, opened))
		abort(); /* only for a NULL function */
}

/* --- how a job of it went --- */

static void end_known(void *data, const struct qmp_error *error)
{
	struct making *making = slip_take(data);
	bool last;

	if (!making)
		return;
	qmp_job_dismiss(making->domain->link->qmp, making->image.job, NULL, NULL);
	last = making->file_made || !strcmp(making->image.format, "raw");
	making->file_made = making->file_made || !error;
	if (error || making->told || last)
		end(making, error);
	else if (domain_is_remote(making->domain))
		format_by_qemu(making);
	else
		open_file(making);
}

bool make_image_event(struct domain *domain, const struct qmp_event *event)
{
	bool concluded = event->kind == QMP_EVENT_JOB_STATUS_CHANGE && event->status &&
			 !strcmp(event->status, "concluded");
	struct making *making;

	if (strncmp(event->job, CREATE_PREFIX, strlen(CREATE_PREFIX)))
		return false;
	DL_FOREACH(domain->link->makings, making)
		if (!strcmp(making->image.job, event->job))
			break;
	if (!making && concluded) {
		qmp_job_dismiss(domain->link->qmp, event->job, NULL, NULL); /* of another life */
	} else if (making && concluded && !making->concluded) {
		making->concluded = true;
		qmp_query_job_error(domain->link->qmp, making->image.job, end_known,
				    slip_new(making));
	}
	return true;
}

void make_image_connected(struct domain *domain)
{
	if (qmp_has(domain->link->features, QMP_HAS_BLOCKDEV_CREATE))
		qmp_create_sweep(domain->link->qmp, CREATE_PREFIX);
}

bool make_image_forbids_listing(const struct domain *domain)
{
	const struct making *making;

	DL_FOREACH(domain->link->makings, making)
		if (making->by_qemu && !qmp_has(domain->link->features, QMP_HAS_QUERY_STATUS))
			return true;
	return false;
}

static void took_too_long(uv_timer_t *timer)
{
	static const struct qmp_error error = { -ETIMEDOUT, "",
						"QEMU has not made the image in time" };

	tell(timer->data, &error);
}

void make_image(struct domain *domain, const struct qmp_create *image, make_image_fn made,
		void *data)
{
	struct making *making = calloc(1, sizeof(*making));
	static uint64_t last_number;

	if (!making)
		abort();
	making->domain = domain;
	making->number = ++last_number;
	making->image = (struct qmp_create){
		.path = strdup(image->path),
		.format = strdup(image->format),
		.size = image->size,
		.backing = image->backing ? strdup(image->backing) : NULL,
		.backing_format = image->backing_format ? strdup(image->backing_format) : NULL,
	};
	making->since_s = time(NULL);
	making->made = made;
	making->data = data;
	uv_timer_init(domain->model->loop, &making->timer);
	making->timer.data = making;
	uv_timer_start(&making->timer, took_too_long, domain->model->settings.timeout_ms, 0);
	DL_APPEND(domain->link->makings, making);
	send_step(making);
}

void make_image_link_lost(struct domain *domain)
{
	static const struct qmp_error error = { -EHOSTDOWN, "", "the connection to QEMU was lost" };
	struct making *making, *next;

	DL_FOREACH_SAFE(domain->link->makings, making, next)
		end(making, &error);
}

/* --- taking away --- */

enum {
	LOOK_AGAIN_MS = 10,
	LOOKS_MAX = 100,
};

struct undo {
	uv_work_t work;
	char *path;
	time_t since_s;
	enum undo_kind kind;
	bool remote;
	void (*removed)(void *data);
	void *data;
};

/* QEMU locks bytes of each image that it has open, 100 and up: raw_apply_lock_bytes() in block/file-posix.c. */
static bool is_open_somewhere(const char *path)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 200
	};
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	bool locked = fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return locked;
}

/*
 * In the pool. What the dead server has started may be at work on the file yet: qemu-img goes by itself, in a moment. A lock's end tells nobody
 * but who waits for it without limit, and a QEMU may have the file for ever.
 */
static bool is_let_go(const char *path)
{
	const struct timespec pause = { .tv_nsec = LOOK_AGAIN_MS * 1000000 };

	for (int i = 0; is_open_somewhere(path); i++) {
		if (i == LOOKS_MAX)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* In the pool. */
static void undo(uv_work_t *work)
{
	struct undo *undo = work->data;
	struct stat status;

	if (undo->remote || lstat(undo->path, &status) || !S_ISREG(status.st_mode) ||
	    status.st_ctim.tv_sec < undo->since_s || (undo->kind == UNDO_EMPTY && status.st_size) ||
	    (undo->kind == UNDO_UNUSED && !is_let_go(undo->path)))
		return;
	unlink(undo->path);
}

static void undone(uv_work_t *work, int status)
{
	struct undo *undo = work->data;

	if (undo->removed)
		undo->removed(undo->data);
	free(undo->path);
	free(undo);
}

static void undo_start(struct domain *domain, const char *path, time_t since_s, enum undo_kind kind,
		       void (*removed)(void *data), void *data)
{
	struct undo *job = malloc(sizeof(*job));

	if (!job)
		abort();
	*job = (struct undo){ .remote = domain_is_remote(domain),
			      .path = strdup(path),
			      .since_s = since_s,
			      .kind = kind,
			      .removed = removed,
			      .data = data };
	job->work.data = job;
	if (uv_queue_work(domain->model->loop, &job->work, undo, undone))
		abort(); /* only for a NULL function */
}

void make_image_undo(struct domain *domain, const char *path, time_t since_s,
		     void (*removed)(void *data), void *data)
{
	undo_start(domain, path, since_s, UNDO_ALL, removed, data);
}

void make_image_take_away(struct domain *domain, const char *path, time_t since_s,
			  void (*removed)(void *data), void *data)
{
	undo_start(domain, path, since_s, UNDO_UNUSED, removed, data);
}
