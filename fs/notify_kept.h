/*
 * What is still to be told to those who watch, for the next server of the mount: a change that nobody was told of when the server was killed would never be told. In
 * model->handover, under notice/PATH and order/NUMBER. Used by fs/notify.c.
 */
#ifndef FS_NOTIFY_KEPT_H
#define FS_NOTIFY_KEPT_H

#include <stdint.h>

struct journal;

/* A folder or a link to be made or removed once more; strings are borrowed. */
struct kept_order {
	char what; /* as in fs/toucher.h */
	const char *path, *name;
	const char *domain; /* that it is in; NULL: it is one itself */
	uint64_t parent, node, generation, domain_generation;
	uint64_t number; /* in the order in which they are to be carried out; never 0 */
};

void notify_keep_notice(struct journal *journal, const char *path, uint64_t node);
void notify_drop_notice(struct journal *journal, const char *path);
void notify_keep_order(struct journal *journal, const struct kept_order *order);
void notify_drop_order(struct journal *journal, uint64_t number);
/* Calls these for all that an earlier life has kept, orders as they were given. @journal is not to be changed meanwhile. */
void notify_each_kept(struct journal *journal,
		      void (*notice)(void *data, const char *path, uint64_t node),
		      void (*order)(void *data, const struct kept_order *order), void *data);

#endif
