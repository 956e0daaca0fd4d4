/*
 * The descriptors that outlive this process: whoever has started it keeps them and hands them to the next one. That is our own keeper
 * (fs/keeper.h) or systemd, and both are spoken to alike: sd_notify(3) with FDSTORE=1 one way, LISTEN_FDS and LISTEN_FDNAMES the other
 * (systemd: docs/FILE_DESCRIPTOR_STORE.md, sd_listen_fds(3)). That protocol is declared stable and meant to be spoken without its library.
 *
 * An address can be sent to by everybody, with descriptors of which the mere close(2) hangs. So our keeper is spoken to through one end of a socket pair, which is the descriptor
 * of the name STORE_VOICE.
 *
 * Used by fs/main.c; the names of descriptors are its business.
 */
#ifndef FS_STORE_H
#define FS_STORE_H

#include <stdbool.h>

#define STORE_VOICE "voice"

enum {
	STORE_FIRST =
		3, /* the number of the first descriptor that is handed over: SD_LISTEN_FDS_START */
	STORE_MAX = 16, /* descriptors */
	STORE_NAME_MAX = 64,
};

/*
 * Takes what there is out of the environment, where it would be found by the programs that we start. Called first thing by main().
 * @ours: started by our keeper, which cannot say for which process its descriptors are.
 */
void store_begin(bool ours);
/* True if there is somebody who keeps descriptors. */
bool store_is_there(void);
/* The descriptor that an earlier life has given away under this name, from now on the caller's; -1: there is none. */
int store_take(const char *name);
/* Gives away a duplicate of @fd. False if nobody takes it. */
bool store_keep(const char *name, int fd);
/* Says a line such as READY=1. */
void store_say(const char *line);
/* From now on it is a keeper of ours who keeps, and this is our end of the sockets that connect us (fs/store_socket.h). Takes @socket. */
void store_is_behind(int socket);

#endif
