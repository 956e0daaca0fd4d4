/*
 * Ids of jobs: what one life of the daemon writes into them, the next one reads: whose job it is, and on which disk. A job that ended
 * while nobody looked is found by its id alone.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "jobs/job.h"

static const char *const disks[] = {
	"disk0",
	"a-b",
	"commit",
	"active-commit",
	"create-0123456789abcdef",
	"-x",
	"we ird",
	"x-0.5",
	"d\xc3\xa4sk",
	"a name of more bytes than are kept of it in an id, which is sixty-four of them",
};

Test(job_id, is_read_as_it_was_written)
{
	const struct who by = { .uid = 1000, .pid = 4711 };

	for (uint64_t number = 1; number < 1ull << 60; number *= 33) {
		for (size_t disk = 0; disk < sizeof(disks) / sizeof(*disks); disk++) {
			char *id = job_id_new(disks[disk], &by, number);
			struct who read = { 0 };

			cr_assert(job_id_read(id, disks[disk], &read), "%s", id);
			cr_assert(read.uid == by.uid && read.pid == by.pid, "%s", id);
			for (size_t other = 0; other < sizeof(disks) / sizeof(*disks); other++)
				cr_assert(other == disk || !job_id_read(id, disks[other], &read),
					  "%s is no job of %s", id, disks[other]);
			free(id);
		}
	}
}

Test(job_id, of_somebody_else_is_not_ours)
{
	static const char *const ids[] = {
		"",
		"drive-disk0",
		"blockjobfs",
		"blockjobfs-",
		"blockjobfs-disk0",
		"blockjobfs-disk0-0.1",
		"blockjobfs-disk0-0.1-",
		"blockjobfs-disk0-0.1-0123456",
		"blockjobfs-disk0-0.1-012345678",
		"blockjobfs-disk0-0.1-0123456l",
		"blockjobfs-disk0-0.1-0123456A",
		"blockjobfs-walk-disk0-0.1-01234567",
		"xblockjobfs-disk0-0.1-01234567",
	};
	struct who by;

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
		cr_assert_not(job_id_read(ids[i], "disk0", &by), "%s", ids[i]);
	cr_assert(job_id_read("blockjobfs-disk0-0.1-01234567", "disk0", &by));
}
