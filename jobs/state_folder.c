/*
 * The journal's folder: one a mount point, of mode 700, used by one daemon at a time.
 */
#include "jobs/state_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include "jobs/private_folder.h"

enum {
	/* umount returns before its daemon has ended, which may wait 5 s for an engine: the next one is not to fail for that. */
	LOCK_TRIES = 70,
	LOCK_PAUSE_MS = 100,
};

static int take_lock(struct state_folder *folder)
{
	const struct timespec pause = { .tv_nsec = LOCK_PAUSE_MS * 1000000 };
	int lock = -EWOULDBLOCK;

	for (int i = 0; i < LOCK_TRIES && lock == -EWOULDBLOCK; i++) {
		if (i)
			nanosleep(&pause, NULL);
		lock = private_folder_lock(folder->lockfile);
	}
	folder->lock = lock < 0 ? -1 : lock;
	return lock < 0 ? lock : 0;
}

/* The one that was checked, whatever has its name by now. */
static int open_folder(struct state_folder *folder, char **error)
{
	struct stat status;
	struct statfs where;

	folder->dir = open(folder->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder->dir < 0 || fstat(folder->dir, &status) < 0 || fstatfs(folder->dir, &where) < 0)
		return private_folder_fail(error, -errno, "%s", folder->path);
	if (status.st_uid != geteuid() || (status.st_mode & 077))
		return private_folder_fail(error, -EPERM, "%s", folder->path);
	folder->lasting = where.f_type != TMPFS_MAGIC && where.f_type != RAMFS_MAGIC;
	return 0;
}

static int open_and_lock(struct state_folder *folder, char **error)
{
	int code = private_folder_make(folder->path, "state_dir", error);

	if (code || (code = open_folder(folder, error)))
		return code;
	if (folder->lock >= 0)
		return 0; /* an earlier life has locked it */
	code = take_lock(folder);
	if (code == -EWOULDBLOCK)
		private_folder_fail(error, -EINVAL,
				    "%s is used by another blockjobfs: name another folder by -o "
				    "state_dir=",
				    folder->path);
	else if (code)
		private_folder_fail(error, code, "%s cannot be locked", folder->lockfile);
	return code;
}

int state_folder_open(struct state_folder *folder, const char *state_dir, const char *runtime_dir,
		      const char *mountpoint, int lock, char **error)
{
	char *parent = NULL;
	int code = 0;

	*folder = (struct state_folder){ .dir = -1, .lock = lock, .named = state_dir != NULL };
	if (state_dir) {
		folder->path = strdup(state_dir);
	} else {
		parent = runtime_dir ? strdup(runtime_dir) : private_folder_default();
		code = private_folder_make(parent, "runtime_dir", error);
		folder->path = private_folder_name(parent, "state", mountpoint);
	}
	if (asprintf(&folder->lockfile, "%s/journal.lock", folder->path) < 0)
		abort();
	if (!code)
		code = open_and_lock(folder, error);
	if (state_dir || runtime_dir)
		free(parent);
	else
		folder->parent = parent;
	if (code) {
		folder->named = true; /* nothing of it is ours to remove */
		state_folder_close(folder);
	}
	return code;
}

void state_folder_close(struct state_folder *folder)
{
	if (folder->path && !folder->named && faccessat(folder->dir, "journal", F_OK, 0) < 0 &&
	    errno == ENOENT) {
		unlink(folder->lockfile);
		rmdir(folder->path); /* fails if something else is in it */
		if (folder->parent)
			rmdir(folder->parent);
	}
	if (folder->lock >= 0)
		close(folder->lock);
	if (folder->dir >= 0)
		close(folder->dir);
	free(folder->path);
	free(folder->lockfile);
	free(folder->parent);
	*folder = (struct state_folder){ .dir = -1, .lock = -1 };
}
