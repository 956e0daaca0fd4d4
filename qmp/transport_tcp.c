/*
 * A monitor on TCP. Used by transport.c.
 *
 * The name is looked up anew for each connection, in libuv's pool, where a dead name server holds up nobody. Its addresses are tried
 * one after the other, each with its own time, as a host that is switched off does not even refuse.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "qmp/transport_private.h"

enum {
	CONNECT_MS = 5000, /* for one address */
	/* A host that is gone without a word is noticed within these, asked (what we sent is not acknowledged) or idle. */
	UNACKNOWLEDGED_MS = 20000,
	KEEPALIVE_IDLE_S = 10,
	KEEPALIVE_INTERVAL_S = 5,
	KEEPALIVE_COUNT = 3,
};

/* One address being tried. It has a life of its own, as a socket that did not connect cannot be used again. */
struct attempt {
	uv_tcp_t tcp;
	uv_connect_t connect;
	struct tcp_transport *owner; /* NULL: given up */
};

struct lookup {
	uv_getaddrinfo_t request;
	struct tcp_transport *owner; /* NULL: given up */
};

struct tcp_transport {
	struct transport base;
	uv_timer_t timer;
	char *where, *host, *port;
	struct lookup *lookup; /* under way, or NULL */
	struct addrinfo *addresses; /* all of them */
	const struct addrinfo *next; /* to be tried */
	struct attempt *attempt; /* under way, or connected; NULL: none */
	int code; /* why they failed so far */
};

static void try_next(struct tcp_transport *this);

/* --- one address --- */

static void attempt_closed(uv_handle_t *handle)
{
	struct transport *transport = handle->data;

	free(handle); /* the attempt begins with it */
	transport_release_request(transport);
}

static void give_up_attempt(struct tcp_transport *this)
{
	struct attempt *attempt = this->attempt;

	if (!attempt)
		return;
	this->attempt = NULL;
	attempt->owner = NULL;
	uv_close((uv_handle_t *)&attempt->tcp, attempt_closed);
}

/*
 * Which of two reasons says more. "Refused" says that nobody is there: not if another address may have somebody. That this machine
 * has no IPv6, say, says least.
 */
static int weight(int code)
{
	return code == 0					 ? 0
	       : code == -EADDRNOTAVAIL || code == -EAFNOSUPPORT ? 1
	       : code == -ECONNREFUSED				 ? 2
								 : 3;
}

static void attempt_failed(struct tcp_transport *this, int code)
{
	if (weight(code) >= weight(this->code))
		this->code = code;
	give_up_attempt(this);
	try_next(this);
}

/*
 * A port of this machine from which connections go out, too, can be connected to itself when nobody listens there: TCP's simultaneous
 * open. It would look like a busy monitor, and keep QEMU from the port.
 */
static bool is_our_own(const uv_tcp_t *tcp)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	int size = sizeof(here), size_there = sizeof(there);

	return uv_tcp_getsockname(tcp, (struct sockaddr *)&here, &size) == 0 &&
	       uv_tcp_getpeername(tcp, (struct sockaddr *)&there, &size_there) == 0 &&
	       size == size_there && !memcmp(&here, &there, (size_t)size);
}

static void set_option(const uv_tcp_t *tcp, int option, int value)
{
	uv_os_fd_t fd;

	/* What a kernel does not know is only noticed later. */
	if (uv_fileno((const uv_handle_t *)tcp, &fd) == 0)
		setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));
}

static void watch_over(uv_tcp_t *tcp)
{
	uv_tcp_nodelay(tcp, 1);
	uv_tcp_keepalive(tcp, 1, KEEPALIVE_IDLE_S);
	set_option(tcp, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
	set_option(tcp, TCP_KEEPCNT, KEEPALIVE_COUNT);
	set_option(tcp, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS);
}

static void connected(uv_connect_t *connect, int error)
{
	struct attempt *attempt = connect->data;
	struct tcp_transport *this = attempt->owner;

	if (!this || this->base.ended)
		return;
	if (!error && is_our_own(&attempt->tcp))
		error = -ECONNREFUSED;
	if (error) {
		attempt_failed(this, error);
		return;
	}
	uv_timer_stop(&this->timer);
	watch_over(&attempt->tcp);
	transport_connected(&this->base, (uv_stream_t *)&attempt->tcp, (uv_stream_t *)&attempt->tcp,
			    QMP_GREETING_MS);
}

static void too_slow(uv_timer_t *timer)
{
	attempt_failed(timer->data, -ETIMEDOUT);
}

static void try_next(struct tcp_transport *this)
{
	const struct addrinfo *address = this->next;
	struct attempt *attempt;
	int error;

	if (!address) {
		transport_ended(&this->base, this->code, "%s: %s", this->where,
				uv_strerror(this->code));
		return;
	}
	this->next = address->ai_next;
	attempt = this->attempt = transport_must(calloc(1, sizeof(*attempt)));
	attempt->owner = this;
	attempt->tcp.data = this;
	attempt->connect.data = attempt;
	transport_hold_request(&this->base);
	uv_tcp_init(this->base.loop, &attempt->tcp);
	uv_timer_start(&this->timer, too_slow, CONNECT_MS, 0);
	error = uv_tcp_connect(&attempt->connect, &attempt->tcp, address->ai_addr, connected);
	if (error)
		attempt_failed(this, error);
}

/* --- the name --- */

static void looked_up(uv_getaddrinfo_t *request, int error, struct addrinfo *addresses)
{
	struct lookup *lookup = request->data;
	struct tcp_transport *this = lookup->owner;

	free(lookup);
	if (!this) {
		uv_freeaddrinfo(addresses);
		return;
	}
	this->lookup = NULL;
	this->addresses = addresses;
	this->next = addresses;
	if (error || !addresses)
		transport_ended(&this->base, -EHOSTUNREACH,
				"%s: the name %s cannot be looked up: %s", this->where, this->host,
				error ? uv_strerror(error) : "it has no address");
	else
		try_next(this);
}

static void look_up(uv_timer_t *timer)
{
	struct tcp_transport *this = timer->data;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	int error;

	this->lookup = transport_must(calloc(1, sizeof(*this->lookup)));
	this->lookup->owner = this;
	this->lookup->request.data = this->lookup;
	error = uv_getaddrinfo(this->base.loop, &this->lookup->request, looked_up, this->host,
			       this->port, &hints);
	if (error)
		looked_up(&this->lookup->request, error, NULL);
}

/* An address in numbers needs no name server, and waits behind nobody's. */
static bool is_address(struct tcp_transport *this)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST };

	return getaddrinfo(this->host, this->port, &hints, &this->addresses) == 0;
}

static void begin(uv_timer_t *timer)
{
	struct tcp_transport *this = timer->data;

	if (is_address(this)) {
		this->next = this->addresses;
		try_next(this);
	} else {
		look_up(timer);
	}
}

/* --- beginning and end --- */

const char *qmp_split_tcp(const char *where, char **host, char **port)
{
	bool bracket = *where == '[';
	const char *end = bracket ? strstr(where, "]:") : strrchr(where, ':');
	const char *number = end ? end + 1 + bracket : NULL;
	size_t length;

	if (!end)
		return "want HOST:PORT";
	length = (size_t)(end - where) - bracket;
	if (!length)
		return "a host is missing in front of the port";
	if (!bracket && memchr(where, ':', length))
		return "an IPv6 address stands in brackets: [ADDRESS]:PORT";
	for (size_t i = 0; i < length; i++)
		if (strchr(" \t\r\n/[]", where[bracket + i]))
			return "that is no name of a host";
	if (strlen(number) > 5 || !*number || number[strspn(number, "0123456789")] ||
	    atoi(number) < 1 || atoi(number) > 65535)
		return "the port is a number from 1 to 65535";
	*host = transport_must(strndup(where + bracket, length));
	*port = transport_must(strdup(number));
	return NULL;
}

static void tcp_open(struct transport *transport, const char *where)
{
	struct tcp_transport *this = (struct tcp_transport *)transport;

	this->where = transport_must(strdup(where));
	uv_timer_init(transport->loop, &this->timer);
	transport_hold(transport, &this->timer);
	if (qmp_split_tcp(where, &this->host, &this->port))
		abort(); /* jobs/source.c lets nothing else in */
	uv_timer_start(&this->timer, begin, 0, 0);
}

static void tcp_close(struct transport *transport)
{
	struct tcp_transport *this = (struct tcp_transport *)transport;

	if (this->lookup) {
		/* One that a thread is at cannot be cancelled: it ends on its own. */
		this->lookup->owner = NULL;
		uv_cancel((uv_req_t *)&this->lookup->request);
		this->lookup = NULL;
	}
	give_up_attempt(this);
	transport_release(transport, &this->timer);
}

static void tcp_clear(struct transport *transport)
{
	struct tcp_transport *this = (struct tcp_transport *)transport;

	uv_freeaddrinfo(this->addresses);
	free(this->where);
	free(this->host);
	free(this->port);
}

const struct transport_kind transport_tcp = {
	.size = sizeof(struct tcp_transport),
	.open = tcp_open,
	.close = tcp_close,
	.clear = tcp_clear,
};
