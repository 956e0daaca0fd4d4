/*
 * A journal in shared memory: what a process that was killed has left there is what the next one finds.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "jobs/journal.h"
#include "jobs/journal_memory.h"

static int memory;

static void make_memory(void)
{
	memory = journal_memory_new();
	cr_assert_geq(memory, 0);
}

static void drop_memory(void)
{
	close(memory);
}

TestSuite(jobs_journal_memory, .init = make_memory, .fini = drop_memory);

static void expect(const struct journal *journal, const char *key, const char *value)
{
	const char *found = journal_get(journal, key);

	if (value)
		cr_assert_str_eq(found, value);
	else
		cr_assert_null(found);
}

Test(jobs_journal_memory, kept)
{
	/* Catches records that are lost, or that a drop or a second put does not outdo. */
	struct journal *journal = journal_share(memory);

	journal_put(journal, "a", "1");
	journal_put(journal, "b", "2");
	journal_put(journal, "a", "3");
	journal_drop(journal, "b");
	journal_free(journal);
	journal = journal_share(memory);
	expect(journal, "a", "3");
	expect(journal, "b", NULL);
	journal_free(journal);
}

Test(jobs_journal_memory, written_anew)
{
	/* Catches what is lost when outdated records are left behind, and memory that grows with every put. */
	struct journal *journal = journal_share(memory);
	char value[4001], key[16];
	struct stat status;

	memset(value, 'x', sizeof(value));
	value[sizeof(value) - 1] = 0;
	journal_put(journal, "first", "1");
	for (int i = 0; i < 20000; i++) {
		snprintf(key, sizeof(key), "key%d", i % 10);
		snprintf(value, 12, "%011d", i);
		value[11] = 'x';
		journal_put(journal, key, value);
	}
	journal_free(journal);
	cr_assert_eq(fstat(memory, &status), 0);
	cr_assert_lt(status.st_blocks, 16 << 11, "%ld blocks of 512 bytes", (long)status.st_blocks);
	journal = journal_share(memory);
	expect(journal, "first", "1");
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "key%d", i);
		cr_assert_eq(atoi(journal_get(journal, key)), 19990 + i);
	}
	journal_free(journal);
}

/* Puts numbers under two keys, one after the other, until it is killed. */
static void put_for_ever(void)
{
	struct journal *journal = journal_share(memory);
	char text[3000];

	for (int i = 0;; i++) {
		memset(text, 'x', sizeof(text));
		text[sizeof(text) - 1 - i % 2000] = 0;
		text[snprintf(text, 16, "%011d", i)] = 'x';
		journal_put(journal, "a", text);
		journal_put(journal, "b", text);
	}
}

Test(jobs_journal_memory, killed, .timeout = 60)
{
	/* Catches a record, or a half, that counts before it is whole: @a is put before @b, so it is the same or one ahead. */
	int last = -1;

	for (int round = 0; round < 40; round++) {
		pid_t child = fork();
		struct journal *journal;
		int a, b;

		if (child == 0)
			put_for_ever();
		usleep(500 + (useconds_t)(rand() % 5000));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		journal = journal_share(memory);
		cr_assert_not_null(journal);
		if (journal_get(journal, "b")) {
			a = atoi(journal_get(journal, "a"));
			b = atoi(journal_get(journal, "b"));
			cr_assert(a == b || a == b + 1 || a == 0, "a %d, b %d", a, b);
			last = b;
		}
		journal_free(journal);
	}
	cr_assert_geq(last, 0, "nobody has put anything");
}

Test(jobs_journal_memory, foreign)
{
	/* Catches a memory that is believed though it is none of ours, or of another version. */
	int other = memfd_create("other", 0);
	const char junk[64] = "something else";

	cr_assert_null(journal_share(other));
	cr_assert_eq(pwrite(memory, junk, sizeof(junk), 0), (ssize_t)sizeof(junk));
	cr_assert_null(journal_share(memory));
	close(other);
}
