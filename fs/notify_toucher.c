/*
 * Who the toucher is, and what the tree is for it alone: see fs/notify.h.
 */
#include "fs/notify_private.h"

#include <stdio.h>
#include <string.h>
#include "fs/face.h"
#include "fs/node.h"
#include "fs/toucher.h"
#include "jobs/journal.h"

/* What the next life knows it by. */
char *notify_toucher_key(char key[TOUCHER_KEY_BYTES], pid_t pid)
{
	snprintf(key, TOUCHER_KEY_BYTES, "toucher/%d", pid);
	return key;
}

bool notify_is_toucher(const struct notify *notify, pid_t pid, bool again)
{
	char key[TOUCHER_KEY_BYTES];

	if (again && journal_get(notify->face->model->handover, notify_toucher_key(key, pid)))
		return true;
	for (int i = 0; i < TOUCHERS_MAX; i++)
		if (notify->touchers[i] && toucher_pid(notify->touchers[i]) == pid)
			return true;
	return false;
}

/* The order that the toucher is at, if it is about a folder; else NULL. */
static const struct order *current_folder(struct notify *notify)
{
	if (notify->toucher)
		toucher_catch_up(notify->toucher);
	return notify->orders && !notify->orders->notice ? notify->orders : NULL;
}

/* True if @order removes a disk whose domain is gone, too. */
static bool lacks_domain(const struct notify *notify, const struct order *order)
{
	return order->what == 'r' && order->domain &&
	       !model_find_domain(notify->face->model, order->domain);
}

enum notify_folder notify_toucher_sees(struct notify *notify, uint64_t parent, const char *name,
				       uint64_t *node, uint64_t *generation)
{
	const struct order *order = current_folder(notify);
	const char *disks = "disks";

	if (!order)
		return FOLDER_OTHER;
	if (order->parent == parent && !strcmp(order->name, name)) {
		*node = order->node;
		*generation = order->generation;
		return order->what == 'm' || order->what == 's' ? FOLDER_ADDED : FOLDER_REMOVED;
	}
	if (!lacks_domain(notify, order))
		return FOLDER_OTHER;
	*generation = 0;
	if (parent == node_id_of(NULL, NULL, "domains") && !strcmp(name, order->domain)) {
		*node = node_id_of(order->domain, NULL, NULL);
		*generation = order->domain_generation;
	} else if (parent == node_id_of(order->domain, NULL, NULL) && !strcmp(name, disks)) {
		*node = order->parent;
	} else {
		return FOLDER_OTHER;
	}
	return FOLDER_REMOVED;
}

bool notify_toucher_walks(struct notify *notify, uint64_t node)
{
	const struct order *order = current_folder(notify);

	return order && lacks_domain(notify, order) &&
	       (node == order->parent || node == node_id_of(order->domain, NULL, NULL));
}
