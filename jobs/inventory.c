/*
 * The disks of a domain, merged from QEMU's layout: which are new, which are gone, whose chain has changed. A disk is recognised by its
 * guest device, its drive or its node, in this order, so that it stays the same through pivots, snapshots and reconnects
 * (jobs/identity.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/engine.h"
#include "jobs/event_store.h"
#include "jobs/events.h"
#include "jobs/history.h"
#include "jobs/identity.h"
#include "jobs/request.h"
#include "jobs/resume.h"

enum {
	DISKS_MAX =
		1024, /* disks of a domain that are shown: a hostile QEMU is not to hold up others */
};

/* --- making and removing --- */

static void chain_free(struct qmp_image *chain, size_t depth)
{
	for (size_t i = 0; i < depth; i++) {
		free(chain[i].node);
		free(chain[i].filename);
		free(chain[i].path);
		free(chain[i].backing);
		free(chain[i].format);
	}
	free(chain);
}

void disk_free(struct disk *disk)
{
	job_free(disk->job);
	chain_free(disk->chain, disk->depth);
	history_clear(disk);
	event_log_clear(&disk->log);
	free(disk->file_node);
	free(disk->source_name);
	free(disk->error);
	free(disk->name);
	free(disk->identity);
	free(disk);
}

void disk_remove(struct disk *disk)
{
	struct domain *domain = disk->domain;
	struct model *model = domain->model;

	if (disk_is_busy(disk))
		finish_unplugged(disk);
	op_list_end(&disk->ops, -ENODEV, "the disk is gone");
	event_plain(domain, disk, "disk-removed", NULL); /* the last that its watchers hear of it */
	resume_drop_disk(disk);
	history_unplugged(disk);
	model->watcher->removed(model->watcher_data, domain, disk);
	DL_DELETE(domain->disks, disk);
	identity_forget(disk);
	disk_free(disk);
	domain_changed(domain, TOPIC_LISTING);
	domain_changed(domain, TOPIC_SOURCES);
}

struct disk *domain_find_disk(struct domain *domain, const char *name)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (!strcmp(disk->name, name))
			return disk;
	return NULL;
}

struct disk *domain_find_job(struct domain *domain, const char *job_id)
{
	struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (job_is_live(disk->job) && !strcmp(disk->job->id, job_id))
			return disk;
	return NULL;
}

struct disk *domain_disk_of_job_id(struct domain *domain, const char *job_id)
{
	struct disk *disk;
	struct who by;

	DL_FOREACH(domain->disks, disk)
		if (job_id_read(job_id, disk->name, &by))
			return disk;
	return NULL;
}

/* --- chains --- */

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* True if `chain` reads otherwise. */
static bool chain_differs(const struct disk *disk, const struct qmp_disk_info *info)
{
	if (disk->depth != info->depth)
		return true;
	for (size_t i = 0; i < disk->depth; i++)
		if (!same(disk->chain[i].path, info->chain[i].path) ||
		    !same(disk->chain[i].format, info->chain[i].format) ||
		    disk->chain[i].size != info->chain[i].size)
			return true;
	return false;
}

/* Takes the chain out of @info. */
static void take_chain(struct disk *disk, struct qmp_disk_info *info)
{
	chain_free(disk->chain, disk->depth);
	free(disk->file_node);
	disk->file_node = info->file_node;
	info->file_node = NULL;
	disk->chain = info->chain;
	disk->depth = info->depth;
	info->chain = NULL;
	info->depth = 0;
}

/* True if the active image is another one than before. */
static bool name_source(struct disk *disk)
{
	char *before = disk->source_name;
	bool moved;

	disk->source_name = disk->depth && *disk->chain[0].path
				    ? source_escape_name(disk->chain[0].path)
				    : NULL;
	moved = !same(before, disk->source_name);
	free(before);
	return moved;
}

static void chain_changed(struct disk *disk)
{
	bool moved = name_source(disk);

	disk->generation++;
	history_keep_generation(disk);
	disk_changed(disk, TOPIC_CHAIN);
	event_chain_changed(disk);
	resume_keep_disk(disk);
	if (moved)
		domain_changed(disk->domain, TOPIC_SOURCES);
}

/* A private engine that dies and is started again must open the image that the disk stands on by then. */
void disk_follow_engine(const struct disk *disk)
{
	if (disk->domain->engine && disk->depth)
		engine_follow(disk->domain->engine, disk->chain[0].path, disk->chain[0].format);
}

static void update_disk(struct disk *disk, struct qmp_disk_info *info)
{
	bool changed = chain_differs(disk, info);

	identity_follow(disk, info->node);
	if (!disk->going_over_sent)
		disk->going_over = false; /* whether it did is seen now */
	take_chain(disk, info); /* node names may differ where paths do not */
	disk_follow_engine(disk);
	if (!changed) {
		resume_keep_disk(disk);
		return;
	}
	chain_changed(disk);
}

void disk_take_overlay(struct disk *disk, struct qmp_image *overlay, const char *file_node)
{
	struct qmp_image *chain = calloc(disk->depth + 1, sizeof(*chain));

	if (!chain)
		abort();
	chain[0] = *overlay;
	memcpy(chain + 1, disk->chain, disk->depth * sizeof(*chain));
	free(disk->chain);
	disk->chain = chain;
	disk->depth++;
	free(disk->file_node);
	disk->file_node = file_node ? strdup(file_node) : NULL;
	identity_follow(disk, chain[0].node);
	disk_follow_engine(disk);
	chain_changed(disk);
}

/* Once, not at every look. */
static void tell_not_shown(const struct disk *disk, const char *reason)
{
	struct domain_link *link = disk->domain->link;

	if (link->not_shown && !strcmp(link->not_shown, disk->name))
		return;
	free(link->not_shown);
	link->not_shown = strdup(disk->name);
	domain_log(disk->domain, "disk %s is not shown: %s", disk->name, reason);
}

static void add_disk(struct domain *domain, struct qmp_disk_info *info)
{
	struct model *model = domain->model;
	struct disk *disk = calloc(1, sizeof(*disk));
	const char *reason = NULL;

	if (!disk)
		abort();
	disk->domain = domain;
	disk->name = identity_folder_name(domain, info);
	disk->identity = identity_of_info(info);
	stamps_init(disk->stamps);
	take_chain(disk, info);
	name_source(disk);
	if (domain_find_disk(domain, disk->name))
		reason = "its name is taken";
	if (reason || !model->watcher->may_add(model->watcher_data, domain, disk, &reason)) {
		tell_not_shown(disk, reason);
		disk_free(disk);
		return;
	}
	history_load(disk);
	domain->link->recovered = false;
	disk_is_told(disk);
	DL_APPEND(domain->disks, disk);
	model->watcher->added(model->watcher_data, domain, disk);
	domain_changed(domain, TOPIC_LISTING);
	domain_changed(domain, TOPIC_SOURCES);
	event_store_begin(model, domain, disk);
	event_plain(domain, disk, "disk-added", NULL);
	resume_keep_disk(disk);
	disk_follow_engine(disk);
}

void inventory_take_over(struct disk *disk)
{
	struct domain *domain = disk->domain;
	struct model *model = domain->model;

	stamps_init(disk->stamps);
	name_source(disk);
	history_load(disk);
	DL_APPEND(domain->disks, disk);
	model->watcher->added(model->watcher_data, domain, disk);
}

static struct disk *list_once(struct disk *disk)
{
	if (!disk || disk->listed)
		return NULL;
	disk->listed = true;
	return disk;
}

/* Which of the domain's disks the entries are, NULL: a new one. Of two that are the same disk only the first counts. */
static struct disk **find_known(struct domain *domain, const struct qmp_layout *layout,
				size_t count)
{
	struct disk **known = calloc(count + 1, sizeof(*known)), *disk;

	if (!known)
		abort();
	DL_FOREACH(domain->disks, disk)
		disk->listed = false;
	for (size_t i = 0; i < count; i++)
		known[i] = list_once(identity_find(domain, &layout->disks[i]));
	for (size_t i = 0; i < count; i++)
		if (!known[i])
			known[i] = list_once(identity_find_below(domain, &layout->disks[i]));
	return known;
}

static size_t count_shown(struct domain *domain, const struct qmp_layout *layout)
{
	struct domain_link *link = domain->link;
	bool many = layout->disk_count > DISKS_MAX;

	if (many && !link->too_many)
		domain_log(domain, "QEMU shows %zu disks: only the first %d are shown here",
			   layout->disk_count, DISKS_MAX);
	link->too_many = many;
	return many ? DISKS_MAX : layout->disk_count;
}

/* An overlay on nothing, made ready for a snapshot by a life of the server that died before it was taken. It goes when the command comes again. */
static bool is_left(const struct domain *domain, const struct qmp_disk_info *info)
{
	return info->depth == 1 && !strncmp(info->node, NODE_OF_OVERLAY, strlen(NODE_OF_OVERLAY)) &&
	       request_has_node(domain->model, info->node);
}

void inventory_merge(struct domain *domain, struct qmp_layout *layout)
{
	size_t count = count_shown(domain, layout);
	struct disk **known = find_known(domain, layout, count);
	struct disk *disk, *next;

	DL_FOREACH_SAFE(domain->disks, disk, next)
		if (!disk->listed)
			disk_remove(disk);
	for (size_t i = 0; i < count; i++) {
		if (known[i])
			update_disk(known[i], &layout->disks[i]);
		else if (!identity_find(domain, &layout->disks[i]) &&
			 !is_left(domain, &layout->disks[i]))
			add_disk(domain, &layout->disks[i]);
	}
	free(known);
}
