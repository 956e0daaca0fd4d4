/* Links over TCP and over commands: what their tests have in common. */
#ifndef TESTS_TEST_QMP_TRANSPORT_H
#define TESTS_TEST_QMP_TRANSPORT_H

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/unit/test_qmp_link.h"

/* Without a peer, if that is all that a test needs. */
static void begin_alone(struct owner *owner)
{
	*owner = (struct owner){ .descriptors = peer_open_descriptors() };
	uv_loop_init(&owner->loop);
}

static void end_alone(struct owner *owner)
{
	if (owner->link)
		qmp_link_close(owner->link);
	owner->link = NULL;
	cr_assert(peer_run_empty(&owner->loop, LONG_MS), "something is left in the loop");
	cr_assert_eq(uv_loop_close(&owner->loop), 0);
	cr_assert_eq(peer_open_descriptors(), owner->descriptors, "descriptors left open");
}

/* How many processes, but for zombies and us, have @text in their command line. */
__attribute__((unused)) static int processes(const char *text)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	while ((entry = readdir(proc))) {
		char path[300], line[4096];
		ssize_t length;
		int fd;

		if (atoi(entry->d_name) <= 0 || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		length = read(fd, line, sizeof(line));
		close(fd);
		count += length > 0 && memmem(line, (size_t)length, text, strlen(text));
	}
	closedir(proc);
	return count;
}

#endif
