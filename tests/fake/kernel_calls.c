/*
 * System calls as requests: one function each, over tests/fake/kernel.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fake/kernel_private.h"

/* Sends, waits, copies the reply's struct to @out. */
static int call(struct kernel *kernel, uint32_t opcode, uint64_t node, const void *args,
		size_t size, void *out, size_t out_size)
{
	const struct kernel_reply *reply =
		kernel_wait(kernel, kernel_send(kernel, opcode, node, args, size, NULL, 0));

	if (!reply->error && out) {
		MUST(reply->length == out_size);
		memcpy(out, reply->bytes, out_size);
	}
	return reply->error;
}

int kernel_lookup(struct kernel *kernel, uint64_t parent, const char *name,
		  struct fuse_entry_out *entry)
{
	return call(kernel, FUSE_LOOKUP, parent, name, strlen(name) + 1, entry, sizeof(*entry));
}

uint64_t kernel_walk(struct kernel *kernel, const char *path)
{
	struct fuse_entry_out entry = { .nodeid = FUSE_ROOT_ID };
	char *copy = strdup(path), *rest = copy, *name;

	while ((name = strsep(&rest, "/"))) {
		if (*name && kernel_lookup(kernel, entry.nodeid, name, &entry)) {
			fprintf(stderr, "%s: no %s\n", path, name);
			abort();
		}
	}
	free(copy);
	return entry.nodeid;
}

int kernel_getattr(struct kernel *kernel, uint64_t node, struct fuse_attr *attr)
{
	struct fuse_getattr_in in = { 0 };
	struct fuse_attr_out out = { 0 };
	int error = call(kernel, FUSE_GETATTR, node, &in, sizeof(in), &out, sizeof(out));

	*attr = out.attr;
	MUST(!out.attr_valid && !out.attr_valid_nsec);
	return error;
}

static int open_by(struct kernel *kernel, uint32_t opcode, uint64_t node, uint32_t flags,
		   uint64_t *fh)
{
	struct fuse_open_in in = { .flags = flags };
	struct fuse_open_out out = { 0 };
	int error = call(kernel, opcode, node, &in, sizeof(in), &out, sizeof(out));

	if (!error && opcode == FUSE_OPEN)
		MUST(out.open_flags & FOPEN_DIRECT_IO);
	*fh = out.fh;
	return error;
}

static int release_by(struct kernel *kernel, uint32_t opcode, uint64_t node, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };

	return call(kernel, opcode, node, &in, sizeof(in), NULL, 0);
}

int kernel_open(struct kernel *kernel, uint64_t node, uint32_t flags, uint64_t *fh)
{
	return open_by(kernel, FUSE_OPEN, node, flags, fh);
}

int kernel_release(struct kernel *kernel, uint64_t node, uint64_t fh)
{
	return release_by(kernel, FUSE_RELEASE, node, fh);
}

uint64_t kernel_send_read(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
			  uint32_t size)
{
	struct fuse_read_in in = {
		.fh = fh,
		.offset = offset,
		.size = size,
		.read_flags = FUSE_READ_LOCKOWNER, /* as read(2) has it */
		.lock_owner = 4711,
	};

	return kernel_send(kernel, FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

const struct kernel_reply *kernel_read(struct kernel *kernel, uint64_t node, uint64_t fh,
				       uint64_t offset, uint32_t size)
{
	const struct kernel_reply *reply =
		kernel_wait(kernel, kernel_send_read(kernel, node, fh, offset, size));

	MUST(reply->length <= size);
	return reply;
}

uint64_t kernel_send_write(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
			   const void *bytes, size_t size)
{
	struct fuse_write_in in = { .fh = fh, .offset = offset, .size = (uint32_t)size };

	return kernel_send(kernel, FUSE_WRITE, node, &in, sizeof(in), bytes, size);
}

int kernel_write_bytes(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
		       const void *bytes, size_t size)
{
	const struct kernel_reply *reply =
		kernel_wait(kernel, kernel_send_write(kernel, node, fh, offset, bytes, size));
	struct fuse_write_out out;

	if (!reply->error) {
		memcpy(&out, reply->bytes, sizeof(out));
		MUST(out.size == size);
	}
	return reply->error;
}

int kernel_write(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t offset,
		 const char *text)
{
	return kernel_write_bytes(kernel, node, fh, offset, text, strlen(text));
}

unsigned kernel_poll(struct kernel *kernel, uint64_t node, uint64_t fh, uint64_t kh)
{
	struct fuse_poll_in in = {
		.fh = fh,
		.kh = kh,
		.flags = kh ? FUSE_POLL_SCHEDULE_NOTIFY : 0,
		.events = POLLIN | POLLPRI,
	};
	struct fuse_poll_out out;

	MUST(call(kernel, FUSE_POLL, node, &in, sizeof(in), &out, sizeof(out)) == 0);
	return out.revents;
}

/* Appends the names of one READDIR's reply; returns the offset to go on from, 0: there are no more. */
static uint64_t take_entries(FILE *out, const struct kernel_reply *reply)
{
	uint64_t next = 0;

	for (size_t at = 0; at < reply->length;) {
		struct fuse_dirent entry;

		memcpy(&entry, reply->bytes + at, FUSE_NAME_OFFSET);
		fprintf(out, "%.*s\n", (int)entry.namelen, reply->bytes + at + FUSE_NAME_OFFSET);
		next = entry.off;
		at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.namelen);
	}
	return next;
}

char *kernel_list(struct kernel *kernel, uint64_t node, uint32_t size)
{
	struct fuse_read_in in = { .size = size };
	const struct kernel_reply *reply;
	char *names;
	size_t length;
	FILE *out = open_memstream(&names, &length);

	MUST(open_by(kernel, FUSE_OPENDIR, node, O_RDONLY | O_DIRECTORY, &in.fh) == 0);
	do {
		reply = kernel_wait(
			kernel, kernel_send(kernel, FUSE_READDIR, node, &in, sizeof(in), NULL, 0));
		MUST(!reply->error);
	} while ((in.offset = take_entries(out, reply)));
	MUST(release_by(kernel, FUSE_RELEASEDIR, node, in.fh) == 0);
	fclose(out);
	return names;
}

char *kernel_cat(struct kernel *kernel, const char *path)
{
	uint64_t node = kernel_walk(kernel, path), fh;
	const struct kernel_reply *reply;
	size_t length;
	char *text;
	FILE *out = open_memstream(&text, &length);
	uint64_t offset = 0;

	MUST(kernel_open(kernel, node, O_RDONLY, &fh) == 0);
	do {
		reply = kernel_read(kernel, node, fh, offset, 4096);
		MUST(!reply->error);
		fwrite(reply->bytes, 1, reply->length, out);
		offset += reply->length;
	} while (reply->length);
	MUST(kernel_release(kernel, node, fh) == 0);
	fclose(out);
	return text;
}

int kernel_echo(struct kernel *kernel, const char *path, const char *text)
{
	uint64_t node = kernel_walk(kernel, path), fh;
	int error = kernel_open(kernel, node, O_WRONLY | O_TRUNC, &fh);

	if (error)
		return error;
	error = kernel_write(kernel, node, fh, 0, text);
	MUST(kernel_release(kernel, node, fh) == 0);
	return error;
}

void kernel_set_progress(struct kernel *kernel, long long offset)
{
	const struct disk *disk = kernel->model->domains->disks;
	char json[512];

	snprintf(json, sizeof(json),
		 "[{'type': 'stream', 'device': '%s', 'len': 67108864, 'offset': %lld, 'busy': "
		 "false,"
		 "'paused': false, 'speed': 0, 'io-status': 'ok', 'ready': false, 'status': "
		 "'running',"
		 "'auto-finalize': false, 'auto-dismiss': false}]",
		 disk->job->id, offset);
	peer_set_answer(kernel->peer, "query-block-jobs", json);
}

/* QEMU shows the job from the moment it has accepted it. */
static bool on_command(void *data, struct peer *peer, size_t number, const char *command,
		       const struct qmp_value *arguments)
{
	if (!strcmp(command, "block-stream"))
		kernel_set_progress(data, 1 << 20);
	return false;
}

void kernel_start_pull(struct kernel *kernel)
{
	peer_set_hook(kernel->peer, on_command, kernel);
	MUST(kernel_echo(kernel, "domains/vm/disks/vda/pull", "\n") == 0);
}
