/* What is to be deleted: which files may be, whether one is still the same, and that the list survives in a record. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/deletion.h"
#include "jobs/file_users.h"
#include "jobs/json.h"
#include "qmp/value.h"

static char folder[] = "/tmp/bjfs-deletion-XXXXXX";
static char file[64], other[64];

static void make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	cr_assert(fd >= 0);
	close(fd);
}

static void begin(void)
{
	cr_assert(mkdtemp(folder));
	snprintf(file, sizeof(file), "%s/image", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	make(file);
}

static void end(void)
{
	unlink(file);
	unlink(other);
	rmdir(folder);
}

TestSuite(deletion, .init = begin, .fini = end);

static int look(char *path, struct doomed *image)
{
	const char *reason = NULL;

	*image = (struct doomed){ .path = path };
	return doomed_look(image, &reason);
}

Test(deletion, only_regular_files)
{
	static const char *const none[] = { "",
					    "nbd://host/disk",
					    "json:{\"driver\":\"nbd\"}",
					    "image.qcow2",
					    "/dev/null",
					    "/proc/self/exe",
					    "/tmp" };
	struct doomed image;

	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		cr_expect_eq(look((char *)none[i], &image), -EINVAL, "%s", none[i]);
	cr_assert_eq(symlink(file, other), 0);
	cr_expect_eq(look(other, &image), -EINVAL);
	cr_expect_eq(unlink(other), 0);
	cr_expect_eq(look(other, &image), -ENOENT);
	cr_expect_eq(look(file, &image), 0);
}

Test(deletion, a_new_file_of_the_same_name_is_another)
{
	struct doomed first, again, second;

	cr_assert_eq(look(file, &first), 0);
	cr_assert_eq(look(file, &again), 0);
	cr_expect(doomed_is(&first, &again));
	/* The number of an inode may be used again at once. */
	cr_assert_eq(unlink(file), 0);
	usleep(20000); /* the clock of inodes has ticks */
	make(file);
	cr_assert_eq(look(file, &second), 0);
	cr_expect(second.born_ns < 0 || !doomed_is(&first, &second));
	second = first;
	second.born_ns++;
	cr_expect_not(doomed_is(&first, &second));
}

Test(deletion, survives_in_a_record)
{
	struct deletion *list = deletion_new(2), *back;
	struct text *record = json_new();
	struct qmp_value *read;

	list->images[0] = (struct doomed){ strdup("/a \"b\"\n"), 7, UINT64_MAX, -1, false };
	list->images[1] =
		(struct doomed){ strdup("/c"), UINT64_MAX - 1, 3, 1795250000123456789, false };
	list->begun = true;
	deletion_put(record, list);
	json_close(record, '}');
	read = qmp_value_parse(text_bytes(record), text_length(record), NULL);
	back = deletion_take(read);
	cr_assert(back);
	cr_assert_eq(back->count, 2);
	cr_expect(back->begun);
	for (int i = 0; i < 2; i++) {
		cr_expect_str_eq(back->images[i].path, list->images[i].path);
		cr_expect(doomed_is(&back->images[i], &list->images[i]));
	}
	deletion_free(list);
	deletion_free(back);
	text_free(record);
	qmp_value_free(read);
}

Test(deletion, none_is_none_and_damage_is_no_file)
{
	static const char damaged[] = "{\"delete\": [{\"path\": 5}, 7, {\"inode\": \"x\"}]}";
	struct text *record = json_new();
	struct qmp_value *bad;
	struct deletion *list;
	const char *reason;

	deletion_put(record, NULL);
	cr_expect_str_eq(text_bytes(record), "{");
	cr_expect_null(deletion_take(NULL));
	bad = qmp_value_parse(damaged, strlen(damaged), NULL);
	list = deletion_take(bad);
	cr_assert(list);
	cr_assert_eq(list->count, 3);
	for (size_t i = 0; i < 3; i++)
		cr_expect_eq(doomed_look(&list->images[i], &reason), -EINVAL);
	deletion_free(list);
	text_free(record);
	qmp_value_free(bad);
}

/* --- who uses a file --- */

static void expect_used(const struct doomed *image, const struct file_users *users, const char *by)
{
	char *reason = file_used_by(image, users);

	cr_assert(reason ? by && strstr(reason, by) : !by, "%s", reason ? reason : "not used");
	free(reason);
}

Test(deletion, a_chain_uses_it_by_any_name)
{
	struct file_user user = { .name = (char *)"web1/vda" };
	struct file_users users = { .list = &user, .count = 1 };
	struct doomed image;

	cr_assert_eq(look(file, &image), 0);
	user.path = other;
	expect_used(&image, &users, NULL);
	cr_assert_eq(link(file, other), 0);
	expect_used(&image, &users, "web1/vda");
	cr_assert_eq(unlink(other), 0);
	cr_assert_eq(symlink(file, other), 0);
	expect_used(&image, &users, "web1/vda");
	user.path = file;
	expect_used(&image, &users, "web1/vda");
}

Test(deletion, a_process_at_a_monitor_has_it_open)
{
	pid_t self = getpid();
	struct file_users users = { .peers = &self, .peer_count = 1 };
	struct doomed image;
	int fd;

	cr_assert_eq(look(file, &image), 0);
	expect_used(&image, &users, NULL);
	fd = open(file, O_RDONLY);
	expect_used(&image, &users, "has it open");
	close(fd);
	expect_used(&image, &users, NULL);
}

Test(deletion, a_qemu_has_locked_it)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1 };
	struct file_users none = { 0 };
	struct doomed image;
	int fd;

	cr_assert_eq(look(file, &image), 0);
	fd = open(file, O_RDONLY);
	expect_used(&image, &none, NULL);
	cr_assert_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
	expect_used(&image, &none, "locked");
	/* That is evidence, too, that a QEMU means this very file by the name. */
	cr_expect(file_is_that_of(&image, 0));
	close(fd);
	cr_expect_not(file_is_that_of(&image, 0));
	cr_expect(file_is_that_of(&image, getpid()));
}
