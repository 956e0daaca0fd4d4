/*
 * A command whose standard input and output carry QMP. Used by transport.c. The command's processes are the business of their reaper
 * (reaper.h): they are gone when the reaper has exited, and the transport is held until then.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "qmp/reaper.h"
#include "qmp/transport_private.h"
#include "qmp/value.h"

enum {
	/* Commands connect to other hosts, and ask for nobody's patience but their own. */
	GREETING_MS = 10000,
	/* From the first sign of the end (its exit, or the end of its output) to the last: longer than the reaper's TERM. */
	DRAIN_MS = REAPER_TERM_MS + 500,
	/* A reaper that has not gone by then hangs. */
	REAPER_END_MS = REAPER_TERM_MS + REAPER_KILL_MS + 2500,
	COMPLAINT_BYTES = 800, /* of its standard error: the last ones, but for a torn line */
	COMPLAINT_READ = 4096,
	COMPLAINT_PAUSE_MS = 20, /* after each read: one that babbles costs little */
	COMMAND_SHOWN = 100, /* bytes of the command in a reason */
};

struct exec_transport {
	struct transport base;
	uv_process_t reaper;
	uv_pipe_t in, out, complaints; /* as the daemon sees them: from the command, to it */
	uv_timer_t timer; /* connected; the end that does not come; the reaper that hangs */
	uv_timer_t pause; /* of the reading of complaints */
	int line; /* to the reaper */
	bool spawned; /* there is a handle of the reaper */
	bool running; /* the reaper has not exited */
	bool exited, in_ended, complaints_ended;
	int64_t status;
	int signal;
	char *command;
	char buffer[COMPLAINT_READ];
	char complaint[COMPLAINT_BYTES + 1];
	size_t complaint_length;
};

/* --- its standard error --- */

static void read_complaints(struct exec_transport *this);

static void keep_last(struct exec_transport *this, const char *bytes, size_t length)
{
	size_t drop;

	if (length > COMPLAINT_BYTES) {
		bytes += length - COMPLAINT_BYTES;
		length = COMPLAINT_BYTES;
	}
	drop = this->complaint_length + length > COMPLAINT_BYTES
		       ? this->complaint_length + length - COMPLAINT_BYTES
		       : 0;
	memmove(this->complaint, this->complaint + drop, this->complaint_length - drop);
	this->complaint_length -= drop;
	memcpy(this->complaint + this->complaint_length, bytes, length);
	this->complaint_length += length;
}

/* The last lines; without a torn first one, if there is another. */
static const char *complaint(struct exec_transport *this)
{
	char *text = this->complaint, *newline;

	for (size_t i = 0; i < this->complaint_length; i++)
		if (!text[i])
			text[i] = '?';
	while (this->complaint_length && isspace((unsigned char)text[this->complaint_length - 1]))
		this->complaint_length--;
	text[this->complaint_length] = 0;
	newline = strchr(text, '\n');
	if (this->complaint_length > COMPLAINT_BYTES / 2 && newline &&
	    text + this->complaint_length - newline > COMPLAINT_BYTES / 2)
		text = newline + 1;
	return text;
}

/* On one line, and without what a terminal would take for commands; U+0080 to U+009F are among these. */
static void make_plain(char *text)
{
	for (; *text; text++) {
		if (iscntrl((unsigned char)*text))
			*text = ' ';
		else if ((unsigned char)text[0] == 0xc2 && (unsigned char)text[1] < 0xa0)
			text[0] = text[1] = ' ';
	}
}

/* --- the end --- */

static void tell(struct exec_transport *this, const char *how)
{
	const char *said = complaint(this);
	struct qmp_value *clean = qmp_array();
	char *reason;

	if (asprintf(&reason, "%.*s%s %s%s%s", COMMAND_SHOWN, this->command,
		     strlen(this->command) > COMMAND_SHOWN ? "..." : "", how, *said ? ": " : "",
		     said) < 0)
		abort();
	/* What is no UTF-8, or was cut in the middle of a character, is replaced. */
	qmp_append_text(clean, reason);
	free(reason);
	reason = transport_must(strdup(qmp_value_text(qmp_value_item(clean, 0), NULL, "")));
	qmp_value_free(clean);
	make_plain(reason);
	transport_ended(&this->base, -ECONNRESET, "%s", reason);
	free(reason);
}

static void tell_end(struct exec_transport *this)
{
	char how[64];

	if (this->exited && this->signal)
		snprintf(how, sizeof(how), "was killed by signal %d", this->signal);
	else if (this->exited)
		snprintf(how, sizeof(how), "ended with status %d", (int)this->status);
	else
		snprintf(how, sizeof(how), "has closed its output");
	tell(this, how);
}

static void drained(uv_timer_t *timer)
{
	tell_end(timer->data);
}

/* One of its three ends has come. All that it has said is told before the last one is. */
static void one_end(struct exec_transport *this)
{
	if (this->base.ended)
		return;
	if (this->exited && this->in_ended && this->complaints_ended)
		tell_end(this);
	else if ((this->exited || this->in_ended) && !uv_is_active((uv_handle_t *)&this->timer))
		uv_timer_start(&this->timer, drained, DRAIN_MS, 0);
}

static void exec_input_ended(struct transport *transport, int code)
{
	struct exec_transport *this = (struct exec_transport *)transport;

	this->in_ended = true;
	one_end(this);
}

static void reaper_exited(uv_process_t *reaper, int64_t status, int signal)
{
	struct exec_transport *this = reaper->data;

	this->running = false;
	this->exited = true;
	this->status = status;
	this->signal = signal;
	if (this->base.closing) {
		transport_release(&this->base, &this->reaper);
		transport_release(&this->base, &this->timer);
	} else {
		one_end(this);
	}
}

/* --- reading complaints --- */

static void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct exec_transport *this = handle->data;

	*buffer = uv_buf_init(this->buffer, sizeof(this->buffer));
}

static void pause_over(uv_timer_t *timer)
{
	read_complaints(timer->data);
}

static void complaints_came(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
	struct exec_transport *this = stream->data;

	if (length > 0)
		keep_last(this, buffer->base, (size_t)length);
	uv_read_stop(stream);
	if (length >= 0) {
		uv_timer_start(&this->pause, pause_over, COMPLAINT_PAUSE_MS, 0);
		return;
	}
	this->complaints_ended = true;
	one_end(this);
}

static void read_complaints(struct exec_transport *this)
{
	if (uv_read_start((uv_stream_t *)&this->complaints, lend_buffer, complaints_came))
		this->complaints_ended = true;
}

/* --- the beginning --- */

static void running(uv_timer_t *timer)
{
	struct exec_transport *this = timer->data;

	transport_connected(&this->base, (uv_stream_t *)&this->in, (uv_stream_t *)&this->out,
			    GREETING_MS);
	one_end(this);
}

static void not_running(uv_timer_t *timer)
{
	struct exec_transport *this = timer->data;

	/* Whatever the number is: it says nothing of QEMU. */
	transport_ended(&this->base, -ECONNABORTED, "a process cannot be started: %s",
			uv_strerror((int)this->status));
}

/* Four pipes: [0] is what the command reads, [1] and [2] what it writes, [3] the line. Each is { to read, to write }. */
static int open_pipes(int pipes[4][2])
{
	for (int i = 0; i < 4; i++) {
		int error = pipe2(pipes[i], O_CLOEXEC) ? -errno : 0;

		if (!error)
			continue;
		while (i-- > 0) {
			close(pipes[i][0]);
			close(pipes[i][1]);
		}
		return error;
	}
	return 0;
}

static int spawn(struct exec_transport *this, int pipes[4][2])
{
	char *arguments[] = { (char *)"blockjobfs", (char *)REAPER_OPTION, this->command, NULL };
	uv_stdio_container_t stdio[4];
	uv_process_options_t options = {
		.exit_cb = reaper_exited,
		.file = "/proc/self/exe",
		.args = arguments,
		.cwd = "/",
		.flags = UV_PROCESS_DETACHED, /* a terminal's Ctrl-C is for the daemon to act on */
		.stdio_count = 4,
		.stdio = stdio,
	};

	for (int i = 0; i < 4; i++) {
		stdio[i].flags = UV_INHERIT_FD;
		stdio[i].data.fd = pipes[i][i == 1 || i == 2];
	}
	return uv_spawn(this->base.loop, &this->reaper, &options);
}

static int start(struct exec_transport *this)
{
	int pipes[4][2], error = open_pipes(pipes);

	if (error)
		return error;
	error = spawn(this, pipes);
	/* libuv initialises the handle, whether or not there is a process then. */
	transport_hold(&this->base, &this->reaper);
	this->spawned = true;
	for (int i = 0; i < 4; i++)
		close(pipes[i][i == 1 || i == 2]);
	this->line = pipes[3][1];
	/* These three only fail for a descriptor that is none. */
	if (uv_pipe_open(&this->out, pipes[0][1]) || uv_pipe_open(&this->in, pipes[1][0]) ||
	    uv_pipe_open(&this->complaints, pipes[2][0]))
		abort();
	return error;
}

static void exec_open(struct transport *transport, const char *command)
{
	struct exec_transport *this = (struct exec_transport *)transport;
	uv_pipe_t *const pipes[] = { &this->in, &this->out, &this->complaints };
	int error;

	this->command = transport_must(strdup(command));
	this->line = -1;
	for (int i = 0; i < 3; i++) {
		uv_pipe_init(transport->loop, pipes[i], 0);
		transport_hold(transport, pipes[i]);
	}
	uv_timer_init(transport->loop, &this->timer);
	transport_hold(transport, &this->timer);
	uv_timer_init(transport->loop, &this->pause);
	transport_hold(transport, &this->pause);
	error = start(this);
	this->running = error == 0;
	this->status = error;
	if (this->running)
		read_complaints(this);
	uv_timer_start(&this->timer, error ? not_running : running, 0, 0);
}

static void reaper_hangs(uv_timer_t *timer)
{
	struct exec_transport *this = timer->data;

	if (this->running)
		uv_process_kill(&this->reaper, SIGKILL);
}

static void exec_close(struct transport *transport)
{
	struct exec_transport *this = (struct exec_transport *)transport;

	transport_release(transport, &this->in);
	transport_release(transport, &this->out);
	transport_release(transport, &this->complaints);
	transport_release(transport, &this->pause);
	if (this->line >= 0)
		close(this->line);
	this->line = -1;
	if (this->running) {
		uv_timer_start(&this->timer, reaper_hangs, REAPER_END_MS, 0);
		return;
	}
	if (this->spawned)
		transport_release(transport, &this->reaper);
	transport_release(transport, &this->timer);
}

static void exec_clear(struct transport *transport)
{
	free(((struct exec_transport *)transport)->command);
}

const struct transport_kind transport_exec = {
	.size = sizeof(struct exec_transport),
	.open = exec_open,
	.close = exec_close,
	.input_ended = exec_input_ended,
	.clear = exec_clear,
};
