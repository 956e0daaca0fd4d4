/*
 * `by-source`; see fs/by_source.h.
 */
#include "fs/by_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "fs/node.h"

const struct file source_link_row = {
	.name = "",
	.mode = S_IFLNK | 0777,
	.topic = TOPIC_SOURCES,
};

/* Which link a disk has. */
struct source_user {
	const struct disk *disk;
	struct source_link *link;
	UT_hash_handle hh;
};

static struct source_user *find_user(const struct source_links *links, const struct disk *disk)
{
	struct source_user *user;

	HASH_FIND_PTR(links->users, &disk, user);
	return user;
}

static struct source_link *find_link(const struct source_links *links, uint64_t id)
{
	struct source_link *link;

	HASH_FIND(hh, links->links, &id, sizeof(id), link);
	return link;
}

const struct source_link *source_links_find(const struct source_links *links, uint64_t id)
{
	return find_link(links, id);
}

static struct source_link *add_link(struct source_links *links, struct domain *domain,
				    const char *name, uint64_t id)
{
	struct source_link *link = calloc(1, sizeof(*link));

	if (!link)
		abort();
	link->id = id;
	link->domain = domain;
	link->name = strdup(name);
	HASH_ADD(hh, links->links, id, sizeof(link->id), link);
	return link;
}

static void free_link(struct source_links *links, struct source_link *link)
{
	HASH_DEL(links->links, link);
	free(link->name);
	free(link);
}

static void leave(struct source_links *links, const struct disk *disk, source_told_fn told,
		  void *data)
{
	struct source_user *user = find_user(links, disk);
	struct source_link *link;

	if (!user)
		return;
	link = user->link;
	HASH_DEL(links->users, user);
	free(user);
	if (--link->users)
		return;
	told(data, link->domain, link->name, false);
	free_link(links, link);
}

static void join(struct source_links *links, struct disk *disk, source_told_fn told, void *data)
{
	uint64_t id = node_link_id(disk->domain->name, disk->source_name);
	struct source_user *user = calloc(1, sizeof(*user));
	struct source_link *link = find_link(links, id);
	bool added = !link;

	if (!user)
		abort();
	if (!link)
		link = add_link(links, disk->domain, disk->source_name, id);
	link->users++;
	user->disk = disk;
	user->link = link;
	HASH_ADD_PTR(links->users, disk, user);
	if (added)
		told(data, link->domain, link->name, true);
}

void source_links_update(struct source_links *links, struct disk *disk, bool removed,
			 source_told_fn told, void *data)
{
	const char *name = removed ? NULL : disk->source_name;
	const struct source_user *user = find_user(links, disk);

	if (user && name && !strcmp(user->link->name, name))
		return;
	leave(links, disk, told, data);
	if (name)
		join(links, disk, told, data);
}

void source_links_clear(struct source_links *links)
{
	struct source_user *user, *next_user;
	struct source_link *link, *next;

	HASH_ITER(hh, links->users, user, next_user) {
		HASH_DEL(links->users, user);
		free(user);
	}
	HASH_ITER(hh, links->links, link, next)
		free_link(links, link);
}

/* --- as they are seen --- */

const struct disk *source_link_disk(const struct domain *domain, const char *name)
{
	const struct disk *disk, *found = NULL;

	DL_FOREACH(domain->disks, disk)
		if (disk->source_name && !strcmp(disk->source_name, name) &&
		    (!found || strcmp(disk->name, found->name) < 0))
			found = disk;
	return found;
}

char *source_link_target(const struct place *link)
{
	const struct disk *disk = source_link_disk(link->domain, link->link);
	char *target = NULL;

	if (disk && asprintf(&target, "../disks/%s", disk->name) < 0)
		abort();
	return target;
}

static int compare_sources(const void *a, const void *b)
{
	const struct disk *const *one = a, *const *other = b;

	return strcmp((*one)->source_name, (*other)->source_name);
}

void source_links_each(const struct place *folder,
		       void (*each)(void *data, const char *name, const struct place *child),
		       void *data)
{
	const struct disk *disk, **disks;
	struct place child = *folder;
	size_t count = 0;

	DL_FOREACH(folder->domain->disks, disk)
		count++;
	disks = calloc(count + 1, sizeof(*disks));
	if (!disks)
		abort();
	count = 0;
	DL_FOREACH(folder->domain->disks, disk)
		if (disk->source_name)
			disks[count++] = disk;
	qsort(disks, count, sizeof(*disks), compare_sources);
	child.file = &source_link_row;
	for (size_t i = 0; i < count; i++) {
		if (i && !strcmp(disks[i - 1]->source_name, disks[i]->source_name))
			continue;
		child.link = disks[i]->source_name;
		each(data, child.link, &child);
	}
	free(disks);
}
