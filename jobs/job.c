/*
 * One block job: identity, state, figures, end. Changed by its domain as QEMU tells (jobs/domain.c, jobs/finish.c); read by fs/ for
 * status, progress and job. Sends nothing.
 */
#include "jobs/job.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/deletion.h"
#include "qmp/command.h"

const char *const job_state_words[JOB_STATE_COUNT] = {
	[JOB_IDLE] = "idle",	 [JOB_RUNNING] = "running",	[JOB_PAUSED] = "paused",
	[JOB_READY] = "ready",	 [JOB_ABORTING] = "aborting",	[JOB_COMPLETED] = "completed",
	[JOB_FAILED] = "failed", [JOB_CANCELLED] = "cancelled", [JOB_LOST] = "lost",
};

/* QEMU's types (JobType of qapi/job.json) and the words of INTERFACE. */
static const struct {
	const char *qemu, *word;
} job_types[] = {
	{ "stream", "pull" },
	{ "mirror", "copy" },
	{ "commit", "commit" },
	{ "backup", "backup" },
};

const char *job_type_word(const char *qemu_type)
{
	for (size_t i = 0; i < sizeof(job_types) / sizeof(*job_types); i++)
		if (!strcmp(job_types[i].qemu, qemu_type))
			return job_types[i].word;
	return "unknown";
}

static const char *const our_types[] = { "pull", "copy", "commit", "active-commit", "backup" };

const char *job_type_known(const char *word)
{
	for (size_t i = 0; i < sizeof(our_types) / sizeof(*our_types); i++)
		if (!strcmp(our_types[i], word))
			return our_types[i];
	return "unknown";
}

enum {
	ID_DISK_MAX = 64, /* bytes of the disk's name in a job's id */
};

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* five bits each */

/* What QEMU takes in an id: util/id.c, id_wellformed(). */
static char id_character(char byte)
{
	return isalnum((unsigned char)byte) || (byte && strchr("-._", byte)) ? byte : '_';
}

void job_id_end(char end[JOB_ID_END_BYTES], uint64_t number)
{
	*end++ = '-';
	for (int i = 0; i < JOB_ID_DIGITS; i++, number >>= 5)
		*end++ = digits[number & 31];
	*end = 0;
}

char *job_id_new(const char *disk, const struct who *by, uint64_t number)
{
	char *id, end[JOB_ID_END_BYTES];

	job_id_end(end, number);
	if (asprintf(&id, JOB_ID_PREFIX "%.*s-%u.%d%s", ID_DISK_MAX, disk, by->uid, by->pid, end) <
	    0)
		abort();
	for (char *at = id; *at; at++)
		*at = id_character(*at);
	return id;
}

bool job_id_read(const char *id, const char *disk, struct who *by)
{
	size_t length = strnlen(disk, ID_DISK_MAX);
	int end = 0;

	if (strncmp(id, JOB_ID_PREFIX, strlen(JOB_ID_PREFIX)))
		return false;
	id += strlen(JOB_ID_PREFIX);
	for (size_t i = 0; i < length; i++)
		if (id[i] != id_character(disk[i]))
			return false;
	id += length;
	if (id[0] != '-' || !isdigit((unsigned char)id[1]))
		return false; /* %u would take a sign: the disk's name goes on */
	*by = (struct who){ .gid = (gid_t)-1 };
	return sscanf(id, "-%u.%d-%n", &by->uid, &by->pid, &end) == 2 && end &&
	       strspn(id + end, digits) == JOB_ID_DIGITS && !id[end + JOB_ID_DIGITS];
}

struct job *job_new(const char *id, const char *type)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		abort();
	job->id = strdup(id);
	job->type = type;
	job->state = JOB_RUNNING;
	job->sync_phase = JOB_ENDED;
	job->ours = !strncmp(id, JOB_ID_PREFIX, strlen(JOB_ID_PREFIX));
	job->by.uid = (uid_t)-1;
	clock_gettime(CLOCK_REALTIME, &job->started);
	return job;
}

static void free_list(char **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i]);
	free(list);
}

void job_forget_chain(struct job *job)
{
	free_list(job->before_paths, job->before_count);
	free_list(job->before_nodes, job->before_count);
	job->before_paths = job->before_nodes = NULL;
	job->before_count = 0;
}

void job_free(struct job *job)
{
	if (!job)
		return;
	job_forget_chain(job);
	free_list(job->released, job->released_count);
	free(job->released_shared);
	deletion_free(job->deletion);
	free(job->id);
	free(job->error);
	free(job->dest);
	free(job->dest_format);
	free(job->on_error);
	free(job->flush_error);
	free(job->io_operation);
	free(job->io_action);
	job_free(job->previous);
	free(job);
}

/* Sets *@kept to a copy of @text; true if that is a change. */
static bool replace(char **kept, const char *text)
{
	if (*kept && text ? !strcmp(*kept, text) : *kept == text)
		return false;
	free(*kept);
	*kept = text ? strdup(text) : NULL;
	return true;
}

bool job_take_word(char kept[QEMU_WORD_BYTES], const char *word)
{
	size_t length = word ? strnlen(word, QEMU_WORD_BYTES - 1) : 0;

	/* Not within a character. */
	while (length && (word[length] & 0xc0) == 0x80)
		length--;

	if (!memcmp(kept, word ? word : "", length) && !kept[length])
		return false;
	memcpy(kept, word ? word : "", length);
	kept[length] = 0;
	return true;
}

bool job_qemu_says(const struct job *job, const char *state)
{
	return !strcmp(job->qemu_state, state);
}

static const int64_t rate_max = (int64_t)1 << 50; /* a PiB a second: more is the peer's nonsense */

/* The rate over at least half a second, smoothed: QEMU works in slices, and skipped clusters count as done at once. */
static void measure_rate(struct job *job, int64_t offset, uint64_t now_ns)
{
	uint64_t elapsed = now_ns - job->sample_ns;
	double rate;

	if (offset < 0)
		offset = 0;
	if (!job->sample_ns || offset < job->sample_offset) {
		job->sample_ns = now_ns;
		job->sample_offset = offset;
		return;
	}
	if (elapsed < 500000000)
		return;
	rate = (double)(offset - job->sample_offset) * 1e9 / (double)elapsed;
	if (job->rate)
		rate = (rate + (double)job->rate) / 2;
	job->rate = rate < (double)rate_max ? (int64_t)rate : rate_max;
	job->sample_ns = now_ns;
	job->sample_offset = offset;
}

/* At its end a job may be held still by QEMU itself, and cannot be resumed. */
static bool is_paused(const struct qmp_job_info *info)
{
	static const char *const last[] = { "waiting", "pending", "aborting", "concluded", "null" };

	for (size_t i = 0; i < sizeof(last) / sizeof(*last); i++)
		if (!strcmp(info->status, last[i]))
			return false;
	return info->paused;
}

/* A job that takes steps is paused by us again and again: whether it is held is not QEMU's to say. */
static bool is_held(const struct job *job)
{
	bool stopped = *job->io_status && strcmp(job->io_status, "ok") != 0;

	/* While a step is under way, what is known of errors is from before it. */
	return job->parked || job->user_paused ||
	       (stopped && !job->step.retry && !job->step.commands);
}

bool job_reconsider(struct job *job)
{
	enum job_state before = job->state;

	if (!job->mark || job->abort_asked || job->phase != JOB_LIVE)
		return false;
	job->paused = is_held(job);
	job->state = job->paused ? JOB_PAUSED : JOB_RUNNING;
	return job->state != before;
}

/* True if the job stands still: no command that lets it go on is under way. */
static bool stands_still(const struct job *job, const struct qmp_job_info *info)
{
	return !job->step.commands && info->paused && !strcmp(info->status, "paused");
}

static enum job_state live_state(const struct job *job, const struct qmp_job_info *info)
{
	if (job->abort_asked || !strcmp(info->status, "aborting"))
		return JOB_ABORTING;
	if (job->phase >= JOB_FINALIZING)
		return job->state;
	if (job->paused)
		return JOB_PAUSED;
	return info->ready ? JOB_READY : JOB_RUNNING;
}

bool job_update(struct job *job, const struct qmp_job_info *info, uint64_t now_ns)
{
	bool steps = job->mark != 0, changed, flaps;
	enum job_state state;

	changed = job_take_word(job->io_status, info->io_status);
	job->qemu_paused = info->paused;
	job->step.still = stands_still(job, info);
	if (steps && !job->parked && job->step.still && info->offset >= job->mark)
		job->parked = changed = true;
	job->paused = steps ? is_held(job) : is_paused(info);
	state = live_state(job, info);
	changed |= state != job->state || (!steps && info->speed != job->speed);
	measure_rate(job, info->offset, now_ns);
	/* QEMU calls both commit; only that of the active image becomes ready. */
	if (info->ready && !strcmp(job->type, "commit")) {
		job->type = "active-commit";
		changed = true;
	}
	job->seen = true;
	job->state = state;
	if (!steps)
		job->speed = info->speed;
	if (!job->step.commands)
		job->step.limit = info->speed < 0 ? 0 : info->speed;
	/* Figures are the peer's: what is computed from them must not overflow. */
	job->offset = info->offset < 0 ? 0 : info->offset;
	job->length = info->length < 0 ? 0 : info->length;
	job->auto_dismiss = info->auto_dismiss;
	job->waits_for_finalize = !info->auto_finalize;
	flaps = job_take_word(job->qemu_state, info->status);
	changed |= flaps && !steps;
	if (info->error)
		changed |= replace(&job->error, info->error);
	return changed;
}

void job_progress(const struct job *job, int64_t *cur, int64_t *end)
{
	bool whole;

	*cur = *end = 0;
	if (!job)
		return;
	whole = job->state == JOB_READY || job->state == JOB_COMPLETED;
	*end = job->length > 0 ? job->length : 1;
	*cur = job->offset < 0 ? 0 : job->offset > *end ? *end : job->offset;
	if (job->state == JOB_COMPLETED || (job->state == JOB_READY && job->length <= 0))
		*cur = *end;
	if (!whole && *cur == *end)
		--*cur; /* libvirt does the same: programs take equality for the end */
}

int64_t job_eta(const struct job *job)
{
	if (job->state != JOB_RUNNING || job->rate <= 0 || job->length < job->offset)
		return -1;
	return (job->length - job->offset) / job->rate +
	       ((job->length - job->offset) % job->rate != 0);
}

enum job_state job_final_state(const struct job *job)
{
	if (!job->outcome_known)
		return JOB_LOST;
	if (job->cancelled)
		return JOB_CANCELLED;
	return job->error ? JOB_FAILED : JOB_COMPLETED;
}

const char *job_result(const struct job *job)
{
	switch (job->state) {
	case JOB_COMPLETED:
		if (!strcmp(job->type, "pull"))
			return "pulled";
		if (!strcmp(job->type, "commit"))
			return "committed";
		if (!job->chain_unread &&
		    (!strcmp(job->type, "active-commit") || !strcmp(job->type, "copy")))
			return job->pivoted ? "pivoted" : "kept";
		return "completed";
	case JOB_FAILED:
	case JOB_CANCELLED:
	case JOB_LOST:
		return job_state_words[job->state];
	default:
		return NULL;
	}
}

bool job_is_ending(const struct job *job)
{
	static const char *const last[] = { "aborting", "concluded", "null" };

	for (size_t i = 0; i < sizeof(last) / sizeof(*last); i++)
		if (job_qemu_says(job, last[i]))
			return true;
	return job->phase >= JOB_FINALIZING;
}

bool job_has_begun_to_end(const struct job *job)
{
	return job_is_ending(job) || job_qemu_says(job, "waiting") || job_qemu_says(job, "pending");
}
