/*
 * What the kernel was told that each file's size is. It matters to what reads through the page cache (sendfile, splice: busybox cat,
 * cp): the kernel cuts such a read off at the size it was told last, so a content that has become longer since must not be given: half
 * of it would be seen. Kept for the nodes that the kernel holds on to, from a lookup until it forgets them. (It does not forget
 * what nobody uses until it wants the memory: who watches cannot be told from that.)
 *
 * Fed by fs/ops.c, asked by fs/io.c, and by fs/ops.c for what may be told once more.
 */
#ifndef FS_KNOWN_H
#define FS_KNOWN_H

#include <stdint.h>
#include "jobs/text.h"

struct known_node;

struct known {
	struct known_node *nodes;
};

void known_clear(struct known *known);
/* The kernel has been given the node once more. */
void known_looked_up(struct known *known, uint64_t node);
/* The kernel gives it back, @times of them. */
void known_forget(struct known *known, uint64_t node, uint64_t times);
/* The kernel has been told the size of @content, @toucher: for our toucher. Takes it; NULL: it does not change, or only grows. */
void known_tell(struct known *known, uint64_t node, struct text *content, bool toucher);
/*
 * For a file whose length hangs on @version alone: what was told of it within the last second, to be told once more, the caller's now; NULL: there is
 * none, and what is told next is of this @version. Who looks at a table of a thousand jobs has it laid out once, not for each question of the kernel's.
 */
struct text *known_again(struct known *known, uint64_t node, uint64_t version);
/*
 * The toucher has opened, written and closed the file since: so what it was told of it has long been taken note of, and is under way at the same
 * time as nothing that is told from now on.
 */
void known_touched(struct known *known, uint64_t node);
/* The content that the kernel goes by, borrowed; NULL: none. */
const struct text *known_told(const struct known *known, uint64_t node);

#endif
