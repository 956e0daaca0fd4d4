/*
 * Folders of mode 700: making, naming and locking them. What is in them is the business of engine_folder.c and state_folder.c.
 */
#include "jobs/private_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int private_folder_fail(char **error, int code, const char *format, ...)
{
	va_list arguments;
	char *sentence;

	va_start(arguments, format);
	if (vasprintf(&sentence, format, arguments) < 0)
		abort();
	va_end(arguments);
	if (code == -EINVAL)
		*error = strdup(sentence);
	else if (asprintf(error, "%s: %s", sentence, strerror(-code)) < 0)
		abort();
	free(sentence);
	return code;
}

char *private_folder_default(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char *dir;

	if (geteuid() == 0)
		return strdup("/run/blockjobfs");
	if (runtime && *runtime == '/') {
		if (asprintf(&dir, "%s/blockjobfs", runtime) < 0)
			abort();
		return dir;
	}
	if (asprintf(&dir, "/tmp/blockjobfs-%u", (unsigned)geteuid()) < 0)
		abort();
	return dir;
}

int private_folder_make(const char *path, const char *option, char **error)
{
	struct stat status;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return private_folder_fail(error, -errno, "the folder %s cannot be made", path);
	if (lstat(path, &status) < 0)
		return private_folder_fail(error, -errno, "%s", path);
	if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077))
		return private_folder_fail(
			error, -EINVAL,
			"%s is not a folder of ours that is closed to others (mode 700): "
			"remove it, or name another by -o %s=",
			path, option);
	return 0;
}

char *private_folder_name(const char *folder, const char *prefix, const char *what)
{
	uint64_t hash = 0xcbf29ce484222325;
	char *name;

	for (const char *at = what; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 0x100000001b3;
	if (asprintf(&name, "%s/%s-%016llx", folder, prefix, (unsigned long long)hash) < 0)
		abort();
	return name;
}

int private_folder_lock(const char *path)
{
	for (;;) {
		struct stat ours, there;
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int error = -errno;

			close(fd);
			return error;
		}
		if (fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_ino == there.st_ino)
			return fd;
		close(fd);
	}
}
