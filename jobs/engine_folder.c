/*
 * The folder of an engine on the disk. Called by engine.c alone; starts and ends no process.
 */
#include "jobs/engine_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "jobs/private_folder.h"

static char *join(const char *a, const char *b)
{
	char *joined;

	if (asprintf(&joined, "%s%s", a, b) < 0)
		abort();
	return joined;
}

static int take_lock(struct engine_folder *folder)
{
	int fd = private_folder_lock(folder->lockfile);

	if (fd < 0)
		return fd;
	folder->lock = fd;
	return 0;
}

int engine_folder_open(struct engine_folder *folder, const char *runtime_dir, const char *image,
		       char **error)
{
	char *dir, *real;
	int code;

	if (folder->lock >= 0)
		return 0;
	dir = runtime_dir ? strdup(runtime_dir) : private_folder_default();
	code = private_folder_make(dir, "runtime_dir", error);
	if (!code) {
		real = realpath(image, NULL);
		folder->path = private_folder_name(dir, "engine", real ? real : image);
		free(real);
		folder->socket = join(folder->path, "/qmp");
		folder->pidfile = join(folder->path, "/pid");
		folder->lockfile = join(folder->path, "/lock");
		if (strlen(folder->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			code = private_folder_fail(
				error, -EINVAL,
				"%s is too long for a socket: name another folder by -o "
				"runtime_dir=",
				folder->socket);
	}
	if (!code)
		code = private_folder_make(folder->path, "runtime_dir", error);
	if (!code && !runtime_dir)
		folder->parent = strdup(dir);
	free(dir);
	if (!code && (code = take_lock(folder)) != 0)
		code = code == -EWOULDBLOCK
			       ? private_folder_fail(error, -EINVAL,
						     "%s is served by another blockjobfs", image)
			       : private_folder_fail(error, code, "%s cannot be locked",
						     folder->lockfile);
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
