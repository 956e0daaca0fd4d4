/*
 * A program that is run once. Used by engine.c for qemu-img and for the start of qemu-storage-daemon; knows neither.
 */
#include "jobs/program.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/text.h"

enum {
	OUTPUT_MAX = 1 << 20,
};

struct program {
	uv_process_t process;
	uv_pipe_t pipes[2]; /* standard output, standard error */
	struct text *texts[2];
	char buffer[4096];
	uv_idle_t failed; /* tells from the loop that it could not be run */
	unsigned handles; /* open ones */
	unsigned waiting; /* its exit and the ends of its outputs that are still to come */
	struct program_end end;
	program_done_fn done;
	void *data;
};

static void handle_closed(uv_handle_t *handle)
{
	struct program *program = handle->data;

	if (--program->handles)
		return;
	text_free(program->texts[0]);
	text_free(program->texts[1]);
	free(program);
}

static void close_handle(void *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

/* What it wrote to its standard error, with blanks for newlines. */
static char *one_line(const struct text *text)
{
	char *line = strdup(text_bytes(text));
	size_t length = strlen(line);

	while (length && isspace((unsigned char)line[length - 1]))
		line[--length] = 0;
	for (char *at = line; *at; at++)
		if (iscntrl((unsigned char)*at))
			*at = ' ';
	return line;
}

static void close_all(struct program *program)
{
	close_handle(&program->process);
	close_handle(&program->pipes[0]);
	close_handle(&program->pipes[1]);
	close_handle(&program->failed);
}

static void finish(struct program *program)
{
	char *complaint = one_line(program->texts[1]);

	program->end.output = text_bytes(program->texts[0]);
	program->end.output_length = text_length(program->texts[0]);
	program->end.complaint = complaint;
	program->done(program->data, &program->end);
	free(complaint);
	close_all(program);
}

static void one_less(struct program *program)
{
	if (--program->waiting == 0)
		finish(program);
}

static void exited(uv_process_t *process, int64_t status, int signal)
{
	struct program *program = process->data;

	program->end.status = signal ? 128 + signal : (int)status;
	one_less(program);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
	struct program *program = handle->data;

	*buffer = uv_buf_init(program->buffer, sizeof(program->buffer));
}

static void got_output(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
	struct program *program = stream->data;
	struct text *text = program->texts[stream == (uv_stream_t *)&program->pipes[1]];

	if (length > 0 && text_length(text) + (size_t)length <= OUTPUT_MAX)
		text_append(text, buffer->base, (size_t)length);
	if (length < 0) {
		uv_read_stop(stream);
		one_less(program);
	}
}

static void could_not_run(uv_idle_t *idle)
{
	finish(idle->data);
}

static void open_handles(struct program *program, uv_loop_t *loop)
{
	for (int i = 0; i < 2; i++) {
		program->texts[i] = text_new();
		uv_pipe_init(loop, &program->pipes[i], 0);
		program->pipes[i].data = program;
	}
	uv_idle_init(loop, &program->failed);
	program->failed.data = program;
	program->process.data = program;
	program->handles = 4;
}

struct program *program_run(uv_loop_t *loop, char **arguments, program_done_fn done, void *data)
{
	return program_run_on(loop, arguments, -1, done, data);
}

struct program *program_run_on(uv_loop_t *loop, char **arguments, int fd, program_done_fn done,
			       void *data)
{
	struct program *program = calloc(1, sizeof(*program));
	uv_stdio_container_t stdio[4] = {
		{ .flags = UV_IGNORE },
		[3] = { .flags = UV_INHERIT_FD, .data.fd = fd },
	};
	uv_process_options_t options = {
		.exit_cb = exited,
		.file = arguments[0],
		.args = arguments,
		.cwd = "/",
		.flags = UV_PROCESS_DETACHED,
		.stdio_count = fd < 0 ? 3 : 4,
		.stdio = stdio,
	};

	if (!program)
		abort();
	program->done = done;
	program->data = data;
	open_handles(program, loop);
	for (int i = 0; i < 2; i++) {
		stdio[i + 1].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
		stdio[i + 1].data.stream = (uv_stream_t *)&program->pipes[i];
	}
	program->end.error = uv_spawn(loop, &program->process, &options);
	if (program->end.error) {
		uv_idle_start(&program->failed, could_not_run);
		return program;
	}
	program->waiting = 3;
	for (int i = 0; i < 2; i++)
		uv_read_start((uv_stream_t *)&program->pipes[i], give_buffer, got_output);
	return program;
}
