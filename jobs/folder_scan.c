/*
 * A look at a folder, in the work pool; see jobs/folder_scan.h. Knows nothing of domains.
 */
#include "jobs/folder_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	LINKS_MAX = 40, /* as in the kernel */
};

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static char *join(const char *folder, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", strcmp(folder, "/") ? folder : "", name) < 0)
		abort();
	return path;
}

static struct file_identity identity_of(const struct stat *status)
{
	return (struct file_identity){ status->st_dev, status->st_ino, status->st_mtim };
}

bool identity_is(const struct file_identity *a, const struct file_identity *b)
{
	return a->device == b->device && a->inode == b->inode && a->made.tv_sec == b->made.tv_sec &&
	       a->made.tv_nsec == b->made.tv_nsec;
}

bool scan_is_fit(const char *file)
{
	size_t length = strlen(file);

	return *file != '.' && *file != '#' && file[length - 1] != '~' &&
	       (length < 4 || strcmp(file + length - 4, ".tmp"));
}

/* --- the way --- */

static void add_waypoint(struct scan *scan, const char *path, const char *child)
{
	struct waypoint *point;
	struct stat status;

	scan->way = must(realloc(scan->way, (scan->way_length + 1) * sizeof(*scan->way)));
	point = &scan->way[scan->way_length++];
	*point = (struct waypoint){ .path = strdup(path), .child = child ? strdup(child) : NULL };
	if (stat(path, &status) == 0)
		point->identity = identity_of(&status);
	point->identity.made = (struct timespec){ 0 }; /* moves with what is in it */
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* What is left of the way behind the link @path; NULL with errno. */
static char *follow(const char *path, const char *rest)
{
	char target[PATH_MAX], *way;
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return NULL;
	target[length] = 0;
	if (asprintf(&way, "%s/%s", target, rest) < 0)
		abort();
	return way;
}

/*
 * One step from *@at by @name. Returns 0, or -errno. A link is followed: *@rest, which is malloc'ed, becomes what is left of the way.
 */
static int go(char **at, const char *name, char **rest, int *links)
{
	char *next = !strcmp(name, "..") ? parent_of(*at) : join(*at, name), *way = NULL;
	struct stat status;
	int error = lstat(next, &status) < 0 ? -errno : 0;

	if (!error && S_ISLNK(status.st_mode)) {
		way = ++*links > LINKS_MAX ? NULL : follow(next, *rest);
		error = way ? 0 : *links > LINKS_MAX ? -ELOOP : -errno;
		free(next);
		next = strdup(way && *way == '/' ? "/" : *at);
	}
	if (way) {
		free(*rest);
		*rest = way;
	}
	free(*at);
	*at = next;
	return error;
}

/* Walks from / on as the kernel does, and notes every folder that is passed. */
static void walk(struct scan *scan)
{
	char *at = strdup("/"), *rest = strdup(scan->path);
	int links = 0;

	while (!scan->error) {
		size_t skip = strspn(rest, "/"), length = strcspn(rest + skip, "/");
		char *name = strndup(rest + skip, length);

		memmove(rest, rest + skip + length, strlen(rest + skip + length) + 1);
		if (!length) {
			free(name);
			break;
		}
		if (strcmp(name, ".")) {
			add_waypoint(scan, at, name);
			scan->error = go(&at, name, &rest, &links);
		}
		free(name);
	}
	free(rest);
	if (scan->error)
		free(at);
	else
		scan->real = at;
}

/* --- what is in it --- */

static void add_socket(struct scan *scan, const char *file, const struct stat *status)
{
	size_t count = scan->socket_count;

	if (!(count & (count - 1))) /* 0 or a power of two: there is no room for one more */
		scan->sockets = must(
			realloc(scan->sockets, (count ? 2 * count : 1) * sizeof(*scan->sockets)));
	scan->sockets[scan->socket_count++] = (struct found_socket){
		.file = strdup(file),
		.identity = identity_of(status),
	};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct found_socket *)a)->file,
		      ((const struct found_socket *)b)->file);
}

static void list(struct scan *scan)
{
	int fd = open(scan->real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat status;

	scan->error = dir ? 0 : -errno;
	while (dir && (errno = 0, entry = readdir(dir))) {
		bool maybe = entry->d_type == DT_SOCK || entry->d_type == DT_LNK ||
			     entry->d_type == DT_UNKNOWN;

		if (maybe && scan_is_fit(entry->d_name) &&
		    fstatat(fd, entry->d_name, &status, 0) == 0 && S_ISSOCK(status.st_mode))
			add_socket(scan, entry->d_name, &status);
	}
	if (dir) {
		scan->error = -errno;
		closedir(dir);
	} else if (fd >= 0) {
		close(fd);
	}
	if (scan->socket_count)
		qsort(scan->sockets, scan->socket_count, sizeof(*scan->sockets), by_name);
	scan->too_many = scan->socket_count > FOLDER_SOCKETS_MAX;
	while (scan->socket_count > FOLDER_SOCKETS_MAX)
		free(scan->sockets[--scan->socket_count].file);
}

/* --- the pool --- */

static void look(uv_work_t *work)
{
	struct scan *scan = work->data;

	walk(scan);
	if (!scan->real)
		return;
	add_waypoint(scan, scan->real, NULL);
	list(scan);
}

static void looked(uv_work_t *work, int status)
{
	struct scan *scan = work->data;

	if (status)
		scan->error = status; /* cancelled */
	scan->done(scan);
}

struct scan *scan_start(uv_loop_t *loop, const char *path, void (*done)(struct scan *scan),
			void *data)
{
	struct scan *scan = must(calloc(1, sizeof(*scan)));

	scan->path = strdup(path);
	scan->done = done;
	scan->data = data;
	scan->work.data = scan;
	if (uv_queue_work(loop, &scan->work, look, looked))
		abort(); /* only for a NULL function */
	return scan;
}

void scan_free(struct scan *scan)
{
	for (size_t i = 0; i < scan->way_length; i++) {
		free(scan->way[i].path);
		free(scan->way[i].child);
	}
	for (size_t i = 0; i < scan->socket_count; i++)
		free(scan->sockets[i].file);
	free(scan->way);
	free(scan->sockets);
	free(scan->path);
	free(scan->real);
	free(scan);
}
