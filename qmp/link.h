/*
 * One connection to one QMP monitor, from connect to the end. Whoever wants to stay connected opens a new link when one has closed
 * (jobs/domain.c).
 *
 * Order of calls to the owner: reached, [busy] ready, then events and replies in the order they arrived, then closed. All that the
 * peer had sent is delivered before `closed`. Each command's reply function is called exactly once: with QEMU's answer, with
 * -ETIMEDOUT at its deadline, or with -EHOSTDOWN when the link ends (before `closed`). No callback runs inside
 * qmp_link_open(), qmp_link_send() or qmp_link_close(): they are only called from the loop.
 */
#ifndef QMP_LINK_H
#define QMP_LINK_H

#include <uv.h>
#include "qmp/event.h"
#include "qmp/transport.h"
#include "qmp/value.h"

struct qmp_link;

enum {
	/* So many commands may wait for an answer on one link (answers to timed-out commands included); one more gets -EAGAIN. */
	QMP_COMMANDS_MAX = 1024,
	QMP_ASKER_BYTES = 2 * sizeof(void *), /* a function, and what it is called with */
};

struct qmp_error {
	int code; /* -EREMOTEIO: refused by QEMU, -ETIMEDOUT, -EHOSTDOWN, -EAGAIN; -EPROTO: an answer of the wrong shape */
	const char *class; /* QEMU's error class, or "" */
	const char *text; /* for people; never NULL */
};

/* @error is NULL if QEMU has accepted the command; @value is its "return" then. Both are borrowed. */
typedef void (*qmp_reply_fn)(void *data, const struct qmp_error *error,
			     const struct qmp_value *value);

struct qmp_link_handlers {
	/* There is a connection, and it is silent as yet. May be NULL. */
	void (*reached)(void *owner);
	/* Greeted, capabilities negotiated: commands may be sent. */
	void (*ready)(void *owner);
	/* Connected, but not greeted in time. The link goes on waiting; ready or closed follows. */
	void (*busy)(void *owner);
	void (*event)(void *owner, const struct qmp_event *event);
	/*
	 * The link is over; called once, the link frees itself afterwards. @code: -ECONNREFUSED, -ENOENT, -EACCES, ... : it could not be
	 * opened; -ECONNRESET: the peer ended it; -EPROTO: it did not speak QMP; -ETIMEDOUT: it refused to take our bytes.
	 */
	void (*closed)(void *owner, int code, const char *reason);
	/* A command has been answered after so many nanoseconds, or is given up (@failed, as is one that was refused). May be NULL. */
	void (*answered)(void *owner, const char *command, uint64_t ns, bool failed);
	/*
	 * The very last call, also if the owner has let go: no reply function will be called any more, and nothing of the owner is
	 * needed. It may be freed here. May be NULL.
	 */
	void (*gone)(void *owner);
};

/*
 * Starts to connect to the monitor at @address. @timeout_ms is the deadline of every command. Never fails: what
 * goes wrong is told by `closed`. @handlers must outlive the link.
 */
struct qmp_link *qmp_link_open(uv_loop_t *loop, const struct qmp_address *address,
			       unsigned timeout_ms, const struct qmp_link_handlers *handlers,
			       void *owner);

/*
 * Sends a command. Takes @arguments (may be NULL). @reply (may be NULL) is called exactly once, from the loop. Commands may be sent
 * from `ready` on and until `closed`; at any other time @reply gets -EHOSTDOWN.
 */
void qmp_link_send(struct qmp_link *link, const char *command, struct qmp_value *arguments,
		   qmp_reply_fn reply, void *data);

/*
 * The same without arguments, for a command whose answer can be read without building a tree (qmp/brief.h): @brief is called with the text
 * of the answer's "return", which it may change, and returns true if that was all that @reply is for. If it returns false, or is not
 * called, @reply is. Only one at a time is sent without an id, the others with one.
 */
typedef bool (*qmp_brief_fn)(void *data, char *text);
/* @data is copied, @size bytes of it, at most QMP_ASKER_BYTES: the functions get the copy, which is theirs until they return. */
void qmp_link_ask(struct qmp_link *link, const char *command, qmp_brief_fn brief,
		  qmp_reply_fn reply, const void *data, size_t size);

/*
 * The same for a command whose long answer has often come before, to the letter (qmp/same.h): from this QEMU or from another.
 */
struct qmp_known {
	/*
	 * What stood behind "return" in answer @number of those that are known, up to the id, at most SAME_TEXTS_MAX; NULL: there are no more. It
	 * never changes.
	 */
	const char *(*text)(size_t number, size_t *length);
	/* It is answer @number: that was all, and there will be no reply. */
	void (*is)(void *data, size_t number);
	/* It is none of them, and this is its text: the reply follows, and until it has returned the text is valid. */
	void (*came)(void *data, const char *text, size_t length);
};
void qmp_link_ask_known(struct qmp_link *link, const char *command, const struct qmp_known *known,
			qmp_reply_fn reply, void *data);

/*
 * The owner lets go: it gets no more events and no `closed`, only `gone`. Commands under way are answered -EHOSTDOWN from the loop, so their
 * @data must stay valid until then. The link frees itself.
 */
void qmp_link_close(struct qmp_link *link);

/* A command, or an answer, is about to come: fetches the memory of the link, which may be NULL; and, when that is there, of what it points to. */
void qmp_link_prefetch(const struct qmp_link *link);
void qmp_link_prefetch_parts(const struct qmp_link *link);

/* The process at the other end if it is one of this machine and the kernel knows it (SO_PEERCRED), or 0. */
pid_t qmp_link_peer(const struct qmp_link *link);

#endif
