/*
 * The files of a disk's folder: to start a job, to steer it, to watch it, to look at the disk. The
 * handlers see the model only; what a command does is in jobs/pull.c and jobs/steer.c.
 */
#include "fs/files.h"

#include <inttypes.h>
#include "jobs/deletion.h"
#include "jobs/events.h"

/* --- pull, speed, pause, abort: what is in force --- */

static const struct job *live_job(const struct place *place)
{
	return disk_is_busy(place->disk) ? place->disk->job : NULL;
}

static void show_speed(const struct place *place, struct text *out)
{
	const struct job *job = live_job(place);

	text_printf(out, "%" PRId64 "\n", job ? job->speed : 0);
}

static void show_pause(const struct place *place, struct text *out)
{
	const struct job *job = live_job(place);

	text_puts(out, job && job->paused ? "1\n" : "0\n");
}

#define BANDWIDTH_KEY                                                                       \
	{                                                                                   \
		.name = "bandwidth", .kind = KEY_BYTES, .shown = "RATE",                    \
		.help = "bytes a second with an optional K, M, G or T; 0 or max: no limit", \
	}

#define ON_ERROR_KEY                                                                            \
	{                                                                                       \
		.name = "on-error", .kind = KEY_CHOICE, .choices = "report ignore enospc stop", \
		.shown = "WHAT",                                                                \
		.help = "what an I/O error does: end the job, go on, stop when space has run "  \
			"out, "                                                                 \
			"stop",                                                                 \
	}

/* What a command that starts a job takes, but for pull: the rest is jobs/deadline.c's. */
#define DEADLINE_KEY                                                                              \
	{                                                                                         \
		.name = "deadline", .kind = KEY_NUMBER, .shown = "SECONDS",                       \
		.help = "give the job up, which has failed then, if it is neither ready nor done" \
			" by then",                                                               \
	}

/* What every command that starts a job takes. */
#define START_KEYS                                                                               \
	{                                                                                        \
		.name = "generation",                                                            \
		.kind = KEY_NUMBER,                                                              \
		.shown = "N",                                                                    \
		.help = "only if the chain is still of this generation, as job shows it",        \
	},                                                                                       \
	{                                                                                        \
		.name = "dry-run", .kind = KEY_FLAG,                                             \
		.help = "start nothing; what would be done is the answer on the same open file", \
	}

static const struct key pull_keys[] = {
	{
		.name = "base",
		.kind = KEY_TEXT,
		.shown = "IMAGE",
		.help = "pull only what lies above this image of the chain, which stays as the "
			"backing "
			"image: its path, or [N] for the N-th line of chain; by default all of it",
	},
	BANDWIDTH_KEY,
	{
		.name = "increment",
		.kind = KEY_BYTES,
		.shown = "SIZE",
		.help = "stream the next SIZE bytes of the disk and park the job: paused, progress "
			"is the "
			"cursor; the next pull goes on from there, without increment to the end",
	},
	ON_ERROR_KEY,
	START_KEYS,
	{ 0 },
};

static const struct key commit_keys[] = {
	{
		.name = "top",
		.kind = KEY_TEXT,
		.shown = "IMAGE",
		.help = "the uppermost image to merge: its path, or [N]; by default the active one",
	},
	{
		.name = "base",
		.kind = KEY_TEXT,
		.shown = "IMAGE",
		.help = "the image to merge into; by default the last of the chain",
	},
	{
		.name = "shallow",
		.kind = KEY_FLAG,
		.help = "merge into the image right under top",
	},
	{
		.name = "delete",
		.kind = KEY_FLAG,
		.help = "delete the images from top down to just above base when the commit has "
			"completed and the disk does not use them any more",
	},
	{
		.name = "pivot",
		.kind = KEY_FLAG,
		.help = "of the active image: go over to base as soon as the job is ready",
	},
	BANDWIDTH_KEY,
	ON_ERROR_KEY,
	DEADLINE_KEY,
	START_KEYS,
	{ 0 },
};

static const struct key copy_keys[] = {
	{
		.name = "dest",
		.kind = KEY_TEXT,
		.required = true,
		.shown = "PATH",
		.help = "the copy, by an absolute path; QEMU makes it",
	},
	{
		.name = "format",
		.kind = KEY_TEXT,
		.shown = "FORMAT",
		.help = "of the copy; by default that of the active image",
	},
	{
		.name = "shallow",
		.kind = KEY_FLAG,
		.help = "copy only the active image; the copy has the same backing image",
	},
	{
		.name = "reuse",
		.kind = KEY_FLAG,
		.help = "dest is there already, of the right size, and is overwritten",
	},
	{
		.name = "pivot",
		.kind = KEY_FLAG,
		.help = "go over to the copy as soon as the job is ready",
	},
	{
		.name = "granularity",
		.kind = KEY_BYTES,
		.shown = "SIZE",
		.help = "of the pieces that are copied again when the guest writes: 512 to 64M",
	},
	{
		.name = "buf-size",
		.kind = KEY_BYTES,
		.shown = "SIZE",
		.help = "how much may be under way at once",
	},
	{
		.name = "copy-mode",
		.kind = KEY_CHOICE,
		.choices = "background write-blocking",
		.shown = "MODE",
		.help = "whether the guest's writes wait for the copy",
	},
	BANDWIDTH_KEY,
	ON_ERROR_KEY,
	DEADLINE_KEY,
	START_KEYS,
	{ 0 },
};

static const struct key backup_keys[] = {
	{
		.name = "dest",
		.kind = KEY_TEXT,
		.required = true,
		.shown = "PATH",
		.help = "the backup, by an absolute path; QEMU makes it",
	},
	{
		.name = "format",
		.kind = KEY_TEXT,
		.shown = "FORMAT",
		.help = "of the backup; by default that of the active image",
	},
	{
		.name = "sync",
		.kind = KEY_CHOICE,
		.choices = "full top none incremental bitmap",
		.shown = "WHAT",
		.help = "all (the default), what the active image has, what the guest overwrites "
			"until abort, what the bitmap marks (incremental: and unmark it when all "
			"went well)",
	},
	{
		.name = "bitmap",
		.kind = KEY_TEXT,
		.shown = "NAME",
		.help = "a dirty bitmap of the active image, for incremental and bitmap",
	},
	BANDWIDTH_KEY,
	ON_ERROR_KEY,
	DEADLINE_KEY,
	START_KEYS,
	{ 0 },
};

static const struct key snapshot_keys[] = {
	{
		.name = "file",
		.kind = KEY_TEXT,
		.required = true,
		.shown = "PATH",
		.help = "the overlay; a relative path is one from the active image's folder, and "
			"its header then names the active image in the same way",
	},
	{
		.name = "format",
		.kind = KEY_TEXT,
		.shown = "FORMAT",
		.help = "of the overlay; by default qcow2",
	},
	{
		.name = "reuse",
		.kind = KEY_FLAG,
		.help = "the overlay is there already, with nothing in it, and its header names "
			"the active image",
	},
	START_KEYS,
	{ 0 },
};

static const struct key speed_keys[] = {
	{
		.name = "speed",
		.kind = KEY_BYTES,
		.positional = true,
		.required = true,
		.shown = "RATE",
		.help = "bytes a second with an optional K, M, G or T; 0 or max: no limit",
	},
	{ 0 },
};

static const struct key pause_keys[] = {
	{
		.name = "pause",
		.kind = KEY_SWITCH,
		.positional = true,
		.required = true,
		.shown = "1|0",
		.help = "1 pauses, 0 resumes; both may be repeated",
	},
	{ 0 },
};

static const struct key abort_keys[] = {
	{
		.name = "async",
		.kind = KEY_FLAG,
		.help = "do not wait until the job is over",
	},
	{ 0 },
};

/* --- progress, status, job, wait --- */

static void show_progress(const struct place *place, struct text *out)
{
	int64_t cur, end;

	job_progress(place->disk->job, &cur, &end);
	text_printf(out, "%" PRId64 " %" PRId64 "\n", cur, end);
}

static void show_status(const struct place *place, struct text *out)
{
	text_puts(out, disk_status(place->disk));
	text_puts(out, "\n");
}

/* A line of `job`. What is not known, or does not apply, is a dash. */
static void put_text(struct text *out, const char *key, const char *value)
{
	text_printf(out, "%s ", key);
	show_line(out, value && *value ? value : "-");
	text_puts(out, "\n");
}

static void put_number(struct text *out, const char *key, int64_t value, bool known)
{
	if (known)
		text_printf(out, "%s %" PRId64 "\n", key, value);
	else
		put_text(out, key, NULL);
}

static void put_time(struct text *out, const char *key, struct timespec time)
{
	char date[32] = "";

	if (time.tv_sec)
		event_format_time(date, time);
	put_text(out, key, date);
}

static void put_by(struct text *out, const struct who *by)
{
	if (by->uid == (uid_t)-1)
		text_puts(out, "by foreign\n");
	else
		text_printf(out, "by uid=%u pid=%d\n", by->uid, by->pid);
}

static void put_deletion(struct text *out, const struct deletion *deletion)
{
	for (size_t i = 0; deletion && i < deletion->count; i++) {
		text_puts(out, "delete ");
		text_put_path(out, deletion->images[i].path);
		text_puts(out, "\n");
	}
}

static void show_job(const struct place *place, struct text *out)
{
	const struct disk *disk = place->disk;
	const struct job *job = disk->job;
	bool live = job_is_live(job);
	int64_t cur, end;

	if (!job) {
		text_printf(out, "state idle\ngeneration %" PRIu64 "\n", disk->generation);
		return;
	}
	job_progress(job, &cur, &end);
	put_text(out, "id", job->id);
	put_text(out, "type", job->type);
	put_text(out, "state", disk_status(disk));
	put_text(out, "result", job_result(job));
	put_number(out, "cur", cur, true);
	put_number(out, "end", end, true);
	put_number(out, "bandwidth", job->speed, true);
	put_number(out, "rate", job->rate, live && job->rate > 0);
	put_number(out, "eta", job_eta(job), live && job_eta(job) >= 0);
	put_number(out, "increment", job->increment, live && job->increment);
	put_number(out, "mark", job->mark, live && job->mark);
	put_text(out, "parked", live && job->parked ? "yes" : NULL);
	put_time(out, "deadline", live && job->deadline_s ? job->deadline : (struct timespec){ 0 });
	put_time(out, "started", job->started);
	put_time(out, "ended", job->ended);
	put_text(out, "io-status", job->io_status);
	put_text(out, "error", job->error);
	put_text(out, "dest", job->dest);
	put_text(out, "qemu-state", job->qemu_state);
	put_by(out, &job->by);
	put_deletion(out, job->deletion);
	put_number(out, "generation", (int64_t)disk->generation, true);
}

/* --- chain, source, format, size --- */

static void show_chain(const struct place *place, struct text *out)
{
	for (size_t i = 0; i < place->disk->depth; i++) {
		text_put_path(out, place->disk->chain[i].path);
		text_puts(out, "\n");
	}
}

static void show_source(const struct place *place, struct text *out)
{
	if (!place->disk->depth)
		return;
	text_put_path(out, place->disk->chain[0].path);
	text_puts(out, "\n");
}

static void show_format(const struct place *place, struct text *out)
{
	if (!place->disk->depth)
		return;
	show_line(out, place->disk->chain[0].format);
	text_puts(out, "\n");
}

static void show_size(const struct place *place, struct text *out)
{
	if (place->disk->depth)
		text_printf(out, "%" PRId64 "\n", place->disk->chain[0].size);
}

/* --- error, history --- */

static void show_error(const struct place *place, struct text *out)
{
	if (place->disk->error)
		text_puts(out, place->disk->error);
}

static void show_history(const struct place *place, struct text *out)
{
	for (size_t i = 0; i < place->disk->history_count; i++)
		text_puts(out, place->disk->history[i]);
}

const struct file disk_files[] = {
	{
		.name = "pull",
		.mode = S_IFREG | 0644,
		.write = disk_pull,
		.keys = pull_keys,
		.help = "Populates the disk from its backing chain, so that nothing, or only base, "
			"backs it.",
	},
	{
		.name = "commit",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_commit,
		.keys = commit_keys,
		.help = "Merges the images from top down to base into base. If the active image is "
			"among them the job becomes ready and waits for pivot or finish.",
	},
	{
		.name = "copy",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_copy,
		.keys = copy_keys,
		.help = "Mirrors the disk to another file. When the job is ready it waits for "
			"pivot or finish.",
	},
	{
		.name = "backup",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_backup,
		.keys = backup_keys,
		.help = "Writes the disk as it is now to another file, whatever the guest writes "
			"meanwhile.",
	},
	{
		.name = "snapshot",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_snapshot,
		.keys = snapshot_keys,
		.help = "Puts a new overlay on top of the disk, at once: what the guest writes "
			"from then on goes there.",
	},
	{
		.name = "speed",
		.mode = S_IFREG | 0644,
		.flags = FILE_FRESH,
		.topic = TOPIC_JOB,
		.show = show_speed,
		.write = disk_speed,
		.keys = speed_keys,
		.help = "The bandwidth limit of the live job in bytes a second; 0: none.",
	},
	{
		.name = "pause",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_JOB,
		.show = show_pause,
		.write = disk_pause,
		.keys = pause_keys,
		.help = "1 while the live job is paused, else 0.",
	},
	{
		.name = "pivot",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_pivot,
		.help = "Lets the disk go over to the image that a ready job has made whole.",
	},
	{
		.name = "finish",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = disk_finish,
		.help = "Ends a ready job and stays on the old image; what was written is "
			"consistent.",
	},
	{
		.name = "abort",
		.mode = S_IFREG | 0644,
		.write = disk_abort,
		.keys = abort_keys,
		.help = "Gives the live job up; returns when it is over.",
	},
	{
		.name = "progress",
		.mode = S_IFREG | 0444,
		.flags = FILE_FRESH,
		.topic = TOPIC_PROGRESS,
		.show = show_progress,
		.help = "CUR END, two whole numbers; equal only when the job is ready or "
			"completed, 0 0 when "
			"there never was a job",
	},
	{
		.name = "status",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_STATUS,
		.show = show_status,
		.help = "one word: idle, running, paused, ready, aborting, or the final completed, "
			"failed, "
			"cancelled, lost, which stays until the next job",
	},
	{
		.name = "job",
		.mode = S_IFREG | 0444,
		.flags = FILE_FRESH,
		.topic = TOPIC_JOB,
		.show = show_job,
		.help = "the live or the last job, a key and its value a line; a dash where "
			"nothing is known",
	},
	{
		.name = "wait",
		.mode = S_IFREG | 0444,
		.flags = FILE_WAITS,
		.topic = TOPIC_STATUS,
		.show = show_status,
		.help = "blocks until no job is live, then the final word; the only file that "
			"blocks",
	},
	{
		.name = "chain",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_CHAIN,
		.show = show_chain,
		.help = "the backing chain, a path a line, active image first; escaped as in "
			"/proc/mounts",
	},
	{
		.name = "source",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_CHAIN,
		.show = show_source,
		.help = "the active image's path: the first line of chain",
	},
	{
		.name = "format",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_CHAIN,
		.show = show_format,
		.help = "the active image's format",
	},
	{
		.name = "size",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_CHAIN,
		.show = show_size,
		.help = "the disk's size in bytes",
	},
	{
		.name = "events",
		.mode = S_IFREG | 0444,
		.flags = FILE_LOG,
		.topic = TOPIC_EVENTS,
		.help = "this disk's events, a JSON object a line",
	},
	{
		.name = "error",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_ERROR,
		.show = show_error,
		.help = "why the last command was refused: what was written, a caret under the "
			"word at fault, "
			"the reason; empty when it was taken",
	},
	{
		.name = "history",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_HISTORY,
		.show = show_history,
		.help = "finished jobs, newest last, a JSON object a line",
	},
	{ 0 },
};
