/*
 * The daemon is killed and started again, at QEMU in small: what the next life knows, tells and does of the last one's jobs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/history.h"
#include "jobs/job_record.h"
#include "jobs/journal.h"
#include "tests/fake/world.h"

static void begin(struct world *world)
{
	world_new(world, 2);
	world_keep_journal(world);
	world_connect(world);
}

static void start_with(struct world *world, const char *words)
{
	struct answer_slip pull;

	world_write(world, "vda", "pull", words, &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
	WORLD_UNTIL(world, world_is_quiet(world));
}

static void start(struct world *world)
{
	start_with(world, "");
}

static unsigned count_jobs(const struct world *world)
{
	unsigned count = 0;

	for (const struct qemu_job *job = world->qemu->jobs; job; job = job->next)
		count++;
	return count;
}

/* The end is told once, with this word, and nothing is left to do. */
static void expect_end(struct world *world, const char *word)
{
	char event[32];
	const struct disk *disk;
	unsigned lines = 0;

	WORLD_UNTIL(world, world_is(world, "vda", word) && world_is_quiet(world));
	disk = world_disk(world, "vda");
	snprintf(event, sizeof(event), "job-%s", word);
	cr_assert_eq(world_events(world, event), 1);
	cr_assert_eq(world_events(world, "job-started"), 1);
	for (size_t i = 0; i < disk->history_count; i++)
		lines += strstr(disk->history[i], disk->job->id) != NULL;
	cr_assert_eq(lines, 1);
	cr_assert_eq(disk->job->by.uid, 1000);
	cr_assert_eq(disk->job->by.pid, 4711);
	cr_assert_eq(world->domain->link->finalizing, 0);
	cr_assert_eq(world->qemu->in_danger, 0);
	cr_assert_eq(count_jobs(world), 0);
}

static const char *record_of(const struct world *world, const char *id)
{
	char key[200];

	snprintf(key, sizeof(key), "job/%s", id);
	return journal_get(world->model->journal, key);
}

/* The next life after that: the word is still there, and nothing is told again. */
static void expect_still(struct world *world, const char *word)
{
	char *id = strdup(world_job(world, "vda")->id), *line;
	size_t count = world_disk(world, "vda")->history_count;
	int64_t cur[2], end[2];

	line = strdup(world_disk(world, "vda")->history[count - 1]);
	job_progress(world_job(world, "vda"), &cur[0], &end[0]);
	cr_assert_null(record_of(world, id));
	world_kill(world);
	world_connect(world);
	cr_assert(world_is(world, "vda", word));
	cr_assert_str_eq(world_job(world, "vda")->id, id);
	cr_assert_eq(world_disk(world, "vda")->history_count, count);
	cr_assert_str_eq(world_disk(world, "vda")->history[count - 1], line);
	job_progress(world_job(world, "vda"), &cur[1], &end[1]);
	cr_assert(cur[0] == cur[1] && end[0] == end[1]);
	cr_assert_eq(world_events(world, "job-started"), 0);
	cr_assert_eq(world_count(world, "\"event\":\"job-"), 0);
	free(id);
	free(line);
}

/* --- jobs that run on --- */

Test(jobs_restart, runs_on)
{
	/* Catches what QEMU does not tell of a job and the next life does not know: when, how it was at the beginning. */
	struct world world;
	struct job *job;
	time_t started;
	char *id;

	begin(&world);
	start(&world);
	job = world_job(&world, "vda");
	job->started.tv_sec -= 1000;
	job->pivot_wanted = true;
	job->by.gid = 1234;
	job_record_write(world_disk(&world, "vda"));
	started = job->started.tv_sec;
	id = strdup(job->id);
	world_kill(&world);
	world_connect(&world);
	job = world_job(&world, "vda");
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert_str_eq(job->id, id);
	cr_assert_eq(job->started.tv_sec, started);
	cr_assert(job->pivot_wanted);
	cr_assert_eq(job->by.gid, 1234);
	cr_assert_eq(job->before_count, 3);
	cr_assert_eq(count_jobs(&world), 1);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_end(&world, "completed");
	cr_assert_eq(world_job(&world, "vda")->started.tv_sec, started);
	cr_assert_eq(world_job(&world, "vda")->released_count, 2);
	expect_still(&world, "completed");
	free(id);
	world_free(&world);
}

Test(jobs_restart, released_since_the_beginning)
{
	/* Catches `released` reckoned from the chain as the next life found it, which is the new one by then. */
	struct world world;

	begin(&world);
	start(&world);
	qemu_hold(world.qemu, "job-dismiss", false);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	world_kill(&world);
	world.qemu->hold = NULL;
	world_connect(&world);
	expect_end(&world, "completed");
	cr_assert_eq(world_job(&world, "vda")->released_count, 2);
	cr_assert_str_eq(world_job(&world, "vda")->released[0], "/vm/vda-mid.qcow2");
	cr_assert_eq(world.qemu->disks[0].left, 0, "nodes of the old chain are still there");
	expect_still(&world, "completed");
	world_free(&world);
}

/* --- killed in between --- */

Test(jobs_restart, start_never_sent)
{
	/* Catches a job that is told of, or started again, though the daemon died before QEMU had heard of it. */
	struct world world;
	struct answer_slip pull;
	char *id;

	begin(&world);
	qemu_hold(world.qemu, "block-stream", true);
	world_write(&world, "vda", "pull", "", &pull);
	cr_assert(peer_run_until_command(world.peer, "block-stream", 1, WORLD_WAIT_MS));
	id = strdup(world_job(&world, "vda")->id);
	cr_assert_not_null(record_of(&world, id));
	world_kill(&world);
	world.qemu->hold = NULL;
	world_connect(&world);
	cr_assert(world_is(&world, "vda", "idle"));
	cr_assert_null(record_of(&world, id));
	cr_assert_eq(world_count(&world, "\"event\":\"job-"), 0);
	cr_assert_eq(world_disk(&world, "vda")->history_count, 0);
	cr_assert_eq(count_jobs(&world), 0);
	free(id);
	world_free(&world);
}

Test(jobs_restart, start_not_answered)
{
	/* Catches a job that QEMU has begun when the daemon died, and that the next life does not know for its own. */
	struct world world;
	struct answer_slip pull;

	begin(&world);
	world.qemu->left = "block-stream";
	peer_set_answer(world.peer, "block-stream", NULL);
	world_write(&world, "vda", "pull", "", &pull);
	cr_assert(peer_run_until_command(world.peer, "block-stream", 1, WORLD_WAIT_MS));
	qemu_add_job(world.qemu, 0, world_job(&world, "vda")->id, "running");
	world_kill(&world);
	world_connect(&world);
	cr_assert(world_is(&world, "vda", "running"));
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_end(&world, "completed");
	expect_still(&world, "completed");
	world_free(&world);
}

Test(jobs_restart, every_command_of_the_end)
{
	/* Catches an end that is lost, told twice, or not brought to its end, wherever the daemon dies in it. */
	static const char *const commands[] = { "job-finalize", "job-dismiss", "blockdev-del",
						"query-block" };

	for (int i = 0; i < 4; i++) {
		for (int effect = 0; effect < 2; effect++) {
			struct world world;
			size_t before;

			begin(&world);
			start(&world);
			before = peer_count_of(world.peer, commands[i]);
			if (effect)
				qemu_hang(world.qemu, commands[i]);
			else
				qemu_hold(world.qemu, commands[i], false);
			qemu_pend(world.qemu, qemu_job(world.qemu, 0));
			cr_assert(peer_run_until_command(world.peer, commands[i], before + 1,
							 WORLD_WAIT_MS));
			world_kill(&world);
			world_connect(&world);
			expect_end(&world, "completed");
			cr_assert_eq(world.qemu->disks[0].left, 0, "%s %d", commands[i], effect);
			expect_still(&world, "completed");
			world_free(&world);
		}
	}
}

Test(jobs_restart, ends_while_nobody_looks)
{
	/* Catches an end that comes while no daemon runs, and whose true word is not told. */
	static const char *const words[] = { "completed", "failed", "cancelled" };

	for (int i = 0; i < 3; i++) {
		struct world world;
		struct qemu_job *job;

		begin(&world);
		start(&world);
		world_kill(&world);
		job = qemu_job(world.qemu, 0);
		if (i == 0)
			qemu_pend(world.qemu, job);
		else
			qemu_end(world.qemu, job, i == 1 ? "No space left on device" : NULL);
		world_connect(&world);
		expect_end(&world, words[i]);
		if (i == 1)
			cr_assert_str_eq(world_job(&world, "vda")->error,
					 "No space left on device");
		else
			cr_assert_null(world_job(&world, "vda")->error);
		expect_still(&world, words[i]);
		world_free(&world);
	}
}

Test(jobs_restart, dismissed_for_another_end)
{
	/* Catches the true word lost with the dismissal: a job that failed or was cancelled, dismissed, and not told of yet. */
	static const char *const words[] = { "failed", "cancelled" };

	for (int i = 0; i < 2; i++) {
		struct world world;

		begin(&world);
		start(&world);
		qemu_hold(world.qemu, "job-dismiss", false);
		qemu_end(world.qemu, qemu_job(world.qemu, 0), i ? NULL : "No space left on device");
		cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
		cr_assert_eq(count_jobs(&world), 0, "it is dismissed");
		world_kill(&world);
		world.qemu->hold = NULL;
		world_connect(&world);
		expect_end(&world, words[i]);
		expect_still(&world, words[i]);
		world_free(&world);
	}
}

Test(jobs_restart, an_orphan_dismissed_and_killed_again)
{
	/* Catches an end lost by two deaths: found concluded by the second life, dismissed there, told by the third. */
	for (int known = 0; known < 2; known++) {
		struct world world;

		begin(&world);
		start(&world);
		world_kill(&world);
		if (!known) { /* the journal is lost, too */
			char path[100];

			snprintf(path, sizeof(path), "%s/journal", world.state);
			cr_assert_eq(unlink(path), 0);
		}
		qemu_end(world.qemu, qemu_job(world.qemu, 0), "No space left on device");
		qemu_hold(world.qemu, "job-dismiss", false);
		world_start(&world);
		cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
		cr_assert_eq(count_jobs(&world), 0);
		world_kill(&world);
		world.qemu->hold = NULL;
		world_connect(&world);
		expect_end(&world, "failed");
		expect_still(&world, "failed");
		world_free(&world);
	}
}

Test(jobs_restart, told_and_not_dropped)
{
	/* Catches an end that is told twice because the daemon died between the history and the record. */
	struct world world;
	char *record, *id;

	begin(&world);
	start(&world);
	id = strdup(world_job(&world, "vda")->id);
	qemu_hang(world.qemu, "job-dismiss");
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	cr_assert(peer_run_until_command(world.peer, "job-dismiss", 1, WORLD_WAIT_MS));
	record = strdup(record_of(&world, id));
	cr_assert(strstr(record, "\"end\":"), "no end before it is dismissed: %s", record);
	qemu_release(world.qemu);
	world.qemu->hold = NULL;
	expect_end(&world, "completed");
	cr_assert_null(record_of(&world, id));
	{
		char key[200];

		snprintf(key, sizeof(key), "job/%s", id);
		journal_put(world.model->journal, key, record);
	}
	world_kill(&world);
	world_connect(&world);
	cr_assert(world_is(&world, "vda", "completed"));
	cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
	cr_assert_eq(world_count(&world, "\"event\":\"job-"), 0);
	cr_assert_null(record_of(&world, id));
	free(record);
	free(id);
	world_free(&world);
}

Test(jobs_restart, lost)
{
	/* Catches a job that nobody knows any more and that is called completed, or not told at all. */
	struct world world;

	begin(&world);
	start(&world);
	world_kill(&world);
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	world_connect(&world);
	expect_end(&world, "lost");
	cr_assert(strstr(world_job(&world, "vda")->error, "started anew"));
	expect_still(&world, "lost");
	start(&world);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
	cr_assert_eq(world_disk(&world, "vda")->history_count, 2);
	world_free(&world);
}

Test(jobs_restart, disk_away)
{
	/* Catches an end that is forgotten because its disk is not there when the daemon comes back; it comes later. */
	struct world world;

	begin(&world);
	start(&world);
	world_kill(&world);
	world.qemu->disks[0].gone = true;
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	world_connect(&world);
	cr_assert_null(domain_find_disk(world.domain, "vda"));
	world.qemu->disks[0].gone = false;
	world_look(&world);
	WORLD_UNTIL(&world, domain_find_disk(world.domain, "vda"));
	expect_end(&world, "lost");
	world_free(&world);
}

Test(jobs_restart, flush_had_failed)
{
	/* Catches a pull that was given up because it could not be flushed, and that the next life calls cancelled. */
	struct world world;
	struct job *job;

	begin(&world);
	start(&world);
	job = world_job(&world, "vda");
	job->flush_error = strdup("flush: EIO");
	job_record_write(world_disk(&world, "vda"));
	world_kill(&world);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
	world_connect(&world);
	expect_end(&world, "failed");
	cr_assert_str_eq(world_job(&world, "vda")->error, "flush: EIO");
	world_free(&world);
}

Test(jobs_restart, refused)
{
	/* Catches a command that QEMU refused and that takes the last final word along, in this life or the next. */
	struct world world;
	struct answer_slip pull;

	begin(&world);
	start(&world);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), "No space left on device");
	expect_end(&world, "failed");
	world.qemu->refuse = "no";
	world_write(&world, "vda", "pull", "", &pull);
	WORLD_UNTIL(&world, !pull.op);
	cr_assert_eq(pull.status, -EREMOTEIO);
	cr_assert(world_is(&world, "vda", "failed"));
	world.qemu->refuse = NULL;
	WORLD_UNTIL(&world, world_is_quiet(&world));
	expect_still(&world, "failed");
	world_free(&world);
}

Test(jobs_restart, clean_end)
{
	/* Catches a clean end that forgets what a killed daemon would have kept. */
	struct world world;

	begin(&world);
	start(&world);
	world_restart(&world);
	cr_assert(world_is(&world, "vda", "running"));
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	expect_end(&world, "completed");
	world_restart(&world);
	cr_assert(world_is(&world, "vda", "completed"));
	cr_assert_eq(world_disk(&world, "vda")->history_count, 1);
	world_free(&world);
}

Test(jobs_restart, endless_orphans)
{
	/* Catches a peer that shows ever new jobs which look like ours and have ended, and fills the journal with them. */
	struct world world;
	size_t records = 0;
	char id[80];

	begin(&world);
	for (int i = 0; i < 300; i++) {
		snprintf(id, sizeof(id), "blockjobfs-nodisk-1.2-%08x", i);
		strcpy(qemu_add_job(world.qemu, 0, id, "concluded")->type, "stream");
		world_look(&world);
		WORLD_UNTIL(&world, !count_jobs(&world) && world_is_quiet(&world));
	}
	for (int i = 0; i < 300; i++) {
		snprintf(id, sizeof(id), "blockjobfs-nodisk-1.2-%08x", i);
		records += record_of(&world, id) != NULL;
	}
	cr_assert_gt(records, 0);
	cr_assert_leq(records, 100);
	job_record_forget(world.model, "vm");
	cr_assert_null(record_of(&world, "blockjobfs-nodisk-1.2-00000000"));
	world_free(&world);
}

/* --- history --- */

Test(jobs_restart, history_is_bounded)
{
	/* Catches more or fewer jobs than are kept, another order, or another number, after a restart. */
	struct world world;
	char first[64 + 1][200];
	struct disk *disk;

	begin(&world);
	for (int i = 0; i < DISK_HISTORY_MAX + 10; i++) {
		start(&world);
		qemu_end(world.qemu, qemu_job(world.qemu, 0), "No space left on device");
		WORLD_UNTIL(&world, world_is(&world, "vda", "failed") && world_is_quiet(&world));
		if (i == 40) {
			world_kill(&world);
			world_connect(&world);
		}
	}
	disk = world_disk(&world, "vda");
	cr_assert_eq(disk->history_count, DISK_HISTORY_MAX);
	for (int i = 0; i < DISK_HISTORY_MAX; i++)
		snprintf(first[i], sizeof(first[i]), "%.199s", disk->history[i]);
	world_kill(&world);
	world_connect(&world);
	disk = world_disk(&world, "vda");
	cr_assert_eq(disk->history_count, DISK_HISTORY_MAX);
	for (int i = 0; i < DISK_HISTORY_MAX; i++)
		cr_assert_eq(strncmp(first[i], disk->history[i], 199), 0);
	cr_assert_eq(world_disk(&world, "vdb")->history_count, 0);
	world_free(&world);
}

Test(jobs_restart, history_of_all_disks_is_bounded)
{
	/* Catches a journal that grows with every machine that has ever been there. */
	struct world world;
	char *error = malloc(5001);

	begin(&world);
	memset(error, 'e', 5000);
	error[5000] = 0;
	start(&world);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), error);
	expect_end(&world, "failed");
	for (int i = 0; i < 3 * HISTORY_BYTES_MAX / 5000; i++) {
		struct disk *disk = world_disk(&world, i % 64 ? "vda" : "vdb");
		char *name = disk->name, *domain = world.domain->name;

		if (!disk->job)
			continue;
		if (asprintf(&disk->name, "gone-%d", i / 64) < 0)
			abort();
		/* Of one domain at first, and then of many. */
		if (asprintf(&world.domain->name, i < HISTORY_BYTES_MAX / 5000 ? "vm" : "vm%d",
			     i / 640) < 0)
			abort();
		history_add(disk);
		free(world.domain->name);
		world.domain->name = domain;
		free(disk->name);
		disk->name = name;
		if (i < HISTORY_BYTES_MAX / 5000)
			cr_assert_leq(world.model->history_bytes, HISTORY_DOMAIN_MAX);
		else
			world.domain->history_bytes = 0;
		cr_assert_leq(world.model->history_bytes, HISTORY_BYTES_MAX);
	}
	world_kill(&world);
	world_connect(&world);
	cr_assert_gt(world.model->history_bytes, HISTORY_BYTES_MAX / 2);
	cr_assert_leq(world.model->history_bytes, HISTORY_BYTES_MAX);
	history_forget(world.model, "vm"); /* the others have pushed out most of it by then */
	cr_assert_gt(world.model->history_bytes, HISTORY_BYTES_MAX / 2);
	free(error);
	world_free(&world);
}

Test(jobs_restart, long_line)
{
	/* Catches a peer's endless error that makes the history as long. */
	struct world world;
	char *error = malloc(100001);

	begin(&world);
	memset(error, 'e', 100000);
	error[100000] = 0;
	start(&world);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), error);
	expect_end(&world, "failed");
	cr_assert_lt(strlen(world_disk(&world, "vda")->history[0]), HISTORY_LINE_MAX);
	cr_assert(strstr(world_disk(&world, "vda")->history[0], "\"shortened\":true"));
	expect_still(&world, "failed");
	free(error);
	world_free(&world);
}

/* --- the chain's generation --- */

Test(jobs_restart, generation)
{
	/* Catches a generation that means another chain after a restart. */
	struct world world;
	uint64_t before;

	begin(&world);
	before = world_disk(&world, "vda")->generation;
	world_kill(&world);
	world_connect(&world);
	cr_assert_eq(world_disk(&world, "vda")->generation, before);
	start(&world);
	world_kill(&world);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	world_connect(&world);
	expect_end(&world, "completed");
	cr_assert_gt(world_disk(&world, "vda")->generation, before);
	before = world_disk(&world, "vda")->generation;
	world_kill(&world);
	world.qemu->disks[0].pulled = false; /* somebody has put images under it again */
	world_connect(&world);
	cr_assert_gt(world_disk(&world, "vda")->generation, before);
	world_free(&world);
}
