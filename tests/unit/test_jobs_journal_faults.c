/*
 * The journal's file with every call failing, as long as it may become, and on a loop.
 */
#include "tests/unit/test_jobs_journal.h"

TestSuite(jobs_journal_faults, .init = make_folder, .fini = remove_folder);

/* --- faults --- */

/* Goes on after a fault: what is in memory is right, and the next life has all once a record could be written. */
static void expect_recovery(struct journal *journal)
{
	expect_some(journal, 5);
	cr_assert_leq(times_said("cannot be written"), 1, "%s", said);
	all_well();
	journal_put(journal, "after", "1");
	if (times_said("cannot be written"))
		cr_assert_eq(times_said("is written again"), 1, "%s", said);
	said[0] = 0;
	journal = next_life(journal);
	expect_some(journal, 5);
	expect(journal, "after", "1");
	cr_assert_str_empty(said);
	cr_assert_not(is_new_left());
	end(journal);
	unlink(journal_path);
}

static void do_some(struct journal *journal)
{
	for (int i = 0; i < 3; i++)
		journal_put(journal, keys[i], values[i]);
	journal_drop(journal, keys[0]);
	journal_put(journal, keys[1], values[0]);
}

Test(jobs_journal_faults, every_write_fails)
{
	/* Catches a fault, at whatever call, that stops the daemon, is told again and again, or leaves half a record behind for good. */
	static const int errors[] = { ENOSPC, EIO };

	for (int error = 0; error < 2; error++) {
		for (long left = 0; left < 8; left++) {
			for (size_t short_by = 0; short_by < 40; short_by += 13) {
				for (int truncate_fails = 0; truncate_fails < 2; truncate_fails++) {
					struct journal *journal;

					all_well();
					said[0] = 0;
					fault.error = errors[error];
					fault.writes_left = left;
					fault.short_by = short_by;
					fault.truncates_left = truncate_fails ? 0 : -1;
					journal = begin();
					do_some(journal);
					expect_recovery(journal);
				}
			}
		}
	}
}

Test(jobs_journal_faults, killed_after_a_fault)
{
	/* Catches a file that a fault has made unreadable: what was written before it must be there in the next life. */
	for (int truncate_fails = 0; truncate_fails < 2; truncate_fails++) {
		for (size_t short_by = 1; short_by < 60; short_by++) {
			struct journal *journal;

			all_well();
			said[0] = 0;
			journal = begin();
			journal_put(journal, keys[0], values[0]);
			fault.error = ENOSPC;
			fault.writes_left = 0;
			fault.short_by = short_by;
			fault.truncates_left = truncate_fails ? 0 : -1;
			journal_put(journal, keys[1], values[1]);
			journal_put(journal, keys[2], values[2]);
			all_well();
			said[0] = 0;
			journal = next_life(journal);
			expect(journal, keys[0], values[0]);
			expect(journal, keys[1], NULL);
			cr_assert_str_empty(said);
			end(journal);
			unlink(journal_path);
		}
	}
}

Test(jobs_journal_faults, rename_fails)
{
	/* Catches a daemon that does not go on with the old file when the new one cannot take its place. */
	struct journal *journal;

	fault.error = EIO;
	fault.renames_left = 0;
	journal = begin();
	do_some(journal);
	expect_recovery(journal);
}

Test(jobs_journal_faults, removed_by_somebody)
{
	/* Catches records that go to a file that has no name any more, and without a word. */
	struct journal *journal = begin(), *next;

	journal_put(journal, "a", "1");
	cr_assert_eq(unlink(journal_path), 0);
	journal_put(journal, "b", "2");
	cr_assert_eq(times_said("cannot be written: No such file"), 1, "%s", said);
	cr_assert_eq(times_said("is written again"), 1, "%s", said);
	next = begin();
	expect(next, "a", "1");
	expect(next, "b", "2");
	end(next);
	end(journal);
}

/* --- its length --- */

static size_t size_now(void)
{
	struct stat status;

	cr_assert_eq(stat(journal_path, &status), 0);
	return (size_t)status.st_size;
}

Test(jobs_journal_faults, bounded)
{
	/* Catches a file that grows with what has been written instead of with what counts; also where it cannot be shortened. */
	struct journal *journal = begin();
	char key[32], value[1000];
	size_t most = 0;

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	for (int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "history/vm/vda/%d", i % 64);
		snprintf(value, 8, "%07d", i);
		value[7] = 'v';
		journal_put(journal, key, value);
		if (size_now() > most)
			most = size_now();
	}
	cr_assert_lt(most, 300000, "%zu", most);
	cr_assert_gt(most, 100000); /* and it is not written anew with each record */
	journal = next_life(journal);
	expect(journal, "history/vm/vda/31", value);
	for (int i = 0; i < 64; i++) {
		snprintf(key, sizeof(key), "history/vm/vda/%d", i);
		journal_drop(journal, key);
	}
	end(journal);
	cr_assert_str_empty(said);
}

Test(jobs_journal_faults, cannot_be_shortened)
{
	/* Catches records that are lost, or a log full of lines, because the file could not be written anew when it was long. */
	struct journal *journal = begin();
	char value[1000];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	fault.error = ENOSPC;
	fault.renames_left = 0;
	for (int i = 0; i < 1000; i++) {
		snprintf(value, 8, "%07d", i);
		value[7] = 'v';
		journal_put(journal, "a", value);
	}
	cr_assert_str_empty(said);
	cr_assert_gt(size_now(), 1000000);
	journal = next_life(journal);
	expect(journal, "a", value);
	all_well();
	for (int i = 0; i < 200; i++) {
		journal_put(journal, "a", "1");
		journal_put(journal, "a", value);
	}
	cr_assert_lt(size_now(), 300000);
	end(journal);
}

/* --- on a loop --- */

Test(jobs_journal_faults, in_the_pool)
{
	/* Catches a record that is put while the pool writes the file anew, and is not in the new one. */
	struct journal *journal;
	uv_loop_t loop;
	char value[1000];
	int i;

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	cr_assert_eq(uv_loop_init(&loop), 0);
	journal = begin_with(&loop, true);
	for (i = 0; i < 5000; i++) {
		char key[16];

		snprintf(value, 8, "%07d", i);
		value[7] = 'v';
		snprintf(key, sizeof(key), "k%d", i % 7);
		journal_put(journal, key, value);
		if (i % 50 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	journal_stop(journal);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_assert_lt(size_now(), 1000000);
	cr_assert_gt(fault.syncs, 2);
	cr_assert_lt(fault.syncs, 1000, "not once a record");
	journal_free(journal);
	cr_assert_eq(uv_loop_close(&loop), 0);
	journal = begin();
	for (i = 5000 - 7; i < 5000; i++) {
		char key[16];

		snprintf(value, 8, "%07d", i);
		value[7] = 'v';
		snprintf(key, sizeof(key), "k%d", i % 7);
		expect(journal, key, value);
	}
	cr_assert_str_empty(said);
	end(journal);
}

Test(jobs_journal_faults, tries_again_by_itself)
{
	/* Catches a journal that waits for the next record though there is room again. */
	struct journal *journal, *next;
	uv_loop_t loop;

	cr_assert_eq(uv_loop_init(&loop), 0);
	journal = begin_with(&loop, false);
	fault.error = ENOSPC;
	fault.writes_left = 0;
	journal_put(journal, "a", "1");
	cr_assert_eq(times_said("cannot be written"), 1);
	all_well();
	for (int i = 0; i < 1000 && !times_said("is written again"); i++)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_eq(times_said("is written again"), 1);
	next = begin();
	expect(next, "a", "1");
	end(next);
	journal_stop(journal);
	uv_run(&loop, UV_RUN_DEFAULT);
	journal_free(journal);
	cr_assert_eq(uv_loop_close(&loop), 0);
}

Test(jobs_journal_faults, synced_soon_and_at_the_end)
{
	/* Catches a sync for each record, one that never comes, and one that the end forgets. */
	struct journal *journal;
	uv_loop_t loop;
	int before;

	cr_assert_eq(uv_loop_init(&loop), 0);
	journal = begin_with(&loop, true);
	uv_run(&loop, UV_RUN_DEFAULT);
	before = fault.syncs;
	journal_put(journal, "a", "1");
	journal_put(journal, "b", "2");
	journal_drop(journal, "a");
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_assert_eq(fault.syncs, before + 1);
	journal_put(journal, "b", "3");
	journal_stop(journal);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_assert_eq(fault.syncs, before + 2);
	journal_free(journal);
	cr_assert_eq(uv_loop_close(&loop), 0);
}

Test(jobs_journal_faults, sync_fails)
{
	/* Catches bytes that the kernel has dropped after a failed fdatasync, and that are taken for written. */
	struct journal *journal;
	uv_loop_t loop;

	cr_assert_eq(uv_loop_init(&loop), 0);
	journal = begin_with(&loop, true);
	uv_run(&loop, UV_RUN_NOWAIT);
	fault.error = EIO;
	fault.syncs_left = 0;
	journal_put(journal, "a", "1");
	for (int i = 0; i < 1000 && !times_said("cannot be written"); i++)
		uv_run(&loop, UV_RUN_ONCE);
	all_well();
	for (int i = 0; i < 1000 && !times_said("is written again"); i++)
		uv_run(&loop, UV_RUN_ONCE);
	cr_assert_eq(times_said("is written again"), 1, "%s", said);
	journal_stop(journal);
	uv_run(&loop, UV_RUN_DEFAULT);
	journal_free(journal);
	cr_assert_eq(uv_loop_close(&loop), 0);
}
