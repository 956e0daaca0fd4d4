/*
 * The command line and the check of the mount point.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/options.h"

static int read_words(struct options *options, char **error, const char *words)
{
	char *argv[32], *copy = strdup(words), *rest = copy, *word;
	int argc = 0, status;

	*error = NULL;
	argv[argc++] = (char[]){ "blockjobfs" };
	while ((word = strsep(&rest, " ")))
		argv[argc++] = word;
	log_open();
	status = options_read(options, argc, argv, "/here", error);
	free(copy);
	return status;
}

/* What is left for libfuse, words with a blank in front. */
static char *left(const struct options *options)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	for (int i = 1; i < options->mount.argc; i++)
		fprintf(out, " %s", options->mount.argv[i]);
	fclose(out);
	return text;
}

static void assert_taken(const char *words)
{
	struct options options;
	char *error;

	cr_assert_eq(read_words(&options, &error, words), 0, "%s: %s", words, error);
	options_clear(&options);
}

static void assert_refused(const char *words, const char *reason)
{
	struct options options;
	char *error;

	cr_assert_eq(read_words(&options, &error, words), -1, "%s", words);
	cr_assert(strstr(error, reason), "%s: %s", words, error);
	cr_assert_null(strchr(error, '\n'));
	free(error);
	options_clear(&options);
}

/* Would catch: the mount point taken for a source, or the other way round. */
Test(fs_options, the_last_word_is_the_mount_point)
{
	struct options options;
	char *error;

	cr_assert_eq(read_words(&options, &error, "a -f b=unix:/x c -o timeout=3 /mnt"), 0);
	cr_assert_eq(options.source_count, 3);
	cr_assert_str_eq(options.sources[1], "b=unix:/x");
	cr_assert_str_eq(options.mountpoint, "/mnt");
	cr_assert(options.foreground && !options.debug);
	cr_assert_eq(options.timeout_s, 3);
	options_clear(&options);
	assert_refused("/mnt", "MOUNTPOINT");
	assert_refused("-f", "SOURCE and MOUNTPOINT");
}

Test(fs_options, own_options)
{
	struct options options;
	char *error;

	cr_assert_eq(read_words(&options, &error,
				"-d -o runtime_dir=run,state_dir=state,format=raw s /mnt"),
		     0);
	cr_assert(options.debug && options.foreground);
	cr_assert_str_eq(options.format, "raw");
	/* The daemon will change to "/". */
	cr_assert(options.runtime_dir[0] == '/' && strstr(options.runtime_dir, "/run"));
	cr_assert(options.state_dir[0] == '/' && strstr(options.state_dir, "/state"));
	cr_assert_eq(options.timeout_s, 10);
	options_clear(&options);
}

Test(fs_options, timeouts)
{
	assert_taken("-o timeout=1 s /mnt");
	assert_taken("-o timeout=86400 s /mnt");
	assert_refused("-o timeout=0 s /mnt", "timeout=0");
	assert_refused("-o timeout=-1 s /mnt", "timeout=-1");
	assert_refused("-o timeout=+1 s /mnt", "timeout=+1");
	assert_refused("-o timeout=1s s /mnt", "timeout=1s");
	assert_refused("-o timeout=99999999999999999999 s /mnt", "timeout=");
	assert_refused("-o timeout= s /mnt", "timeout=");
}

/* Would catch: fstab lines that are refused, and those that make the mount less safe. */
Test(fs_options, options_of_mount_and_fstab)
{
	struct options options;
	char *error, *words;

	cr_assert_eq(read_words(&options, &error,
				"s /mnt -o "
				"rw,_netdev,nofail,auto,noauto,defaults,user,x-systemd.automount,"
				"dev,suid,exec,"
				"comment=abc,subtype=evil,fsname=vms -o ro"),
		     0);
	words = left(&options);
	cr_assert(options.read_only && !strstr(words, ",ro"));
	cr_assert(strstr(words, "nodev") && strstr(words, "nosuid") && strstr(words, "noexec"));
	cr_assert(strstr(words, "default_permissions"));
	cr_assert(strstr(words, "subtype=blockjobfs") && strstr(words, "fsname=vms"));
	cr_assert(!strstr(words, "evil") && !strstr(words, "netdev") &&
		  !strstr(words, "x-systemd"));
	cr_assert(!strstr(words, "exec,") || strstr(words, "noexec"));
	cr_assert_eq(!!strstr(words, "allow_other"), geteuid() == 0);
	free(words);
	options_clear(&options);
}

/* Would catch: the verbs after the first comma taken for options of the mount, folders that hang on where it was started. */
Test(fs_options, what_others_may_do)
{
	struct options options;
	char *error, *words;

	cr_assert_eq(read_words(&options, &error,
				"-o allow=pull,speed,nofail,pause,image_dir=/pool,image_dir=sub "
				"-o abort s /mnt"),
		     0, "%s", error);
	words = left(&options);
	cr_assert(!strstr(words, "speed") && !strstr(words, "pause") && !strstr(words, "abort"));
	free(words);
	cr_assert_str_eq(options.allow, "pull,speed,pause,abort");
	cr_assert_eq(options.image_dir_count, 2);
	cr_assert_str_eq(options.image_dirs[0], "/pool");
	cr_assert(options.image_dirs[1][0] == '/' && strstr(options.image_dirs[1], "/sub"));
	options_clear(&options);
	assert_taken("-o allow=none s /mnt");
	assert_taken("-o allow=all s /mnt");
	assert_taken("-o allow=pull\\,speed s /mnt");
	assert_refused("-o allow=spede s /mnt", "spede is no verb");
	assert_refused("-o allow=progress s /mnt", "progress is no verb");
	assert_refused("-o allow= s /mnt", "allow=");
	assert_refused("-o image_dir= s /mnt", "image_dir=");
}

Test(fs_options, help_and_the_like_need_no_more_words)
{
	struct options options;
	char *error;

	cr_assert_eq(read_words(&options, &error, "-h"), 0);
	cr_assert(options.help);
	options_clear(&options);
	cr_assert_eq(read_words(&options, &error, "-V"), 0);
	cr_assert(options.version);
	options_clear(&options);
	cr_assert_eq(read_words(&options, &error, "--list-files"), 0);
	cr_assert(options.list_files);
	options_clear(&options);
}

Test(fs_options, an_option_without_its_word)
{
	assert_refused("s /mnt -o", "-o");
}

/* --- mount points --- */

static char folder[] = "/tmp/blockjobfs-test-XXXXXX";

static void assert_unfit(const char *path, const char *reason)
{
	char *absolute = NULL, *error = NULL;

	cr_assert_eq(mount_check(path, &absolute, &error), -1, "%s", path);
	cr_assert(strstr(error, reason), "%s", error);
	cr_assert_null(strchr(error, '\n'));
	cr_assert_null(absolute);
	free(error);
}

/* Would catch: a mount point that cannot be found any more from "/". */
Test(fs_mount, a_folder_is_fit_and_made_absolute)
{
	char *absolute = NULL, *error = NULL;

	if (access("/dev/fuse", F_OK))
		cr_skip_test("no /dev/fuse");
	cr_assert(mkdtemp(folder));
	cr_assert_eq(chdir(folder), 0);
	cr_assert_eq(mount_check(".", &absolute, &error), 0, "%s", error);
	cr_assert_str_eq(absolute, folder);
	free(absolute);
	cr_assert_eq(rmdir(folder), 0);
}

Test(fs_mount, what_is_no_folder_is_not)
{
	assert_unfit("/does/not/exist", "does not exist");
	assert_unfit("/dev/null", "is not a directory");
	assert_unfit("/dev/null/x", "Not a directory");
}

/* Would catch: three lines of libfuse and fusermount3 where one is promised. */
Test(fs_mount, what_is_said_on_standard_error_is_kept)
{
	struct mount_words words;

	mount_words_begin(&words);
	fprintf(stderr, "fusermount3: no\nmore\n");
	mount_words_end(&words);
	cr_assert_str_eq(words.text, "no");
	mount_words_begin(&words);
	mount_words_end(&words);
	cr_assert_str_eq(words.text, "");
}
