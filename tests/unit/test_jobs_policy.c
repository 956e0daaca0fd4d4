/*
 * Where others than the mount's owner may have images made and deleted (jobs/policy_images.c), on real folders with real links.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/policy.h"

static const struct who user = { .uid = 4242, .gid = 4242, .pid = 1 };

static char top[64];
static struct policy *policy;

/* A path below the test's own folder: a static place for each of the last eight. */
__attribute__((format(printf, 1, 2))) static const char *at(const char *format, ...)
{
	static char paths[8][8192];
	static unsigned last;
	char *path = paths[++last % 8];
	int length = snprintf(path, sizeof(paths[0]), "%s/", top);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + length, sizeof(paths[0]) - (size_t)length, format, arguments);
	va_end(arguments);
	return path;
}

static void make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	cr_assert(fd >= 0, "%s", path);
	close(fd);
}

/*
 * pool/ is an image folder: file, hard, sub/deep, and links (link, flink, dangling, sub/up) that lead out of it. outside/secret and
 * poolx/ are nobody's business.
 */
static void set_up(void)
{
	char *reason = NULL;

	umask(022);
	snprintf(top, sizeof(top), "/tmp/bjfs-policy-XXXXXX");
	cr_assert(mkdtemp(top));
	cr_assert(chmod(top, 0755) == 0);
	cr_assert(mkdir(at("pool"), 0755) == 0 && mkdir(at("pool/sub"), 0755) == 0);
	cr_assert(mkdir(at("pool/sub/deep"), 0755) == 0 && mkdir(at("poolx"), 0755) == 0);
	cr_assert(mkdir(at("outside"), 0755) == 0);
	make_file(at("pool/file"));
	make_file(at("outside/secret"));
	cr_assert(link(at("outside/secret"), at("pool/hard")) == 0);
	cr_assert(symlink(at("outside"), at("pool/link")) == 0);
	cr_assert(symlink(at("outside/secret"), at("pool/flink")) == 0);
	cr_assert(symlink(at("outside/new"), at("pool/dangling")) == 0);
	cr_assert(symlink("..", at("pool/sub/up")) == 0);
	cr_assert(mkfifo(at("pool/fifo"), 0644) == 0);
	policy = policy_new();
	cr_assert_eq(policy_add_folder(policy, at("pool"), &reason), 0, "%s", reason);
}

static void tear_down(void)
{
	char command[128];

	policy_free(policy);
	snprintf(command, sizeof(command), "rm -rf %s", top);
	cr_assert_eq(system(command), 0);
}

TestSuite(jobs_policy, .init = set_up, .fini = tear_down);

/* The result of policy_check_new(), whose promises about what it hands out are checked here. */
static int check_new(const char *path, const char *reuse, const char *wanted)
{
	char *canonical, *reason;
	int error = policy_check_new(policy, &user, path, reuse, &canonical, &reason);

	cr_assert_eq(!error, canonical != NULL, "%s", path);
	cr_assert_eq(!!error, reason && *reason, "%s", path);
	if (wanted)
		cr_assert_str_eq(canonical ? canonical : "", wanted);
	free(canonical);
	free(reason);
	return error;
}

Test(jobs_policy, paths_below_the_folder)
{
	cr_assert_eq(check_new(at("pool/new"), NULL, at("pool/new")), 0);
	cr_assert_eq(check_new(at("pool//sub/./deep///new"), NULL, at("pool/sub/deep/new")), 0);
	cr_assert_eq(check_new(at("/pool/..new"), NULL, at("pool/..new")), 0);
	cr_assert_eq(check_new(at("pool/missing/new"), NULL, NULL), -ENOENT);
	cr_assert_eq(check_new(at("pool/file/new"), NULL, NULL), -ENOTDIR);
	cr_assert_eq(check_new(at("pool/file"), NULL, NULL), -EEXIST);
	cr_assert_eq(check_new(at("pool/file"), "raw", at("pool/file")), 0);
}

/* Would catch: any way out of the folder. */
Test(jobs_policy, hostile_paths)
{
	static const struct {
		const char *path;
		int error;
	} paths[] = {
		{ "pool", -EPERM },
		{ "pool/", -EINVAL },
		{ "pool/.", -EPERM },
		{ "pool/new/", -EINVAL },
		{ "poolx/new", -EPERM },
		{ "poolx/../pool/new", -EPERM },
		{ "outside/new", -EPERM },
		{ "pool/..", -EPERM },
		{ "pool/../outside/new", -EPERM },
		{ "pool/sub/../../outside/new", -EPERM },
		{ "pool/sub/../new", -EPERM },
		{ "pool/link/new", -EPERM },
		{ "pool/link", -EPERM },
		{ "pool/link/", -EINVAL },
		{ "pool/flink", -EPERM },
		{ "pool/dangling", -EPERM },
		{ "pool/sub/up/new", -EPERM },
		{ "pool/sub/up/sub/up/sub/new", -EPERM },
	};
	char path[256];

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		cr_assert_eq(check_new(at("%s", paths[i].path), NULL, NULL), paths[i].error, "%s",
			     paths[i].path);
		cr_assert_eq(check_new(at("%s", paths[i].path), "raw", NULL), paths[i].error, "%s",
			     paths[i].path);
	}
	cr_assert_eq(check_new("pool/new", NULL, NULL), -EINVAL);
	cr_assert_eq(check_new("", NULL, NULL), -EINVAL);
	cr_assert_eq(check_new("/", NULL, NULL), -EINVAL);
	snprintf(path, sizeof(path), "/proc/self/root%s/pool/new", top);
	cr_assert_eq(check_new(path, NULL, NULL), -EPERM);
	snprintf(path, sizeof(path), "/proc/%d/cwd/new", (int)getpid());
	cr_assert_eq(check_new(path, NULL, NULL), -EPERM);
}

/* Would catch: what is overwritten being a file that has its place elsewhere, or none at all. */
Test(jobs_policy, what_is_there_already)
{
	cr_assert_eq(check_new(at("pool/file"), "qcow2", NULL), -EPERM);
	cr_assert_eq(check_new(at("pool/new"), "qcow2", at("pool/new")), 0);
	cr_assert_eq(check_new(at("pool/hard"), NULL, NULL), -EEXIST);
	cr_assert_eq(check_new(at("pool/hard"), "raw", NULL), -EPERM);
	cr_assert_eq(check_new(at("pool/sub"), "raw", NULL), -EPERM);
	cr_assert_eq(check_new(at("pool/fifo"), "raw", NULL), -EPERM);
}

Test(jobs_policy, long_paths)
{
	char name[5000];

	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = 0;
	cr_assert_eq(check_new(at("pool/%s", name), NULL, NULL), -ENAMETOOLONG);
	cr_assert_eq(check_new(at("pool/%.300s", name), NULL, NULL), -ENAMETOOLONG);
	cr_assert_eq(check_new(at("pool/%.300s/new", name), NULL, NULL), -ENAMETOOLONG);
	cr_assert_eq(check_new(at("pool/%.255s", name), NULL, NULL), 0);
	for (size_t i = 0; i + 1 < 4000; i += 2)
		memcpy(name + i, "./", 2);
	name[3900] = 0;
	cr_assert_eq(check_new(at("pool/%snew", name), NULL, at("pool/new")), 0);
}

/* Would catch: a user who swaps a folder for a link after our look and before QEMU's. */
Test(jobs_policy, folders_that_who_asks_can_change)
{
	cr_assert(chmod(at("pool/sub"), 0777) == 0);
	cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), -EPERM);
	cr_assert_eq(check_new(at("pool/sub/deep/new"), NULL, NULL), -EPERM);
	cr_assert_eq(check_new(at("pool/new"), NULL, NULL), 0);
	cr_assert(chmod(at("pool/sub"), 01777) == 0);
	cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), -EPERM);
	if (geteuid() == 0) {
		cr_assert(chmod(at("pool/sub"), 0755) == 0);
		cr_assert(chown(at("pool/sub"), user.uid, 0) == 0);
		cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), -EPERM);
		cr_assert(chown(at("pool/sub"), 0, user.gid) == 0);
		cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), 0);
		cr_assert(chmod(at("pool/sub"), 0775) == 0);
		cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), -EPERM);
		cr_assert(chown(at("pool/sub"), 0, 4343) == 0);
		cr_assert_eq(check_new(at("pool/sub/new"), NULL, NULL), 0);
	}
	cr_assert(chmod(at("pool"), 0777) == 0);
	cr_assert_eq(check_new(at("pool/new"), NULL, NULL), -EPERM);
}

Test(jobs_policy, folders_named_through_links_and_inside_each_other)
{
	struct policy *other = policy_new(), *first = policy;
	char *reason;

	cr_assert(symlink("pool", at("alias")) == 0);
	cr_assert_eq(policy_add_folder(other, at("alias/"), &reason), 0);
	cr_assert_eq(policy_add_folder(other, at("pool/link"), &reason), 0);
	policy = other;
	cr_assert_eq(check_new(at("alias/new"), NULL, at("pool/new")), 0);
	cr_assert_eq(check_new(at("pool/sub/new"), NULL, at("pool/sub/new")), 0);
	cr_assert_eq(check_new(at("pool/link/new"), NULL, at("outside/new")), 0);
	cr_assert_eq(check_new(at("alias/link/new"), NULL, NULL), -EPERM);
	cr_assert_eq(policy_add_folder(other, at("pool/file"), &reason), -ENOTDIR);
	free(reason);
	cr_assert_eq(policy_add_folder(other, at("nothing"), &reason), -ENOENT);
	cr_assert(strstr(reason, "nothing"));
	free(reason);
	policy_free(other);
	policy = first;
}

Test(jobs_policy, without_a_folder_only_the_owner)
{
	const struct who owner = { .uid = geteuid() }, root = { .uid = 0 };
	struct policy *none = policy_new();
	char *canonical, *reason;

	cr_assert_eq(policy_check_new(none, &user, at("pool/new"), NULL, &canonical, &reason),
		     -EPERM);
	free(reason);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(policy_check_new(none, i ? &owner : &root, at("pool/link/new"), NULL,
					      &canonical, &reason),
			     0);
		cr_assert_str_eq(canonical, at("pool/link/new"));
		free(canonical);
		cr_assert_eq(policy_check_new(none, i ? &owner : &root, at("pool/dangling"), NULL,
					      &canonical, &reason),
			     -EEXIST);
		free(reason);
	}
	policy_free(none);
}

/* --- deleting --- */

static int check_unlink(const struct who *by, const char *path, struct policy_file *file)
{
	char *reason;
	int error = policy_check_unlink(policy, by, path, file, &reason);

	cr_assert_eq(!!error, reason && *reason, "%s", path);
	free(reason);
	return error;
}

static int unlink_it(const struct who *by, const char *path, const struct policy_file *file)
{
	char *reason;
	int error = policy_unlink(policy, by, path, file, &reason);

	cr_assert_eq(!!error, reason && *reason, "%s", path);
	free(reason);
	return error;
}

Test(jobs_policy, deleting_below_the_folder)
{
	struct policy_file file, other;

	cr_assert_eq(check_unlink(&user, at("pool/file"), &file), 0);
	cr_assert_eq(check_unlink(&user, at("pool/hard"), &other), 0);
	cr_assert_eq(unlink_it(&user, at("pool/file"), &other), -ESTALE);
	cr_assert_eq(access(at("pool/file"), F_OK), 0);
	cr_assert_eq(unlink_it(&user, at("pool/file"), &file), 0);
	cr_assert_neq(access(at("pool/file"), F_OK), 0);
	cr_assert_eq(unlink_it(&user, at("pool/file"), &file), -ENOENT);
	cr_assert_eq(check_unlink(&user, at("outside/secret"), &file), -EPERM);
	cr_assert_eq(check_unlink(&user, at("pool/link/secret"), &file), -EPERM);
	cr_assert_eq(check_unlink(&user, at("pool/flink"), &file), -EPERM);
	cr_assert_eq(check_unlink(&user, at("pool/sub"), &file), -EPERM);
	cr_assert_eq(check_unlink(&user, at("pool/sub/../hard"), &file), -EPERM);
}

Test(jobs_policy, the_owner_deletes_anywhere_but_only_what_was_meant)
{
	const struct who owner = { .uid = geteuid() };
	struct policy_file file;

	cr_assert_eq(check_unlink(&owner, at("pool/flink"), &file), -EPERM);
	cr_assert_eq(check_unlink(&owner, at("pool/sub"), &file), -EPERM);
	cr_assert_eq(check_unlink(&owner, "secret", &file), -EINVAL);
	cr_assert_eq(check_unlink(&owner, "/", &file), -EINVAL);
	cr_assert_eq(check_unlink(&owner, at("pool/link/secret"), &file), 0);
	cr_assert(rename(at("outside/secret"), at("outside/kept")) == 0);
	make_file(at("outside/secret"));
	cr_assert_eq(unlink_it(&owner, at("pool/link/secret"), &file), -ESTALE);
	cr_assert_eq(unlink_it(&owner, at("pool/link/kept"), &file), 0);
	cr_assert_neq(access(at("outside/kept"), F_OK), 0);
	cr_assert_eq(access(at("outside/secret"), F_OK), 0);
}

struct swapping {
	char folder[128], link[128];
	volatile bool over;
};

static void *swap(void *data)
{
	struct swapping *swapping = data;

	while (!swapping->over)
		renameat2(AT_FDCWD, swapping->folder, AT_FDCWD, swapping->link, RENAME_EXCHANGE);
	return NULL;
}

/* Would catch: a file outside that is deleted because a folder was swapped for a link meanwhile. */
Test(jobs_policy, a_link_that_comes_and_goes)
{
	int folder = open(at("pool/sub"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct swapping swapping = { .over = false };
	unsigned deleted = 0, refused = 0;
	struct policy_file file;
	pthread_t thread;
	const char *path = at("pool/sub/secret"), *outside = at("outside/secret");

	strcpy(swapping.folder, at("pool/sub"));
	strcpy(swapping.link, at("pool/link"));
	make_file(path);
	cr_assert_eq(pthread_create(&thread, NULL, swap, &swapping), 0);
	for (int i = 0; i < 200000 && (deleted < 200 || refused < 200); i++) {
		char *reason = NULL;
		int error = policy_check_unlink(policy, &user, path, &file, &reason);

		if (!error)
			error = policy_unlink(policy, &user, path, &file, &reason);
		free(reason);
		cr_assert_eq(access(outside, F_OK), 0);
		cr_assert(!error || error == -EPERM || error == -ENOTDIR, "%d", error);
		deleted += !error;
		refused += !!error;
		if (!error)
			close(openat(folder, "secret", O_WRONLY | O_CREAT | O_EXCL, 0644));
	}
	swapping.over = true;
	pthread_join(thread, NULL);
	close(folder);
	cr_assert(deleted && refused, "deleted %u, refused %u", deleted, refused);
}
