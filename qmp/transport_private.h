/*
 * What the kinds of transport have in common with transport.c. A kind is a struct that begins with a struct transport, and one
 * struct transport_kind.
 */
#ifndef QMP_TRANSPORT_PRIVATE_H
#define QMP_TRANSPORT_PRIVATE_H

#include <stdbool.h>
#include "qmp/transport.h"

struct transport_kind {
	size_t size; /* of the kind's struct, which is zeroed before open() */
	/* Starts to connect. Tells nothing yet: that is for the loop. */
	void (*open)(struct transport *transport, const char *where);
	/* Lets go of every handle and request that it holds. */
	void (*close)(struct transport *transport);
	/* The input is over (-ECONNRESET), or cannot be read. NULL: then the transport is, too. */
	void (*input_ended)(struct transport *transport, int code);
	/* Frees what the struct points to; may be NULL. */
	void (*clear)(struct transport *transport);
};

extern const struct transport_kind transport_unix, transport_tcp, transport_exec;

struct transport {
	const struct transport_kind *kind;
	const struct transport_handlers *handlers;
	void *owner;
	uv_loop_t *loop;
	uv_stream_t *input, *output; /* NULL: not connected */
	unsigned held; /* handles that are not closed and requests that are under way */
	bool ended; /* told, or the owner wants to hear no more */
	bool closing;
	pid_t peer;
};

static inline void *transport_must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* @handle was initialised and is held until transport_release() has closed it. Sets its data to @transport. */
void transport_hold(struct transport *transport, void *handle);
/* Closes @handle, unless that has been done. */
void transport_release(struct transport *transport, void *handle);
/* The same for what is no handle: the transport lives until it is let go of. */
void transport_hold_request(struct transport *transport);
void transport_release_request(struct transport *transport);

/* The streams are there: reads, and tells the owner. */
void transport_connected(struct transport *transport, uv_stream_t *input, uv_stream_t *output,
			 unsigned greeting_ms);
/* Tells the owner, if it is still to be told. */
void transport_ended(struct transport *transport, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
