/*
 * Descriptors that the keeper holds for its servers, by name, and how one finds them (fs/store.h). Used by fs/keeper.c.
 */
#ifndef FS_HELD_H
#define FS_HELD_H

#include "fs/store.h"

enum {
	HELD_FROM = STORE_FIRST +
		    STORE_MAX, /* ours are above the numbers that a server gets them under */
};

struct held {
	struct {
		char name[STORE_NAME_MAX];
		int fd;
	} fds[STORE_MAX];
	int count;
};

/* The numbers that held_pass() uses are taken: nothing of the loop is to get them. First thing. */
void held_reserve(void);
/* Holds a duplicate of @fd, in place of the one of that name. What there is no room for is let go. */
void held_keep(struct held *held, const char *name, int fd);
/* -1: there is none of that name. */
int held_find(const struct held *held, const char *name);
/* In the process that is about to become the server: puts them where it finds them, and says so in the environment. */
void held_pass(const struct held *held);

#endif
