/*
 * What those say whose descriptors are kept; see fs/store_socket.h.
 */
#include "fs/store_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int store_socket_pair(int ends[2])
{
	const int yes = 1;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	setsockopt(ends[STORE_EAR], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
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
