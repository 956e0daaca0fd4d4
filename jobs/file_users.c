/*
 * Who has a file; see file_users.h.
 */
#include "jobs/file_users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>
#include "jobs/deletion.h"
#include "jobs/domain_link.h"
#include "jobs/text.h"

/* --- what the model knows --- */

static void add_user(struct file_users *users, const char *path, const struct domain *domain,
		     const struct disk *disk)
{
	struct file_user *user;

	users->list = realloc(users->list, (users->count + 1) * sizeof(*users->list));
	if (!users->list)
		abort();
	user = &users->list[users->count++];
	user->path = strdup(path);
	if (asprintf(&user->name, "%s%s%s", domain->name, disk ? "/" : "", disk ? disk->name : "") <
	    0)
		abort();
}

static void add_domain(struct file_users *users, const struct domain *domain)
{
	static const char image[] = "image:";
	const struct disk *disk;
	pid_t peer = domain->link->qmp ? qmp_link_peer(domain->link->qmp) : 0;

	DL_FOREACH(domain->disks, disk)
		for (size_t i = 0; i < disk->depth; i++)
			add_user(users, disk->chain[i].path, domain, disk);
	/* Whether its engine runs or not. */
	if (!strncmp(domain->address, image, strlen(image)))
		add_user(users, domain->address + strlen(image), domain, NULL);
	if (peer > 0)
		users->peers[users->peer_count++] = peer;
}

void file_users_take(struct file_users *users, const struct model *model)
{
	const struct domain *domain;
	size_t domains = 0;

	DL_FOREACH(model->domains, domain)
		domains++;
	users->peers = calloc(domains + 1, sizeof(*users->peers));
	if (!users->peers)
		abort();
	DL_FOREACH(model->domains, domain)
		add_domain(users, domain);
}

void file_users_clear(struct file_users *users)
{
	for (size_t i = 0; i < users->count; i++) {
		free(users->list[i].path);
		free(users->list[i].name);
	}
	free(users->list);
	free(users->peers);
}

/* --- what the kernel knows --- */

static bool is_file(const struct stat *status, const struct doomed *image)
{
	return status->st_dev == image->device && status->st_ino == image->inode;
}

static bool has_open(pid_t pid, const struct doomed *image)
{
	struct dirent *entry;
	struct stat status;
	bool found = false;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)))
		found = fstatat(dirfd(dir), entry->d_name, &status, 0) == 0 &&
			is_file(&status, image);
	closedir(dir);
	return found;
}

static bool has_our_mounts(pid_t pid)
{
	char path[64], theirs[64] = "", ours[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	return readlink(path, theirs, sizeof(theirs) - 1) > 0 &&
	       readlink("/proc/self/ns/mnt", ours, sizeof(ours) - 1) > 0 && !strcmp(theirs, ours);
}

/*
 * QEMU locks bytes of its images from 100 on for what it does, and from 200 on for what others must not do: file-posix.c,
 * RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE. 1: somebody does; 0: nobody; -errno: it cannot be told.
 */
static int is_locked(const struct doomed *image)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 200
	};
	int fd = open(image->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	int result = -errno;

	if (fd < 0)
		return result;
	if (fstat(fd, &status) < 0 || fcntl(fd, F_OFD_GETLK, &lock) < 0)
		result = -errno;
	else
		result = is_file(&status, image) ? lock.l_type != F_UNLCK : -ESTALE;
	close(fd);
	return result;
}

char *file_used_by(const struct doomed *image, const struct file_users *users)
{
	struct stat status;
	int locked;

	for (size_t i = 0; i < users->count; i++)
		if (!strcmp(users->list[i].path, image->path) ||
		    (stat(users->list[i].path, &status) == 0 && is_file(&status, image)))
			return text_sentence("%s uses it", users->list[i].name);
	for (size_t i = 0; i < users->peer_count; i++)
		if (has_open(users->peers[i], image))
			return text_sentence("process %d has it open", (int)users->peers[i]);
	locked = is_locked(image);
	if (locked < 0)
		return text_sentence("whether a program uses it cannot be told: %s",
				     strerror(-locked));
	return locked ? strdup("a program has locked it, as QEMU does") : NULL;
}

bool file_is_that_of(const struct doomed *image, pid_t peer)
{
	return (peer > 0 && (has_open(peer, image) || has_our_mounts(peer))) ||
	       is_locked(image) == 1;
}
