/*
 * What a session keeps for the next server of the same mount: what it has written when it is killed is what the next one finds.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fs/kept.h"

static int memory;

static void make_memory(void)
{
	memory = kept_new();
	cr_assert_geq(memory, 0);
}

static void drop_memory(void)
{
	close(memory);
}

TestSuite(fs_kept, .init = make_memory, .fini = drop_memory);

/* The next life: what is mapped anew. */
static struct kept *again(struct kept *kept)
{
	kept_close(kept);
	kept = kept_open(memory);
	cr_assert_not_null(kept);
	return kept;
}

static size_t found;
static uint64_t numbers[16];

static void on_waiting(void *data, uint64_t unique)
{
	numbers[found++] = unique;
}

static void on_file(void *data, struct kept_file *file)
{
	numbers[found++] = file->number;
}

Test(fs_kept, init)
{
	/* Catches an INIT that is not what the kernel has sent. */
	struct kept *kept = kept_open(memory);
	size_t length;

	cr_assert_null(kept_init(kept, &length));
	kept_set_init(kept, "the first message", 17);
	kept = again(kept);
	cr_assert_arr_eq(kept_init(kept, &length), "the first message", 17);
	cr_assert_eq(length, 17);
	kept_close(kept);
}

Test(fs_kept, requests)
{
	/* Catches a request that hangs for ever in a kernel that does not send it again, and an answer to one that has had it. */
	struct kept *kept = kept_open(memory);
	uint64_t message[8] = { 0, 70 };

	cr_assert_eq(kept_waits(kept, 10, 10, 1000), 1000);
	kept_waits(kept, 12, 12, 2000);
	kept_waits(kept, 14, 14, 3000);
	kept_answered(kept, 12);
	kept_answered(kept, 99);
	memcpy(kept_message(kept, 1 << 20), message, sizeof(message));
	kept = again(kept);
	/* Sent again: it has waited since it was sent first. */
	cr_assert_eq(kept_waits(kept, UINT64_C(1) << 63 | 14, 14, 9000), 3000);
	kept_answered(kept, UINT64_C(1) << 63 | 14);
	kept_waits(kept, 16, 16, 9000);
	found = 0;
	kept_each_waiting(kept, on_waiting, NULL);
	cr_assert_eq(found, 3);
	cr_assert_eq(numbers[0], 70, "the one that was being served");
	cr_assert_eq(numbers[1] + numbers[2], 26);
	found = 0;
	memset(kept_message(kept, 1 << 20), 0, sizeof(message));
	kept_each_waiting(kept, on_waiting, NULL);
	cr_assert_eq(found, 0);
	cr_assert_null(kept_message(kept, 1 << 30));
	kept_close(kept);
}

Test(fs_kept, open_files)
{
	/* Catches an open file that is forgotten, one that comes back after it was closed, and a place that two have. */
	struct kept *kept = kept_open(memory);
	struct kept_file *files[3];

	for (int i = 0; i < 3; i++) {
		files[i] = kept_file_new(kept);
		files[i]->uid = 1000 + (uid_t)i;
		files[i]->number = 1 + (uint64_t)i;
	}
	kept_file_new(kept); /* killed before it counted */
	kept_file_free(kept, files[1]);
	kept = again(kept);
	found = 0;
	kept_each_file(kept, on_file, NULL);
	cr_assert_eq(found, 2);
	cr_assert(numbers[0] == 1 && numbers[1] == 3);
	for (int i = 0; i < 3; i++) {
		struct kept_file *file = kept_file_new(kept);

		cr_assert_eq(file->number, 0, "it has a place that is taken");
		file->number = 100 + (uint64_t)i;
	}
	found = 0;
	kept_each_file(kept, on_file, NULL);
	cr_assert_eq(found, 5);
	kept_close(kept);
}

Test(fs_kept, foreign)
{
	/* Catches a memory of another version that is believed. */
	int other = memfd_create("other", 0);
	uint32_t size = 1;

	cr_assert_null(kept_open(other));
	cr_assert_eq(pwrite(memory, &size, sizeof(size), 8), (ssize_t)sizeof(size));
	cr_assert_null(kept_open(memory));
	close(other);
}

Test(fs_kept, nothing_is_kept)
{
	/* Catches a crash where there is no keeper. */
	size_t length;

	kept_set_init(NULL, "x", 1);
	cr_assert_null(kept_init(NULL, &length));
	cr_assert_eq(kept_waits(NULL, 1, 1, 5), 5);
	kept_answered(NULL, 1);
	kept_each_waiting(NULL, on_waiting, NULL);
	cr_assert_null(kept_file_new(NULL));
	kept_file_free(NULL, NULL);
	kept_each_file(NULL, on_file, NULL);
	kept_close(NULL);
}
