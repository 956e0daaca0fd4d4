/*
 * The folder of an engine on the disk. Called by engine.c alone; starts and ends no process.
 */
#include "jobs/engine_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char *join(const char *a, const char *b)
{
	char *joined;

	if (asprintf(&joined, "%s%s", a, b) < 0)
		abort();
	return joined;
}

/* *@error is the sentence, with the text of @code behind it unless that is -EINVAL, which says nothing. Returns @code. */
__attribute__((format(printf, 3, 4))) static int fail(char **error, int code, const char *format,
						      ...)
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

static char *default_dir(void)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char *dir;

	if (geteuid() == 0)
		return strdup("/run/blockjobfs");
	if (runtime && *runtime == '/')
		return join(runtime, "/blockjobfs");
	if (asprintf(&dir, "/tmp/blockjobfs-%u", (unsigned)geteuid()) < 0)
		abort();
	return dir;
}

/* Makes a folder, or takes one that is ours and closed to everybody else: a socket in there is an open door to the image. */
static int make_private(const char *path, char **error)
{
	struct stat status;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return fail(error, -errno, "the folder %s cannot be made", path);
	if (lstat(path, &status) < 0)
		return fail(error, -errno, "%s", path);
	if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077))
		return fail(error, -EINVAL,
			    "%s is not a folder of ours that is closed to others (mode 700): "
			    "remove it, or name another by -o runtime_dir=",
			    path);
	return 0;
}

/* Different images must not share a folder: 64 bits of the real path, and the path itself is not needed again. */
static char *folder_name(const char *runtime_dir, const char *image)
{
	uint64_t hash = 0xcbf29ce484222325;
	char *real = realpath(image, NULL), *name;

	for (const char *at = real ? real : image; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 0x100000001b3;
	free(real);
	if (asprintf(&name, "%s/engine-%016llx", runtime_dir, (unsigned long long)hash) < 0)
		abort();
	return name;
}

/* Locks the file, and makes sure that it is still the one by that name: the last owner removes it when it ends. */
static int take_lock(struct engine_folder *folder)
{
	for (;;) {
		struct stat ours, there;
		int fd = open(folder->lockfile, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int error = -errno;

			close(fd);
			return error;
		}
		if (fstat(fd, &ours) == 0 && stat(folder->lockfile, &there) == 0 &&
		    ours.st_ino == there.st_ino) {
			folder->lock = fd;
			return 0;
		}
		close(fd);
	}
}

int engine_folder_open(struct engine_folder *folder, const char *runtime_dir, const char *image,
		       char **error)
{
	char *dir;
	int code;

	if (folder->lock >= 0)
		return 0;
	dir = runtime_dir ? strdup(runtime_dir) : default_dir();
	code = make_private(dir, error);
	if (!code) {
		folder->path = folder_name(dir, image);
		folder->socket = join(folder->path, "/qmp");
		folder->pidfile = join(folder->path, "/pid");
		folder->lockfile = join(folder->path, "/lock");
		if (strlen(folder->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			code = fail(error, -EINVAL,
				    "%s is too long for a socket: name another folder by -o "
				    "runtime_dir=",
				    folder->socket);
	}
	if (!code)
		code = make_private(folder->path, error);
	if (!code && !runtime_dir)
		folder->parent = strdup(dir);
	free(dir);
	if (!code && (code = take_lock(folder)) != 0)
		code = code == -EWOULDBLOCK
			       ? fail(error, -EINVAL, "%s is served by another blockjobfs", image)
			       : fail(error, code, "%s cannot be locked", folder->lockfile);
	return code;
}

void engine_folder_sweep(struct engine_folder *folder)
{
	unlink(folder->socket);
	unlink(folder->pidfile);
}

pid_t engine_folder_pid(const struct engine_folder *folder)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char text[32] = "";
	pid_t pid = 0;
	/* Without the lock it is somebody else's engine. */
	int fd = folder->lock >= 0 ? open(folder->pidfile, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return 0;
	/* QEMU keeps its pid file locked as long as it lives (qemu_write_pidfile() in os-posix.c). */
	if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK &&
	    read(fd, text, sizeof(text) - 1) > 0)
		pid = (pid_t)atol(text);
	close(fd);
	return pid;
}

void engine_folder_close(struct engine_folder *folder)
{
	if (folder->lock >= 0)
		close(folder->lock);
	folder->lock = -1;
	free(folder->path);
	free(folder->parent);
	folder->parent = NULL;
	free(folder->socket);
	free(folder->pidfile);
	free(folder->lockfile);
	folder->path = folder->socket = folder->pidfile = folder->lockfile = NULL;
}

void engine_folder_remove(struct engine_folder *folder)
{
	if (folder->lock < 0)
		return;
	engine_folder_sweep(folder);
	unlink(folder->lockfile);
	rmdir(folder->path);
	if (folder->parent)
		rmdir(folder->parent); /* fails as long as there are others in it */
	engine_folder_close(folder);
}
