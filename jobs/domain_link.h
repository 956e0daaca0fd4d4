/*
 * The side of a domain that talks to QEMU. Private to the files that do so together:
 *
 *	domain.c	the link: connect, reconnect, the state word; delivers events to the others
 *	reconnect.c	when the next connection is tried
 *	sync.c		rebuilds the model from QEMU: jobs, then disks and chains; one at a time
 *	inventory.c	merges a layout into the domain's disks
 *	refresh.c	fresh figures of live jobs, shared by all who wait for them
 *	finish.c	the end of a job: finalize, dismiss, drop nodes, publish
 *	pull.c steer.c	the commands
 *
 * A reply function gets a struct call: the domain (which outlives its link), the id of the job it is about and the number of the op
 * that waits; disk, job and op are looked up anew, since they may be gone.
 */
#ifndef JOBS_DOMAIN_LINK_H
#define JOBS_DOMAIN_LINK_H

#include "jobs/domain.h"
#include "jobs/model.h"
#include "qmp/command.h"

enum {
	LOOK_NS_MIN = 250000000, /* how often at most somebody's look makes us look */
	LOOK_DELAY_MS =
		100, /* after his: most who come through a folder do so to give a command, which is not to wait for what we ask */
	REFRESH_ALL_MS =
		250, /* who looks at all jobs waits so long for a QEMU that does not answer */
	/*
	 * A socket that has just been made is left alone for so long. A client that is there before QEMU has set up its monitor is not only
	 * told to wait: 3 of 2,000 have found a QEMU 7.2 that answers nobody any more, ever (a storage daemon, without us; "GLib:
	 * g_source_add_child_source: assertion '!SOURCE_DESTROYED (source)' failed"); after 50 ms none of 1,600.
	 */
	FRESH_SOCKET_MS = 100,
	TICK_MS = 1000, /* how often figures of running jobs are asked for */
	ERROR_BURST_MS = 200, /* failed requests so close to each other are one job-error */
};

/* Asking a monitor what it can do takes a turn (jobs/turns.c). */
enum turn {
	TURN_NONE,
	TURN_WAITING,
	TURN_TAKEN,
};

struct domain_link {
	struct domain *domain;
	struct qmp_link *qmp; /* NULL: no connection and none under way */
	bool ready; /* commands may be sent: QEMU has said what it can do */
	/* refresh.c */
	uint64_t refresh_sent,
		refresh_wanted; /* numbers of queries; in flight if sent is not answered */
	bool refreshing;
	bool refresh_soon; /* the timer strikes for what an event has told, not for the second that has passed */
	uint64_t refresh_sent_ns; /* when the one in flight was sent */
	struct refresh_wait *refresh_waits; /* oldest first */
	uv_timer_t tick; /* figures of running jobs, for those who watch without reading */
	struct qmp_features features;
	uv_timer_t retry; /* the next connect, or the next try of a sync that failed */
	uv_timer_t burst; /* tells bursts of failed requests */
	uv_timer_t deadline; /* the nearest of its jobs */
	uv_timer_t pace; /* the next step of a pull in increments */
	uv_timer_t look; /* somebody has looked (jobs/sync.c) */
	uv_timer_t patience; /* is QEMU still there, while somebody waits for an abort? */
	enum turn turn;
	uv_timer_t turn_timer;
	struct domain_link *turn_prev, *turn_next; /* those that wait */
	unsigned timers; /* open handles */
	unsigned connections; /* not gone yet, those let go included: their replies come here */
	bool connect_later; /* when they are */
	/* reconnect.c */
	struct socket_watch
		*watch; /* NULL: there is no socket's file, or an engine knows when it is there */
	unsigned watches; /* not closed yet */
	unsigned retry_ms;
	uint64_t attempt_ms, synced_ms; /* when the last attempt, or the connection, began */
	dev_t socket_device; /* that the attempt was made to */
	ino_t socket_inode;
	bool settled; /* the first attempt has come to something */
	bool resuming; /* it has not yet, and in the life before this one it was connected: `state` goes on to say so */
	bool fresh; /* the socket has just been made: its first attempt can wait a moment */
	bool stopping; /* no reconnects */
	bool removed; /* shown no more; freed as soon as nothing can reach it */
	bool link_error; /* domain->error tells why the link is down */
	/* sync.c */
	bool synced; /* the model is QEMU's, as of this connection */
	bool syncing, sync_again;
	bool laid_out; /* its disks and chains have been seen, in this life of the daemon */
	char **nodes; /* names of the nodes that QEMU had when the chains were last read */
	size_t node_count;
	bool gone; /* nobody listens at its address */
	size_t unknown_records; /* made by jobs/job_record.c */
	bool recovered; /* what earlier lives have left of jobs has been looked at */
	uint64_t synced_ns; /* when the last sync began */
	unsigned finalizing; /* jobs between job-finalize and job-dismiss: no listing of nodes */
	unsigned dropping; /* blockdev-del under way */
	char *not_shown; /* the disk that the log was last told not to be shown */
	bool too_many; /* QEMU shows more disks than are shown here, and the log says so */
	struct making *makings; /* images that QEMU is making (jobs/make_image.c) */
	struct found_jobs *found; /* what the sync under way has learned of jobs */
};

/* Connected, and the model is QEMU's: commands may be taken. */
static inline bool domain_is_connected(const struct domain *domain)
{
	return domain->state == DOMAIN_CONNECTED;
}

/* --- domain.c --- */
struct domain *domain_new(struct model *model, const struct source *source);
/* Goes over to another address, if it has one already; its disks go. domain_start() or domain_connect() is to follow. */
void domain_set_source(struct domain *domain, const struct source *source);
/* Begins to connect (an image's domain: to start its engine). */
void domain_start(struct domain *domain);
/* The engine could not be brought up, for this reason: the command line's fault if it is the first attempt. */
void domain_engine_failed(struct domain *domain, const char *reason);
/* The engine is up: connect. */
void domain_connect(struct domain *domain);
/* Closes the link and the timers for good; domain_free() after the loop has run their closing callbacks. */
void domain_stop(struct domain *domain);
/* A connection, a watch or the timers have been closed. */
void domain_part_closed(struct domain *domain);
/* True when the loop has run all of them, and no reply can come any more. */
bool domain_is_stopped(const struct domain *domain);
void domain_free(struct domain *domain);
/* The model is QEMU's: connected. */
void domain_synced(struct domain *domain);
/* The first attempt has come to something. Tells the model. */
void domain_settle(struct domain *domain);
/* Why the link or the engine is down: `error` and the log say so. */
void domain_set_link_error(struct domain *domain, const char *reason);
/* A line for the daemon's log, with the domain's name in front. */
void domain_log(struct domain *domain, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void domain_set_state(struct domain *domain, enum domain_state state, const char *reason);

/* The link is gone, for this reason. */
void domain_link_closed(struct domain *domain, int code, const char *reason);
/* Of the timers `retry` and `burst`. */
void domain_retry(uv_timer_t *timer);
void domain_burst_over(uv_timer_t *timer);

/* The timer `retry`, for whatever is to be tried again. */
void domain_retry_in(struct domain *domain, unsigned ms);

/* --- reconnect.c --- */
/* Before the first attempt. */
void reconnect_begin(struct domain *domain);
/* There is reason to believe that the next attempt succeeds: it does not wait for its time. */
void reconnect_now(struct domain *domain);
/* An attempt is being made. */
void reconnect_attempt(struct domain *domain);
/* It has led to a connection. */
void reconnect_synced(struct domain *domain);
/* It has not, or the connection is over: there will be another attempt. @was_synced: it was one. */
void reconnect_lost(struct domain *domain, bool was_synced);
void reconnect_close(struct domain *domain);

/* --- model.c --- */
/* @error: the first attempt has failed in a way that the command line is to blame for. */
void model_domain_settled(struct model *model, const char *error);
/* Something that the end of a domain or of all may wait for has happened. Does nothing at any other time. */
void model_stop_step(struct model *model);
/* The domain, which is among the model's, has another address from now on; or is about to have. */
void model_address_set(struct domain *domain);
void model_address_clear(struct domain *domain);

/* Its turn has come: asks it. */
void domain_learn(struct domain *domain);

/* --- turns.c --- */
/* domain_learn(), now or when others have been answered. */
void domain_turn(struct domain *domain);
/* It has been answered, or is gone; does nothing if it has no turn. */
void domain_turn_over(struct domain *domain);
void domain_turn_expired(uv_timer_t *timer);

/* --- sync.c --- */
/* Looks at jobs, disks and chains, now or when what is going on allows it. */
void domain_sync(struct domain *domain);
/*
 * The disk's job is being dismissed: if it is the only one of the domain that could be in the way, sends the questions for disks and chains right behind, to be
 * carried out when it has gone. Else the next sync asks them.
 */
void sync_behind(struct disk *disk);
/* True while the answers to these are still to come. */
bool sync_is_behind(const struct disk *disk);
/* Goes on with whatever had to wait for a sync or for the end of a job. */
void domain_pump(struct domain *domain);

/* Tries again in a while, after a sync that failed. */
void domain_retry_sync(struct domain *domain);
void sync_free(struct domain_link *link);

/* --- inventory.c --- */
/* Takes the chains out of @layout; its disks keep their names. */
void inventory_merge(struct domain *domain, struct qmp_layout *layout);
/* The disk has a new active image, @overlay, whose strings it takes; @file_node: what that lies on, NULL: not known. */
void disk_take_overlay(struct disk *disk, struct qmp_image *overlay, const char *file_node);
/* The disk that a job id of ours was made for, by the name in it; NULL: none, or not ours. */
struct disk *domain_disk_of_job_id(struct domain *domain, const char *job_id);
/* The disk that an entry of the layout is; NULL: not known. */
struct disk *domain_disk_of_info(struct domain *domain, const struct qmp_disk_info *info);
struct disk *domain_find_job(struct domain *domain,
			     const char *job_id); /* the disk whose live job has this id */
void disk_free(struct disk *disk);
/* A private engine that dies and is started again must open the image that the disk stands on by then. */
void disk_follow_engine(const struct disk *disk);
/* The disk, made of what an earlier life has left, is the domain's. Takes it. */
void inventory_take_over(struct disk *disk);
void disk_remove(struct disk *disk);

/* --- refresh.c --- */
/* While a job is waited for that QEMU has not answered about: looks now and then whether it still answers. */
void domain_be_patient(struct domain *domain);
/* Asks for figures; whoever waits for them is served by the answer. */
void domain_refresh(struct domain *domain);
/* The same when all that has come is dealt with: QEMU has told of a change, and whoever has caused it comes first. */
void domain_refresh_soon(struct domain *domain);
/* Somebody who looks at many domains at once, and needs no op for each of them. */
struct refresh_wait {
	void (*done)(void *data); /* called once: when the answer has come, or will not */
	void *data;
	uint64_t number; /* of the query that he waits for */
	struct refresh_wait *prev, *next;
};

/* Asks for whom @wait tells, which must stay where it is until `done` is called. The domain must be `ready`. */
void domain_refresh_then(struct domain *domain, struct refresh_wait *wait);
/* Nothing will come any more. */
void refresh_give_up(struct domain *domain);
/* A job is running: its figures are asked for once a second as long as one is. */
void refresh_tick(struct domain *domain);
/* The link is gone: whoever waits gets -EHOSTDOWN. */
void refresh_link_lost(struct domain *domain);
/* What is wanted of a job that takes steps has changed: shows and tells its state. */
void disk_job_reconsider(struct disk *disk);
/* Takes over what QEMU says of a known live job; tells what has changed. */
void disk_update_job(struct disk *disk, const struct qmp_job_info *info);

/* --- finish.c --- */
void finish_job_event(struct disk *disk, const struct qmp_event *event);
/* QEMU shows the job in a state in which its end is near (pending, concluded): do what is due. */
void finish_step(struct disk *disk);
/* QEMU does not know the job any more, or is gone itself: its final word is shown, which is `lost` if its end is not known. */
void finish_job_gone(struct disk *disk);
/* The disk is about to go, and its job is live. */
void finish_unplugged(struct disk *disk);
/* QEMU has told all its jobs, and this one, which it had, is not among them. */
void finish_not_shown(struct disk *disk);
/* It is over and dismissed, its end is known (outcome_known), and nothing that comes after that has been done. */
void finish_ended(struct disk *disk);
/* The connection is gone: no answer to what was sent will come. */
void finish_link_lost(struct disk *disk);
/*
 * Drops named nodes that completed jobs have left without a parent. True if some are being dropped: the layout will be another one
 * then, and a sync follows.
 */
bool finish_drop_nodes(struct domain *domain, const struct qmp_layout *layout);
/* The chain has been read anew after the end of the job: shows the final word. */
void finish_publish(struct disk *disk);
/* Tells the failed requests that have been counted. */
void finish_tell_errors(struct disk *disk);

/* --- start.c --- */
/* Keeps the chain as it is when @job begins. */
void disk_remember_chain(struct disk *disk, struct job *job);
/* An ended or live job becomes the disk's, whose last one goes. Takes @job. */
void disk_take_job(struct disk *disk, struct job *job);
/* A job that QEMU shows and we have not started in this life is on @disk. What QEMU says of it is not taken over yet. */
void disk_adopt_job(struct disk *disk, const struct qmp_job_info *info);
/* There is evidence that the start command was carried out. */
void disk_job_seen(struct disk *disk);
/* It was not: the disk is as it was before. */
void disk_job_forget(struct disk *disk);

/* --- calls --- */
struct call {
	struct domain *domain;
	uint64_t op;
	char job[]; /* the job's id */
};

struct call *call_new(struct disk *disk, const struct op *op);
/* The disk whose live job the call is about; NULL: it is over. */
struct disk *call_disk(const struct call *call);
/* NULL: nobody waits. */
struct op *call_op(const struct call *call);

#endif
