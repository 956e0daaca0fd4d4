/*
 * A kernel over a socket pair: requests out, replies in, each asserted to be the only one; see tests/fake/kernel.h.
 */
#include "tests/fake/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_opt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "fs/log.h"
#include "fs/reply.h"
#include "fs/session.h"
#include "tests/fake/kernel_private.h"

enum {
	MESSAGE_MAX = (1 << 20) + 4096,
};

/* --- replies --- */

static void take_notification(struct kernel *kernel, const struct fuse_out_header *header,
			      const char *body)
{
	struct fuse_notify_poll_wakeup_out wakeup;

	MUST(header->error == FUSE_NOTIFY_POLL);
	memcpy(&wakeup, body, sizeof(wakeup));
	MUST(kernel->woken_count < sizeof(kernel->woken) / sizeof(*kernel->woken));
	kernel->woken[kernel->woken_count++] = wakeup.kh;
}

/* libfuse answers an interrupt that came for nothing with EAGAIN: the real kernel takes that, or nothing. */
static bool is_late_interrupt(const struct kernel *kernel, const struct fuse_out_header *header)
{
	return kernel->sent[header->unique] == FUSE_INTERRUPT && header->error == -EAGAIN;
}

static void take_reply(struct kernel *kernel, const char *message, size_t length)
{
	struct fuse_out_header header;
	struct kernel_reply *reply;

	MUST(length >= sizeof(header));
	memcpy(&header, message, sizeof(header));
	MUST(header.len == length);
	message += sizeof(header);
	length -= sizeof(header);
	if (!header.unique) {
		take_notification(kernel, &header, message);
		return;
	}
	MUST(header.unique <= kernel->last_unique);
	if (is_late_interrupt(kernel, &header))
		return;
	MUST(kernel->expects[header.unique]); /* asked, and not answered before */
	kernel->expects[header.unique] = false;
	reply = calloc(1, sizeof(*reply));
	reply->unique = header.unique;
	reply->error = header.error;
	reply->length = length;
	reply->bytes = calloc(1, length + 1);
	memcpy(reply->bytes, message, length);
	kernel->replies[header.unique] = reply;
}

static void drain(struct kernel *kernel)
{
	static char message[MESSAGE_MAX];
	ssize_t got;

	while ((got = recv(kernel->fd, message, sizeof(message), MSG_DONTWAIT)) > 0)
		take_reply(kernel, message, (size_t)got);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	drain(poll->data);
}

const struct kernel_reply *kernel_reply(struct kernel *kernel, uint64_t unique)
{
	return unique <= kernel->last_unique ? kernel->replies[unique] : NULL;
}

struct wish {
	struct kernel *kernel;
	uint64_t unique;
};

static bool has_reply(void *data)
{
	struct wish *wish = data;

	return kernel_reply(wish->kernel, wish->unique);
}

const struct kernel_reply *kernel_wait(struct kernel *kernel, uint64_t unique)
{
	struct wish wish = { kernel, unique };

	MUST(peer_run_until(&kernel->loop, has_reply, &wish, KERNEL_WAIT_MS));
	return kernel_reply(kernel, unique);
}

void kernel_idle(struct kernel *kernel)
{
	peer_run_for(&kernel->loop, 30);
}

size_t kernel_unanswered(const struct kernel *kernel)
{
	size_t count = 0;

	for (uint64_t unique = 1; unique <= kernel->last_unique; unique++)
		count += kernel->expects[unique];
	return count;
}

unsigned kernel_woken(const struct kernel *kernel, uint64_t kh)
{
	unsigned count = 0;

	for (size_t i = 0; i < kernel->woken_count; i++)
		count += kernel->woken[i] == kh;
	return count;
}

/* --- requests --- */

static bool wants_reply(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

static void reserve(struct kernel *kernel, uint64_t unique)
{
	if (unique < kernel->room)
		return;
	kernel->room = unique * 2 + 64;
	kernel->expects = realloc(kernel->expects, kernel->room * sizeof(*kernel->expects));
	kernel->sent = realloc(kernel->sent, kernel->room * sizeof(*kernel->sent));
	kernel->replies = realloc(kernel->replies, kernel->room * sizeof(*kernel->replies));
	MUST(kernel->expects && kernel->sent && kernel->replies);
}

uint64_t kernel_send(struct kernel *kernel, uint32_t opcode, uint64_t node, const void *args,
		     size_t size, const void *more, size_t more_size)
{
	struct fuse_in_header header = {
		.len = (uint32_t)(sizeof(header) + size + more_size),
		.opcode = opcode,
		.unique = ++kernel->last_unique,
		.nodeid = node,
		.uid = kernel->uid,
		.gid = kernel->gid,
		.pid = kernel->pid,
	};
	struct iovec iov[] = {
		{ &header, sizeof(header) },
		{ (void *)args, size },
		{ (void *)more, more_size },
	};

	reserve(kernel, header.unique);
	kernel->sent[header.unique] = opcode;
	kernel->replies[header.unique] = NULL;
	kernel->expects[header.unique] = wants_reply(opcode);
	MUST(writev(kernel->fd, iov, 3) == (ssize_t)header.len);
	return header.unique;
}

void kernel_interrupt(struct kernel *kernel, uint64_t unique)
{
	struct fuse_interrupt_in in = { .unique = unique };

	kernel_send(kernel, FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0);
}

/* --- the whole tree --- */

static void on_ready(void *data)
{
	struct kernel *kernel = data;

	kernel->ready = true;
}

static void on_ended(void *data)
{
	struct kernel *kernel = data;

	kernel->ended = true;
}

static const struct session_handlers handlers = { .ready = on_ready, .ended = on_ended };

static void on_settled(void *data, const char *error)
{
	struct kernel *kernel = data;

	MUST(!error);
	kernel->settled = true;
}

static bool flag_is_set(void *data)
{
	bool *flag = data;

	return *flag;
}

static void start_model(struct kernel *kernel, bool alone)
{
	const struct model_settings settings = { .timeout_ms = 2000 };
	struct source source = { .kind = SOURCE_UNIX, .name = strdup("vm") };
	char *error = NULL;

	if (!alone)
		kernel->peer = peer_new(&kernel->loop);
	source.path = strdup(alone ? "/nowhere/vm.qmp" : peer_path(kernel->peer));
	face_init(&kernel->face);
	kernel->model = model_new(&kernel->loop, &settings, &face_watcher, &kernel->face);
	face_set_model(&kernel->face, kernel->model);
	MUST(model_add(kernel->model, &source, &error) == 0);
	source_clear(&source);
	model_settle(kernel->model, on_settled, kernel);
	MUST(peer_run_until(&kernel->loop, flag_is_set, &kernel->settled, KERNEL_WAIT_MS));
}

static void start_session(struct kernel *kernel)
{
	char name[] = "blockjobfs", *argv[] = { name, NULL }, *error = NULL;
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_init_in init = {
		.major = 7,
		.minor = 38,
		.flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ATOMIC_O_TRUNC,
	};
	int fds[2], room = 4 << 20;

	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
	for (int i = 0; i < 2; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	kernel->fd = fds[0];
	kernel->session =
		session_new(&kernel->loop, &kernel->face, &args, &handlers, kernel, &error);
	MUST(kernel->session);
	MUST(session_serve(kernel->session, fds[1]) == 0);
	uv_poll_init(&kernel->loop, &kernel->poll, kernel->fd);
	kernel->poll.data = kernel;
	uv_poll_start(&kernel->poll, UV_READABLE, on_readable);
	kernel_wait(kernel, kernel_send(kernel, FUSE_INIT, 0, &init, sizeof(init), NULL, 0));
	MUST(kernel->ready);
}

struct kernel *kernel_new(bool alone)
{
	struct kernel *kernel = calloc(1, sizeof(*kernel));

	MUST(kernel);
	log_open();
	kernel->descriptors = peer_open_descriptors();
	uv_loop_init(&kernel->loop);
	start_model(kernel, alone);
	start_session(kernel);
	return kernel;
}

static void on_stopped(void *data)
{
	struct kernel *kernel = data;

	kernel->stopped = true;
}

void kernel_stop_model(struct kernel *kernel)
{
	if (!kernel->stopped) {
		model_stop(kernel->model, on_stopped, kernel);
		MUST(peer_run_until(&kernel->loop, flag_is_set, &kernel->stopped, KERNEL_WAIT_MS));
	}
}

static void free_replies(struct kernel *kernel)
{
	for (uint64_t unique = 1; unique <= kernel->last_unique; unique++) {
		if (kernel->replies[unique])
			free(kernel->replies[unique]->bytes);
		free(kernel->replies[unique]);
	}
	free(kernel->replies);
	free(kernel->expects);
	free(kernel->sent);
}

void kernel_free(struct kernel *kernel)
{
	kernel_stop_model(kernel);
	kernel_idle(kernel);
	drain(kernel);
	MUST(kernel_unanswered(kernel) == 0);
	MUST(reply_pending() == 0);
	session_end(kernel->session);
	uv_close((uv_handle_t *)&kernel->poll, NULL);
	if (kernel->peer)
		peer_free(kernel->peer);
	MUST(peer_run_empty(&kernel->loop, KERNEL_WAIT_MS));
	face_clear(&kernel->face);
	session_free(kernel->session);
	model_free(kernel->model);
	close(kernel->fd);
	MUST(uv_loop_close(&kernel->loop) == 0);
	MUST(peer_open_descriptors() == kernel->descriptors);
	free_replies(kernel);
	free(kernel);
}

struct face *kernel_face(struct kernel *kernel)
{
	return &kernel->face;
}

struct peer *kernel_peer(struct kernel *kernel)
{
	return kernel->peer;
}

uv_loop_t *kernel_loop(struct kernel *kernel)
{
	return &kernel->loop;
}

void kernel_set_user(struct kernel *kernel, uint32_t uid, uint32_t gid, uint32_t pid)
{
	kernel->uid = uid;
	kernel->gid = gid;
	kernel->pid = pid;
}
