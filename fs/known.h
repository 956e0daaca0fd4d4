/*
 * What the kernel knows of the tree: which nodes it holds on to, and what it was told that each file's size is. It holds a node from a
 * lookup until it forgets it, and as nothing is cached here that is until nobody has the file open, watches it, or stands in the
 * folder: who is not known is not watched, and need not be touched (fs/notify.c).
 *
 * The size matters to what reads through the page cache (sendfile, splice: busybox cat, cp): the kernel cuts such a read off at the
 * size it was told last, so a content that has become longer since must not be given: half of it would be seen.
 *
 * Fed by fs/ops.c, asked by fs/io.c and fs/notify.c.
 */
#ifndef FS_KNOWN_H
#define FS_KNOWN_H

#include <stdbool.h>
#include <stdint.h>
#include "jobs/text.h"

struct known_node;

struct known {
	struct known_node *nodes;
	bool incomplete; /* lookups of an earlier life are not known: then anything may be watched */
};

void known_clear(struct known *known);
/* The kernel has been given the node once more. */
void known_looked_up(struct known *known, uint64_t node);
/* The kernel gives it back, @times of them. */
void known_forget(struct known *known, uint64_t node, uint64_t times);
/* True if somebody may watch the node. */
bool known_is(const struct known *known, uint64_t node);
/* The kernel has been told the size of @content. Takes it; NULL: it does not change, or only grows. */
void known_tell(struct known *known, uint64_t node, struct text *content);
/* That content, borrowed; NULL: none. */
const struct text *known_told(const struct known *known, uint64_t node);

#endif
