/*
 * What all requests share, and the model's watcher; see fs/face.h.
 */
#include "fs/face.h"

#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>
#include "fs/log.h"
#include "fs/notify.h"

static void link_told(void *data, const struct domain *domain, const char *name, bool is_there)
{
	struct face *face = data;

	if (face->notify)
		notify_link(face->notify, domain, name, is_there);
}

static void added(void *data, struct domain *domain, struct disk *disk)
{
	struct face *face = data;
	struct place place = { .model = face->model, .domain = domain, .disk = disk };

	nodes_add(&face->nodes, domain, disk);
	if (disk)
		source_links_update(&face->nodes.sources, disk, false, link_told, face);
	face->changed = true;
	if (face->notify && face->by_kernel && !disk)
		notify_folder_made(face->notify, domain);
	else if (face->notify)
		notify_folder(face->notify, domain, disk, node_generation(&face->nodes, &place),
			      true);
}

static void removed(void *data, struct domain *domain, struct disk *disk)
{
	struct face *face = data;
	struct place place = { .model = face->model, .domain = domain, .disk = disk };
	uint64_t generation = node_generation(&face->nodes, &place);

	open_files_leave(&face->files, node_id(&place));
	if (disk)
		source_links_update(&face->nodes.sources, disk, true, link_told, face);
	nodes_remove(&face->nodes, domain, disk);
	face->changed = true;
	if (face->notify && !(face->by_kernel && !disk))
		notify_folder(face->notify, domain, disk, generation, false);
}

static void add_stale(struct face *face, const struct place *folder)
{
	if (face->stale_count == face->stale_room) {
		face->stale_room = face->stale_room ? 2 * face->stale_room : 8;
		face->stale = realloc(face->stale, face->stale_room * sizeof(*face->stale));
		if (!face->stale)
			abort();
	}
	face->stale[face->stale_count++] = node_id(folder);
}

void face_forget_folder(struct face *face, struct domain *domain, struct disk *disk)
{
	struct place place = { .model = face->model, .domain = domain, .disk = disk };

	if (!face->notify)
		return; /* then nothing is remembered */
	face->changed = true;
	add_stale(face, &place);
	for (place.file = place_table(&place); place.file->name; place.file++)
		if (S_ISDIR(place.file->mode))
			add_stale(face, &place);
}

void face_forget_heirs(struct face *face, const struct place *place)
{
	struct disk *disk;

	if (!place->domain || place->file)
		return;
	face_forget_folder(face, place->domain, place->disk);
	if (!place->disk)
		DL_FOREACH(place->domain->disks, disk)
			face_forget_folder(face, place->domain, disk);
}

/* Called in the middle of requests too: the kernel is told later. */
static void changed(void *data, struct domain *domain, struct disk *disk, enum topic topic)
{
	struct face *face = data;

	face->changed = true;
	if (topic == TOPIC_LISTING || topic == TOPIC_SOURCES)
		face_forget_folder(face, domain, disk);
	if (topic == TOPIC_CHAIN && disk)
		source_links_update(&face->nodes.sources, disk, false, link_told, face);
	if (face->notify)
		notify_changed(face->notify, domain, disk, topic);
}

static bool may_add(void *data, struct domain *domain, struct disk *disk, const char **reason)
{
	struct face *face = data;

	if (nodes_may_add(&face->nodes, domain, disk))
		return true;
	*reason = "its inode number would be that of another folder: give it another name";
	return false;
}

static void log_of_model(void *data, const char *line)
{
	log_line("%s", line);
}

const struct model_watcher face_watcher = {
	.added = added,
	.removed = removed,
	.changed = changed,
	.log = log_of_model,
	.may_add = may_add,
};

void face_init(struct face *face)
{
	*face = (struct face){ .uid = geteuid(), .gid = getegid() };
	open_files_init(&face->files);
}

void face_set_model(struct face *face, struct model *model)
{
	face->model = model;
	nodes_init(&face->nodes, model);
}

/* --- files that somebody waits for --- */

struct busy_node {
	uint64_t node;
	unsigned count;
	UT_hash_handle hh;
};

static struct busy_node *find_busy(const struct face *face, uint64_t node)
{
	struct busy_node *busy;

	HASH_FIND(hh, face->busy, &node, sizeof(node), busy);
	return busy;
}

void face_node_busy(struct face *face, uint64_t node)
{
	struct busy_node *busy = find_busy(face, node);

	if (!busy) {
		busy = calloc(1, sizeof(*busy));
		if (!busy)
			abort();
		busy->node = node;
		HASH_ADD(hh, face->busy, node, sizeof(busy->node), busy);
	}
	busy->count++;
}

void face_node_free(struct face *face, uint64_t node)
{
	struct busy_node *busy = find_busy(face, node);

	if (!busy || --busy->count)
		return;
	HASH_DEL(face->busy, busy);
	free(busy);
}

bool face_node_is_busy(const struct face *face, uint64_t node)
{
	return find_busy(face, node) != NULL;
}

void face_clear(struct face *face)
{
	open_files_clear(&face->files);
	known_clear(&face->known);
	nodes_clear(&face->nodes);
	free(face->stale);
}
