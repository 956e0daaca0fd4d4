/*
 * Who may do what with a file, over the kernel's side of FUSE: chown, chmod, the verbs that others have, and whose credentials count.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "fs/verbs.h"
#include "jobs/policy.h"
#include "tests/fake/kernel.h"

enum {
	USER = 1000,
	OTHER = 1001,
};

static struct kernel *start(void)
{
	struct kernel *kernel = kernel_new(false);

	kernel_face(kernel)->overrides = true;
	return kernel;
}

static int setattr(struct kernel *kernel, const char *path, uint32_t valid, uint32_t mode,
		   uint32_t uid)
{
	struct fuse_setattr_in in = { .valid = valid, .mode = mode, .uid = uid, .gid = uid };

	return kernel_wait(kernel, kernel_send(kernel, FUSE_SETATTR, kernel_walk(kernel, path), &in,
					       sizeof(in), NULL, 0))
		->error;
}

static int chown_to(struct kernel *kernel, const char *path, uint32_t uid)
{
	return setattr(kernel, path, FATTR_UID | FATTR_GID, 0, uid);
}

static struct fuse_attr attributes(struct kernel *kernel, const char *path)
{
	struct fuse_attr attr;

	cr_assert_eq(kernel_getattr(kernel, kernel_walk(kernel, path), &attr), 0);
	return attr;
}

#define DISK "domains/vm/disks/vda"

/* Would catch: a mode that is shown to some and not to others, a chmod that looks like a change of content, bits that mean nothing. */
Test(fs_access, chown_and_chmod_show_and_are_no_change_of_content)
{
	struct kernel *kernel = start();
	struct fuse_attr before = attributes(kernel, DISK "/pull"), after, entry_attr;
	struct fuse_entry_out entry;

	cr_assert_eq(chown_to(kernel, DISK "/pull", USER), 0);
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_MODE, S_IFREG | 07640, 0), 0);
	after = attributes(kernel, DISK "/pull");
	cr_assert_eq(after.uid, USER);
	cr_assert_eq(after.gid, USER);
	cr_assert_eq(after.mode, S_IFREG | 0640);
	cr_assert_eq(after.mtime, before.mtime);
	cr_assert_eq(after.mtimensec, before.mtimensec);
	cr_assert(after.ctime > before.ctime || after.ctimensec > before.ctimensec);
	cr_assert_eq(kernel_lookup(kernel, kernel_walk(kernel, DISK), "pull", &entry), 0);
	entry_attr = entry.attr;
	cr_assert_eq(memcmp(&entry_attr, &after, sizeof(after)), 0);
	cr_assert_eq(entry.attr_valid + entry.entry_valid + entry.entry_valid_nsec, 0);
	cr_assert_eq(attributes(kernel, DISK "/speed").uid, before.uid);
	cr_assert_eq(attributes(kernel, DISK).uid, before.uid);
	kernel_free(kernel);
}

/* Would catch: a user who gives away what was delegated to him, or takes what was not; modes that outlive -o ro. */
Test(fs_access, who_may_change_what)
{
	struct kernel *kernel = start();

	cr_assert_eq(chown_to(kernel, DISK "/pull", USER), 0);
	kernel_set_user(kernel, USER, USER, 100);
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_MODE, 0600, 0), 0);
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_UID, 0, USER), 0, "no change is none");
	cr_assert_eq(chown_to(kernel, DISK "/pull", OTHER), -EPERM);
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_UID | FATTR_MODE, 0666, OTHER), -EPERM);
	cr_assert_eq(attributes(kernel, DISK "/pull").mode, S_IFREG | 0600);
	cr_assert_eq(setattr(kernel, DISK "/speed", FATTR_MODE, 0666, 0), -EPERM);
	cr_assert_eq(chown_to(kernel, DISK "/speed", USER), -EPERM);
	kernel_set_user(kernel, 0, 0, 100);
	for (size_t i = 0; i < 3; i++) {
		static const char *const paths[] = { "domains", "version", "" };

		cr_assert_eq(chown_to(kernel, paths[i], USER), -EPERM, "%s", paths[i]);
		cr_assert_eq(setattr(kernel, paths[i], FATTR_MODE, 0777, 0), -EPERM, "%s",
			     paths[i]);
	}
	kernel_face(kernel)->overrides = false;
	cr_assert_eq(chown_to(kernel, DISK "/speed", USER), -EPERM, "nobody could be told");
	kernel_face(kernel)->read_only = true;
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_MODE, 0666, 0), -EROFS);
	kernel_free(kernel);
}

/* Would catch: rights that are looked up when a command comes instead of when its file was opened. */
Test(fs_access, who_opened_counts_not_who_writes)
{
	struct kernel *kernel = start();
	uint64_t node = kernel_walk(kernel, DISK "/pull"), users, roots;

	kernel_set_user(kernel, USER, USER, 100);
	cr_assert_eq(kernel_open(kernel, node, O_WRONLY, &users), 0);
	kernel_set_user(kernel, 0, 0, 101);
	cr_assert_eq(kernel_open(kernel, node, O_WRONLY, &roots), 0);
	policy_set_domain_verbs(kernel_face(kernel)->model->domains, "speed");
	cr_assert_eq(kernel_write(kernel, node, users, 0, "bandwidth=1\n"), -EPERM,
		     "root writes what a user has opened");
	cr_assert_eq(setattr(kernel, DISK "/pull", FATTR_MODE, 0, 0), 0);
	kernel_set_user(kernel, USER, USER, 100);
	cr_assert_eq(kernel_write(kernel, node, roots, 0, "generation=77\n"), -ESTALE,
		     "a user writes what root has opened");
	kernel_release(kernel, node, users);
	kernel_release(kernel, node, roots);
	kernel_free(kernel);
}

/* Would catch: a verb that slips through, a refusal without its reason, an owner who is bound by what he allows others. */
Test(fs_access, verbs)
{
	struct kernel *kernel = start();
	char *text;

	cr_assert_eq(kernel_echo(kernel, "domains/vm/allow", "speed,pause\n"), 0);
	text = kernel_cat(kernel, "domains/vm/allow");
	cr_assert_str_eq(text, "speed,pause\n");
	free(text);
	kernel_set_user(kernel, USER, USER, 100);
	cr_assert_eq(kernel_echo(kernel, DISK "/pull", "nonsense\n"), -EPERM,
		     "rights come before words");
	text = kernel_cat(kernel, DISK "/error");
	cr_assert(strstr(text, "EPERM: pull is for the mount's owner alone") &&
			  strstr(text, "speed,pause"),
		  "%s", text);
	free(text);
	cr_assert_eq(kernel_echo(kernel, DISK "/speed", "1M\n"), -ESRCH);
	cr_assert_eq(kernel_echo(kernel, "domains/vm/allow", "all\n"), -EPERM);
	kernel_set_user(kernel, 0, 0, 100);
	cr_assert_eq(kernel_echo(kernel, DISK "/pull", "generation=77\n"), -ESTALE);
	cr_assert_eq(kernel_echo(kernel, "domains/vm/allow", "speed,progress\n"), -EINVAL);
	text = kernel_cat(kernel, "domains/vm/error");
	cr_assert(strstr(text, "progress is no verb"), "%s", text);
	free(text);
	cr_assert_eq(kernel_echo(kernel, "domains/vm/allow", "none\n"), 0);
	kernel_set_user(kernel, USER, USER, 100);
	cr_assert_eq(kernel_echo(kernel, DISK "/speed", "1M\n"), -EPERM);
	kernel_set_user(kernel, 0, 0, 100);
	policy_set_verbs(kernel_face(kernel)->model->policy, "abort");
	cr_assert_eq(kernel_echo(kernel, "domains/vm/allow", "\n"), 0);
	text = kernel_cat(kernel, "domains/vm/allow");
	cr_assert_str_eq(text, "abort\n");
	free(text);
	kernel_free(kernel);
}

static void assert_list(const char *text, const char *wanted)
{
	size_t bad, length;
	char *verbs;

	cr_assert_eq(verbs_read(text, &verbs, &bad, &length), wanted != NULL, "%s", text);
	if (wanted)
		cr_assert_str_eq(verbs, wanted);
	free(verbs);
}

Test(fs_access, lists_of_verbs)
{
	struct text *all = text_new();

	assert_list("speed,pull", "pull,speed");
	assert_list(",,speed,,speed,", "speed");
	assert_list("speed pull", "pull,speed");
	assert_list("none", "");
	assert_list("all", "all");
	assert_list("", NULL);
	assert_list(",", NULL);
	assert_list("all,pull", NULL);
	assert_list("pul", NULL);
	assert_list("pulls", NULL);
	assert_list("status", NULL);
	assert_list("pull\n", NULL);
	verbs_show("all", all);
	cr_assert(!strncmp(text_bytes(all), "pull,commit,copy,", 17), "%s", text_bytes(all));
	text_clear(all);
	verbs_show("", all);
	cr_assert_str_eq(text_bytes(all), "none");
	text_free(all);
}
