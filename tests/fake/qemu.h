/*
 * A QEMU in small: disks and stream jobs behind a scripted peer (tests/fake/peer.h), with QEMU's states, events, refusals and order
 * of events as tried on QEMU 7.2. It keeps its jobs when a client hangs up, as QEMU does, and counts what would have crashed it.
 *
 * Each disk NAME has the nodes NAME-top over NAME-mid over NAME-base, files /vm/NAME-top.qcow2 ... of 64 MiB. A finalized stream
 * without base-node leaves mid and base behind without a parent, as -blockdev does.
 */
#ifndef TESTS_FAKE_QEMU_H
#define TESTS_FAKE_QEMU_H

#include "tests/fake/peer.h"

enum {
	QEMU_DISKS_MAX = 4,
	QEMU_HELD_MAX = 100,
};

struct qemu_job {
	char *id, *error;
	char type[16], status[16];
	size_t disk;
	int64_t offset, length, speed;
	bool paused, ready, auto_finalize, auto_dismiss;
	struct qemu_job *prev, *next;
};

struct qemu_disk {
	char *name;
	bool bare; /* the node on top has the disk's name: in a storage daemon there is nothing else to call it by */
	bool gone; /* unplugged */
	bool pulled;
	int left; /* how many of mid and base are still there once it is pulled */
};

struct qemu {
	struct peer *peer;
	bool daemon; /* a qemu-storage-daemon: set by qemu_set_daemon() */
	struct qemu_disk disks[QEMU_DISKS_MAX];
	size_t disk_count;
	struct qemu_job *jobs;

	/* What it does of its own accord. */
	bool quick; /* a stream runs to `pending` before its start is answered */
	bool slow_cancel; /* a cancelled job stays `aborting` until qemu_end() */
	bool stubborn; /* takes blockdev-del and job-dismiss, and carries out neither */
	const char *
		refuse; /* a block-stream is refused with this text after the job was created, as QEMU does late */
	const char *left; /* this command is answered from the peer's table */

	/* The command whose answer is kept back; see qemu_hold(). */
	const char *hold;
	bool hold_effect, hangs;
	size_t held[QEMU_HELD_MAX], held_count;

	/* Listings of nodes or disks carried out between job-finalize and job-dismiss of a stream. */
	unsigned in_danger;
	bool finalizing;
	/* Called before each command is carried out. */
	void (*before)(void *data, const char *command);
	void *before_data;
};

struct qemu *qemu_new(uv_loop_t *loop, size_t disks);
/* The peer too. */
void qemu_free(struct qemu *qemu);
void qemu_set_daemon(struct qemu *qemu);
/* A machine that also has the human monitor. */
void qemu_set_monitor(struct qemu *qemu);

/* The job on a disk, or NULL. */
struct qemu_job *qemu_job(struct qemu *qemu, size_t disk);
/* A stream of somebody else's begins (no event). */
struct qemu_job *qemu_add_job(struct qemu *qemu, size_t disk, const char *id, const char *status);
/* The job's state is another one: JOB_STATUS_CHANGE. */
void qemu_move(struct qemu *qemu, struct qemu_job *job, const char *status);
/* All is copied: waiting, pending. */
void qemu_pend(struct qemu *qemu, struct qemu_job *job);
/* It ends by an error, or (NULL) by itself from `aborting` as cancelled: concluded. */
void qemu_end(struct qemu *qemu, struct qemu_job *job, const char *error);
/* It is gone (no event). */
void qemu_forget(struct qemu *qemu, struct qemu_job *job);

/*
 * From now on, @command is not answered: what it does is done at once, or (@effect) not before qemu_release(), which answers all
 * that was kept back and holds no more. One command at a time; NULL: none.
 */
void qemu_hold(struct qemu *qemu, const char *command, bool effect);
/* The same with all that comes behind: QEMU hangs there. */
void qemu_hang(struct qemu *qemu, const char *command);
void qemu_release(struct qemu *qemu);
/* What was kept back is never answered: its client is gone. */
void qemu_drop_held(struct qemu *qemu);

/* --- qemu_layout.c --- */
struct qmp_value *qemu_block(const struct qemu *qemu);
struct qmp_value *qemu_nodes(const struct qemu *qemu);
struct qmp_value *qemu_graph(const struct qemu *qemu);
/* The node of @level (0: the active image). Static: until the next call. */
const char *qemu_node_name(const struct qemu_disk *disk, int level);
/* False: it is not there, or not loose. */
bool qemu_drop_node(struct qemu *qemu, const char *node);

#endif
