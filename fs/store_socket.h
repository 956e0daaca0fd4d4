/*
 * The socket that those whose descriptors are kept say things to: the other side of fs/store.h, as in sd_notify(3). Used by the keeper,
 * and by a server that makes one for a new keeper.
 */
#ifndef FS_STORE_SOCKET_H
#define FS_STORE_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
	STORE_ADDRESS_BYTES = 110,
	STORE_TEXT_BYTES = 4096 + 64,
};

struct store_message {
	char text[STORE_TEXT_BYTES]; /* lines */
	pid_t pid; /* whose it is: the address is no secret */
	int fd; /* that came with it, the caller's; -1: none */
};

/* A socket at an address that is in nobody's file system. Returns it, or -errno. */
int store_socket_new(void);
/* Its address, as in NOTIFY_SOCKET. Returns 0 or -errno. */
int store_socket_address(int socket, char address[STORE_ADDRESS_BYTES]);
/* The next message. False: there is none, for now. */
bool store_socket_hear(int socket, struct store_message *message);

#endif
