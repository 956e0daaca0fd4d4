/*
 * The descriptor store, as seen by those whose descriptors are kept; see fs/store.h.
 */
#include "fs/store.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	PATIENCE_S = 2, /* one that is stopped does not hold us up */
};

static struct {
	int socket; /* -1: nobody is there */
	struct sockaddr_un address; /* of systemd */
	socklen_t address_length; /* 0: the socket is connected */
	int fds[STORE_MAX]; /* -1: taken */
	char names[STORE_MAX][STORE_NAME_MAX];
	int count;
} store = { .socket = -1 };

static void read_names(const char *names)
{
	for (int i = 0; i < store.count; i++) {
		size_t length = strcspn(names, ":");

		snprintf(store.names[i], STORE_NAME_MAX, "%.*s", (int)length, names);
		names += length + (names[length] == ':');
	}
}

static void read_descriptors(bool ours)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"),
		   *names = getenv("LISTEN_FDNAMES");

	if (!count || (!ours && (!pid || atol(pid) != getpid())))
		return;
	store.count = atoi(count);
	if (store.count < 0 || store.count > STORE_MAX)
		store.count = 0;
	read_names(names ? names : "");
	for (int i = 0; i < store.count; i++) {
		store.fds[i] = STORE_FIRST + i;
		fcntl(store.fds[i], F_SETFD, FD_CLOEXEC);
	}
}

static void set_patience(void)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };

	setsockopt(store.socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

void store_is_behind(int socket)
{
	if (store.socket >= 0)
		close(store.socket);
	store.socket = socket;
	store.address_length = 0;
	set_patience();
}

static void store_is_at(const char *address)
{
	size_t length = strlen(address);

	if ((*address != '/' && *address != '@') || length >= sizeof(store.address.sun_path))
		return;
	store.socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	set_patience();
	store.address.sun_family = AF_UNIX;
	memcpy(store.address.sun_path, address, length);
	if (*address == '@')
		store.address.sun_path[0] = 0;
	store.address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

void store_begin(bool ours)
{
	const char *address = getenv("NOTIFY_SOCKET");

	read_descriptors(ours);
	if (address && !ours)
		store_is_at(address);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

bool store_is_there(void)
{
	return store.socket >= 0;
}

int store_take(const char *name)
{
	/* Of several of a name the last one counts: systemd adds, and does not replace. */
	for (int i = store.count - 1; i >= 0; i--) {
		int fd = store.fds[i];

		if (fd < 0 || strcmp(store.names[i], name))
			continue;
		store.fds[i] = -1;
		return fd;
	}
	return -1;
}

/* @fd: -1: none goes with it. */
static bool say(const char *text, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec words = { .iov_base = (char *)text, .iov_len = strlen(text) };
	struct msghdr message = {
		.msg_name = store.address_length ? &store.address : NULL,
		.msg_namelen = store.address_length,
		.msg_iov = &words,
		.msg_iovlen = 1,
	};

	if (store.socket < 0)
		return false;
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	}
	return sendmsg(store.socket, &message, MSG_NOSIGNAL) >= 0;
}

bool store_keep(const char *name, int fd)
{
	char text[STORE_NAME_MAX + 32];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return say(text, fd);
}

void store_say(const char *line)
{
	say(line, -1);
}
