/*
 * Notices and orders as texts; see fs/notify_kept.h. A path has no tab: names of folders are escaped.
 */
#include "fs/notify_kept.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/journal.h"

#define NOTICE "notice/"
#define ORDER  "order/"

static char *key_of(const char *path)
{
	char *key;

	if (asprintf(&key, NOTICE "%s", path) < 0)
		abort();
	return key;
}

void notify_keep_notice(struct journal *journal, const char *path, uint64_t node)
{
	char *key = key_of(path), value[24];

	snprintf(value, sizeof(value), "%" PRIu64, node);
	journal_put(journal, key, value);
	free(key);
}

void notify_drop_notice(struct journal *journal, const char *path)
{
	char *key = key_of(path);

	journal_drop(journal, key);
	free(key);
}

void notify_keep_order(struct journal *journal, const struct kept_order *order)
{
	char *value, key[32];

	snprintf(key, sizeof(key), ORDER "%" PRIu64, order->number);
	if (asprintf(&value, "%c %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\t%s\t%s\t%s",
		     order->what, order->parent, order->node, order->generation,
		     order->domain_generation, order->path, order->name,
		     order->domain ? order->domain : "") < 0)
		abort();
	journal_put(journal, key, value);
	free(value);
}

void notify_drop_order(struct journal *journal, uint64_t number)
{
	char key[32];

	snprintf(key, sizeof(key), ORDER "%" PRIu64, number);
	journal_drop(journal, key);
}

struct each {
	void (*notice)(void *data, const char *path, uint64_t node);
	void (*order)(void *data, const struct kept_order *order);
	void *data;
};

static void each_notice(void *data, const char *key, const char *value)
{
	const struct each *each = data;

	each->notice(each->data, key + strlen(NOTICE), strtoull(value, NULL, 10));
}

static void each_order(void *data, const char *key, const char *value)
{
	const struct each *each = data;
	struct kept_order order = { .number = strtoull(key + strlen(ORDER), NULL, 10) };
	char *copy = strdup(value), *rest = copy, *numbers;

	if (!copy)
		abort();
	numbers = strsep(&rest, "\t");
	order.path = strsep(&rest, "\t");
	order.name = strsep(&rest, "\t");
	order.domain = rest && *rest ? rest : NULL;
	if (order.name &&
	    sscanf(numbers, "%c %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &order.what,
		   &order.parent, &order.node, &order.generation, &order.domain_generation) == 5)
		each->order(each->data, &order);
	free(copy);
}

void notify_each_kept(struct journal *journal,
		      void (*notice)(void *data, const char *path, uint64_t node),
		      void (*order)(void *data, const struct kept_order *order), void *data)
{
	struct each each = { notice, order, data };

	journal_each(journal, ORDER, each_order, &each);
	journal_each(journal, NOTICE, each_notice, &each);
}
