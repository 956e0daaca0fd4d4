/*
 * Owns the scripted QMP peer: its socket, its client, what it answers, and the record of what it was told. Used by the unit
 * tests of qmp/ and jobs/; knows of the program under test no more than a QEMU would.
 */
#include "tests/fake/peer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#define GREETING                                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, " \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"

struct answer {
	char *command;
	char *json; /* or NULL */
	char *class, *desc; /* set: an error */
	struct answer *next;
};

struct record {
	char *command, *message;
	struct qmp_value *whole, *id;
};

/* A piece of output, or the wish to hang up after what is in front of it. */
struct output {
	bool hang_up;
	size_t length, sent;
	struct output *prev, *next;
	char bytes[];
};

/* Of either kind. */
union socket {
	uv_handle_t handle;
	uv_stream_t stream;
	uv_pipe_t pipe;
	uv_tcp_t tcp;
};

struct client {
	union socket socket;
	struct peer *peer;
	struct qmp_reader *reader;
};

struct peer {
	uv_loop_t *loop;
	union socket listener;
	uv_timer_t pump; /* sends what is in the queue, a piece a turn */
	int handles;
	bool listening, waiting_client, freed;
	char folder[64], path[96];
	int port; /* TCP; 0: a unix socket */
	struct client *client;
	struct output *queue;
	size_t piece;

	char *greeting;
	struct answer *answers;
	peer_command_fn hook;
	void *hook_data;

	struct record *records;
	size_t count, room, clients;
};

static char input[64 << 10];

static void pump_turn(uv_timer_t *timer);
static void serve_next(struct peer *peer);

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* --- output --- */

static void client_gone(uv_handle_t *handle)
{
	struct client *client = handle->data;

	qmp_reader_free(client->reader);
	free(client);
}

static void client_close(struct client *client)
{
	struct peer *peer = client->peer;
	struct output *output, *next;

	DL_FOREACH_SAFE(peer->queue, output, next) {
		DL_DELETE(peer->queue, output);
		free(output);
	}
	peer->client = NULL;
	uv_close(&client->socket.handle, client_gone);
	if (!peer->freed)
		serve_next(peer);
}

static void pump_start(struct peer *peer)
{
	if (!peer->freed && peer->queue && !uv_is_active((uv_handle_t *)&peer->pump))
		uv_timer_start(&peer->pump, pump_turn, 0, 0);
}

/* Sends one piece from the front of the queue; false: the socket takes no more now. */
static bool pump_piece(struct peer *peer)
{
	struct output *output = peer->queue;
	size_t left = output->length - output->sent;
	uv_buf_t buffer = uv_buf_init(output->bytes + output->sent,
				      peer->piece && peer->piece < left ? peer->piece : left);
	int sent = uv_try_write(&peer->client->socket.stream, &buffer, 1);

	if (sent == UV_EAGAIN)
		return false;
	/* The client is gone: what was meant for it is lost, and reading tells us in a moment. */
	output->sent = sent < 0 ? output->length : output->sent + sent;
	if (output->sent == output->length) {
		DL_DELETE(peer->queue, output);
		free(output);
	}
	return true;
}

static void pump_turn(uv_timer_t *timer)
{
	struct peer *peer = timer->data;

	while (peer->queue && peer->client) {
		bool more;

		if (peer->queue->hang_up) {
			client_close(peer->client);
			return;
		}
		more = pump_piece(peer);
		if (!more || peer->piece)
			break;
	}
	/* 1 ms and not 0, or it would all go out in this turn of the loop. */
	if (peer->queue && peer->client)
		uv_timer_start(&peer->pump, pump_turn, 1, 0);
}

static void enqueue(struct peer *peer, const void *bytes, size_t length, bool hang_up)
{
	struct output *output;

	if (!peer->client)
		return;
	output = must(calloc(1, sizeof(*output) + length));
	output->hang_up = hang_up;
	output->length = length;
	if (length)
		memcpy(output->bytes, bytes, length);
	DL_APPEND(peer->queue, output);
	pump_start(peer);
}

void peer_send_bytes(struct peer *peer, const void *bytes, size_t length)
{
	if (length)
		enqueue(peer, bytes, length, false);
}

void peer_send(struct peer *peer, const char *text)
{
	peer_send_bytes(peer, text, strlen(text));
}

void peer_hang_up(struct peer *peer)
{
	enqueue(peer, NULL, 0, true);
}

static char *double_quotes(const char *json)
{
	char *copy = must(strdup(json));

	/* Only JSON that has no double quotes is written in single ones: a text may have an apostrophe. */
	if (!strchr(copy, '"'))
		for (char *at = copy; *at; at++)
			*at = *at == '\'' ? '"' : *at;
	return copy;
}

static struct qmp_value *parse(const char *json)
{
	char *text = double_quotes(json);
	struct qmp_value *value = qmp_value_parse(text, strlen(text), NULL);

	if (!value) {
		fprintf(stderr, "peer: not JSON: %s\n", json);
		abort();
	}
	free(text);
	return value;
}

/* Sends a message and frees it. */
static void send_value(struct peer *peer, struct qmp_value *message)
{
	peer_send(peer, qmp_value_print(message));
	peer_send(peer, "\r\n");
	qmp_value_free(message);
}

void peer_send_event(struct peer *peer, const char *name, const char *data_json)
{
	struct qmp_value *message = qmp_add_text(qmp_object(), "event", name);

	qmp_add_value(message, "data", parse(data_json ? data_json : "{}"));
	qmp_add_value(message, "timestamp", parse("{'seconds': 1700000000, 'microseconds': 0}"));
	send_value(peer, message);
}

static struct qmp_value *with_id(struct peer *peer, size_t number, struct qmp_value *message)
{
	if (number < peer->count && peer->records[number].id)
		qmp_add_value(message, "id", qmp_value_share(peer->records[number].id));
	return message;
}

void peer_reply(struct peer *peer, size_t number, const char *json)
{
	send_value(peer, with_id(peer, number, qmp_add_value(qmp_object(), "return", parse(json))));
}

void peer_reply_error(struct peer *peer, size_t number, const char *class, const char *desc)
{
	struct qmp_value *error = qmp_add_text(qmp_object(), "class", class);

	qmp_add_text(error, "desc", desc);
	send_value(peer, with_id(peer, number, qmp_add_value(qmp_object(), "error", error)));
}

/* --- answers --- */

static struct answer *answer_to(struct peer *peer, const char *command)
{
	struct answer *answer;

	LL_FOREACH(peer->answers, answer)
		if (!strcmp(answer->command, command))
			return answer;
	return NULL;
}

static struct answer *answer_renew(struct peer *peer, const char *command)
{
	struct answer *answer = answer_to(peer, command);

	if (!answer) {
		answer = must(calloc(1, sizeof(*answer)));
		answer->command = must(strdup(command));
		LL_PREPEND(peer->answers, answer);
	}
	free(answer->json);
	free(answer->class);
	free(answer->desc);
	answer->json = answer->class = answer->desc = NULL;
	return answer;
}

void peer_set_answer(struct peer *peer, const char *command, const char *json)
{
	struct answer *answer = answer_renew(peer, command);

	answer->json = json ? double_quotes(json) : NULL;
}

void peer_set_refusal(struct peer *peer, const char *command, const char *class, const char *desc)
{
	struct answer *answer = answer_renew(peer, command);

	answer->class = must(strdup(class));
	answer->desc = must(strdup(desc));
}

void peer_set_hook(struct peer *peer, peer_command_fn hook, void *data)
{
	peer->hook = hook;
	peer->hook_data = data;
}

void peer_set_greeting(struct peer *peer, const char *text)
{
	free(peer->greeting);
	peer->greeting = text ? must(strdup(text)) : NULL;
}

void peer_set_pieces(struct peer *peer, size_t bytes)
{
	peer->piece = bytes;
}

void peer_answer(struct peer *peer, size_t number)
{
	const char *command = peer->records[number].command;
	struct answer *answer = answer_to(peer, command);
	char text[200];

	if (peer->hook &&
	    peer->hook(peer->hook_data, peer, number, command, peer_arguments(peer, number)))
		return;
	if (answer && answer->class) {
		peer_reply_error(peer, number, answer->class, answer->desc);
	} else if (answer) {
		if (answer->json)
			peer_reply(peer, number, answer->json);
	} else {
		snprintf(text, sizeof(text), "The command %s has not been found", command);
		peer_reply_error(peer, number, "CommandNotFound", text);
	}
}

/* --- the record --- */

static void record_command(struct peer *peer, struct qmp_value *message)
{
	struct record *record;

	if (peer->count == peer->room) {
		peer->room = peer->room ? peer->room * 2 : 64;
		peer->records = must(realloc(peer->records, peer->room * sizeof(*record)));
	}
	record = &peer->records[peer->count++];
	record->whole = message;
	record->id = (struct qmp_value *)qmp_value_get(message, "id");
	record->command = must(strdup(qmp_value_text(message, "execute", "")));
	record->message = must(strdup(qmp_value_print(message)));
}

size_t peer_count(const struct peer *peer)
{
	return peer->count;
}

const char *peer_command(const struct peer *peer, size_t number)
{
	return number < peer->count ? peer->records[number].command : NULL;
}

const struct qmp_value *peer_arguments(const struct peer *peer, size_t number)
{
	return number < peer->count ? qmp_value_get(peer->records[number].whole, "arguments")
				    : NULL;
}

const char *peer_message(const struct peer *peer, size_t number)
{
	return number < peer->count ? peer->records[number].message : NULL;
}

size_t peer_count_of(const struct peer *peer, const char *command)
{
	size_t count = 0;

	for (size_t i = 0; i < peer->count; i++)
		count += !strcmp(peer->records[i].command, command);
	return count;
}

size_t peer_last_of(const struct peer *peer, const char *command)
{
	for (size_t i = peer->count; i-- > 0;)
		if (!strcmp(peer->records[i].command, command))
			return i;
	return (size_t)-1;
}

size_t peer_clients(const struct peer *peer)
{
	return peer->clients;
}

/* --- input --- */

static void lend_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	*buffer = uv_buf_init(input, sizeof(input));
}

static void bytes_came(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
	struct client *client = stream->data;
	struct peer *peer = client->peer;
	const char *bytes = buffer->base, *error = NULL;
	size_t used;

	if (length < 0) {
		client_close(client);
		return;
	}
	for (; length > 0 && !error; bytes += used, length -= used) {
		struct qmp_value *message =
			qmp_reader_feed(client->reader, bytes, length, &used, &error);

		if (!message)
			continue;
		record_command(peer, message);
		peer_answer(peer, peer->count - 1);
	}
	if (error) {
		fprintf(stderr, "peer: it was told what is not JSON: %s\n", error);
		abort();
	}
}

void peer_set_deaf(struct peer *peer, bool deaf)
{
	if (!peer->client)
		return;
	if (deaf)
		uv_read_stop(&peer->client->socket.stream);
	else
		uv_read_start(&peer->client->socket.stream, lend_buffer, bytes_came);
}

/* --- clients --- */

static void socket_init(struct peer *peer, union socket *socket)
{
	if (peer->port)
		uv_tcp_init(peer->loop, &socket->tcp);
	else
		uv_pipe_init(peer->loop, &socket->pipe, 0);
}

/* libuv has accepted the next client and keeps it until we ask: it is connected and hears nothing, as with QEMU. */
static void serve_next(struct peer *peer)
{
	struct client *client;

	if (!peer->waiting_client || peer->client || !peer->listening)
		return;
	peer->waiting_client = false;
	client = must(calloc(1, sizeof(*client)));
	client->peer = peer;
	client->reader = qmp_reader_new();
	socket_init(peer, &client->socket);
	client->socket.handle.data = client;
	if (uv_accept(&peer->listener.stream, &client->socket.stream) < 0) {
		uv_close(&client->socket.handle, client_gone);
		return;
	}
	peer->client = client;
	peer->clients++;
	uv_read_start(&client->socket.stream, lend_buffer, bytes_came);
	if (peer->greeting)
		peer_send(peer, peer->greeting);
}

static void client_came(uv_stream_t *listener, int status)
{
	struct peer *peer = listener->data;

	if (status < 0)
		return;
	peer->waiting_client = true;
	serve_next(peer);
}

/* --- its life --- */

static void bind_unix(struct peer *peer)
{
	strcpy(peer->folder, "/tmp/qmp-peer-XXXXXX");
	must(mkdtemp(peer->folder));
	snprintf(peer->path, sizeof(peer->path), "%s/qmp.sock", peer->folder);
	socket_init(peer, &peer->listener);
	if (uv_pipe_bind(&peer->listener.pipe, peer->path) < 0)
		abort();
}

/* False: this machine has no such address. */
static bool bind_tcp(struct peer *peer, const char *host)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address;
	int size = sizeof(address);

	peer->port = -1;
	socket_init(peer, &peer->listener);
	if (uv_ip4_addr(host, 0, &address.v4) && uv_ip6_addr(host, 0, &address.v6))
		abort();
	if (uv_tcp_bind(&peer->listener.tcp, &address.any, 0) ||
	    uv_tcp_getsockname(&peer->listener.tcp, &address.any, &size))
		return false;
	peer->port = ntohs(address.v4.sin_port); /* in the same place in both */
	snprintf(peer->path, sizeof(peer->path), strchr(host, ':') ? "[%s]:%d" : "%s:%d", host,
		 peer->port);
	return true;
}

static struct peer *peer_begin(uv_loop_t *loop, const char *host)
{
	struct peer *peer = must(calloc(1, sizeof(*peer)));

	/* libuv writes without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	peer->loop = loop;
	uv_timer_init(loop, &peer->pump);
	peer->handles = 2;
	peer->listening = true;
	if (!host)
		bind_unix(peer);
	peer->pump.data = peer;
	peer_set_greeting(peer, GREETING);
	peer_set_defaults(peer);
	if (host && !bind_tcp(peer, host)) {
		peer->listener.handle.data = peer;
		peer_free(peer);
		return NULL;
	}
	peer->listener.handle.data = peer;
	if (uv_listen(&peer->listener.stream, 8, client_came) < 0)
		abort();
	return peer;
}

struct peer *peer_new(uv_loop_t *loop)
{
	return peer_begin(loop, NULL);
}

struct peer *peer_new_tcp(uv_loop_t *loop, const char *host)
{
	return peer_begin(loop, host);
}

static void peer_gone(uv_handle_t *handle)
{
	struct peer *peer = handle->data;
	struct answer *answer, *next;

	if (--peer->handles || !peer->freed)
		return;
	LL_FOREACH_SAFE(peer->answers, answer, next) {
		free(answer->command);
		free(answer->json);
		free(answer->class);
		free(answer->desc);
		free(answer);
	}
	for (size_t i = 0; i < peer->count; i++) {
		free(peer->records[i].command);
		free(peer->records[i].message);
		qmp_value_free(peer->records[i].whole);
	}
	free(peer->records);
	free(peer->greeting);
	free(peer);
}

void peer_stop_listening(struct peer *peer)
{
	if (!peer->listening)
		return;
	peer->listening = false;
	uv_close(&peer->listener.handle, peer_gone);
	if (!peer->port)
		unlink(peer->path);
}

void peer_free(struct peer *peer)
{
	peer->freed = true;
	peer_stop_listening(peer);
	if (*peer->folder)
		rmdir(peer->folder);
	if (peer->client)
		client_close(peer->client);
	uv_close((uv_handle_t *)&peer->pump, peer_gone);
}

uv_loop_t *peer_loop(const struct peer *peer)
{
	return peer->loop;
}

const char *peer_path(const struct peer *peer)
{
	return peer->path;
}
