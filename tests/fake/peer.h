/*
 * A scripted QMP peer: one monitor in the same process and on the same loop as what is tested. It listens on a unix socket in
 * a fresh folder of its own, greets, answers commands from a table, and does whatever else a test tells it to. It looks like a
 * machine (QEMU 7.2) with one disk unless told otherwise: qdev "vda", nodes "top" over "mid" over "base", files /vm/top.qcow2 ...
 *
 * Like QEMU it serves one client at a time: the next one is connected but not greeted until the first has gone.
 * Nothing happens inside these functions but the queueing of output: all is done by the loop, and the test runs the loop.
 * The strings given are copied. JSON given may use single quotes instead of double ones, to be readable in C (if there is no
 * double quote in it).
 */
#ifndef TESTS_FAKE_PEER_H
#define TESTS_FAKE_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>
#include "qmp/value.h"

struct peer;

struct peer *peer_new(uv_loop_t *loop);
/* On TCP instead, at @host, an address in numbers, and any port. NULL: this machine has no such address. */
struct peer *peer_new_tcp(uv_loop_t *loop, const char *host);
/* Hangs up and stops listening; the folder is gone at once, handles and memory after the next runs of the loop. */
void peer_free(struct peer *peer);
uv_loop_t *peer_loop(const struct peer *peer);
/* The socket's path, or HOST:PORT. */
const char *peer_path(const struct peer *peer);

/* --- what it says by itself --- */

/* All answers as they were at first. */
void peer_set_defaults(struct peer *peer);
/* Sent to each client that is served; NULL: nothing. As is, so with its own line end. */
void peer_set_greeting(struct peer *peer, const char *text);
/* From now on, answers @command with {"return": @json, "id": ...}. @json NULL: gives no answer at all. */
void peer_set_answer(struct peer *peer, const char *command, const char *json);
/* From now on, answers @command with an error. */
void peer_set_refusal(struct peer *peer, const char *command, const char *class, const char *desc);
/*
 * Called for each command before the table is looked at; true: it is dealt with (at once, later, or never).
 * @number is the command's place in the record.
 */
typedef bool (*peer_command_fn)(void *data, struct peer *peer, size_t number, const char *command,
				const struct qmp_value *arguments);
void peer_set_hook(struct peer *peer, peer_command_fn hook, void *data);
/* From now on, output goes out in pieces of @bytes, each in another turn of the loop. 0: all at once (the default). */
void peer_set_pieces(struct peer *peer, size_t bytes);

/* --- what it says when told to; in the order of the calls, to the client served --- */

void peer_send(struct peer *peer, const char *text);
void peer_send_bytes(struct peer *peer, const void *bytes, size_t length);
/* {"event": @name, "data": @data_json or {}, "timestamp": ...} */
void peer_send_event(struct peer *peer, const char *name, const char *data_json);
/* Answers the command in place @number of the record. */
void peer_reply(struct peer *peer, size_t number, const char *json);
void peer_reply_error(struct peer *peer, size_t number, const char *class, const char *desc);
/* The same as it would have been answered when it came: by the hook, or from the table. */
void peer_answer(struct peer *peer, size_t number);
/* Hangs up on the client right after what was sent so far, then serves the next one. */
void peer_hang_up(struct peer *peer);
/* Reads nothing more from its client, or reads again. */
void peer_set_deaf(struct peer *peer, bool deaf);
/* Stops listening: connecting is refused from now on. */
void peer_stop_listening(struct peer *peer);

/* --- what it was told: the record of all commands of all clients, qmp_capabilities included --- */

size_t peer_count(const struct peer *peer);
/* Name, arguments and whole message of a command; NULL if @number is none (arguments also if it has none). */
const char *peer_command(const struct peer *peer, size_t number);
const struct qmp_value *peer_arguments(const struct peer *peer, size_t number);
const char *peer_message(const struct peer *peer, size_t number);
/* How many of them are @command, and the place of the last one ((size_t)-1: none). */
size_t peer_count_of(const struct peer *peer, const char *command);
size_t peer_last_of(const struct peer *peer, const char *command);
/* How many clients have been served so far. */
size_t peer_clients(const struct peer *peer);

/* --- running the loop --- */

/* Runs the loop until @done(@data) says true; false: it did not within @timeout_ms. */
bool peer_run_until(uv_loop_t *loop, bool (*done)(void *data), void *data, unsigned timeout_ms);
/* Runs the loop until there are @count of @command in the record. */
bool peer_run_until_command(struct peer *peer, const char *command, size_t count,
			    unsigned timeout_ms);
/* Runs the loop for @ms. */
void peer_run_for(uv_loop_t *loop, unsigned ms);
/* Runs the loop until nothing is left in it; false: something still was after @timeout_ms. */
bool peer_run_empty(uv_loop_t *loop, unsigned timeout_ms);
/* How many descriptors this process has open. */
int peer_open_descriptors(void);

/* Reads tests/unit/data/@name (found from the program's working folder: the top of the source). Owned by the caller. */
struct qmp_value *peer_load(const char *name);

#endif
