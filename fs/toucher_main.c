/*
 * What the toucher process does: see fs/toucher.h. It knows the mount as any program does, and nothing else of blockjobfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "fs/toucher.h"

enum {
	/*
	 * A write through an open file that is read directly drops the pages that sendfile and splice have cached of what
	 * it covers (kernel 6.6 and later): so the whole of a small file is "written", and the end of a long one, which is a log.
	 */
	TOUCH_BYTES_MAX = 64 << 10,
	OPEN_TRIES = 64,
	FOLDERS_MAX = 512,
};

static char zeros[TOUCH_BYTES_MAX];

enum {
	OVERRIDE = 1 << CAP_DAC_OVERRIDE,
};

static struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };

bool toucher_overrides(void)
{
	struct __user_cap_data_struct have[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return syscall(SYS_capget, &header, have) == 0 && have[0].effective & OVERRIDE;
}

/* Nothing is needed but to open the files, whoever owns them by now. */
static void drop_privileges(void)
{
	struct __user_cap_data_struct left[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (toucher_overrides())
		left[0].effective = left[0].permitted = OVERRIDE;
	prctl(PR_SET_NAME, "blockjobfs-toch");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	syscall(SYS_capset, &header, left);
	/* Whoever serves the mount after the daemon does not know this process, and must not be asked anything by it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/*
 * The root of our mount, by a mount of our own of the same file system that is in nobody's list: what we have open does not make
 * "umount" fail. Without the right to that (a mount by fusermount3): by its name, looked up each time.
 */
struct root {
	int tree; /* AT_FDCWD: by name */
	const char *name;
	dev_t device;
};

static int open_root(struct root *root, const char *mountpoint)
{
	struct statfs kind;
	struct stat status;

	root->name = mountpoint;
	root->tree = open_tree(AT_FDCWD, mountpoint, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (root->tree < 0)
		root->tree = AT_FDCWD;
	if (root->tree == AT_FDCWD ? statfs(mountpoint, &kind) || stat(mountpoint, &status)
				   : fstatfs(root->tree, &kind) || fstat(root->tree, &status))
		return -1;
	root->device = status.st_dev;
	return kind.f_type == FUSE_SUPER_MAGIC ? 0 : -1;
}

/*
 * Folders that files were touched in lately, held open: every part of a path is looked up anew each time, and asked for its mode, which
 * costs more than the touch. None is held in a mount that "umount" would find busy, or over a folder's removal.
 */
static struct folder {
	char *path;
	int fd;
} folders[FOLDERS_MAX];

static void drop_folder(struct folder *folder)
{
	if (!folder->path)
		return;
	free(folder->path);
	folder->path = NULL;
	close(folder->fd);
}

static void drop_folders(void)
{
	for (int i = 0; i < FOLDERS_MAX; i++)
		drop_folder(&folders[i]);
}

static struct folder *open_folder(const struct root *root, const char *path)
{
	struct folder *folder;
	unsigned hash = 2166136261;

	for (const char *at = path; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619;
	folder = &folders[(hash ^ hash >> 16) % FOLDERS_MAX];
	if (folder->path && !strcmp(folder->path, path))
		return folder;
	drop_folder(folder);
	folder->fd = openat(root->tree, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder->fd < 0)
		return NULL;
	folder->path = strdup(path);
	if (!folder->path)
		abort();
	return folder;
}

/*
 * Without CAP_DAC_OVERRIDE a file that nobody may write shows itself to us as one that its owner may (fs/ops.c), but there is one inode
 * for all: the mode that somebody else was told in the meantime may be the one that the kernel checks. Hardly ever twice.
 */
static int open_file(int folder, const char *path)
{
	int fd, tries = 0;

	do
		fd = openat(folder, path,
			    O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	while (fd < 0 && errno == EACCES && ++tries < OPEN_TRIES);
	return fd;
}

/* By the folder held; if that leads nowhere, by the whole path. */
static int open_path(const struct root *root, char *path)
{
	char *slash = strrchr(path, '/');
	struct folder *folder;
	int fd;

	if (root->tree == AT_FDCWD || !slash)
		return open_file(root->tree, path);
	*slash = 0;
	folder = open_folder(root, path);
	*slash = '/';
	fd = folder ? open_file(folder->fd, slash + 1) : -1;
	if (fd >= 0)
		return fd;
	if (folder)
		drop_folder(folder);
	return open_file(root->tree, path);
}

/* Opens, writes, closes: IN_MODIFY and IN_CLOSE_WRITE on the file and on its folder. */
static void touch(const struct root *root, char *path)
{
	int fd = open_path(root, path);
	struct statx status;
	size_t size;
	off_t at = 0;

	if (fd < 0)
		return;
	/*
	 * Not our mount any more: write nothing into anybody else's file. The size is that of a moment ago, when the kernel looked whether
	 * the file may be opened: no reason to ask again.
	 */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &status) == 0 &&
	    makedev(status.stx_dev_major, status.stx_dev_minor) == root->device) {
		size = status.stx_size < 1 ? 1 : (size_t)status.stx_size;
		if (size > TOUCH_BYTES_MAX) {
			at = (off_t)(size - TOUCH_BYTES_MAX);
			size = TOUCH_BYTES_MAX;
		}
		(void)!pwrite(fd, zeros, size, at);
	}
	close(fd);
}

static void carry_out(const struct root *root, char *line)
{
	char *path;
	int length;

	if (!line[0] || line[1] != ' ')
		return;
	length = root->tree == AT_FDCWD ? asprintf(&path, "%s/%s", root->name, line + 2)
					: asprintf(&path, "%s", line + 2);
	if (length < 0)
		return;
	if (line[0] != 't')
		drop_folders();
	if (line[0] == 't')
		touch(root, path);
	else if (line[0] == 'm')
		mkdirat(root->tree, path, 0755);
	else if (line[0] == 'r')
		unlinkat(root->tree, path, AT_REMOVEDIR);
	else if (line[0] == 's')
		symlinkat("../disks", root->tree, path); /* where it leads the daemon knows */
	else if (line[0] == 'u')
		unlinkat(root->tree, path, 0);
	free(path);
}

int toucher_main(const char *mountpoint)
{
	FILE *orders = fdopen(STDIN_FILENO, "r");
	struct root root;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	close_range(STDERR_FILENO + 1, ~0U, 0);
	if (!orders || open_root(&root, mountpoint) < 0)
		return EXIT_FAILURE;
	drop_privileges();
	while ((length = getline(&line, &room, orders)) > 0) {
		line[length - 1] = 0;
		carry_out(&root, line);
		if (write(STDIN_FILENO, "", 1) != 1)
			break;
	}
	free(line);
	return 0;
}
