/*
 * The FUSE session in the loop; see fs/session.h.
 */
#include "fs/session.h"

#include <assert.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "fs/io.h"
#include "fs/kept.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/notify.h"
#include "fs/ops.h"

enum {
	BATCH = 64, /* requests served a wake-up: monitors and timers get their turn in between */
	MESSAGE_BYTES_MIN = 1 << 20, /* libfuse's buffer is larger than that */
	NOTIFY_RESEND = 7, /* FUSE_NOTIFY_RESEND of kernel 6.9 and later */
};

static const uint64_t sent_again = UINT64_C(1)
				   << 63; /* FUSE_UNIQUE_RESEND: in the number of what is */

struct session {
	struct fuse_session *fuse;
	struct face *face;
	const struct session_handlers *handlers;
	void *data;
	uv_loop_t *loop;
	uv_poll_t poll;
	uv_prepare_t prepare;
	uv_timer_t patience; /* the kernel's, where it has some */
	struct fuse_buf buf;
	char *mountpoint; /* absolute; NULL: not mounted */
	int fd; /* of the mount, if libfuse has not made it; -1 */
	bool serving, told_ready;
	bool pauses; /* monitors are to have their turn before the next request */
};

/* --- what libfuse reads and writes --- */

static ssize_t custom_writev(int fd, struct iovec *iov, int count, void *data)
{
	const struct face *face = data;
	ssize_t written = 0;

	if (face->replaying) {
		/* The kernel has had this answer in an earlier life. */
		for (int i = 0; i < count; i++)
			written += (ssize_t)iov[i].iov_len;
		return written;
	}
	do
		written = writev(fd, iov, count);
	while (written < 0 && errno == EINTR);
	return written;
}

/* The other side has gone: as if unmounted. */
static ssize_t custom_read(int fd, void *bytes, size_t size, void *data)
{
	const struct face *face = data;
	void *kept = kept_message(face->files.kept, size);
	ssize_t got = read(fd, kept ? kept : bytes, size);

	if (kept && got > 0)
		memcpy(bytes, kept, (size_t)got);
	if (got == 0 || (got < 0 && errno == ECONNRESET)) {
		errno = ENODEV;
		return -1;
	}
	return got;
}

static const struct fuse_custom_io custom_io = { .writev = custom_writev, .read = custom_read };

/* --- serving --- */

static void stop_serving(struct session *session)
{
	if (!session->serving)
		return;
	session->serving = false;
	uv_close((uv_handle_t *)&session->poll, NULL);
	uv_close((uv_handle_t *)&session->prepare, NULL);
	uv_close((uv_handle_t *)&session->patience, NULL);
}

/* The word of `metrics.prom` for a request that is answered at once; NULL: reads and writes count themselves (fs/reply.c). */
static const char *kind_of(const struct fuse_in_header *header)
{
	switch (header->opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
		return NULL;
	case FUSE_LOOKUP:
		return "lookup";
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return "forget";
	case FUSE_GETATTR:
		return "getattr";
	case FUSE_SETATTR:
		return "setattr";
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return "open";
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		return "readdir";
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return "release";
	case FUSE_POLL:
		return "poll";
	case FUSE_INTERRUPT:
		return "interrupt";
	default:
		return "other";
	}
}

/* What the rows and libfuse do not see of a message. */
static void look_at(struct face *face, const struct fuse_buf *buf)
{
	const struct fuse_in_header *header = buf->mem;
	const struct fuse_poll_in *poll = (const struct fuse_poll_in *)(header + 1);
	bool polls = header->opcode == FUSE_POLL && buf->size >= sizeof(*header) + sizeof(*poll);

	face->request = (struct request){
		.unique = header->unique,
		.number = header->unique & ~sent_again,
		.again = header->unique & sent_again,
		.poll = polls && poll->flags & FUSE_POLL_SCHEDULE_NOTIFY ? poll->kh : 0,
	};
	if (header->opcode == FUSE_INIT)
		kept_set_init(face->files.kept, buf->mem, buf->size);
}

/* It always has one more, and nobody waits for it: an answer of QEMU that came meanwhile goes first. */
static bool is_from_toucher(const struct session *session, const struct fuse_in_header *header)
{
	const struct notify *notify = session->face->notify;

	return notify && notify_is_toucher(notify, (pid_t)header->pid, false);
}

/* Serves one request. Returns 0, or -errno: there is none, or there will be none any more. */
static int serve_one(struct session *session)
{
	int got = fuse_session_receive_buf(session->fuse, &session->buf);
	const char *kind;
	uint64_t began;

	if (got == -EINTR)
		return 0;
	if (got <= 0)
		return got ? got : -ENODEV;
	/* libfuse takes names from the message as they are: never read on in an older message. */
	if (session->buf.size < MESSAGE_BYTES_MIN)
		((char *)session->buf.mem)[session->buf.size] = 0;
	look_at(session->face, &session->buf);
	kind = kind_of(session->buf.mem);
	session->pauses = is_from_toucher(session, session->buf.mem);
	began = uv_hrtime();
	fuse_session_process_buf(session->fuse, &session->buf);
	if (kind)
		metrics_request(&session->face->model->metrics, kind, uv_hrtime() - began);
	return 0;
}

/* Before the next request is served: what that changes is to be told to those who watch. */
static void tell_ready(struct session *session)
{
	if (!session->face->started || session->told_ready)
		return;
	session->told_ready = true;
	session->handlers->ready(session->data);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct session *session = poll->data;
	int error = 0;

	session->pauses = false;
	for (int i = 0; i < BATCH && !error && !session->pauses; i++) {
		error = serve_one(session);
		tell_ready(session);
	}
	if (!error || error == -EAGAIN)
		return;
	if (error != -ENODEV)
		log_line("reading from the kernel: %s", strerror(-error));
	if (session->serving) {
		stop_serving(session);
		session->handlers->ended(session->data);
	}
}

/* Attributes only: dropping entries takes a lock that somebody who waits for us may hold. */
static void forget_folders(struct session *session)
{
	struct face *face = session->face;

	for (size_t i = 0; i < face->stale_count; i++)
		fuse_lowlevel_notify_inval_inode(session->fuse, face->stale[i], -1, 0);
	face->stale_count = 0;
}

/* A message that answers nothing: fuse_lowlevel_notify_poll() has no word for a handle of an earlier life. */
static void wake(void *data, uint64_t poll)
{
	const struct session *session = data;
	struct fuse_notify_poll_wakeup_out woken = { .kh = poll };
	struct fuse_out_header header = { .len = sizeof(header) + sizeof(woken),
					  .error = FUSE_NOTIFY_POLL };
	struct iovec iov[] = { { &header, sizeof(header) }, { &woken, sizeof(woken) } };

	/* That nobody waits any more is no error. */
	(void)!writev(fuse_session_fd(session->fuse), iov, 2);
}

/* Runs before the loop sleeps: no request is being served, and whatever has changed is told. */
static void before_sleep(uv_prepare_t *prepare)
{
	struct session *session = prepare->data;

	if (!session->face->changed)
		return;
	forget_folders(session);
	ops_wake_pollers(session->face, wake, session);
}

static void on_patience(uv_timer_t *timer)
{
	struct session *session = timer->data;

	io_expire_waits(session->face);
}

static void start_serving(struct session *session, int fd)
{
	unsigned limit = session->face->wait_limit_ms;

	uv_poll_init(session->loop, &session->poll, fd); /* makes it non-blocking, too */
	session->poll.data = session;
	uv_poll_start(&session->poll, UV_READABLE, on_readable);
	uv_prepare_init(session->loop, &session->prepare);
	session->prepare.data = session;
	uv_prepare_start(&session->prepare, before_sleep);
	uv_timer_init(session->loop, &session->patience);
	session->patience.data = session;
	if (limit)
		uv_timer_start(&session->patience, on_patience, limit / 8 + 1, limit / 8 + 1);
	session->serving = true;
}

/* --- life --- */

struct session *session_new(uv_loop_t *loop, struct face *face, const struct fuse_args *args,
			    const struct session_handlers *handlers, void *data, char **error)
{
	struct session *session = calloc(1, sizeof(*session));
	struct fuse_args copy = FUSE_ARGS_INIT(0, NULL);
	const char *why;

	if (!session)
		abort();
	session->loop = loop;
	session->face = face;
	session->handlers = handlers;
	session->data = data;
	session->fd = -1;
	for (int i = 0; i < args->argc; i++)
		fuse_opt_add_arg(&copy, args->argv[i]);
	log_hold();
	session->fuse = fuse_session_new(&copy, &face_ops, sizeof(face_ops), face);
	why = log_held();
	fuse_opt_free_args(&copy);
	if (session->fuse)
		return session;
	*error = strdup(why ? why : "libfuse does not take the options");
	free(session);
	return NULL;
}

int session_mount(struct session *session, const char *mountpoint, char **error)
{
	struct mount_words words;
	const char *why;
	int failed;

	session->face->started = false;
	log_hold();
	mount_words_begin(&words);
	failed = fuse_session_mount(session->fuse, mountpoint);
	mount_words_end(&words);
	why = log_held();
	if (failed) {
		if (!why)
			why = *words.text ? words.text : "libfuse does not say why";
		if (asprintf(error, "cannot mount on %s: %s", mountpoint, why) < 0)
			abort();
		return -1;
	}
	session->mountpoint = strdup(mountpoint);
	/* From now on what is read goes through us. */
	if (fuse_session_custom_io(session->fuse, &custom_io, fuse_session_fd(session->fuse)))
		abort();
	start_serving(session, fuse_session_fd(session->fuse));
	return 0;
}

int session_fd(const struct session *session)
{
	return fuse_session_fd(session->fuse);
}

/* --- the mount of an earlier life --- */

static void answer_eio(void *data, uint64_t unique)
{
	const struct session *session = data;
	struct fuse_out_header header = { .len = sizeof(header), .error = -EIO, .unique = unique };

	/* One that was answered after all is not known any more: ENOENT. */
	(void)!write(session->fd, &header, sizeof(header));
}

static void ask_again(struct session *session, bool resend)
{
	struct fuse_out_header header = { .len = sizeof(header), .error = NOTIFY_RESEND };
	struct kept *kept = session->face->files.kept;

	if (!resend || write(session->fd, &header, sizeof(header)) != sizeof(header))
		kept_each_waiting(kept, answer_eio, session);
}

int session_take_over(struct session *session, int fd, const char *mountpoint, bool resend)
{
	struct face *face = session->face;
	size_t length;
	const void *init = kept_init(face->files.kept, &length);
	struct fuse_buf buf = { .size = length,
				.mem = malloc(length + 1) }; /* INIT may not have come yet */
	int status = fuse_session_custom_io(session->fuse, &custom_io, fd);

	if (!buf.mem)
		abort();
	if (status == 0) {
		if (init) {
			memcpy(buf.mem, init, length);
			face->replaying = true;
			fuse_session_process_buf(session->fuse, &buf);
			face->replaying = false;
			session->told_ready = true;
		}
		session->fd = fd;
		session->mountpoint = strdup(mountpoint);
		start_serving(session, fd);
		ask_again(session, resend);
	}
	free(buf.mem);
	return status;
}

int session_serve(struct session *session, int fd)
{
	int status = fuse_session_custom_io(session->fuse, &custom_io, fd);

	if (status == 0)
		start_serving(session, fd);
	return status;
}

void session_end(struct session *session)
{
	stop_serving(session);
	if (session->mountpoint && session->fd >= 0)
		mount_undo(session->mountpoint, session->fd);
	else if (session->mountpoint)
		fuse_session_unmount(session->fuse);
	free(session->mountpoint);
	session->mountpoint = NULL;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	assert(!session->serving && !session->mountpoint);
	fuse_session_destroy(session->fuse);
	free(session->buf.mem);
	free(session);
}
