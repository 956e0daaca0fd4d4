/*
 * One domain: the monitor it is reached by, the state of that link and of the machine, and its disks. A domain keeps itself connected
 * from domain_start() to domain_free(), and rebuilds its model from QEMU after every reconnect.
 */
#ifndef JOBS_DOMAIN_H
#define JOBS_DOMAIN_H

#include <uthash.h>
#include <uv.h>
#include "jobs/disk.h"
#include "qmp/layout.h"
#include "qmp/schema.h"

struct source;
struct engine;
struct delegation;
struct folder;

enum domain_state {
	DOMAIN_DISCONNECTED,
	DOMAIN_CONNECTING,
	DOMAIN_BUSY, /* the monitor serves another client */
	DOMAIN_CONNECTED,
	DOMAIN_STATE_COUNT,
};

extern const char *const domain_state_words[DOMAIN_STATE_COUNT];

struct domain {
	/* What each of a thousand is looked at for lies together, in as few lines of the cache as can be. */
	struct model *model;
	char *name; /* the folder's name */
	struct disk *disks; /* in the order they were found */
	struct domain *prev, *next;
	struct domain_link *link; /* private to domain.c and its neighbours: jobs/domain_link.h */
	char *address; /* as `address` shows it: unix:/run/web1.qmp, image:/vm/web1.qcow2; "": none yet */
	enum qmp_transport transport;
	char *socket; /* path of the monitor's socket; HOST:PORT; the command; NULL: no address yet */
	struct engine *engine; /* of an image: domain, else NULL */
	struct folder *folder; /* of the `dir:` source that has found its socket, else NULL */
	bool by_hand; /* made by mkdir in the tree: its address is written there (jobs/attach.c) */
	enum domain_state state;
	char *run_state; /* "running", "paused", ... or NULL where QEMU has none */
	char *verbs; /* those that others than the mount's owner have (jobs/policy.h); NULL: as everywhere */
	struct delegation *delegation; /* owners and modes that were changed; NULL: none */
	char *error; /* text of `error`: the last refusal or the reason why the link is down; NULL: empty */
	struct stamp stamps[TOPIC_COUNT];
	struct event_log log;
	size_t history_bytes; /* that its disks have in the journal, as far as this life has seen it (jobs/history.c) */
	struct op *ops; /* in flight on the domain itself */
	UT_hash_handle by_name, by_address; /* the model's tables */
};

/*
 * QEMU is, or may be, on another host (tcp:, exec:): its files are not those of this machine, and all that is known of them are their
 * names.
 */
bool domain_is_remote(const struct domain *domain);
struct disk *domain_find_disk(struct domain *domain, const char *name);
/* True while one of its disks has a live job. */
bool domain_is_busy(const struct domain *domain);
void domain_changed(struct domain *domain, enum topic topic);

/*
 * Somebody has looked into the domain's folder: look for disks that were added or removed behind our back, a moment later, in the background and
 * at most once in a while. QEMU tells nobody when a disk is plugged in.
 */
void domain_looked_at(struct domain *domain);

/* To be called with each by who goes through many: has those behind it ready when he comes to them (jobs/prefetch.c). */
void domain_prefetch(const struct domain *domain);

/* What is known of its live jobs is not what QEMU says now: there is no link, or QEMU has not answered for a while. */
bool domain_is_late(const struct domain *domain);

/* What `state` says: the state, but for the moment that a server which was started anew needs to connect. */
enum domain_state domain_shown_state(const struct domain *domain);
/* True in that moment: commands wait for its end (op->resumed). */
bool domain_is_resuming(const struct domain *domain);

struct command;
/* `group`: one of pivot, finish and abort for several disks of the domain (jobs/group.c). */
void domain_group(struct op *op, const struct command *command);

#endif
