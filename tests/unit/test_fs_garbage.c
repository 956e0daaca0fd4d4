/*
 * Requests that make no sense: pseudo-random opcodes, nodes, numbers and bodies, of lengths as the kernel's. Nothing crashes,
 * everything is answered once, and the tree is whole afterwards.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "fs/log.h"
#include "tests/fake/kernel.h"

enum {
	REQUESTS = 20000,
	BODY = 256,
	BATCH = 50, /* sent before any is waited for: the socket's buffer has an end */
};

static uint64_t state;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Often one that exists. */
static uint64_t random_node(void)
{
	static const char *const disks[] = { NULL, "vda", "vdb" };
	const struct file *tables[] = { root_files, domain_files, disk_files };
	const struct file *table = tables[next_random() % 3];
	size_t rows = 0;

	if (next_random() % 8 == 0)
		return next_random();
	while (table[rows].name)
		rows++;
	return node_id_of(next_random() % 8 ? "vm" : NULL, disks[next_random() % 3],
			  next_random() % 8 ? table[next_random() % rows].name : NULL);
}

/* Not NOTIFY_REPLY and DESTROY: the kernel sends the first as an answer only, and the second at the end. */
static uint32_t random_opcode(void)
{
	uint32_t opcode = next_random() % 64;

	if (opcode == FUSE_NOTIFY_REPLY || opcode == FUSE_DESTROY || opcode == FUSE_FORGET ||
	    opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT)
		return FUSE_READ;
	return opcode;
}

static uint64_t send_garbage(struct kernel *kernel, uint64_t base_fh)
{
	uint64_t body[BODY / 8];

	for (size_t i = 0; i < BODY / 8; i++)
		body[i] = next_random() % 3 ? next_random() % 5 : next_random();
	/* The open file's number comes first in READ, WRITE, RELEASE, POLL, READDIR, ... */
	if (next_random() % 2)
		body[0] = base_fh + next_random() % 200;
	return kernel_send(kernel, random_opcode(), random_node(), body, sizeof(body), NULL, 0);
}

static void open_some(struct kernel *kernel, uint64_t *fh)
{
	for (const struct file *file = disk_files; file->name; file++)
		cr_assert_eq(kernel_open(kernel, node_id_of("vm", "vda", file->name),
					 file->write ? O_RDWR : O_RDONLY, fh),
			     0);
}

static void fuzz(uint64_t seed)
{
	struct kernel *kernel = kernel_new(false);
	uint64_t fh, uniques[BATCH];
	struct fuse_attr attr;
	char *version;

	log_hold(); /* libfuse has something to say about each */
	state = seed;
	open_some(kernel, &fh);
	kernel_start_pull(kernel);
	for (int i = 0; i < REQUESTS / BATCH; i++) {
		for (int j = 0; j < BATCH; j++)
			uniques[j] = send_garbage(kernel, fh - 100);
		/* What is parked may stay so; nobody waits for more than an interrupt. */
		for (int j = 0; j < BATCH; j++)
			kernel_interrupt(kernel, uniques[j]);
		for (int j = 0; j < BATCH; j++)
			kernel_wait(kernel, uniques[j]);
	}
	/* libfuse drops an interrupt that came too late with the next request, and leaks those that are left at its end. */
	for (int i = 0; i < REQUESTS; i++)
		cr_assert_eq(kernel_getattr(kernel, FUSE_ROOT_ID, &attr), 0);
	version = kernel_cat(kernel, "version");
	cr_assert_str_eq(version, "blockjobfs " BLOCKJOBFS_VERSION "\n");
	free(version);
	kernel_free(kernel);
}

Test(fs_garbage, seed_1)
{
	fuzz(1);
}

Test(fs_garbage, seed_2)
{
	fuzz(0x9e3779b97f4a7c15);
}

/* Would catch: names read beyond the end of their message. */
Test(fs_garbage, names_without_an_end)
{
	struct kernel *kernel = kernel_new(false);
	char name[3000];

	memset(name, 'x', sizeof(name));
	for (size_t size = 0; size < sizeof(name); size += 97) {
		uint64_t unique =
			kernel_send(kernel, FUSE_LOOKUP, FUSE_ROOT_ID, name, size, NULL, 0);

		cr_assert_eq(kernel_wait(kernel, unique)->error, -ENOENT);
	}
	kernel_free(kernel);
}

/* Would catch: a write that says to have more bytes than it has. */
Test(fs_garbage, a_write_that_lies_about_its_size)
{
	struct kernel *kernel = kernel_new(false);
	uint64_t node = kernel_walk(kernel, "domains/vm/disks/vda/pull"), unique;
	struct fuse_write_in in = { .size = 1 << 30 };

	cr_assert_eq(kernel_open(kernel, node, O_WRONLY, &in.fh), 0);
	unique = kernel_send(kernel, FUSE_WRITE, node, &in, sizeof(in), "\n", 1);
	cr_assert_eq(kernel_wait(kernel, unique)->error, -EIO);
	cr_assert_eq(peer_count_of(kernel_peer(kernel), "block-stream"), 0);
	kernel_free(kernel);
}

/* Would catch: commands of any bytes that crash, or that start something. */
Test(fs_garbage, commands_of_any_bytes)
{
	struct kernel *kernel = kernel_new(false);
	static const char likely[] = "{}=\" \\[],:1\nabc";
	unsigned char bytes[64];
	uint64_t fh;

	state = 42;
	for (int i = 0; i < 3000; i++) {
		uint64_t node = node_id_of("vm", "vda", i % 2 ? "pull" : "speed");
		size_t size = 1 + next_random() % sizeof(bytes);

		for (size_t j = 0; j < size; j++)
			bytes[j] = next_random() % 2 ? (unsigned char)next_random()
						     : (unsigned char)likely[next_random() % 16];
		bytes[0] = '!'; /* never a word that is known */
		cr_assert_eq(kernel_open(kernel, node, O_WRONLY, &fh), 0);
		cr_assert_eq(kernel_write_bytes(kernel, node, fh, 0, bytes, size), -EINVAL);
		cr_assert_eq(kernel_release(kernel, node, fh), 0);
	}
	cr_assert_eq(peer_count_of(kernel_peer(kernel), "block-stream"), 0);
	kernel_free(kernel);
}
