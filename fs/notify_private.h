/*
 * What notices are made of. Private to notify.c and notify_toucher.c.
 */
#ifndef FS_NOTIFY_PRIVATE_H
#define FS_NOTIFY_PRIVATE_H

#include <uthash.h>
#include "fs/notify.h"

struct toucher;

enum {
	ORDERS_MAX = 64, /* under way at once: what changes meanwhile is told in one go */
	TOUCHERS_MAX = 4, /* given up ones included */
	TOUCHER_KEY_BYTES = 24,
	RESTART_MS =
		1000, /* a toucher that dies again at once is started again only after so long */
};

/* A file that has changed lately. */
struct notice {
	char *path; /* below the mount point */
	uint64_t node;
	unsigned apart_ms;
	uint64_t due; /* not to be told before, by uv_now() */
	bool wanted, ordered;
	struct notice *prev, *next;
	UT_hash_handle hh;
};

/* An order for the toucher: a notice, or a folder to be made or removed. */
struct order {
	char what; /* as in fs/toucher.h */
	struct notice *notice; /* NULL: a folder */
	char *path, *name;
	char *domain; /* that a disk's folder is in; NULL: it is a domain's */
	uint64_t parent, node, generation, domain_generation;
	uint64_t number; /* of a folder, in the order in which they came */
	struct order *prev, *next;
};

struct notify {
	uv_loop_t *loop;
	struct face *face;
	char *mountpoint;
	uv_timer_t timer; /* the next notice that is due */
	uv_timer_t watchdog; /* the toucher's answer */
	uv_timer_t restart;
	uv_prepare_t prepare;
	struct notice *table, *list;
	struct order *folders; /* to be ordered, in order */
	struct order *orders; /* under way, oldest first */
	unsigned ordered;
	unsigned folders_due; /* folders among both */
	uint64_t last_number; /* of an order */
	unsigned slow; /* files in the list that are told of NOTIFY_PROGRESS_MS apart */
	uint64_t next_due; /* nothing in the list is to be done before, by uv_now() */
	struct toucher *toucher; /* NULL: none at the moment */
	struct toucher *touchers[TOUCHERS_MAX]; /* all that are alive */
	uint64_t started; /* when the last one was, by uv_now() */
	bool running;
	bool dirty; /* something may be sent that could not be before */
};

/* What model->handover knows a toucher by, so that the next life does. Returns @key. */
char *notify_toucher_key(char key[TOUCHER_KEY_BYTES], pid_t pid);

#endif
