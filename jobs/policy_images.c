/*
 * In which folders images may be made and deleted by callers other than the mount's owner. Paths are walked part by part from an image
 * folder, each part opened as no link; what is then made or unlinked is looked at through the folder that was reached. Everything but
 * the setting up looks at files: called in the work pool by jobs/new_file.c and by whoever deletes images.
 */
#include "jobs/policy.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

struct image_folder {
	char *path; /* without links, "." and ".."; "" for the root */
	char *given; /* as it was named, made plain; NULL: goes up somewhere */
	struct image_folder *next;
};

__attribute__((format(printf, 3, 4))) static int fail(char **reason, int error, const char *format,
						      ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(reason, format, arguments) < 0)
		abort();
	va_end(arguments);
	return error;
}

/* --- paths --- */

/* The path without "//", "/./" and a slash at the end; "" for the root. NULL if it has a "..". malloc'ed. */
static char *plain_path(const char *path)
{
	char *plain = malloc(strlen(path) + 2), *end = plain;

	if (!plain)
		abort();
	while (*path) {
		size_t length = strcspn(path, "/");

		if (length == 2 && path[0] == '.' && path[1] == '.') {
			free(plain);
			return NULL;
		}
		if (length && !(length == 1 && *path == '.')) {
			*end++ = '/';
			memcpy(end, path, length);
			end += length;
		}
		path += length;
		path += *path == '/';
	}
	*end = 0;
	return plain;
}

/* What of the path comes after the folder: "/disk.qcow2"; NULL: it is not below. */
static const char *rest_below(const char *folder, const char *path)
{
	size_t length = strlen(folder);

	return !strncmp(folder, path, length) && path[length] == '/' ? path + length : NULL;
}

/* The innermost folder that the path lies below. */
static const struct image_folder *find_folder(const struct policy *policy, const char *path,
					      const char **rest)
{
	const struct image_folder *folder, *found = NULL;

	*rest = NULL;
	LL_FOREACH(policy->folders, folder) {
		const char *names[] = { folder->path, folder->given };

		for (int i = 0; i < 2; i++) {
			const char *after = names[i] ? rest_below(names[i], path) : NULL;

			if (after && (!*rest || after > *rest)) {
				*rest = after;
				found = folder;
			}
		}
	}
	return found;
}

int policy_add_folder(struct policy *policy, const char *path, char **reason)
{
	char *real = realpath(path, NULL);
	struct image_folder *folder;
	struct stat status;
	int error = real && stat(real, &status) == 0 ? 0 : -errno;

	if (!error && !S_ISDIR(status.st_mode))
		error = -ENOTDIR;
	if (error) {
		free(real);
		return fail(reason, error, "image_dir=%s: %s", path, strerror(-error));
	}
	folder = calloc(1, sizeof(*folder));
	if (!folder)
		abort();
	folder->path = plain_path(real);
	folder->given = *path == '/' ? plain_path(path) : NULL;
	free(real);
	LL_APPEND(policy->folders, folder);
	return 0;
}

void policy_clear_folders(struct policy *policy)
{
	struct image_folder *folder, *next;

	LL_FOREACH_SAFE(policy->folders, folder, next) {
		free(folder->path);
		free(folder->given);
		free(folder);
	}
	policy->folders = NULL;
}

/* --- to the folder that a file lies in --- */

/* A place for a file: where it lies, and what it is called there. */
struct spot {
	int folder; /* O_PATH */
	char *path; /* to be freed */
	const char *name; /* its last part */
};

static void spot_clear(struct spot *spot)
{
	if (spot->folder >= 0)
		close(spot->folder);
	free(spot->path);
}

/*
 * Could @by put something else in a folder between our look and QEMU's? Of the groups that somebody is in only one is known: the rest is
 * for whoever sets the folders up (docs/operations.md).
 */
static bool can_change(const struct stat *folder, const struct who *by)
{
	return folder->st_uid == by->uid || folder->st_mode & S_IWOTH ||
	       (folder->st_gid == by->gid && folder->st_mode & S_IWGRP);
}

/* Goes on from @folder, which is closed, to its entry @name. Returns the descriptor, or -errno. */
static int step(int folder, const char *name)
{
	struct stat status;
	int next = openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (next < 0) {
		next = -errno;
		if (next == -ENOTDIR && fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISLNK(status.st_mode))
			next = -ELOOP;
	}
	close(folder);
	return next;
}

static int no_place(const char *folder, char **reason)
{
	return fail(reason, -EPERM,
		    "%s can be changed by you, who could put a link there: name a folder that only "
		    "the mount's owner writes to",
		    *folder ? folder : "/");
}

static int no_step(int error, const char *path, char **reason)
{
	if (error == -ELOOP)
		return fail(reason, -EPERM, "%s is a symbolic link", path);
	return fail(reason, error, "%s: %s", path, strerror(-error));
}

/*
 * Walks from "/" to the folder that the last part of @path lies in. None from the image folder on, which the first @trusted bytes name,
 * may be one that @by could change; @by NULL: all may. Returns a descriptor, or -errno.
 */
static int walk(const char *path, size_t trusted, const struct who *by, char **reason)
{
	int folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int error = folder < 0 ? fail(reason, -errno, "/: %s", strerror(errno)) : 0;
	char *copy = strdup(path), *end = copy;
	struct stat status;

	if (!copy)
		abort();
	while (!error) {
		char *part = end + 1;

		*end = 0;
		if (by && (size_t)(end - copy) >= trusted &&
		    (fstat(folder, &status) < 0 || can_change(&status, by)))
			error = no_place(copy, reason);
		*end = '/';
		end = strchr(part, '/');
		if (error || !end)
			break;
		*end = 0;
		folder = step(folder, part);
		if (folder < 0)
			error = no_step(folder, copy, reason);
	}
	free(copy);
	if (error && folder >= 0)
		close(folder);
	return error ? error : folder;
}

/* For the owner: wherever the path leads. */
static int find_anywhere(const char *path, struct spot *spot, char **reason)
{
	char *slash;

	spot->path = strdup(path);
	slash = spot->path ? strrchr(spot->path, '/') : NULL;
	if (!slash || *path != '/' || !slash[1])
		return fail(reason, -EINVAL, "%s names no file by an absolute path", path);
	spot->name = slash + 1;
	*slash = 0;
	spot->folder =
		open(slash == spot->path ? "/" : spot->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	return spot->folder < 0 ? fail(reason, -errno, "%s: %s", path, strerror(errno)) : 0;
}

/* For everybody else: below an image folder. @steady: in folders only that @by cannot change. */
static int find_below(const struct policy *policy, const struct who *by, const char *path,
		      bool steady, struct spot *spot, char **reason)
{
	const struct image_folder *folder;
	const char *rest;
	char *plain;

	if (*path != '/' || path[strlen(path) - 1] == '/')
		return fail(reason, -EINVAL, "%s names no file by an absolute path", path);
	if (strlen(path) >= PATH_MAX)
		return fail(reason, -ENAMETOOLONG, "the path is longer than paths can be");
	if (!policy->folders)
		return fail(reason, -EPERM,
			    "only the mount's owner may have images made or deleted: no folder is "
			    "set aside for others (-o image_dir=)");
	plain = plain_path(path);
	if (!plain)
		return fail(reason, -EPERM, "%s goes up by \"..\"", path);
	folder = find_folder(policy, plain, &rest);
	if (folder && asprintf(&spot->path, "%s%s", folder->path, rest) < 0)
		abort();
	free(plain);
	if (!folder)
		return fail(reason, -EPERM,
			    "%s is not below a folder in which others than the mount's owner may "
			    "have images made or deleted (-o image_dir=)",
			    path);
	spot->name = strrchr(spot->path, '/') + 1;
	spot->folder = walk(spot->path, strlen(folder->path), steady ? by : NULL, reason);
	return spot->folder < 0 ? spot->folder : 0;
}

/* What is there; -ENOENT with a reason if nothing is. */
static int look(const struct spot *spot, struct stat *status, char **reason)
{
	if (fstatat(spot->folder, spot->name, status, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return fail(reason, -errno, "%s: %s", spot->path, strerror(errno));
}

/* --- making --- */

/* QEMU would overwrite whatever is there: only if that was asked for. */
static int exists(const char *path, char **reason)
{
	return fail(reason, -EEXIST,
		    "%s is there already: name another file, or say reuse to overwrite it", path);
}

static int may_be_made(const struct spot *spot, const char *reuse, char **reason)
{
	struct stat status;
	int error = look(spot, &status, reason);

	if (error == -ENOENT) {
		free(*reason);
		*reason = NULL;
		return 0;
	}
	if (error)
		return error;
	if (S_ISLNK(status.st_mode))
		return fail(reason, -EPERM, "%s is a symbolic link", spot->path);
	if (!reuse)
		return exists(spot->path, reason);
	if (!S_ISREG(status.st_mode))
		return fail(reason, -EPERM, "%s is no regular file", spot->path);
	if (strcmp(reuse, "raw") != 0)
		return fail(reason, -EPERM,
			    "%s: its header may name other files, so only the mount's owner may "
			    "overwrite what is there, or others with format=raw",
			    spot->path);
	if (status.st_nlink > 1)
		return fail(reason, -EPERM, "%s has another name elsewhere (a hard link)",
			    spot->path);
	return 0;
}

int policy_check_new(const struct policy *policy, const struct who *by, const char *path,
		     const char *reuse, char **canonical, char **reason)
{
	struct spot spot = { .folder = -1 };
	struct stat status;
	int error;

	*canonical = *reason = NULL;
	if (policy_is_owner(by)) {
		/* QEMU may see other files than we do: what is not there for us is QEMU's to judge. */
		if (lstat(path, &status) == 0 && !reuse)
			return exists(path, reason);
		*canonical = strdup(path);
		return 0;
	}
	error = find_below(policy, by, path, true, &spot, reason);
	if (!error)
		error = may_be_made(&spot, reuse, reason);
	if (!error)
		*canonical = strdup(spot.path);
	spot_clear(&spot);
	return error;
}

/* --- deleting --- */

/* Finds the regular file that is to be unlinked. spot_clear() in either case. */
static int find_to_unlink(const struct policy *policy, const struct who *by, const char *path,
			  struct spot *spot, struct policy_file *file, char **reason)
{
	struct stat status;
	int error;

	*reason = NULL;
	*spot = (struct spot){ .folder = -1 };
	error = policy_is_owner(by) ? find_anywhere(path, spot, reason)
				    : find_below(policy, by, path, false, spot, reason);
	if (!error)
		error = look(spot, &status, reason);
	if (error)
		return error;
	if (!S_ISREG(status.st_mode))
		return fail(reason, -EPERM, "%s is %s: only regular files are deleted", spot->path,
			    S_ISLNK(status.st_mode) ? "a symbolic link" : "no regular file");
	*file = (struct policy_file){ .device = status.st_dev, .inode = status.st_ino };
	return 0;
}

int policy_check_unlink(const struct policy *policy, const struct who *by, const char *path,
			struct policy_file *file, char **reason)
{
	struct spot spot;
	int error = find_to_unlink(policy, by, path, &spot, file, reason);

	spot_clear(&spot);
	return error;
}

int policy_unlink(const struct policy *policy, const struct who *by, const char *path,
		  const struct policy_file *file, char **reason)
{
	struct policy_file now;
	struct spot spot;
	int error = find_to_unlink(policy, by, path, &spot, &now, reason);

	if (!error && (now.device != file->device || now.inode != file->inode))
		error = fail(reason, -ESTALE,
			     "%s is another file than when the command was taken: left alone",
			     spot.path);
	if (!error && unlinkat(spot.folder, spot.name, 0) < 0)
		error = fail(reason, -errno, "%s: %s", spot.path, strerror(errno));
	spot_clear(&spot);
	return error;
}
