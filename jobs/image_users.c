/*
 * Other users of images; see image_users.h. Files are compared by device and inode in the work pool, since looking at a file may block.
 * Called by the commands that change images which others may have below theirs.
 */
#include "jobs/image_users.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>
#include "jobs/domain_link.h"

struct use {
	char *path;
	char *user; /* "web1/vda" */
	bool remote; /* on another host: known by name only */
};

struct check {
	uv_work_t work;
	struct model *model;
	uint64_t op, generation;
	char **images;
	size_t image_count;
	struct use *uses;
	size_t use_count;
	bool remote; /* the images are */
	long image, use; /* found; -1: none */
	image_free_fn checked;
	void *data;
};

static void check_free(struct check *check)
{
	for (size_t i = 0; i < check->image_count; i++)
		free(check->images[i]);
	for (size_t i = 0; i < check->use_count; i++) {
		free(check->uses[i].path);
		free(check->uses[i].user);
	}
	free(check->images);
	free(check->uses);
	free(check);
}

static bool same_file(const char *path, const struct stat *file, const struct use *use)
{
	struct stat status;

	if (!strcmp(path, use->path))
		return true;
	return file->st_ino && !use->remote && stat(use->path, &status) == 0 &&
	       status.st_dev == file->st_dev && status.st_ino == file->st_ino;
}

/*
 * In the pool. Names that are equal are taken for one file, whatever hosts they are on: two QEMUs may well share a folder over the
 * network.
 */
static void compare(uv_work_t *work)
{
	struct check *check = work->data;

	for (size_t i = 0; i < check->image_count && check->use < 0; i++) {
		struct stat file = { 0 };

		if (check->remote || stat(check->images[i], &file) < 0)
			file.st_ino = 0;
		for (size_t j = 0; j < check->use_count && check->use < 0; j++) {
			if (!same_file(check->images[i], &file, &check->uses[j]))
				continue;
			check->image = (long)i;
			check->use = (long)j;
		}
	}
}

static void compared(uv_work_t *work, int status)
{
	struct check *check = work->data;
	struct op *op = op_find(check->model, check->op);
	bool is_free = false;

	if (op && op->target.disk->generation != check->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op && check->use >= 0)
		op_refuse(op, -EBUSY, "%s is in use by another disk: %s",
			  check->images[check->image], check->uses[check->use].user);
	else
		is_free = op != NULL;
	check->checked(op, is_free, check->data);
	check_free(check);
}

static void add_uses(struct check *check, const struct disk *disk)
{
	check->uses = realloc(check->uses, (check->use_count + disk->depth) * sizeof(*check->uses));
	if (!check->uses)
		abort();
	for (size_t i = 0; i < disk->depth; i++) {
		struct use *use = &check->uses[check->use_count++];

		use->path = strdup(disk->chain[i].path);
		use->remote = domain_is_remote(disk->domain);
		if (asprintf(&use->user, "%s/%s", disk->domain->name, disk->name) < 0)
			abort();
	}
}

void disk_check_users(struct op *op, size_t first, size_t last, image_free_fn checked, void *data)
{
	struct check *check = calloc(1, sizeof(*check));
	struct disk *disk = op->target.disk, *other;
	struct domain *domain;

	if (!check || !(check->images = calloc(last - first + 1, sizeof(*check->images))))
		abort();
	check->work.data = check;
	check->model = op->target.model;
	check->op = op->id;
	check->generation = disk->generation;
	check->image = check->use = -1;
	check->remote = domain_is_remote(disk->domain);
	check->checked = checked;
	check->data = data;
	for (size_t i = first; i <= last; i++)
		check->images[check->image_count++] = strdup(disk->chain[i].path);
	DL_FOREACH(check->model->domains, domain)
		DL_FOREACH(domain->disks, other)
			if (other != disk)
				add_uses(check, other);
	if (uv_queue_work(check->model->loop, &check->work, compare, compared))
		abort(); /* only for a NULL function */
}
