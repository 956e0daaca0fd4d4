/*
 * Who has a file: the chains of all disks under the mount, as far as they are known, the QEMUs that are connected, and whoever locks
 * an image as QEMU does. Asked by jobs/delete.c before a file is deleted.
 */
#ifndef JOBS_FILE_USERS_H
#define JOBS_FILE_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct doomed;
struct model;

struct file_user {
	char *path; /* of an image in a chain */
	char *name; /* "web1/vda" */
};

/* What the model knows at one moment, to be used in the work pool. */
struct file_users {
	struct file_user *list;
	size_t count;
	pid_t *peers; /* at the other end of monitors */
	size_t peer_count;
};

void file_users_take(struct file_users *users, const struct model *model);
void file_users_clear(struct file_users *users);

/* What uses @image, a sentence, malloc'ed; NULL: nothing that can be seen. May block. */
char *file_used_by(const struct doomed *image, const struct file_users *users);

/*
 * True if @image is the file that a QEMU whose monitor is served by process @peer means by that path: QEMU may have another root.
 * It is if the process has it open, or has the same mounts as we have, or if some QEMU has locked it. May block.
 */
bool file_is_that_of(const struct doomed *image, pid_t peer);

#endif
