/*
 * Commands that were under way when the server died. The kernel sends them again to the next one, with the number that they had, and their writers wait
 * for the one answer. What was done already must not be done twice; so a command that cannot be repeated as it is notes, before it acts, what it is
 * about to do, under its number. A command that finds a note of its own goes on from there. Used by the commands.
 *
 * The ids of jobs are made of that number, too (request_number()): a start that is sent twice QEMU itself refuses.
 */
#ifndef JOBS_REQUEST_H
#define JOBS_REQUEST_H

#include "jobs/op.h"

struct qmp_value;

/* A number that only this command has, over all mounts and lives; of one that did not come from the kernel, a random one. */
uint64_t request_number(const struct op *op);
/* Notes @note, which is freed, in place of what was noted before. */
void request_note(const struct op *op, struct qmp_value *note);
/* What an earlier life has noted of this command; the caller's. NULL: nothing, or it comes for the first time. */
struct qmp_value *request_noted(const struct op *op);
/* The command is answered. */
void request_over(const struct op *op);

/* True if a command that was under way when the last life died has noted this node: QEMU has it, and it may be of no use. */
bool request_has_node(struct model *model, const char *node);

/* Notes that the command is about to be sent for the disk's live job. */
void request_note_job(const struct op *op);
/* True if it has been sent, by an earlier life, for a job that is not the disk's live one: that is over. */
bool request_job_is_over(const struct op *op);
/*
 * A starting command: true if an earlier life has started its job. The op is over then, and its writer has the answer that it
 * would have got.
 */
bool request_has_started(struct op *op);

#endif
