/*
 * Mount points; see fs/mount.h. Knows the kernel's list of mounts and fusermount3, not the session.
 */
#include "fs/mount.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
	STACKED_MAX = 16, /* dead mounts on top of each other that are detached */
};

__attribute__((format(printf, 2, 3))) static int fail(char **error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(error, format, arguments) < 0)
		abort();
	va_end(arguments);
	return -1;
}

/* --- what is said on standard error --- */

void mount_words_begin(struct mount_words *words)
{
	*words->text = 0;
	fflush(stderr);
	words->saved = dup(STDERR_FILENO);
	words->kept = memfd_create("stderr", MFD_CLOEXEC);
	if (words->kept >= 0)
		dup2(words->kept, STDERR_FILENO);
}

void mount_words_end(struct mount_words *words)
{
	static const char prefix[] = "fusermount3: ";
	ssize_t got = 0;

	fflush(stderr);
	if (words->saved >= 0) {
		dup2(words->saved, STDERR_FILENO);
		close(words->saved);
	}
	if (words->kept >= 0) {
		got = pread(words->kept, words->text, sizeof(words->text) - 1, 0);
		close(words->kept);
	}
	words->text[got < 0 ? 0 : got] = 0;
	words->text[strcspn(words->text, "\n")] = 0;
	if (!strncmp(words->text, prefix, sizeof(prefix) - 1))
		memmove(words->text, words->text + sizeof(prefix) - 1,
			strlen(words->text + sizeof(prefix) - 1) + 1);
}

/* --- the kernel's list of mounts --- */

/* Undoes the \ooo of /proc/self/mountinfo in place. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *at = path; *at; to++) {
		unsigned byte;

		if (*at == '\\' && sscanf(at + 1, "%3o", &byte) == 1) {
			*to = (char)byte;
			at += 4;
		} else {
			*to = *at++;
		}
	}
	*to = 0;
}

/* A line of the list, taken apart. */
struct mounted {
	char *point;
	char device[32], type[64]; /* MAJOR:MINOR; fuse.blockjobfs */
};

/*
 * Calls @each for every mount, in the order of the list, in which what is on top comes last; until it returns
 * true. mounted->point is freed by us.
 */
static bool each_mount(bool (*each)(void *data, const struct mounted *mounted), void *data)
{
	FILE *list = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!list)
		return false;
	while (!found && getline(&line, &room, list) > 0) {
		const char *rest = strstr(line, " - ");
		struct mounted mounted = { 0 };

		/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS */
		if (!rest ||
		    sscanf(line, "%*s %*s %31s %*s %ms", mounted.device, &mounted.point) != 2 ||
		    sscanf(rest, " - %63s", mounted.type) != 1) {
			free(mounted.point);
			continue;
		}
		unescape(mounted.point);
		found = each(data, &mounted);
		free(mounted.point);
	}
	free(line);
	fclose(list);
	return found;
}

struct search {
	const char *path;
	struct mounted top; /* without its point */
	bool found;
};

static bool is_at_path(void *data, const struct mounted *mounted)
{
	struct search *search = data;

	if (!strcmp(mounted->point, search->path)) {
		search->top = *mounted;
		search->found = true;
	}
	return false; /* what comes later is on top */
}

/* The type of the file system that is mounted on top at @path. False if it is no mount point. */
static bool mounted_type(const char *path, char type[64])
{
	struct search search = { .path = path };

	each_mount(is_at_path, &search);
	if (search.found)
		strcpy(type, search.top.type);
	return search.found;
}

bool mount_device(const char *path, char *device, size_t size)
{
	struct search search = { .path = path };

	each_mount(is_at_path, &search);
	if (search.found)
		snprintf(device, size, "%s", search.top.device);
	return search.found;
}

static bool is_of_device(void *data, const struct mounted *mounted)
{
	return !strcmp(mounted->device, data);
}

bool mount_is_listed(const char *device)
{
	return each_mount(is_of_device, (void *)device);
}

/* --- the dead mount of an earlier life --- */

/* The absolute name of a path whose last part cannot be looked at, because it is a dead mount. */
static char *absolute_of(const char *path)
{
	char *whole = realpath(path, NULL);
	char *for_parent, *for_name, *parent;

	if (whole)
		return whole;
	for_parent = strdup(path);
	for_name = strdup(path);
	parent = realpath(dirname(for_parent), NULL);
	if (parent &&
	    asprintf(&whole, "%s/%s", strcmp(parent, "/") ? parent : "", basename(for_name)) < 0)
		abort();
	free(parent);
	free(for_parent);
	free(for_name);
	return whole;
}

/* As another user than root only fusermount3 may. Returns 0 or -1. */
static int run_fusermount(const char *path)
{
	char *const arguments[] = { "fusermount3", "-u", "-z", "--", (char *)path, NULL };
	struct mount_words words;
	int error, status = -1;
	pid_t pid;

	mount_words_begin(&words);
	error = posix_spawnp(&pid, arguments[0], NULL, NULL, arguments, environ);
	if (!error && waitpid(pid, &status, 0) < 0)
		status = -1;
	mount_words_end(&words);
	return !error && status == 0 ? 0 : -1;
}

static int detach(const char *path, char **error)
{
	char type[64];
	char *absolute = absolute_of(path);
	int status = 0;

	if (!absolute || !mounted_type(absolute, type))
		status = fail(error, "mount point %s: %s", path, strerror(ENOTCONN));
	else if (strcmp(type, MOUNT_TYPE))
		status = fail(error,
			      "mount point %s has a dead mount of type %s: unmount that first",
			      path, type);
	else if (geteuid() == 0 ? umount2(absolute, MNT_DETACH) : run_fusermount(absolute))
		status = fail(error, "mount point %s has a dead mount that cannot be detached",
			      path);
	free(absolute);
	return status;
}

void mount_undo(const char *path, int fd)
{
	struct pollfd poll_ended = { .fd = fd };
	char type[64];

	/* POLLERR: it is unmounted already, and what is there now is somebody else's. */
	if (fd >= 0 && poll(&poll_ended, 1, 0) == 1 && poll_ended.revents & POLLERR)
		return;
	if (!mounted_type(path, type) || strcmp(type, MOUNT_TYPE))
		return;
	if (geteuid() == 0)
		umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
	else
		run_fusermount(path);
}

/* --- the check --- */

/* As stat(2). The kernel may remember the attributes of a dead mount's root for a moment; it remembers nothing of statfs(2). */
static int look(const char *path, struct stat *stat_out)
{
	struct statfs statfs_out;

	return statfs(path, &statfs_out) ? -1 : stat(path, stat_out);
}

static int look_at(const char *path, struct stat *stat_out, char **error)
{
	for (int i = 0; look(path, stat_out); i++) {
		if (errno == ENOENT)
			return fail(error, "mount point %s does not exist", path);
		if ((errno != ENOTCONN && errno != ECONNABORTED) || i == STACKED_MAX)
			return fail(error, "mount point %s: %s", path, strerror(errno));
		if (errno == ECONNABORTED)
			continue; /* its daemon died just now, with our question before it */
		if (detach(path, error))
			return -1;
	}
	return 0;
}

int mount_check(const char *path, char **absolute, char **error)
{
	char type[64];
	struct stat stat;

	if (look_at(path, &stat, error))
		return -1;
	if (!S_ISDIR(stat.st_mode))
		return fail(error, "mount point %s is not a directory", path);
	*absolute = realpath(path, NULL);
	if (!*absolute)
		return fail(error, "mount point %s: %s", path, strerror(errno));
	if (mounted_type(*absolute, type) && !strcmp(type, MOUNT_TYPE))
		fail(error, "%s is mounted already: a blockjobfs is serving it", *absolute);
	else if (access("/dev/fuse", F_OK))
		fail(error, "/dev/fuse is missing: load the fuse module, or give the container the "
			    "device");
	else
		return 0;
	free(*absolute);
	*absolute = NULL;
	return -1;
}

/* --- the kernel's patience --- */

static unsigned read_seconds(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned seconds = 0;

	if (!file)
		return 0;
	if (fscanf(file, "%u", &seconds) != 1)
		seconds = 0;
	fclose(file);
	return seconds;
}

unsigned mount_wait_limit(void)
{
	unsigned usual = read_seconds("/proc/sys/fs/fuse/default_request_timeout");
	unsigned most = read_seconds("/proc/sys/fs/fuse/max_request_timeout");
	unsigned seconds = usual && (!most || usual < most) ? usual : most;

	return seconds * 600;
}
