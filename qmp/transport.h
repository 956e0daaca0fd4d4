/*
 * What a link runs over: a stream of bytes to a monitor and back, whatever carries it. Used by link.c alone; transport_private.h is
 * for the kinds of transport.
 *
 * Order of calls to the owner: [connected, bytes...] ended, closed. No callback runs inside transport_open(), transport_write() or
 * transport_close(): they are only called from the loop.
 */
#ifndef QMP_TRANSPORT_H
#define QMP_TRANSPORT_H

#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

enum qmp_transport {
	QMP_UNIX, /* a unix socket */
	QMP_TCP,
	QMP_EXEC, /* a command's standard input and output */
};

enum {
	/* A monitor that has accepted but does not greet within this time serves another client. */
	QMP_GREETING_MS = 1000,
};

/* Where a monitor is. */
struct qmp_address {
	enum qmp_transport transport;
	const char *where; /* path of the socket; HOST:PORT; the command */
};

/*
 * Splits HOST:PORT, or [HOST]:PORT if the host is an IPv6 address. Returns NULL and fills *@host and *@port (malloc'ed), or says what is
 * wrong (static).
 */
const char *qmp_split_tcp(const char *where, char **host, char **port);

struct transport;

struct transport_handlers {
	/* Bytes can be sent. @greeting_ms: a monitor that serves nobody else greets within this time. */
	void (*connected)(void *owner, unsigned greeting_ms);
	void (*bytes)(void *owner, const char *bytes, size_t length);
	/*
	 * It could not be connected, or has ended; all that came before was delivered. Called at most once, and followed by nothing
	 * but `closed`, which comes when the owner has called transport_close().
	 */
	void (*ended)(void *owner, int code, const char *reason);
	/* After transport_close(): nothing of it is left, and it frees itself. */
	void (*closed)(void *owner);
};

/* Never fails: what goes wrong is told by `ended`. @address is copied. */
struct transport *transport_open(uv_loop_t *loop, const struct qmp_address *address,
				 const struct transport_handlers *handlers, void *owner);

/*
 * Sends @bytes. A failure is no news: if the peer is gone, reading will tell, after all that it has said before. If
 * it is not, the command's deadline will tell.
 */
void transport_write(struct transport *transport, const char *bytes, size_t length);
/* True if the peer has sent something, or hung up, that the loop has not come to yet. */
bool transport_has_input(const struct transport *transport);
/* Fetches its memory ahead (qmp/prefetch.h). NULL: there is none. */
void transport_prefetch(const struct transport *transport);
/* Bytes that were given to transport_write() and nobody has taken yet. */
size_t transport_unsent(const struct transport *transport);

/* The process at the other end if it is one of this machine and the kernel knows it (SO_PEERCRED), else 0. */
pid_t transport_peer(const struct transport *transport);

/* Ends it, in whatever state it is. Only `closed` is still called. */
void transport_close(struct transport *transport);

#endif
