/*
 * What the keeper holds; see fs/held.h.
 */
#include "fs/held.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void held_reserve(void)
{
	for (int fd = STORE_FIRST; fd < HELD_FROM; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			dup3(STDIN_FILENO, fd, O_CLOEXEC);
}

static int place_of(const struct held *held, const char *name)
{
	int place = 0;

	while (place < held->count && strcmp(held->fds[place].name, name))
		place++;
	return place;
}

void held_keep(struct held *held, const char *name, int fd)
{
	int place = place_of(held, name);

	if (place == STORE_MAX)
		return;
	if (place == held->count)
		held->count++;
	else
		close(held->fds[place].fd);
	snprintf(held->fds[place].name, STORE_NAME_MAX, "%s", name);
	held->fds[place].fd = fcntl(fd, F_DUPFD_CLOEXEC, HELD_FROM);
}

int held_find(const struct held *held, const char *name)
{
	int place = place_of(held, name);

	return place < held->count ? held->fds[place].fd : -1;
}

void held_pass(const struct held *held)
{
	char names[STORE_MAX * (STORE_NAME_MAX + 1)] = "", count[16];
	size_t length = 0;

	for (int i = 0; i < held->count; i++) {
		length += (size_t)snprintf(names + length, sizeof(names) - length, "%s%s",
					   i ? ":" : "", held->fds[i].name);
		dup2(held->fds[i].fd, STORE_FIRST + i);
	}
	snprintf(count, sizeof(count), "%d", held->count);
	setenv("LISTEN_FDS", count, 1);
	setenv("LISTEN_FDNAMES", names, 1);
}
