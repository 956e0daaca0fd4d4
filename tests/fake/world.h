/*
 * A model with one domain at a QEMU in small, on a loop of their own: what the unit tests of jobs/ stand in. It watches the model as
 * fs/ does, and asserts what a watcher is promised.
 */
#ifndef TESTS_FAKE_WORLD_H
#define TESTS_FAKE_WORLD_H

#include "jobs/domain_link.h"
#include "jobs/model.h"
#include "tests/fake/qemu.h"

enum {
	WORLD_WAIT_MS = 5000, /* whatever has not happened within this is a failure */
	WORLD_SHOWN_MAX = 2000,
};

struct world {
	uv_loop_t loop;
	uv_timer_t tick; /* so that the loop turns while a test waits */
	struct qemu *qemu;
	struct peer *peer;
	struct model *model;
	struct domain *domain;
	const void *shown[WORLD_SHOWN_MAX]; /* domains and disks that were added and not removed */
	size_t shown_count;
	const char *refuse; /* may_add() says no to the disk of this name; "" to the domain */
	char log[4096]; /* the lines of the log, as far as they fit */
	size_t log_lines;
	char state
		[64]; /* the journal's folder; "": it is in memory only, and gone with the model */
	int state_dir;
	int memory; /* what outlives the server as long as its mount; -1: nothing does */
	uint64_t request; /* the number of the command that is written next; 0: none */
	bool again; /* it comes a second time */
	unsigned timeout_ms;
	int descriptors;
	bool stopping, stopped;
};

/* What somebody waits for. */
struct answer_slip {
	struct op *op; /* NULL: it is over */
	unsigned times; /* how often it was answered */
	int status;
	char text[2000];
};

/* A QEMU with so many disks, connected to nothing yet. */
void world_new(struct world *world, size_t disks);
/* Adds the domain "vm" and starts to connect. */
void world_start(struct world *world);
/* The same, and waits until it is connected. */
void world_connect(struct world *world);
/* Stops the model, frees all, and asserts that nothing is left. */
void world_free(struct world *world);
/* The next life of the daemon: the model is stopped, freed and begun anew; QEMU stays as it is. */
void world_restart(struct world *world);
void world_stop(struct world *world);
/* From here on the journal is kept in a folder. Before world_start(). */
void world_keep_journal(struct world *world);
/*
 * The daemon is killed: what it has written so far is there in its next life, and nothing of what the end of a model does. QEMU has
 * got what was sent.
 */
void world_kill(struct world *world);
/* From here on there is a mount that outlives its server. Before world_start(). */
void world_keep_mount(struct world *world);
/*
 * The server is killed, as by world_kill(); and the next one takes over the mount, and has not asked QEMU anything yet. What waits to be
 * answered is not.
 */
void world_take_over(struct world *world);
/* The two halves of that. */
void world_die(struct world *world);
void world_live_again(struct world *world);
/* The first half of world_stop(). */
void world_begin_stop(struct world *world);

struct disk *world_disk(struct world *world, const char *name);
/* The live or last job of the disk. */
struct job *world_job(struct world *world, const char *disk);
/* True if `status` of the disk reads so. */
bool world_is(struct world *world, const char *disk, const char *status);

/* Writes @text to the control file @file (pull, speed, pause, abort) of the disk. */
void world_write(struct world *world, const char *disk, const char *file, const char *text,
		 struct answer_slip *slip);
/* Reads fresh figures; reads `wait`. */
void world_refresh(struct world *world, const char *disk, struct answer_slip *slip);
void world_wait(struct world *world, const char *disk, struct answer_slip *slip);
/* Somebody looks into the domain's folder, and the last look was long ago. */
void world_look(struct world *world);

/* How often @text is in the log of all events. */
unsigned world_count(struct world *world, const char *text);
/* How many events of this name. */
unsigned world_events(struct world *world, const char *name);

/* One turn of the loop, at most 2 ms. */
void world_turn(struct world *world);
/* Turns until nothing more is under way: no sync, no command without an answer. */
bool world_is_quiet(struct world *world);

/* Turns until @condition is true, and asserts that it becomes so. */
#define WORLD_UNTIL(world, condition)                                            \
	do {                                                                     \
		uint64_t end_ = uv_hrtime() + WORLD_WAIT_MS * (uint64_t)1000000; \
		while (!(condition) && uv_hrtime() < end_)                       \
			world_turn(world);                                       \
		cr_assert(condition, "still not: " #condition);                  \
	} while (0)

/* Turns for a while, and asserts that @condition stays true. */
#define WORLD_WHILE(world, condition, ms)                               \
	do {                                                            \
		uint64_t end_ = uv_hrtime() + (ms) * (uint64_t)1000000; \
		while (uv_hrtime() < end_) {                            \
			cr_assert(condition, "no more: " #condition);   \
			world_turn(world);                              \
		}                                                       \
	} while (0)

#endif
