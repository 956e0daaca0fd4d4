/*
 * The journal's file: cut at every byte, with every byte damaged, and foreign; its folder.
 */
#include "tests/unit/test_jobs_journal.h"

#include "jobs/state_folder.h"
#include "jobs/text.h"

TestSuite(jobs_journal, .init = make_folder, .fini = remove_folder);

/* --- what is put stays --- */

Test(jobs_journal, kept)
{
	/* Catches records that are not in the file when put() returns, or that a drop or a second put does not outdo. */
	struct journal *journal = begin();
	char *bytes;

	journal_put(journal, "job/1", "{\"id\":1}");
	journal_put(journal, "job/2", "{\"id\":2}");
	journal_put(journal, "job/1", "{\"id\":3}");
	journal_drop(journal, "job/2");
	journal_put(journal, "history/vm a/vd b/0", "");
	journal = next_life(journal);
	expect(journal, "job/1", "{\"id\":3}");
	expect(journal, "job/2", NULL);
	expect(journal, "history/vm a/vd b/0", "");
	cr_assert_str_empty(said);
	cr_assert_eq(load(&bytes), strlen(JOURNAL_HEAD) +
					   2 * journal_format_length("job/1", "12345678") +
					   journal_format_length("job/2", "12345678") +
					   journal_format_length("job/2", NULL) +
					   journal_format_length("history/vm a/vd b/0", ""));
	free(bytes);
	end(journal);
	cr_assert_eq(access(journal_path, F_OK), 0);
}

Test(jobs_journal, nothing_left)
{
	/* Catches a file that stays though nothing is in it. */
	struct journal *journal = begin();

	cr_assert_eq(access(journal_path, F_OK), 0);
	journal_put(journal, "a", "1");
	journal_drop(journal, "a");
	cr_assert(journal_is_empty(journal));
	end(journal);
	cr_assert_neq(access(journal_path, F_OK), 0);
}

Test(jobs_journal, too_long)
{
	/* Catches a record that no reader takes and that an earlier one of the same key is then taken for. */
	struct journal *journal = begin();
	char *value = malloc(JOURNAL_RECORD_MAX + 2);

	memset(value, 'x', JOURNAL_RECORD_MAX + 1);
	value[JOURNAL_RECORD_MAX + 1] = 0;
	journal_put(journal, "a", "1");
	journal_put(journal, "b", "2");
	journal_put(journal, "a", value);
	journal = next_life(journal);
	expect(journal, "a", NULL);
	expect(journal, "b", "2");
	value[JOURNAL_RECORD_MAX - 1] = 0;
	journal_put(journal, "a", value);
	journal = next_life(journal);
	expect(journal, "a", value);
	free(value);
	end(journal);
}

/* --- crashes --- */

/* Puts, puts again and drops; the file is @bytes then, and ends[i] is where record i ends. */
static size_t write_some(char **bytes, size_t ends[5])
{
	struct journal *journal = begin();
	struct stat status;

	for (int i = 0; i < 5; i++) {
		if (i < 3)
			journal_put(journal, keys[i], values[i]);
		else if (i == 3)
			journal_drop(journal, keys[0]);
		else
			journal_put(journal, keys[1], values[0]);
		cr_assert_eq(stat(journal_path, &status), 0);
		ends[i] = (size_t)status.st_size;
	}
	end(journal);
	return load(bytes);
}

Test(jobs_journal, cut_at_every_byte)
{
	/* Catches a torn end that is believed, that costs a record before it, or that spoils the next one. */
	size_t ends[5], length;
	char *bytes;

	length = write_some(&bytes, ends);
	cr_assert_eq(length, ends[4]);
	for (size_t cut = 0; cut <= length; cut++) {
		struct journal *journal;
		int count = 0;

		while (count < 5 && ends[count] <= cut)
			count++;
		store(bytes, cut);
		journal = begin();
		cr_assert_str_empty(said, "cut at %zu: %s", cut, said);
		expect_some(journal, count);
		journal_put(journal, "next", "1");
		journal = next_life(journal);
		expect_some(journal, count);
		expect(journal, "next", "1");
		cr_assert_str_empty(said, "cut at %zu: %s", cut, said);
		end(journal);
	}
	cr_assert_not(is_aside(1));
	free(bytes);
}

Test(jobs_journal, damaged_at_every_byte)
{
	/* Catches a flipped bit that is believed, takes more than its own record along, or keeps the daemon from starting. */
	static const int flips[] = { 1, 4, 0x20, 0x80 };
	size_t ends[5], length;
	char *bytes;

	length = write_some(&bytes, ends);
	for (size_t at = strlen(JOURNAL_HEAD); at < length; at++) {
		for (int flip = 0; flip < 4; flip++) {
			struct journal *journal;
			int hit = 0;

			while (ends[hit] <= at)
				hit++;
			bytes[at] ^= (char)flips[flip];
			store(bytes, length);
			bytes[at] ^= (char)flips[flip];
			said[0] = 0;
			journal = begin();
			/* A record that is damaged is as if it had never been written; all others count. */
			expect(journal, keys[0], hit == 3 ? values[0] : NULL);
			expect(journal, keys[1], hit == 4 ? values[1] : values[0]);
			expect(journal, keys[2], hit == 2 ? NULL : values[2]);
			cr_assert_eq(times_said("is damaged in"), 1, "byte %zu: %s", at, said);
			cr_assert(is_aside(1));
			journal_put(journal, "next", "1");
			said[0] = 0;
			journal = next_life(journal);
			expect(journal, "next", "1");
			cr_assert_str_empty(said);
			end(journal);
		}
	}
	free(bytes);
}

Test(jobs_journal, damaged_head)
{
	/* Catches a file of another version, or of another program, that is read, written to or removed. */
	size_t ends[5], length;
	char *bytes;

	length = write_some(&bytes, ends);
	for (size_t at = 0; at < strlen(JOURNAL_HEAD); at++) {
		struct journal *journal;
		char *kept;

		bytes[at] ^= 1;
		store(bytes, length);
		bytes[at] ^= 1;
		said[0] = 0;
		journal = begin();
		cr_assert(journal_is_empty(journal));
		cr_assert_eq(times_said(at < strlen(JOURNAL_MAGIC) ? "is none of blockjobfs"
								   : "another version"),
			     1, "byte %zu: %s", at, said);
		journal_put(journal, "next", "1");
		journal = next_life(journal);
		expect(journal, "next", "1");
		end(journal);
		strcat(journal_path, ".aside-1");
		cr_assert_eq(load(&kept), length);
		unlink(journal_path);
		journal_path[strlen(journal_path) - strlen(".aside-1")] = 0;
		free(kept);
	}
	free(bytes);
}

Test(jobs_journal, garbage)
{
	/* Catches a crash, a hang or a believed record in a file of random bytes behind a good head. */
	enum { LENGTH = 100000 };
	char *bytes = malloc(LENGTH);
	struct text *text = text_new();
	struct journal *journal;

	srandom(4711);
	for (size_t i = 0; i < LENGTH; i++)
		bytes[i] = "+- 0123456789abcdef\n"[random() % 20];
	text_puts(text, JOURNAL_HEAD);
	text_append(text, bytes, LENGTH);
	text_puts(text, "\n");
	journal_format_record(text, "a", "1");
	text_append(text, bytes, LENGTH);
	store(text_bytes(text), text_length(text));
	journal = begin();
	expect(journal, "a", "1");
	cr_assert_eq(times_said("is damaged in"), 1);
	text_free(text);
	free(bytes);
	end(journal);
}

/* --- what is not ours --- */

Test(jobs_journal, set_aside)
{
	/* Catches a link that is followed, a file that keeps the daemon from starting, and one that is overwritten. */
	struct journal *journal;
	char elsewhere[100];
	struct stat status;

	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", folder);
	for (int i = 0; i < 5; i++) {
		said[0] = 0;
		unlink(journal_path);
		if (i == 0)
			cr_assert_eq(symlink(elsewhere, journal_path), 0);
		else if (i == 1)
			cr_assert_eq(mkdir(journal_path, 0700), 0);
		else if (i == 2)
			cr_assert_eq(mkfifo(journal_path, 0600), 0);
		else if (i == 3) {
			store("", 0);
			cr_assert_eq(truncate(journal_path, (off_t)1 << 40), 0);
		} else {
			store("hello\n", 6);
			if (geteuid() == 0)
				cr_assert_eq(chown(journal_path, 12345, 12345), 0);
		}
		journal = begin();
		cr_assert_eq(times_said("a new one was begun"), 1, "%s", said);
		cr_assert(is_aside(i + 1));
		journal_put(journal, "a", "1");
		journal = next_life(journal);
		expect(journal, "a", "1");
		cr_assert_eq(lstat(journal_path, &status), 0);
		cr_assert(S_ISREG(status.st_mode));
		cr_assert_eq(status.st_mode & 0777, 0600);
		end(journal);
	}
	cr_assert_neq(access(elsewhere, F_OK), 0);
}

Test(jobs_journal, cannot_be_set_aside)
{
	/* Catches a foreign file that is overwritten because it could not be renamed. */
	struct journal *journal;
	char *bytes;

	store("hello\n", 6);
	fault.error = EROFS;
	fault.renames_left = 0;
	journal = begin();
	cr_assert_eq(times_said("nothing is kept"), 1, "%s", said);
	journal_put(journal, "a", "1");
	expect(journal, "a", "1");
	all_well();
	journal_put(journal, "b", "1");
	end(journal);
	cr_assert_eq(load(&bytes), 6);
	free(bytes);
}

/* --- the folder --- */

Test(jobs_journal, folder)
{
	/* Catches two daemons on one folder, a folder that others can enter, and one that is left behind empty. */
	struct state_folder one, two;
	char path[100], *error = NULL;
	struct stat status;

	cr_assert_eq(state_folder_open(&one, NULL, folder, "/mnt/a", -1, &error), 0, "%s", error);
	cr_assert_eq(stat(one.path, &status), 0);
	cr_assert_eq(status.st_mode & 0777, 0700);
	cr_assert_eq(state_folder_open(&two, NULL, folder, "/mnt/b", -1, &error), 0, "%s", error);
	cr_assert_str_neq(one.path, two.path);
	snprintf(path, sizeof(path), "%s", two.path);
	state_folder_close(&two);
	cr_assert_neq(access(path, F_OK), 0);

	cr_assert_eq(state_folder_open(&two, one.path, NULL, "/mnt/b", -1, &error), -EWOULDBLOCK);
	cr_assert(strstr(error, "another blockjobfs"), "%s", error);
	free(error);
	cr_assert_eq(access(one.path, F_OK), 0);
	state_folder_close(&one);

	snprintf(path, sizeof(path), "%s/open", folder);
	cr_assert_eq(mkdir(path, 0755), 0);
	cr_assert_neq(state_folder_open(&one, path, NULL, "/mnt/a", -1, &error), 0);
	cr_assert(strstr(error, "mode 700"), "%s", error);
	free(error);
	chmod(path, 0700);
	cr_assert_eq(state_folder_open(&one, path, NULL, "/mnt/a", -1, &error), 0);
	state_folder_close(&one);
	cr_assert_eq(access(path, F_OK), 0, "it was named by the user");
}
