/*
 * What those say whose descriptors are kept; see fs/store_socket.h.
 */
#include "fs/store_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int store_socket_new(void)
{
	struct sockaddr_un any = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
	const int yes = 1;

	if (fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0)
		return fd;
	error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

int store_socket_address(int socket, char address[STORE_ADDRESS_BYTES])
{
	struct sockaddr_un name;
	socklen_t length = sizeof(name);

	if (getsockname(socket, (struct sockaddr *)&name, &length))
		return -errno;
	snprintf(address, STORE_ADDRESS_BYTES, "@%.*s",
		 (int)(length - offsetof(struct sockaddr_un, sun_path) - 1), name.sun_path + 1);
	return 0;
}

bool store_socket_hear(int socket, struct store_message *message)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec iov = { .iov_base = message->text, .iov_len = sizeof(message->text) - 1 };
	struct msghdr from = { .msg_iov = &iov,
			       .msg_iovlen = 1,
			       .msg_control = &control,
			       .msg_controllen = sizeof(control) };
	struct ucred who = { 0 };
	ssize_t length;

	do
		length = recvmsg(socket, &from, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return false;
	message->text[length] = 0;
	message->fd = -1;
	for (struct cmsghdr *part = CMSG_FIRSTHDR(&from); part; part = CMSG_NXTHDR(&from, part)) {
		if (part->cmsg_type == SCM_CREDENTIALS)
			memcpy(&who, CMSG_DATA(part), sizeof(who));
		else if (part->cmsg_type == SCM_RIGHTS)
			memcpy(&message->fd, CMSG_DATA(part), sizeof(message->fd));
	}
	message->pid = who.pid;
	return true;
}
