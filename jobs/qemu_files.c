/*
 * Relative paths of images, made absolute by /proc/PID/fd. Called by sync.c for each layout; reads only /proc, which never blocks.
 */
#include "jobs/qemu_files.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct open_files {
	char **paths;
	size_t count;
};

static void add_file(struct open_files *files, const char *path)
{
	char **paths;

	for (size_t i = 0; i < files->count; i++)
		if (!strcmp(files->paths[i], path))
			return;
	paths = realloc(files->paths, (files->count + 1) * sizeof(*paths));
	if (!paths)
		abort();
	files->paths = paths;
	files->paths[files->count++] = strdup(path);
}

static void list_files(struct open_files *files, pid_t pid)
{
	char path[64], target[PATH_MAX];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (length <= 0 || target[0] != '/')
			continue; /* a socket, a pipe */
		target[length] = 0;
		add_file(files, target);
	}
	closedir(dir);
}

/* A path of a file below some folder, and not "nbd://host/disk", "json:{...}" or "host_device:x". */
static bool is_relative(const char *path)
{
	size_t scheme = strcspn(path, ":/");

	return *path && *path != '/' && path[scheme] != ':' && *path != '#';
}

/* The one open file whose path ends in @relative; NULL: none, or it cannot be told which. */
static const char *find_file(const struct open_files *files, const char *relative)
{
	const char *found = NULL;
	size_t length;

	while (!strncmp(relative, "./", 2) || !strncmp(relative, "../", 3))
		relative = strchr(relative, '/') + 1;
	length = strlen(relative);
	for (size_t i = 0; i < files->count; i++) {
		size_t whole = strlen(files->paths[i]);

		if (whole <= length || files->paths[i][whole - length - 1] != '/' ||
		    strcmp(files->paths[i] + whole - length, relative))
			continue;
		if (found)
			return NULL;
		found = files->paths[i];
	}
	return found;
}

void qemu_files_make_absolute(struct qmp_layout *layout, pid_t pid)
{
	struct open_files files = { 0 };
	bool listed = false;

	for (size_t i = 0; i < layout->disk_count; i++) {
		for (size_t j = 0; j < layout->disks[i].depth; j++) {
			struct qmp_image *image = &layout->disks[i].chain[j];
			const char *found;

			if (!is_relative(image->path) || pid <= 0)
				continue;
			if (!listed)
				list_files(&files, pid);
			listed = true;
			found = find_file(&files, image->path);
			if (!found)
				continue;
			free(image->path);
			image->path = strdup(found);
		}
	}
	for (size_t i = 0; i < files.count; i++)
		free(files.paths[i]);
	free(files.paths);
}
