/*
 * Owns what all transports have in common: reading, writing, and the end, which comes when the last handle has been closed. Called
 * by link.c; what is particular to a kind is in transport_KIND.c.
 */
#include "qmp/transport.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/prefetch.h"
#include "qmp/transport_private.h"

enum {
	READ_BYTES = 64 << 10,
	REASON_BYTES = 1024,
};

struct output {
	uv_write_t write;
	char bytes[];
};

/* All transports read into this: an idle one holds no buffer. */
static char input[READ_BYTES];

static const struct transport_kind *const kinds[] = {
	[QMP_UNIX] = &transport_unix,
	[QMP_TCP] = &transport_tcp,
	[QMP_EXEC] = &transport_exec,
};

/* --- handles --- */

static void release_one(struct transport *transport)
{
	if (--transport->held || !transport->closing)
		return;
	transport->handlers->closed(transport->owner);
	if (transport->kind->clear)
		transport->kind->clear(transport);
	free(transport);
}

static void handle_closed(uv_handle_t *handle)
{
	release_one(handle->data);
}

void transport_hold(struct transport *transport, void *handle)
{
	((uv_handle_t *)handle)->data = transport;
	transport->held++;
}

void transport_release(struct transport *transport, void *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

void transport_hold_request(struct transport *transport)
{
	transport->held++;
}

void transport_release_request(struct transport *transport)
{
	release_one(transport);
}

/* --- what comes in --- */

static void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	*buffer = uv_buf_init(input, sizeof(input));
}

static void input_ended(struct transport *transport, int code)
{
	uv_read_stop(transport->input);
	if (transport->kind->input_ended)
		transport->kind->input_ended(transport, code);
	else if (code == -ECONNRESET)
		transport_ended(transport, code, "the peer hung up");
	else
		transport_ended(transport, code, "reading: %s", uv_strerror(code));
}

static void bytes_came(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
	struct transport *transport = stream->data;

	if (transport->ended)
		return;
	if (length > 0)
		transport->handlers->bytes(transport->owner, buffer->base, length);
	else if (length < 0)
		input_ended(transport, length == UV_EOF ? -ECONNRESET : (int)length);
}

bool transport_has_input(const struct transport *transport)
{
	struct pollfd wanted = { .events = POLLIN };

	/* What is not read any more stays where it is. */
	return transport && transport->input && uv_is_active((uv_handle_t *)transport->input) &&
	       uv_fileno((const uv_handle_t *)transport->input, &wanted.fd) == 0 &&
	       poll(&wanted, 1, 0) > 0;
}

void transport_connected(struct transport *transport, uv_stream_t *in, uv_stream_t *out,
			 unsigned greeting_ms)
{
	int error = uv_read_start(in, lend_buffer, bytes_came);

	transport->input = in;
	transport->output = out;
	if (error)
		transport_ended(transport, error, "reading: %s", uv_strerror(error));
	else if (!transport->ended)
		transport->handlers->connected(transport->owner, greeting_ms);
}

void transport_ended(struct transport *transport, int code, const char *format, ...)
{
	char reason[REASON_BYTES];
	va_list arguments;

	if (transport->ended)
		return;
	transport->ended = true;
	va_start(arguments, format);
	vsnprintf(reason, sizeof(reason), format, arguments);
	va_end(arguments);
	transport->handlers->ended(transport->owner, code, reason);
}

/* --- what goes out --- */

static void output_done(uv_write_t *write, int status)
{
	free(write->data);
}

void transport_write(struct transport *transport, const char *bytes, size_t length)
{
	uv_buf_t buffer = uv_buf_init((char *)bytes, (unsigned)length);
	struct output *output;
	int sent;

	if (!transport->output)
		return;
	/* Nearly always all of it goes at once, and the loop has nothing to do with it. */
	sent = uv_try_write(transport->output, &buffer, 1);
	if (sent >= 0 && (size_t)sent == length)
		return;
	if (sent > 0) {
		bytes += sent;
		length -= (size_t)sent;
	}
	output = transport_must(malloc(sizeof(*output) + length));
	output->write.data = output;
	memcpy(output->bytes, bytes, length);
	buffer = uv_buf_init(output->bytes, (unsigned)length);
	if (uv_write(&output->write, transport->output, &buffer, 1, output_done) < 0)
		output_done(&output->write, 0);
}

size_t transport_unsent(const struct transport *transport)
{
	return transport->output ? uv_stream_get_write_queue_size(transport->output) : 0;
}

void transport_prefetch(const struct transport *transport)
{
	/* The handle that it reads from and writes to mostly lies behind it. */
	prefetch(transport, sizeof(*transport) + sizeof(uv_pipe_t));
}

/* --- beginning and end --- */

pid_t transport_peer(const struct transport *transport)
{
	return transport->peer;
}

struct transport *transport_open(uv_loop_t *loop, const struct qmp_address *address,
				 const struct transport_handlers *handlers, void *owner)
{
	const struct transport_kind *kind = kinds[address->transport];
	struct transport *transport = transport_must(calloc(1, kind->size));

	/* libuv writes without MSG_NOSIGNAL, and a monitor may hang up at any moment. */
	signal(SIGPIPE, SIG_IGN);
	transport->kind = kind;
	transport->handlers = handlers;
	transport->owner = owner;
	transport->loop = loop;
	kind->open(transport, address->where);
	return transport;
}

void transport_close(struct transport *transport)
{
	if (transport->closing)
		return;
	transport->ended = transport->closing = true;
	transport->output = NULL;
	transport->kind->close(transport);
}
