/*
 * The sockets that a server and its keeper are connected by: the other side of fs/store.h, with messages as in sd_notify(3). Used by the keeper,
 * and by a server that starts a new keeper.
 */
#ifndef FS_STORE_SOCKET_H
#define FS_STORE_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
	STORE_TEXT_BYTES = 4096 + 64,
};

struct store_message {
	char text[STORE_TEXT_BYTES]; /* lines */
	pid_t pid; /* whose it is: one that is dead may have said it */
	int fd; /* that came with it, the caller's; -1: none */
};

enum store_end {
	STORE_EAR, /* the keeper's */
	STORE_MOUTH, /* a server's; the keeper has it for the next one */
};

/* Returns 0 or -errno. */
int store_socket_pair(int ends[2]);
/* The next message. False: there is none, for now. */
bool store_socket_hear(int socket, struct store_message *message);

#endif
