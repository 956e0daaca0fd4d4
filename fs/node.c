/*
 * Node ids and what they mean; see fs/node.h. Changing anything about the hashes changes every inode
 * number on the next start: tests/unit/test_fs_node.c has some by heart.
 */
#include "fs/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "jobs/journal.h"

struct folder {
	uint64_t hash; /* 47 bits */
	struct domain *domain;
	struct disk *disk;
	uint64_t generation;
	UT_hash_handle hh;
};

/* FNV-1a over the bytes of a string, going on from @hash. */
static uint64_t fold(uint64_t hash, const char *string)
{
	for (; *string; string++)
		hash = (hash ^ (unsigned char)*string) * UINT64_C(0x100000001b3);
	return hash;
}

/* FNV alone spreads short names badly over the upper bits: the finalizer of splitmix64. */
static uint64_t mix(uint64_t hash)
{
	hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
	return hash ^ hash >> 31;
}

static const uint64_t fnv_basis = UINT64_C(0xcbf29ce484222325);

/* No name has a '/', so no two folders give the same string. Never 0. */
static uint64_t folder_hash(const char *domain, const char *disk)
{
	uint64_t hash = fnv_basis;

	if (domain)
		hash = fold(fold(hash, domain), "/");
	if (disk)
		hash = fold(fold(hash, disk), "/");
	hash = mix(hash) >> 17;
	return hash ? hash : 1;
}

uint16_t node_name_hash(const char *name)
{
	uint16_t hash = (uint16_t)(mix(fold(fnv_basis, name)) >> 48);

	return hash ? hash : 1;
}

uint64_t node_id_of(const char *domain, const char *disk, const char *file)
{
	if (!domain && !file)
		return NODE_ROOT;
	return folder_hash(domain, disk) << 16 | (file ? node_name_hash(file) : 0);
}

/* "domain/by-source/name/": with one '/' more than any folder's string has. */
uint64_t node_link_id(const char *domain, const char *name)
{
	uint64_t hash = fold(fold(fold(fold(fnv_basis, domain), "/by-source/"), name), "/");

	hash = mix(hash) >> 17;
	return (hash ? hash : 1) << 16 | node_name_hash("by-source");
}

uint64_t node_id(const struct place *place)
{
	if (place->link)
		return node_link_id(place->domain->name, place->link);
	return node_id_of(place->domain ? place->domain->name : NULL,
			  place->disk ? place->disk->name : NULL,
			  place->file ? place->file->name : NULL);
}

static struct folder *find_folder(const struct nodes *nodes, uint64_t hash)
{
	struct folder *folder;

	HASH_FIND(hh, nodes->folders, &hash, sizeof(hash), folder);
	return folder;
}

static uint64_t hash_of(const struct domain *domain, const struct disk *disk)
{
	return folder_hash(domain ? domain->name : NULL, disk ? disk->name : NULL);
}

/* --- generations, for the next life: the kernel compares them with those that it was told --- */

static char *generation_key(const struct domain *domain, const struct disk *disk)
{
	char *key;

	if (asprintf(&key, "node/%s%s%s", domain ? domain->name : "", disk ? "/" : "",
		     disk ? disk->name : "") < 0)
		abort();
	return key;
}

static void keep_number(const struct nodes *nodes, const char *key, uint64_t number)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	journal_put(nodes->model->handover, key, text);
}

static uint64_t kept_number(const struct nodes *nodes, const char *key, uint64_t otherwise)
{
	const char *text = journal_get(nodes->model->handover, key);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t find_generation(const struct nodes *nodes, const struct domain *domain,
				const struct disk *disk)
{
	char *key = generation_key(domain, disk);
	bool carried = nodes->model->resuming;
	uint64_t generation = kept_number(nodes, key, carried ? 0 : nodes->removed);

	/* In most trees no folder has ever been removed: 0 is not kept. */
	if (generation)
		keep_number(nodes, key, generation);
	free(key);
	return generation;
}

/* --- folders --- */

void nodes_init(struct nodes *nodes, struct model *model)
{
	*nodes = (struct nodes){ .model = model };
	nodes->removed = kept_number(nodes, "removed", 0);
	nodes_add(nodes, NULL, NULL);
}

void nodes_clear(struct nodes *nodes)
{
	struct folder *folder, *next;

	HASH_ITER(hh, nodes->folders, folder, next) {
		HASH_DEL(nodes->folders, folder);
		free(folder);
	}
	source_links_clear(&nodes->sources);
}

bool nodes_may_add(const struct nodes *nodes, const struct domain *domain, const struct disk *disk)
{
	return !find_folder(nodes, hash_of(domain, disk));
}

void nodes_add(struct nodes *nodes, struct domain *domain, struct disk *disk)
{
	struct folder *folder = calloc(1, sizeof(*folder));

	if (!folder)
		abort();
	folder->hash = hash_of(domain, disk);
	folder->domain = domain;
	folder->disk = disk;
	folder->generation = find_generation(nodes, domain, disk);
	HASH_ADD(hh, nodes->folders, hash, sizeof(folder->hash), folder);
}

void nodes_remove(struct nodes *nodes, const struct domain *domain, const struct disk *disk)
{
	struct folder *folder = find_folder(nodes, hash_of(domain, disk));
	char *key;

	if (!folder || folder->domain != domain || folder->disk != disk)
		return;
	HASH_DEL(nodes->folders, folder);
	free(folder);
	key = generation_key(domain, disk);
	journal_drop(nodes->model->handover, key);
	free(key);
	nodes->removed++;
	keep_number(nodes, "removed", nodes->removed);
}

uint64_t node_generation(const struct nodes *nodes, const struct place *place)
{
	const struct folder *folder = find_folder(nodes, hash_of(place->domain, place->disk));

	return folder && !place->file ? folder->generation : 0;
}

static bool find_link(const struct nodes *nodes, uint64_t id, struct place *place)
{
	const struct source_link *link = source_links_find(&nodes->sources, id);

	if (!link)
		return false;
	place->domain = link->domain;
	place->file = &source_link_row;
	place->link = link->name;
	return true;
}

bool node_find(const struct nodes *nodes, uint64_t id, struct place *place)
{
	uint16_t name = (uint16_t)id;
	struct folder *folder;

	*place = (struct place){ .model = nodes->model };
	if (id == NODE_ROOT)
		return true;
	folder = find_folder(nodes, id >> 16);
	if (!folder)
		return find_link(nodes, id, place);
	place->domain = folder->domain;
	place->disk = folder->disk;
	if (!name)
		return folder->domain; /* the root itself has the other id */
	for (const struct file *file = place_table(place); file->name; file++) {
		if (node_name_hash(file->name) == name) {
			place->file = file;
			return true;
		}
	}
	return false;
}

bool node_child(const struct place *parent, const char *name, struct place *child)
{
	*child = *parent;
	if (!parent->file) {
		child->file = file_find(place_table(parent), name);
		return child->file;
	}
	if (!place_is_folder(parent))
		return false;
	child->file = NULL;
	if (!parent->domain) {
		child->domain = model_find_domain(parent->model, name);
		return child->domain;
	}
	if (parent->file->flags & FILE_LINKS) {
		const struct disk *disk = source_link_disk(parent->domain, name);

		child->file = &source_link_row;
		child->link = disk ? disk->source_name : NULL;
		return disk;
	}
	child->disk = domain_find_disk(parent->domain, name);
	return child->disk;
}

struct place node_parent(const struct place *place)
{
	struct place parent = { .model = place->model, .domain = place->domain };

	if (place->link) {
		parent.file = file_find(domain_files, "by-source");
	} else if (place->file) {
		parent.disk = place->disk;
	} else if (place->disk) {
		parent.file = file_find(domain_files, "disks");
	} else if (place->domain) {
		parent.domain = NULL;
		parent.file = file_find(root_files, "domains");
	}
	return parent;
}

void node_children(const struct place *folder, node_each_fn each, void *data)
{
	struct place child = *folder;

	child.file = NULL;
	if (!folder->file) {
		for (child.file = place_table(folder); child.file->name; child.file++)
			each(data, child.file->name, &child);
	} else if (folder->file->flags & FILE_LINKS) {
		source_links_each(folder, each, data);
	} else if (folder->domain) {
		for (child.disk = folder->domain->disks; child.disk; child.disk = child.disk->next)
			each(data, child.disk->name, &child);
	} else {
		for (child.domain = folder->model->domains; child.domain;
		     child.domain = child.domain->next)
			each(data, child.domain->name, &child);
	}
}

bool node_has_links(const struct nodes *nodes, uint64_t folder)
{
	struct place place;

	return node_find(nodes, folder, &place) && place.file && place.file->flags & FILE_LINKS;
}
