/*
 * What the kernel was told; see fs/known.h.
 */
#include "fs/known.h"

#include <stdlib.h>
#include <uthash.h>
#include <uv.h>

enum {
	AT_ONCE_NS = 3 * 1000 * 1000,
	AGAIN_NS = 1000 * 1000 * 1000, /* figures of running jobs are as old as that anyway */
};

struct known_node {
	uint64_t node;
	uint64_t lookups;
	struct text *told; /* NULL: none */
	uint64_t told_ns; /* when, by uv_hrtime() */
	struct text
		*shorter; /* told right before that; NULL: that was no shorter, or a while ago */
	uint64_t version, made_ns; /* for known_again() */
	bool toucher; /* it was told to the toucher, and to nobody else for a while before that */
	bool over; /* and the toucher has done with it */
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
	text_free(entry->shorter);
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

/*
 * Of two answers that were under way at the same time the kernel takes the first, and drops the size in the second (attr_version in
 * fs/fuse/inode.c); a read that follows at once goes by the first one's.
 */
static bool is_at_once(const struct known_node *entry)
{
	return uv_hrtime() - entry->told_ns < AT_ONCE_NS;
}

static void keep_shorter(struct known_node *entry, const struct text *content)
{
	bool is_shorter = entry->told && content && !entry->over && is_at_once(entry) &&
			  text_length(entry->told) < text_length(content);

	text_free(entry->shorter);
	entry->shorter = is_shorter ? entry->told : NULL;
	if (is_shorter)
		entry->told = NULL;
}

void known_tell(struct known *known, uint64_t node, struct text *content, bool toucher)
{
	struct known_node *entry = find(known, node);

	if (!entry) {
		text_free(content);
		return;
	}
	keep_shorter(entry, content);
	text_free(entry->told);
	entry->told = content;
	entry->toucher = toucher && (entry->toucher || !is_at_once(entry));
	entry->over = false;
	entry->told_ns = uv_hrtime();
}

struct text *known_again(struct known *known, uint64_t node, uint64_t version)
{
	struct known_node *entry = find(known, node);
	struct text *content = NULL;
	uint64_t now = uv_hrtime();

	if (!entry)
		return NULL;
	if (entry->version == version && now - entry->made_ns < AGAIN_NS) {
		content = entry->told;
		entry->told = NULL;
	}
	if (!content) {
		entry->version = version;
		entry->made_ns = now;
	}
	return content;
}

void known_touched(struct known *known, uint64_t node)
{
	struct known_node *entry = find(known, node);

	if (entry)
		entry->over = entry->toucher;
}

const struct text *known_told(const struct known *known, uint64_t node)
{
	const struct known_node *entry = find(known, node);

	if (entry && entry->shorter && is_at_once(entry))
		return entry->shorter;
	return entry ? entry->told : NULL;
}
