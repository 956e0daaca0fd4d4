/*
 * What the toucher process does: see fs/toucher.h. It knows the mount as any program does, and nothing else of blockjobfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "fs/toucher.h"

enum {
	/*
	 * A write through an open file that is read directly drops the pages that sendfile and splice have cached of what
	 * it covers (kernel 6.6 and later): so the whole of a small file is "written", and the end of a long one, which is a log.
	 */
	TOUCH_BYTES_MAX = 64 << 10,
};

static char zeros[TOUCH_BYTES_MAX];

/* Nothing is needed but to be the owner of the files. */
static void drop_privileges(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	prctl(PR_SET_NAME, "blockjobfs-toch");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	syscall(SYS_capset, &header, none);
	close_range(1, ~0U, 0);
}

/* Opens, writes, closes: IN_MODIFY and IN_CLOSE_WRITE on the file and on its folder. */
static void touch(const char *path, dev_t device)
{
	int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat status;
	size_t size;
	off_t at = 0;

	if (fd < 0)
		return;
	/* Not our mount any more: write nothing into anybody else's file. */
	if (fstat(fd, &status) == 0 && status.st_dev == device) {
		size = status.st_size < 1 ? 1 : (size_t)status.st_size;
		if (size > TOUCH_BYTES_MAX) {
			at = (off_t)(size - TOUCH_BYTES_MAX);
			size = TOUCH_BYTES_MAX;
		}
		(void)!pwrite(fd, zeros, size, at);
	}
	close(fd);
}

static void carry_out(char *line, const char *mountpoint, dev_t device)
{
	char *path;

	if (!line[0] || line[1] != ' ' || asprintf(&path, "%s/%s", mountpoint, line + 2) < 0)
		return;
	if (line[0] == 't')
		touch(path, device);
	else if (line[0] == 'm')
		mkdir(path, 0755);
	else if (line[0] == 'r')
		rmdir(path);
	free(path);
}

int toucher_main(const char *mountpoint)
{
	struct statfs kind;
	struct stat status;
	FILE *orders = fdopen(STDIN_FILENO, "r");
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	drop_privileges();
	if (!orders || stat(mountpoint, &status) < 0 || statfs(mountpoint, &kind) < 0 ||
	    kind.f_type != FUSE_SUPER_MAGIC)
		return EXIT_FAILURE;
	while ((length = getline(&line, &room, orders)) > 0) {
		line[length - 1] = 0;
		carry_out(line, mountpoint, status.st_dev);
		if (write(STDIN_FILENO, "", 1) != 1)
			break;
	}
	free(line);
	return 0;
}
