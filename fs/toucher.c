/*
 * The toucher's handle in the daemon; see fs/toucher.h. What the process does is in fs/toucher_main.c.
 */
#include "fs/toucher.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "jobs/text.h"

struct toucher {
	uv_process_t process;
	uv_pipe_t pipe;
	struct text *orders; /* that are not sent yet */
	char answers[256];
	unsigned handles;
	bool silent;
	const struct toucher_handlers *handlers;
	void *data;
};

static void handle_closed(uv_handle_t *handle)
{
	struct toucher *toucher = handle->data;

	if (--toucher->handles)
		return;
	text_free(toucher->orders);
	free(toucher);
}

static void close_handle(void *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

static void exited(uv_process_t *process, int64_t status, int signal)
{
	struct toucher *toucher = process->data;

	close_handle(&toucher->pipe);
	if (!toucher->silent)
		toucher->handlers->died(toucher->data, toucher);
	close_handle(&toucher->process);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
	struct toucher *toucher = handle->data;

	*buffer = uv_buf_init(toucher->answers, sizeof(toucher->answers));
}

static void got_answers(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
	struct toucher *toucher = stream->data;

	if (length < 0)
		uv_read_stop(stream); /* its end is told by exited() */
	while (length-- > 0 && !toucher->silent)
		toucher->handlers->answered(toucher->data, toucher);
}

void toucher_catch_up(struct toucher *toucher)
{
	char answers[256];
	ssize_t length;
	uv_os_fd_t fd;

	if (uv_is_closing((uv_handle_t *)&toucher->pipe) ||
	    uv_fileno((uv_handle_t *)&toucher->pipe, &fd))
		return;
	while ((length = recv(fd, answers, sizeof(answers), MSG_DONTWAIT)) > 0)
		while (length-- > 0 && !toucher->silent)
			toucher->handlers->answered(toucher->data, toucher);
}

struct toucher *toucher_start(uv_loop_t *loop, const char *mountpoint,
			      const struct toucher_handlers *handlers, void *data)
{
	struct toucher *toucher = calloc(1, sizeof(*toucher));
	char *arguments[] = { "blockjobfs", "--toucher", (char *)mountpoint, NULL };
	char *environment[] = { NULL };
	uv_stdio_container_t stdio[3] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE | UV_WRITABLE_PIPE },
		{ .flags = UV_IGNORE },
		{ .flags = UV_IGNORE },
	};
	uv_process_options_t options = {
		.exit_cb = exited,
		.file = "/proc/self/exe",
		.args = arguments,
		.env = environment,
		.cwd = "/",
		.flags = UV_PROCESS_DETACHED, /* a terminal's Ctrl-C is for the daemon to act on */
		.stdio_count = 3,
		.stdio = stdio,
	};

	if (!toucher)
		abort();
	toucher->orders = text_new();
	toucher->handlers = handlers;
	toucher->data = data;
	uv_pipe_init(loop, &toucher->pipe, 0);
	toucher->pipe.data = toucher->process.data = toucher;
	toucher->handles = 2;
	stdio[0].data.stream = (uv_stream_t *)&toucher->pipe;
	if (uv_spawn(loop, &toucher->process, &options)) {
		close_handle(&toucher->pipe);
		close_handle(&toucher->process);
		return NULL;
	}
	uv_read_start((uv_stream_t *)&toucher->pipe, give_buffer, got_answers);
	return toucher;
}

pid_t toucher_pid(const struct toucher *toucher)
{
	return toucher->process.pid;
}

static void written(uv_write_t *write, int status)
{
	free(write);
}

void toucher_order(struct toucher *toucher, char what, const char *path)
{
	text_printf(toucher->orders, "%c %s\n", what, path);
}

void toucher_send(struct toucher *toucher)
{
	size_t length = text_length(toucher->orders);
	uv_write_t *write;
	uv_buf_t buffer;

	if (!length)
		return;
	write = malloc(sizeof(*write) + length);
	if (!write)
		abort();
	buffer = uv_buf_init((char *)(write + 1), (unsigned)length);
	memcpy(buffer.base, text_bytes(toucher->orders), length);
	text_clear(toucher->orders);
	if (uv_write(write, (uv_stream_t *)&toucher->pipe, &buffer, 1, written))
		free(write); /* it is dying: died() tells */
}

void toucher_kill(struct toucher *toucher)
{
	uv_process_kill(&toucher->process, SIGKILL);
}

void toucher_silence(struct toucher *toucher)
{
	toucher->silent = true;
}
