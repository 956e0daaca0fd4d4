/*
 * The commands of one link that the peer has not answered: their numbers, whose answer a message is, and answering them. Part of link.c.
 */
#ifndef QMP_SENT_H
#define QMP_SENT_H

#include "qmp/link.h"
#include "qmp/same.h"

/*
 * One command. Among those sent until it is answered: one that timed out stays there as a tombstone, so that its late answer is known for
 * what it is.
 */
struct command {
	uint64_t id;
	uint64_t deadline_ms;
	uint64_t sent_ns;
	qmp_reply_fn reply;
	qmp_brief_fn brief; /* or NULL */
	const struct qmp_known *known; /* or NULL */
	struct same *same; /* with @known, once it is sent */
	void *data;
	int refusal; /* never sent: -EAGAIN or -EHOSTDOWN */
	bool unnumbered; /* the peer is not told the id */
	bool timed_out;
	struct command *prev, *next; /* on a list of the link's */
	struct command *sent_prev, *sent_next;
	const char *name; /* NULL: none */
	bool lent; /* it lies in struct sent */
	_Alignas(void *) char asker[QMP_ASKER_BYTES]; /* of a question: what @data points to */
};

/* All zeros at first. */
struct sent {
	struct command *commands; /* oldest first: QEMU answers in that order */
	size_t count;
	struct command *unnumbered; /* the one of them whose answer has no id; NULL */
	uint64_t last_id, highest_id;
	struct command question;
	bool all_numbered; /* from now on: an answer without an id would be in doubt */
};

/* @name is a literal. */
struct command *command_new(const char *name, qmp_reply_fn reply, void *data);
/* One that is read in brief. The first that is under way lies in @sent. Copies @data. */
struct command *sent_question(struct sent *sent, const char *name, qmp_brief_fn brief,
			      qmp_reply_fn reply, const void *data, size_t size);
void command_free(struct command *command);
/* Answers with an error of our own. */
__attribute__((format(printf, 3, 4))) void command_fail(struct command *command, int code,
							const char *format, ...);
/* Answers with what the peer says: a message with "return" or "error". */
void command_answer(const struct command *command, const struct qmp_value *message);
/* What the peer is told; static: until the next call. @arguments may be NULL. */
const char *command_line(const struct command *command, struct qmp_value *arguments,
			 size_t *length);

/* Gives it its number. @first: qmp_capabilities, whose number is another in every connection. */
void sent_add(struct sent *sent, struct command *command, bool first);
void sent_remove(struct sent *sent, struct command *command);
/* Frees those that nobody waits for any more: all that are left. */
void sent_clear(struct sent *sent);

/* The command that @message answers; NULL: none. */
struct command *sent_find(const struct sent *sent, const struct qmp_value *message);
/* True of an answer to the client before us, once we have greeted back; before that everything is. */
bool sent_is_for_another(const struct sent *sent, const struct qmp_value *message);
/* True of the last answer to the client before us, which QEMU may give to us even before it greets (seen with 7.2). */
bool sent_is_left_over(const struct qmp_value *message);

#endif
