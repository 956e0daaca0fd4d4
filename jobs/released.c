/*
 * Which images a disk has let go at the end of a job; see released.h. Called by jobs/finish.c.
 */
#include "jobs/released.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/model.h"

/* True if @path ends in the relative path @end. */
static bool ends_in(const char *path, const char *end)
{
	size_t length = strlen(path), tail = strlen(end);

	return *end != '/' && length > tail && path[length - tail - 1] == '/' &&
	       !strcmp(path + length - tail, end);
}

/*
 * A job may begin while QEMU is reached through a network, where relative names stay as they are, and end when it is reached here: then a
 * name that may be the image's is taken for it, since what is called released will be used by nobody else.
 */
bool released_may_be(const struct job *job, const char *path, const struct qmp_image *image)
{
	return !strcmp(image->path, path) ||
	       (job->reconnected && (!strcmp(image->filename, path) || ends_in(image->path, path) ||
				     ends_in(path, image->path)));
}

static bool is_in_disk(const struct disk *disk, const struct job *job, const char *path)
{
	for (size_t i = 0; i < disk->depth; i++)
		if (released_may_be(job, path, &disk->chain[i]))
			return true;
	return false;
}

static bool is_in_another(const struct disk *disk, const char *path)
{
	const struct domain *domain;
	const struct disk *other;

	DL_FOREACH(disk->domain->model->domains, domain)
		DL_FOREACH(domain->disks, other)
			if (other != disk && is_in_disk(other, disk->job, path))
				return true;
	return false;
}

/* What was in the chain when the job began and is not in it now; and what of that another disk has in its own. */
void released_find(struct disk *disk)
{
	struct job *job = disk->job;

	if (job->state != JOB_COMPLETED)
		return;
	job->released = calloc(job->before_count + 1, sizeof(*job->released));
	job->released_shared = calloc(job->before_count + 1, sizeof(*job->released_shared));
	if (!job->released || !job->released_shared)
		abort();
	for (size_t i = 0; i < job->before_count; i++) {
		const char *path = job->before_paths[i];

		if (is_in_disk(disk, job, path))
			continue;
		job->released_shared[job->released_count] = is_in_another(disk, path);
		job->released[job->released_count++] = strdup(path);
	}
}
