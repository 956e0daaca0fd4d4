/*
 * What the kernel was told; see fs/known.h.
 */
#include "fs/known.h"

#include <stdlib.h>
#include <uthash.h>

struct known_node {
	uint64_t node;
	uint64_t lookups;
	struct text *told; /* NULL: none */
	UT_hash_handle hh;
};

static struct known_node *find(const struct known *known, uint64_t node)
{
	struct known_node *entry;

	HASH_FIND(hh, known->nodes, &node, sizeof(node), entry);
	return entry;
}

static void drop(struct known *known, struct known_node *entry)
{
	HASH_DEL(known->nodes, entry);
	text_free(entry->told);
	free(entry);
}

void known_clear(struct known *known)
{
	struct known_node *entry, *next;

	HASH_ITER(hh, known->nodes, entry, next)
		drop(known, entry);
}

void known_looked_up(struct known *known, uint64_t node)
{
	struct known_node *entry = find(known, node);

	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			abort();
		entry->node = node;
		HASH_ADD(hh, known->nodes, node, sizeof(entry->node), entry);
	}
	entry->lookups++;
}

void known_forget(struct known *known, uint64_t node, uint64_t times)
{
	struct known_node *entry = find(known, node);

	if (!entry)
		return; /* looked up in an earlier life */
	if (entry->lookups > times)
		entry->lookups -= times;
	else
		drop(known, entry);
}

void known_tell(struct known *known, uint64_t node, struct text *content)
{
	struct known_node *entry = find(known, node);

	if (!entry) {
		text_free(content);
		return;
	}
	text_free(entry->told);
	entry->told = content;
}

const struct text *known_told(const struct known *known, uint64_t node)
{
	const struct known_node *entry = find(known, node);

	return entry ? entry->told : NULL;
}
