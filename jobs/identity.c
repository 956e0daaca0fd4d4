/*
 * Identities of disks and names of their folders. Called by jobs/inventory.c, and by whoever has an entry of a layout.
 */
#include "jobs/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/journal.h"
#include "jobs/source.h"
#include "qmp/value.h"

static const char node_kind[] = "node ";

static const char *node_of(const struct disk *disk)
{
	size_t length = sizeof(node_kind) - 1;

	return strncmp(disk->identity, node_kind, length) ? NULL : disk->identity + length;
}

/* The name as a user knows it, and with its kind in front: two kinds of names are never taken for the same. */
static const char *info_name(const struct qmp_disk_info *info, const char **kind)
{
	if (info->qdev) {
		*kind = "device";
		return info->qdev;
	}
	*kind = info->device && *info->device ? "drive" : "node";
	return info->device && *info->device ? info->device : info->node;
}

char *identity_of_info(const struct qmp_disk_info *info)
{
	const char *kind, *name = info_name(info, &kind);
	char *identity;

	if (asprintf(&identity, "%s %s", kind, name) < 0)
		abort();
	return identity;
}

struct disk *identity_find(struct domain *domain, const struct qmp_disk_info *info)
{
	char *identity = identity_of_info(info);
	struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (!strcmp(disk->identity, identity))
			break;
	free(identity);
	return disk;
}

static bool is_below(const struct qmp_disk_info *info, const char *node)
{
	for (size_t i = 1; i < info->depth; i++)
		if (info->chain[i].node && !strcmp(info->chain[i].node, node))
			return true;
	return false;
}

struct disk *identity_find_below(struct domain *domain, const struct qmp_disk_info *info)
{
	struct disk *disk;

	if (info->qdev || (info->device && *info->device))
		return NULL;
	if (domain->engine)
		return domain->disks; /* it has one, whatever a new engine calls its node */
	DL_FOREACH(domain->disks, disk)
		if (node_of(disk) && is_below(info, node_of(disk)))
			return disk;
	return NULL;
}

struct disk *domain_disk_of_info(struct domain *domain, const struct qmp_disk_info *info)
{
	struct disk *disk = identity_find(domain, info);

	return disk ? disk : identity_find_below(domain, info);
}

/* --- names of folders --- */

static bool is_overlay(const char *node)
{
	return node && !strncmp(node, NODE_OF_OVERLAY, strlen(NODE_OF_OVERLAY));
}

static char *key_of(const struct domain *domain, const char *node)
{
	char *key;

	if (asprintf(&key, "disk/%s/%s", domain->name, node) < 0)
		abort();
	return key;
}

/* What the disk was called when it got this overlay, if an earlier life has written it down. malloc'ed, or NULL. */
static char *remembered(const struct domain *domain, const char *node)
{
	char *key = key_of(domain, node), *name = NULL;
	const char *text = journal_get(domain->model->journal, key);
	struct qmp_value *record = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;
	const char *found = qmp_value_text(record, "name", NULL);

	if (found && *found && *found != '.' && !strchr(found, '/'))
		name = strdup(found); /* escaped already */
	qmp_value_free(record);
	free(key);
	return name;
}

/* Our own names of overlays mean nothing to anybody: the disk is called after what is below them. */
static const char *lowest_own_name(const struct qmp_disk_info *info)
{
	for (size_t i = 0; i < info->depth; i++)
		if (info->chain[i].node && *info->chain[i].node != '#' &&
		    !is_overlay(info->chain[i].node))
			return info->chain[i].node;
	return info->node;
}

char *identity_folder_name(struct domain *domain, const struct qmp_disk_info *info)
{
	const char *kind, *wanted = info_name(info, &kind);
	char *name = NULL, *other;

	if (wanted == info->node && is_overlay(wanted)) {
		name = remembered(domain, wanted);
		wanted = lowest_own_name(info);
	}
	if (!name)
		name = source_escape_name(wanted);
	if (!domain_find_disk(domain, name))
		return name;
	free(name);
	if (asprintf(&other, "%s (%s)", wanted, kind) < 0)
		abort();
	name = source_escape_name(other);
	free(other);
	return name;
}

static void write_down(const struct disk *disk, const char *node)
{
	struct qmp_value *record = qmp_add_text(qmp_object(), "name", disk->name);
	char *key = key_of(disk->domain, node);

	journal_put(disk->domain->model->journal, key, qmp_value_print(record));
	free(key);
	qmp_value_free(record);
}

static void strike_out(const struct disk *disk, const char *node)
{
	char *key = key_of(disk->domain, node);

	journal_drop(disk->domain->model->journal, key);
	free(key);
}

void identity_follow(struct disk *disk, const char *node)
{
	const char *old = node_of(disk);
	char *identity;

	if (!old || !strcmp(old, node))
		return;
	if (is_overlay(old))
		strike_out(disk, old);
	if (is_overlay(node))
		write_down(disk, node);
	if (asprintf(&identity, "%s%s", node_kind, node) < 0)
		abort();
	free(disk->identity);
	disk->identity = identity;
}

void identity_forget(struct disk *disk)
{
	if (is_overlay(node_of(disk)))
		strike_out(disk, node_of(disk));
}
