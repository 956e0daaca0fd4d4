/*
 * Mount points: is this one fit, and what is in its way. Called by fs/main.c before anything is started,
 * by fs/session.c around libfuse's mounting, and by fs/keeper.c when it gives up. Mounting itself is libfuse's.
 */
#ifndef FS_MOUNT_H
#define FS_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#define MOUNT_SUBTYPE "blockjobfs"
#define MOUNT_TYPE    "fuse." MOUNT_SUBTYPE

/*
 * Checks that @path can be mounted on, and that there is a /dev/fuse. A dead blockjobfs mount that is in the
 * way (its daemon was killed) is detached. Returns 0 and *@absolute, or -1 and *@error, one line; both
 * malloc'ed. May block: not for the loop.
 */
int mount_check(const char *path, char **absolute, char **error);

/*
 * Detaches the mount of ours at @path, an absolute path, unless that has happened already. @fd: its descriptor of /dev/fuse; -1: it has none any more. The file system
 * itself is not asked anything: nobody may be there to answer.
 */
void mount_undo(const char *path, int fd);

/* The device, MAJOR:MINOR, of the file system that is mounted on top at @path. False if it is no mount point. */
bool mount_device(const char *path, char *device, size_t size);
/* True if a mount of that file system is in our list of mounts. */
bool mount_is_listed(const char *device);

/* What was said on standard error between begin and end: the first line of it. For one thing at a time. */
struct mount_words {
	int saved, kept;
	char text[256];
};

void mount_words_begin(struct mount_words *words);
void mount_words_end(struct mount_words *words);

/*
 * How long a read may be parked, in milliseconds; 0: for ever. That is a good part of the time after which the
 * kernel gives up the whole connection for one unanswered request (sysctl fs.fuse.default_request_timeout
 * and max_request_timeout, kernel 6.15 and later).
 */
unsigned mount_wait_limit(void);

#endif
