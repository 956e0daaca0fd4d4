/*
 * Domains that are made in the tree: mkdir, an address written to the domain's `address`, rmdir. Only the mount's owner and root
 * may, and only monitors that are reached by a socket: what starts a program comes from the command line. Such a domain is kept in the
 * journal (attached/NAME) and is there again after a restart.
 *
 * Called by fs/ through mkdir(2), rmdir(2) and the row of `address`, and by main() at the start.
 */
#ifndef JOBS_ATTACH_H
#define JOBS_ATTACH_H

#include "jobs/op.h"

struct command;

/* mkdir domains/@name. @op, whose target is the mount, is completed when it returns. */
void attach_make(struct op *op, const char *name);
/* rmdir domains/@name, of whichever source. @op, whose target is the domain, is completed when it returns. */
void attach_remove(struct op *op);
/* What was written to `address`. */
void attach_write(struct op *op, const struct command *command);
/* After the sources of the command line have been added: those of an earlier life. */
void attach_remembered(struct model *model);

#endif
