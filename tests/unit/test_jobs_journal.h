/*
 * What the tests of the journal stand on: a folder of their own, a journal in it whose calls can be made to fail, and what is looked at
 * afterwards. Included by the two of them only.
 */
#ifndef TESTS_UNIT_TEST_JOBS_JOURNAL_H
#define TESTS_UNIT_TEST_JOBS_JOURNAL_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/journal.h"
#include "jobs/journal_format.h"

/* --- a folder, and faults --- */

static char folder[64], journal_path[80];
static int dir = -1;
static char said[4096];

static struct {
	int error; /* of the calls below, 0: none */
	long writes_left; /* so many work before the first one fails */
	size_t short_by; /* the first that fails writes all but so many bytes */
	long renames_left, truncates_left, syncs_left;
	unsigned syncs;
} fault;

static inline bool fails(long *left)
{
	if (*left < 0)
		return false;
	if (*left > 0) {
		--*left;
		return false;
	}
	errno = fault.error;
	return true;
}

static inline ssize_t faulty_write(int fd, const void *bytes, size_t count)
{
	if (fails(&fault.writes_left)) {
		if (!fault.short_by || fault.short_by >= count)
			return -1;
		count -= fault.short_by;
		fault.short_by = 0;
	}
	return write(fd, bytes, count);
}

static inline int faulty_truncate(int fd, off_t length)
{
	return fails(&fault.truncates_left) ? -1 : ftruncate(fd, length);
}

static inline int faulty_sync(int fd)
{
	fault.syncs++;
	return fails(&fault.syncs_left) ? -1 : 0;
}

static inline int faulty_rename(int at, const char *from, const char *to)
{
	return fails(&fault.renames_left) ? -1 : renameat(at, from, at, to);
}

static const struct journal_ops faulty = { faulty_write, faulty_truncate, faulty_sync,
					   faulty_rename };

static inline void all_well(void)
{
	memset(&fault, 0, sizeof(fault));
	fault.writes_left = fault.renames_left = fault.truncates_left = fault.syncs_left = -1;
}

static inline void logged(void *data, const char *line)
{
	size_t length = strlen(said);

	snprintf(said + length, sizeof(said) - length, "%s\n", line);
}

static inline unsigned times_said(const char *words)
{
	unsigned count = 0;

	for (const char *at = said; (at = strstr(at, words)); at++)
		count++;
	return count;
}

static inline struct journal *begin_with(uv_loop_t *loop, bool lasting)
{
	struct journal_settings settings = { .path = folder,
					     .dir = dir,
					     .lasting = lasting,
					     .loop = loop,
					     .ops = &faulty,
					     .log = logged };

	return journal_open(&settings);
}

static inline struct journal *begin(void)
{
	return begin_with(NULL, false);
}

static inline void end(struct journal *journal)
{
	journal_stop(journal);
	journal_free(journal);
}

static inline void make_folder(void)
{
	strcpy(folder, "/tmp/test_journal-XXXXXX");
	cr_assert_not_null(mkdtemp(folder));
	snprintf(journal_path, sizeof(journal_path), "%s/journal", folder);
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(dir, 0);
	said[0] = 0;
	all_well();
}

static inline void remove_folder(void)
{
	char command[200];

	close(dir);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

static inline size_t load(char **bytes)
{
	FILE *file = fopen(journal_path, "r");
	struct stat status;

	cr_assert_not_null(file);
	cr_assert_eq(fstat(fileno(file), &status), 0);
	*bytes = malloc((size_t)status.st_size + 1);
	cr_assert_eq(fread(*bytes, 1, (size_t)status.st_size, file), status.st_size);
	fclose(file);
	return (size_t)status.st_size;
}

static inline void store(const char *bytes, size_t length)
{
	FILE *file = fopen(journal_path, "w");

	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes, 1, length, file), length);
	fclose(file);
}

static inline bool is_aside(int number)
{
	char path[100];
	struct stat status;

	snprintf(path, sizeof(path), "%s.aside-%d", journal_path, number);
	return lstat(path, &status) == 0;
}

static inline bool is_new_left(void)
{
	char path[100];

	snprintf(path, sizeof(path), "%s.new", journal_path);
	return access(path, F_OK) == 0;
}

/* SIGKILL: what is in the file stays, and nothing is written at the end. */
static inline struct journal *next_life(struct journal *journal)
{
	char *bytes, before[sizeof(said)];
	size_t length = load(&bytes);

	memcpy(before, said, sizeof(said));
	end(journal);
	memcpy(said, before, sizeof(said));
	store(bytes, length);
	free(bytes);
	return begin();
}

static inline void expect(struct journal *journal, const char *key, const char *value)
{
	const char *found = journal_get(journal, key);

	if (value)
		cr_assert_str_eq(found ? found : "(nothing)", value, "%s", key);
	else
		cr_assert_null(found, "%s: %s", key, found);
}

/* --- some records --- */

static const char *const keys[] = { "job/one", "job/two", "mode/vm" };
static const char *const values[] = { "{\"a\":1}", "{\"b\":\"- + 0\"}", "{}" };

/* What holds after the first @count records of write_some(). */
static inline void expect_some(struct journal *journal, int count)
{
	expect(journal, keys[0], count >= 1 && count < 4 ? values[0] : NULL);
	expect(journal, keys[1], count >= 5 ? values[0] : count >= 2 ? values[1] : NULL);
	expect(journal, keys[2], count >= 3 ? values[2] : NULL);
}

#endif
