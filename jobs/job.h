/*
 * One block job as we know it: its identity, its state, its figures and its end. A job belongs to its disk, which keeps it after its
 * end until the next one begins. This file changes jobs; who asks QEMU and when is the domain's business.
 */
#ifndef JOBS_JOB_H
#define JOBS_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "jobs/op.h"

struct qmp_job_info;
struct qmp_event;
struct deletion;

/* The words of `status`; job_state_words has the strings. */
enum job_state {
	JOB_IDLE, /* never of a job: a disk that has had none */
	JOB_RUNNING,
	JOB_PAUSED,
	JOB_READY,
	JOB_ABORTING,
	JOB_COMPLETED, /* the final ones from here on */
	JOB_FAILED,
	JOB_CANCELLED,
	JOB_LOST, /* nobody can say how it ended */
	JOB_STATE_COUNT,
};

/* A job that is pulled in increments: the step that it takes or has taken last (jobs/increment.c). */
struct step {
	unsigned commands; /* under way: nothing that was looked up before they were sent counts */
	int64_t offset; /* where it began */
	int64_t moved; /* what came of it */
	uint64_t began_ns, looked_ns;
	bool looked; /* what came of it was seen */
	bool still; /* the job stands still, and its figures are from after it stopped */
	bool retry; /* though an I/O error has stopped the job */
	unsigned idle_ms; /* for so long nothing has come of any */
	int64_t limit; /* that QEMU keeps */
	uint64_t round_ns; /* near the mark: since when; 0: not so near */
	uint64_t slice_ns,
		slice_end_ns; /* QEMU's slice of time: at the latest it began and ends then */
	int64_t used; /* of it, bytes */
};

enum {
	QEMU_WORD_BYTES =
		16, /* of JobStatus, BlockDeviceIoStatus: the longest are "concluded" and "nospace" */
};

/* How far the end of a job has come. */
enum job_phase {
	JOB_STARTING, /* the start command is sent, QEMU has not answered */
	JOB_LIVE, /* known to QEMU */
	JOB_FINALIZING, /* job-finalize is sent: no node listing until it is dismissed */
	JOB_CONCLUDED, /* over in QEMU, its end known; being dismissed, the chain being read anew */
	JOB_ENDED, /* the final word is out */
};

struct job {
	char *id;
	const char *type; /* pull, copy, commit, active-commit, backup, unknown; static */
	enum job_phase phase;
	enum job_phase
		sync_phase; /* the phase when the sync under way began; JOB_ENDED: it came later (jobs/sync.c) */
	enum job_state state; /* what `status` shows */
	int64_t offset, length; /* QEMU's own figures, bytes; may be 0/0 */
	int64_t speed; /* bytes a second, 0: no limit; what the user wants, if it takes steps */
	int64_t rate; /* bytes a second as measured, 0: not known yet */
	int64_t sample_offset; /* where `rate` was last measured ... */
	uint64_t sample_ns; /* ... and when, by the loop's clock */
	char qemu_state[QEMU_WORD_BYTES],
		io_status[QEMU_WORD_BYTES]; /* as QEMU names them; "": it has not */
	bool seen; /* QEMU has shown it, or told of it */
	bool told; /* job-started is in the logs */
	bool begun; /* an earlier life has put on record that QEMU has it, and may have told its writer */
	bool carried; /* an earlier life of this mount has left it, and QEMU has not shown it yet */
	bool dismiss_lost; /* job-dismiss was not answered */
	bool trial; /* the first look at it may still show that it was refused (jobs/trial.c) */
	bool paused; /* QEMU says so; of a job that takes steps: it is held */
	bool qemu_paused; /* what QEMU says */
	bool parked; /* at its mark */
	bool waits_for_finalize; /* started with auto-finalize=false */
	bool auto_dismiss; /* goes by itself: only its events tell its end */
	bool abort_asked;
	int64_t mark; /* the offset where the increment ends; 0: it runs to the end */
	struct step step;
	bool ours; /* started by blockjobfs, by whichever life of it: its id tells */
	bool unanswered; /* the start command timed out: it may or may not have been carried out */
	bool flushing; /* the image, before it is finalized or after it was dismissed */
	bool flushed; /* before it was finalized, if that can be done */
	char *flush_error; /* it could not be flushed: the job was cancelled for that, and has failed */
	bool giving_up; /* it is being cancelled for that */
	bool dismissing; /* job-dismiss is sent */
	bool flush_owed; /* the one that went out behind job-dismiss has failed */
	size_t drops; /* how often nodes that it no longer uses were to be dropped */
	bool drop_failed; /* a node that it no longer uses could not be dropped */
	uint64_t continued_by; /* the request that has let it go on from its mark last; 0: none */
	struct deletion *deletion; /* what is to be deleted after it has completed; NULL: nothing */
	bool deleting; /* that is under way, and the final word waits for it */
	bool user_paused; /* `pause` has stopped a job that takes steps */
	int64_t increment; /* bytes, as asked for last; 0: it runs to the end */
	char *on_error; /* as it was started; NULL: QEMU's default */
	int64_t deadline_s; /* within which it must be ready or done; 0: none, or it was ready */
	struct timespec deadline; /* by the wall clock */
	uint64_t deadline_ns; /* by uv_hrtime(); 0: none */
	bool deadline_struck; /* it was given up for that */
	bool pivot_wanted; /* as soon as it is ready */
	bool chain_unread; /* it has completed, and QEMU was gone before its chain could be read again */
	bool unflushed; /* a pull that could not be flushed before it was finalized, and is not yet */
	bool reconnected; /* the connection, or the daemon, is not the one that it began with */
	bool pivot_asked; /* by `pivot`, or since it was wanted: `finish` takes it back */
	bool pivoted; /* it has completed, and the disk has another active image */
	bool cancelled; /* QEMU said BLOCK_JOB_CANCELLED */
	bool outcome_known; /* QEMU has told how it ended: error, cancelled */
	uint64_t over_ns; /* foreign, and over: since when its owner could have dismissed it */
	bool was_ready; /* job-ready is in the logs */
	struct who by; /* who asked; uid -1: foreign */
	struct job *previous; /* the disk's last job, kept while this one may still be refused */
	char *error; /* QEMU's text, or NULL */
	char *dest, *dest_format; /* of a backup or a copy; NULL: not known, or none */
	time_t made_s; /* when QEMU began to make the file `dest`; 0: it has not */
	uint64_t starter; /* the op of the write that is answered when QEMU has it; 0: it is */
	uint64_t
		io_errors; /* failed requests that are not in the logs yet: a burst is told as one event */
	char *io_operation, *io_action; /* of the last of them */
	struct timespec started, ended; /* wall clock; 0: not yet */
	/* The images that were in the chain when the job began: what is gone from it at the end has been released. */
	char **before_paths, **before_nodes; /* nodes may have NULLs */
	size_t before_count;
	char **released; /* what the disk no longer uses; filled at the end */
	bool *released_shared; /* which of them another disk under the mount uses */
	size_t released_count;
};

extern const char *const job_state_words[JOB_STATE_COUNT];
#define JOB_ID_PREFIX "blockjobfs-"

enum {
	JOB_ID_DIGITS = 8,
	JOB_ID_END_BYTES = JOB_ID_DIGITS + 2,
};

/*
 * An id that no job has had: the prefix, the disk's name as far as QEMU allows, who asked (uid.pid), and the lower 40 bits of a number that the command
 * alone has (jobs/request.h). So the daemon's next life knows from QEMU alone whose job it is and what it is for. QEMU reads each byte of it by itself, at
 * each command for the job (qmp/sent.c): it is no longer than it has to be.
 */
char *job_id_new(const char *disk, const struct who *by, uint64_t number);
/* How ids that are made of @number end, and no others. */
void job_id_end(char end[JOB_ID_END_BYTES], uint64_t number);

/* True if @id is one that job_id_new() has made for the disk of this name; *@by is who asked then. */
bool job_id_read(const char *id, const char *disk, struct who *by);

struct job *job_new(const char *id, const char *type);
void job_free(struct job *job);
/* The chain as it was when the job began is not known any more. */
void job_forget_chain(struct job *job);
static inline bool job_is_live(const struct job *job)
{
	return job && job->phase != JOB_ENDED;
}

/* QEMU's type word into ours: stream is pull, mirror is copy; unknown ones are "unknown". Static. */
const char *job_type_word(const char *qemu_type);

/* One of our own type words; "unknown" if @word is none. Static. */
const char *job_type_known(const char *word);

/* Sets @kept to what QEMU has called it, cut off if it is none of its words; NULL: to "". True if that is a change. */
bool job_take_word(char kept[QEMU_WORD_BYTES], const char *word);

/* True if QEMU has the job in this state of its own. */
bool job_qemu_says(const struct job *job, const char *state);

/* Takes over QEMU's figures and state. Returns true if something that `status` or `job` shows, figures left aside, has changed. */
bool job_update(struct job *job, const struct qmp_job_info *info, uint64_t now_ns);

/* What a job that takes steps shows as its state follows from what is wanted of it. Returns true if that is another one now. */
bool job_reconsider(struct job *job);

/*
 * The two numbers of `progress`: END is never 0 while the job is live, and CUR is END only when the job is ready or completed. A NULL
 * job gives 0 0.
 */
void job_progress(const struct job *job, int64_t *cur, int64_t *end);

/* Seconds to the end at the measured rate; -1: not known. */
int64_t job_eta(const struct job *job);

/* The final state that the known outcome means. */
enum job_state job_final_state(const struct job *job);

/* What the end has come to, one word: pulled, committed, pivoted, kept, failed, cancelled, lost; NULL while it is live. Static. */
const char *job_result(const struct job *job);

/* QEMU takes no abort any more, since the job ends: for an abort that came before, or of itself. */
bool job_is_ending(const struct job *job);

/* QEMU has taken `complete` or the soft cancel: the job waits for its end, or is ending. */
bool job_has_begun_to_end(const struct job *job);

#endif
