/*
 * One job by itself: its figures, its ids, its words.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/job.h"
#include "qmp/command.h"

static const struct who who = { 1000, 100, 4711 };

static void expect_progress(struct job *job, int64_t cur_wanted, int64_t end_wanted)
{
	int64_t cur, end;

	job_progress(job, &cur, &end);
	cr_assert(cur == cur_wanted && end == end_wanted, "%s %lld/%lld: %lld %lld",
		  job_state_words[job->state], (long long)job->offset, (long long)job->length,
		  (long long)cur, (long long)end);
}

Test(jobs_job, progress)
{
	/* Catches an end of 0 while a job is live, and CUR = END before it is ready or completed: programs poll for that. */
	static const struct {
		enum job_state state;
		int64_t offset, length, cur, end;
	} cases[] = {
		{ JOB_RUNNING, 0, 0, 0, 1 },
		{ JOB_RUNNING, 5, 0, 0, 1 },
		{ JOB_RUNNING, 0, 10, 0, 10 },
		{ JOB_RUNNING, 7, 10, 7, 10 },
		{ JOB_RUNNING, 10, 10, 9, 10 },
		{ JOB_RUNNING, 12, 10, 9, 10 },
		{ JOB_RUNNING, -3, 10, 0, 10 },
		{ JOB_RUNNING, 1, 1, 0, 1 },
		{ JOB_RUNNING, INT64_MAX, INT64_MAX, INT64_MAX - 1, INT64_MAX },
		{ JOB_RUNNING, INT64_MIN, INT64_MIN, 0, 1 },
		{ JOB_PAUSED, 10, 10, 9, 10 },
		{ JOB_ABORTING, 10, 10, 9, 10 },
		{ JOB_READY, 10, 10, 10, 10 },
		{ JOB_READY, 8, 10, 8, 10 },
		{ JOB_READY, 0, 0, 1, 1 },
		{ JOB_COMPLETED, 10, 10, 10, 10 },
		{ JOB_COMPLETED, 8, 10, 10, 10 },
		{ JOB_COMPLETED, 0, 0, 1, 1 },
		{ JOB_FAILED, 3, 10, 3, 10 },
		{ JOB_FAILED, 10, 10, 9, 10 },
		{ JOB_FAILED, 0, 0, 0, 1 },
		{ JOB_CANCELLED, 10, 10, 9, 10 },
		{ JOB_LOST, 10, 10, 9, 10 },
	};
	struct job *job = job_new("x", "pull");
	int64_t cur = 5, end = 5;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		job->state = cases[i].state;
		job->offset = cases[i].offset;
		job->length = cases[i].length;
		expect_progress(job, cases[i].cur, cases[i].end);
	}
	job_free(job);
	job_progress(NULL, &cur, &end);
	cr_assert(cur == 0 && end == 0);
}

Test(jobs_job, ids)
{
	/* Catches an id that QEMU does not take, that is not read back as what it was made for, or that another disk claims. */
	static const char *const names[] = { "vda",    "vd-a",		 "a.b_c",    "x y",
					     "\\x2e.", "a-0.1-01234567", "\xc3\xa9", "",
					     "-",      "vda-1000.4711-", "vda-" };
	char name[300];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char *id = job_id_new(names[i], &who, 1);
		char *other = job_id_new(names[i], &who, 2);
		struct who by = { 0 };
		size_t readers = 0;

		cr_assert_str_neq(id, other);
		cr_assert_eq(strncmp(id, JOB_ID_PREFIX, strlen(JOB_ID_PREFIX)), 0);
		cr_assert_eq(strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789-._"),
			     strlen(id), "%s", id);
		for (size_t j = 0; j < sizeof(names) / sizeof(*names); j++)
			readers += job_id_read(id, names[j], &by);
		cr_assert_eq(readers, 1, "%s is read by %zu", id, readers);
		cr_assert(job_id_read(id, names[i], &by));
		cr_assert_eq(by.uid, 1000);
		cr_assert_eq(by.pid, 4711);
		free(id);
		free(other);
	}
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	{
		char *id = job_id_new(name, &(struct who){ (uid_t)-2, 0, 4194304 }, ~UINT64_C(0));
		struct who by;

		cr_assert_lt(strlen(id), 200);
		cr_assert(job_id_read(id, name, &by));
		cr_assert_eq(by.uid, (uid_t)-2);
		cr_assert(!job_id_read(id, "n", &by));
		free(id);
	}
}

Test(jobs_job, ids_of_others)
{
	/* Catches an id from elsewhere that is read as one of ours, or read past its end. */
	static const char *const ids[] = {
		"",
		"x",
		"blockjobfs",
		"blockjobfs-",
		"blockjobfs-vda",
		"blockjobfs-vda-",
		"blockjobfs-vda-1",
		"blockjobfs-vda-1.2",
		"blockjobfs-vda-1.2-",
		"blockjobfs-vda-1.2-0123456",
		"blockjobfs-vda-1.2-012345678",
		"blockjobfs-vda-1.2-01234567-",
		"blockjobfs-vda-1.2-0123456u",
		"blockjobfs-vda-1.2-0123456X",
		"blockjobfs-vda-x.2-01234567",
		"blockjobfs-vdb-1.2-01234567",
		"blockjobfs-vdaa-1.2-01234567",
		"Blockjobfs-vda-1.2-01234567",
	};
	struct who by;

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		char *exact = strdup(ids[i]);

		cr_assert(!job_id_read(exact, "vda", &by), "%s", ids[i]);
		free(exact);
	}
	cr_assert(job_id_read("blockjobfs-vda-1.2-01234567", "vda", &by));
	cr_assert_eq(by.uid, 1);
	cr_assert_eq(by.pid, 2);
}

Test(jobs_job, words)
{
	/* Catches a state or a type without its word: `status` and `job` show them. */
	for (int state = 0; state < JOB_STATE_COUNT; state++)
		cr_assert_not_null(job_state_words[state]);
	cr_assert_str_eq(job_state_words[JOB_IDLE], "idle");
	cr_assert_str_eq(job_state_words[JOB_LOST], "lost");
	cr_assert_str_eq(job_type_word("stream"), "pull");
	cr_assert_str_eq(job_type_word("mirror"), "copy");
	cr_assert_str_eq(job_type_word("backup"), "backup");
	cr_assert_str_eq(job_type_word("create"), "unknown");
	cr_assert_str_eq(job_type_word(""), "unknown");
}

Test(jobs_job, how_it_ended)
{
	/* Catches an end that is guessed: what QEMU has not told is lost, and cancelled is not failed. */
	struct job *job = job_new("blockjobfs-x", "pull");

	cr_assert(job->ours);
	cr_assert(job_is_live(job));
	cr_assert(!job_is_live(NULL));
	cr_assert_null(job_result(job));
	cr_assert_eq(job_final_state(job), JOB_LOST);
	job->error = strdup("EIO");
	cr_assert_eq(job_final_state(job), JOB_LOST);
	job->outcome_known = true;
	cr_assert_eq(job_final_state(job), JOB_FAILED);
	job->cancelled = true;
	cr_assert_eq(job_final_state(job), JOB_CANCELLED);
	job->cancelled = false;
	free(job->error);
	job->error = NULL;
	cr_assert_eq(job_final_state(job), JOB_COMPLETED);
	job->state = JOB_COMPLETED;
	cr_assert_str_eq(job_result(job), "pulled");
	job->state = JOB_FAILED;
	cr_assert_str_eq(job_result(job), "failed");
	job_free(job);
	job = job_new("libvirt-1", "pull");
	cr_assert(!job->ours);
	job_free(job);
	job_free(NULL);
}

static struct qmp_job_info info_of(const char *status, int64_t offset, int64_t length)
{
	return (struct qmp_job_info){
		.id = "x",
		.type = "stream",
		.status = status,
		.offset = offset,
		.length = length,
	};
}

Test(jobs_job, updates)
{
	/* Catches a change that is not told, one that is none, and QEMU's own flapping shown. */
	struct job *job = job_new("x", "pull");
	struct qmp_job_info info = info_of("running", 5, 10);

	job->phase = JOB_LIVE;
	cr_assert(job_update(job, &info, 1));
	cr_assert(!job_update(job, &info, 2));
	info.offset = 6;
	cr_assert(!job_update(job, &info, 3), "figures are no change of `job`");
	info.status = "paused"; /* a drain: not paused */
	cr_assert(job_update(job, &info, 4));
	cr_assert_eq(job->state, JOB_RUNNING);
	info.paused = true;
	cr_assert(job_update(job, &info, 5));
	cr_assert_eq(job->state, JOB_PAUSED);
	info.paused = false;
	info.ready = true;
	info.status = "ready";
	cr_assert(job_update(job, &info, 6));
	cr_assert_eq(job->state, JOB_READY);
	info.io_status = "nospace";
	cr_assert(job_update(job, &info, 7));
	cr_assert_str_eq(job->io_status, "nospace");
	info.io_status = NULL;
	info.speed = 5;
	cr_assert(job_update(job, &info, 8));
	cr_assert_str_empty(job->io_status);
	info.status = "no-word-that-QEMU-has";
	cr_assert(job_update(job, &info, 8));
	cr_assert(!job_update(job, &info, 8));
	cr_assert_str_eq(job->qemu_state, "no-word-that-QE");
	job->abort_asked = true;
	cr_assert(job_update(job, &info, 9));
	cr_assert_eq(job->state, JOB_ABORTING);
	job_free(job);
}

Test(jobs_job, rate_and_eta)
{
	/* Catches a time left that is nonsense, and figures of a peer that overflow. */
	static const int64_t odd[] = { 0, 1, -1, 64 << 20, INT64_MAX, INT64_MIN, INT64_MAX / 2 };
	enum { ODD = sizeof(odd) / sizeof(*odd) };
	struct job *job = job_new("x", "pull");
	struct qmp_job_info info = info_of("running", 0, 1000);
	uint64_t second = 1000000000;

	job->phase = JOB_LIVE;
	cr_assert_eq(job_eta(job), -1);
	job_update(job, &info, second);
	cr_assert_eq(job_eta(job), -1);
	info.offset = 100;
	job_update(job, &info, 2 * second);
	cr_assert_eq(job->rate, 100);
	cr_assert_eq(job_eta(job), 9);
	info.offset = 200;
	info.length = 1001;
	job_update(job, &info, 3 * second);
	cr_assert_eq(job_eta(job), 9, "rounded up");
	info.offset = 50; /* QEMU has begun anew */
	job_update(job, &info, 4 * second);
	cr_assert_geq(job->rate, 0);
	for (size_t i = 0; i < ODD * ODD * ODD; i++) {
		int64_t cur, end;

		info.offset = odd[i % ODD];
		info.length = odd[i / ODD % ODD];
		info.speed = odd[i / ODD / ODD];
		job_update(job, &info, (5 + i) * second);
		job_eta(job);
		job_progress(job, &cur, &end);
		cr_assert(cur >= 0 && cur < end);
	}
	job_free(job);
}
