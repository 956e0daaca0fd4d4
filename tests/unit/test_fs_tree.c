/*
 * The tree as the kernel sees it: names, attributes, listings, contents, of every row.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "tests/fake/kernel.h"

static const char *const folders[] = { "", "domains/vm", "domains/vm/disks/vda" };

static const struct file *table_of(int folder)
{
	const struct file *const tables[] = { root_files, domain_files, disk_files };

	return tables[folder];
}

static char *path_of(int folder, const struct file *file)
{
	char *path = NULL;

	cr_assert_gt(asprintf(&path, "%s/%s", folders[folder], file->name), 0);
	return path;
}

static void check_file(struct kernel *kernel, const char *path, const struct file *file)
{
	uint64_t node = kernel_walk(kernel, path);
	struct fuse_attr attr;
	char *text = kernel_cat(kernel, path);

	cr_assert_eq(kernel_getattr(kernel, node, &attr), 0);
	cr_assert_eq(attr.ino, node);
	cr_assert_eq(attr.mode, file->mode, "%s", path);
	/* It counts requests, so it may become longer by being looked at. */
	if (strcmp(file->name, "metrics.prom"))
		cr_assert_eq(attr.size, strlen(text), "%s: %s", path, text);
	cr_assert_eq(attr.nlink, 1);
	cr_assert_neq(attr.mtime, 0);
	cr_assert(attr.mtime == attr.ctime && attr.mtimensec == attr.ctimensec);
	cr_assert(attr.mtime == attr.atime && attr.mtimensec == attr.atimensec);
	free(text);
}

/* Would catch: a row that cannot be reached, or whose size in stat is not what reading gives. */
Test(fs_tree, every_row_is_there_and_as_long_as_stat_says)
{
	struct kernel *kernel = kernel_new(false);

	for (int folder = 0; folder < 3; folder++) {
		for (const struct file *file = table_of(folder); file->name; file++) {
			char *path = path_of(folder, file);

			if (S_ISREG(file->mode))
				check_file(kernel, path, file);
			else
				kernel_walk(kernel, path);
			free(path);
		}
	}
	kernel_free(kernel);
}

static void check_listing(struct kernel *kernel, int folder, uint32_t size)
{
	char *names = kernel_list(kernel, kernel_walk(kernel, folders[folder]), size), *wanted;
	size_t length;
	FILE *out = open_memstream(&wanted, &length);

	fputs(".\n..\n", out);
	for (const struct file *file = table_of(folder); file->name; file++)
		fprintf(out, "%s\n", file->name);
	fclose(out);
	cr_assert_str_eq(names, wanted);
	free(names);
	free(wanted);
}

/* Would catch: entries lost or repeated where one READDIR's buffer ends, whatever its size. */
Test(fs_tree, listings_have_every_row_once)
{
	struct kernel *kernel = kernel_new(false);

	for (int folder = 0; folder < 3; folder++) {
		check_listing(kernel, folder, 4096);
		check_listing(kernel, folder, 40);
		check_listing(kernel, folder, 100);
	}
	kernel_free(kernel);
}

/* Would catch: contents that differ from the interface's words. */
Test(fs_tree, contents)
{
	static const struct {
		const char *path, *text;
	} wanted[] = {
		{ "version", "blockjobfs " BLOCKJOBFS_VERSION "\n" },
		{ "domains/vm/state", "connected running\n" },
		{ "domains/vm/error", "" },
		{ "domains/vm/disks/vda/chain", "/vm/top.qcow2\n/vm/mid.qcow2\n/vm/base.qcow2\n" },
		{ "domains/vm/disks/vda/source", "/vm/top.qcow2\n" },
		{ "domains/vm/disks/vda/format", "qcow2\n" },
		{ "domains/vm/disks/vda/size", "67108864\n" },
		{ "domains/vm/disks/vda/status", "idle\n" },
		{ "domains/vm/disks/vda/wait", "idle\n" },
		{ "domains/vm/disks/vda/progress", "0 0\n" },
		{ "domains/vm/disks/vda/speed", "0\n" },
		{ "domains/vm/disks/vda/pause", "0\n" },
		{ "domains/vm/disks/vda/error", "" },
		{ "domains/vm/disks/vda/history", "" },
		{ "domains/vm/disks/vda/job", "state idle\ngeneration 1\n" },
	};
	struct kernel *kernel = kernel_new(false);

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		char *text = kernel_cat(kernel, wanted[i].path);

		cr_assert_str_eq(text, wanted[i].text, "%s: %s", wanted[i].path, text);
		free(text);
	}
	kernel_free(kernel);
}

/* Would catch: usage that is not from the row's keys. */
Test(fs_tree, a_control_file_reads_as_its_usage)
{
	struct kernel *kernel = kernel_new(false);
	char *usage = kernel_cat(kernel, "domains/vm/disks/vda/pull");

	cr_assert(strstr(usage, "base=IMAGE"));
	cr_assert(strstr(usage, "on-error"));
	cr_assert(strstr(usage, "> pull\n"));
	free(usage);
	kernel_free(kernel);
}

/* Would catch: a link count that find(1) stumbles on, a folder that is no folder. */
Test(fs_tree, folders)
{
	static const struct {
		const char *path;
		unsigned links;
	} wanted[] = {
		{ "", 3 },
		{ "domains", 3 },
		{ "domains/vm", 4 },
		{ "domains/vm/disks", 3 },
		{ "domains/vm/by-source", 2 },
		{ "domains/vm/disks/vda", 2 },
	};
	struct kernel *kernel = kernel_new(false);
	struct fuse_attr attr;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		cr_assert_eq(kernel_getattr(kernel, kernel_walk(kernel, wanted[i].path), &attr), 0);
		cr_assert_eq(attr.mode, S_IFDIR | 0755);
		cr_assert_eq(attr.nlink, wanted[i].links, "%s", wanted[i].path);
		cr_assert_neq(attr.mtime, 0);
	}
	kernel_free(kernel);
}

/* Would catch: a name that is there by accident (in the wrong folder, with a slash, empty, very long). */
Test(fs_tree, what_is_not_there_is_enoent)
{
	static const char *const names[] = { "nope", "", "pull", "vm", "domains/vm", "..", "." };
	struct kernel *kernel = kernel_new(false);
	struct fuse_entry_out entry;
	char long_name[2000];

	memset(long_name, 'a', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		cr_assert_eq(kernel_lookup(kernel, FUSE_ROOT_ID, names[i], &entry), -ENOENT);
	cr_assert_eq(kernel_lookup(kernel, FUSE_ROOT_ID, long_name, &entry), -ENOENT);
	/* In a file, and in nothing. */
	cr_assert_eq(kernel_lookup(kernel, kernel_walk(kernel, "README"), "x", &entry), -ENOENT);
	cr_assert_eq(kernel_lookup(kernel, 4711, "x", &entry), -ENOENT);
	kernel_free(kernel);
}

/* Would catch: root, whom no mode bits stop, writing to a file that shows. */
Test(fs_tree, files_without_commands_do_not_open_for_writing)
{
	struct kernel *kernel = kernel_new(false);
	uint64_t fh;

	for (const struct file *file = disk_files; file->name; file++) {
		char *path = path_of(2, file);
		uint64_t node = kernel_walk(kernel, path);
		int wanted = file->write ? 0 : -EACCES;

		cr_assert_eq(kernel_open(kernel, node, O_WRONLY, &fh), wanted, "%s", path);
		cr_assert_eq(kernel_open(kernel, node, O_RDWR | O_TRUNC, &fh), wanted, "%s", path);
		cr_assert_eq(!!(file->mode & 0222), !!file->write, "%s", path);
		free(path);
	}
	cr_assert_eq(kernel_open(kernel, kernel_walk(kernel, "domains"), O_RDONLY, &fh), -EISDIR);
	cr_assert_eq(kernel_open(kernel, 4711, O_RDONLY, &fh), -ESTALE);
	kernel_free(kernel);
}

static int setattr(struct kernel *kernel, uint64_t node, uint32_t valid)
{
	struct fuse_setattr_in in = { .valid = valid, .mode = 0777, .uid = 5 };

	return kernel_wait(kernel,
			   kernel_send(kernel, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0))
		->error;
}

/* Would catch: `truncate` or `touch` failing on the way to a write; chmod of what is in no domain seeming to work. */
Test(fs_tree, truncate_and_touch_are_nothing_chmod_and_chown_outside_of_domains_are_refused)
{
	struct kernel *kernel = kernel_new(false);
	uint64_t node = kernel_walk(kernel, "version");
	struct fuse_attr before, after;

	cr_assert_eq(kernel_getattr(kernel, node, &before), 0);
	cr_assert_eq(setattr(kernel, node, FATTR_SIZE), 0);
	cr_assert_eq(setattr(kernel, node, FATTR_MTIME | FATTR_ATIME | FATTR_MTIME_NOW), 0);
	cr_assert_eq(setattr(kernel, node, FATTR_MODE), -EPERM);
	cr_assert_eq(setattr(kernel, node, FATTR_UID), -EPERM);
	cr_assert_eq(setattr(kernel, node, FATTR_GID | FATTR_SIZE), -EPERM);
	cr_assert_eq(kernel_getattr(kernel, node, &after), 0);
	cr_assert_eq(memcmp(&before, &after, sizeof(after)), 0);
	kernel_free(kernel);
}

/* Would catch: "Function not implemented" from an editor or mv. */
Test(fs_tree, making_and_removing_names_is_eperm)
{
	static const struct {
		uint32_t opcode;
		size_t size;
	} calls[] = {
		{ FUSE_MKNOD, sizeof(struct fuse_mknod_in) },
		{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in) },
		{ FUSE_CREATE, sizeof(struct fuse_create_in) },
		{ FUSE_UNLINK, 0 },
		{ FUSE_RMDIR, 0 },
		{ FUSE_SYMLINK, 0 },
		{ FUSE_LINK, sizeof(struct fuse_link_in) },
		{ FUSE_RENAME, sizeof(struct fuse_rename_in) },
		{ FUSE_RENAME2, sizeof(struct fuse_rename2_in) },
	};
	static const char args[64], names[] = "pull\0other";
	struct kernel *kernel = kernel_new(false);
	uint64_t folder = kernel_walk(kernel, "domains/vm/disks/vda");

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		uint64_t unique = kernel_send(kernel, calls[i].opcode, folder, args, calls[i].size,
					      names, sizeof(names));

		cr_assert_eq(kernel_wait(kernel, unique)->error, -EPERM, "opcode %u",
			     calls[i].opcode);
	}
	kernel_free(kernel);
}

/* Would catch: df or a monitoring agent getting an error. */
Test(fs_tree, statfs_flush_fsync_access_are_answered)
{
	static const uint32_t opcodes[] = { FUSE_STATFS, FUSE_FLUSH, FUSE_FSYNC, FUSE_FSYNCDIR,
					    FUSE_ACCESS };
	static const char args[64];
	struct kernel *kernel = kernel_new(false);

	for (size_t i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		uint64_t unique = kernel_send(kernel, opcodes[i], FUSE_ROOT_ID, args, 32, NULL, 0);

		/* There is nothing to flush: then the kernel asks no more, and close(2) succeeds. */
		cr_assert_eq(kernel_wait(kernel, unique)->error,
			     opcodes[i] == FUSE_FLUSH ? -ENOSYS : 0, "opcode %u", opcodes[i]);
	}
	kernel_free(kernel);
}

/* Would catch: a disk that goes leaving a node that still answers, or a listing that tears. */
Test(fs_tree, a_disk_that_goes)
{
	struct kernel *kernel = kernel_new(false);
	uint64_t disks = kernel_walk(kernel, "domains/vm/disks");
	uint64_t chain = kernel_walk(kernel, "domains/vm/disks/vda/chain"), fh;
	struct fuse_attr before, after, attr;
	char *names;

	cr_assert_eq(kernel_open(kernel, chain, O_RDONLY, &fh), 0);
	cr_assert_eq(kernel_read(kernel, chain, fh, 0, 100)->error, 0);
	cr_assert_eq(kernel_getattr(kernel, disks, &before), 0);
	peer_set_answer(kernel_peer(kernel), "query-block", "[]");
	peer_send_event(kernel_peer(kernel), "DEVICE_DELETED",
			"{'path': '/machine/peripheral/vda'}");
	for (int i = 0; i < 100 && kernel_face(kernel)->model->domains->disks; i++)
		kernel_idle(kernel);
	cr_assert_eq(kernel_getattr(kernel, chain, &attr), -ESTALE);
	cr_assert_eq(kernel_read(kernel, chain, fh, 0, 100)->error, -ENODEV);
	/* What was begun is read to its end. */
	cr_assert_eq(kernel_read(kernel, chain, fh, 42, 100)->error, 0);
	cr_assert_eq(kernel_getattr(kernel, disks, &after), 0);
	cr_assert(after.mtime != before.mtime || after.mtimensec != before.mtimensec);
	cr_assert_eq(after.nlink, 2);
	names = kernel_list(kernel, disks, 4096);
	cr_assert_str_eq(names, ".\n..\n");
	free(names);
	cr_assert_eq(kernel_release(kernel, chain, fh), 0);
	kernel_free(kernel);
}

/* Would catch: a tree that needs a monitor to be looked at. */
Test(fs_tree, a_domain_without_a_monitor)
{
	struct kernel *kernel = kernel_new(true);
	char *state = kernel_cat(kernel, "domains/vm/state");
	char *error = kernel_cat(kernel, "domains/vm/error");
	char *names = kernel_list(kernel, kernel_walk(kernel, "domains/vm/disks"), 4096);

	cr_assert_str_eq(state, "disconnected\n");
	cr_assert_neq(*error, 0);
	cr_assert_str_eq(names, ".\n..\n");
	free(state);
	free(error);
	free(names);
	kernel_free(kernel);
}

/* Would catch: a request more for each open(2); a name, a log or `wait` that is remembered, of whose change nobody is told. */
Test(fs_tree, attributes_last_from_the_lookup_to_the_open)
{
	static const char *const names[] = { "status", "pull", "events", "wait" };
	struct kernel *kernel = kernel_new(false);
	uint64_t disk = kernel_walk(kernel, "domains/vm/disks/vda");
	struct fuse_entry_out entry;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		cr_assert_eq(kernel_lookup(kernel, disk, names[i], &entry), 0);
		cr_assert_eq(entry.entry_valid + entry.entry_valid_nsec + entry.attr_valid, 0);
		cr_assert_eq(entry.attr_valid_nsec > 0, i < 2, "%s", names[i]);
		cr_assert_leq(entry.attr_valid_nsec, 1000);
	}
	kernel_free(kernel);
}
