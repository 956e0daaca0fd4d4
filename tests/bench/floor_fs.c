/*
 * The smallest file system that libfuse's low-level interface allows: one file that is always the same. What opening, reading and
 * closing it costs is what the kernel and libfuse cost; `make bench` measures blockjobfs against it.
 *
 *	floor_fs [-f] MOUNTPOINT
 */
#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 314
#endif
#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>
#include <sys/stat.h>

static const char content[] = "running\n";

enum {
	FILE_INO = 2,
};

static void fill(fuse_ino_t ino, struct stat *stat)
{
	memset(stat, 0, sizeof(*stat));
	stat->st_ino = ino;
	stat->st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	stat->st_nlink = 1;
	stat->st_size = ino == FUSE_ROOT_ID ? 0 : sizeof(content) - 1;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = FILE_INO };

	if (strcmp(name, "file")) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill(FILE_INO, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat stat;

	fill(ino, &stat);
	fuse_reply_attr(req, &stat, 0);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	size_t length = sizeof(content) - 1;
	size_t begin = (size_t)offset < length ? (size_t)offset : length;

	fuse_reply_buf(req, content + begin, length - begin < size ? length - begin : size);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	fuse_reply_write(req, size);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = on_lookup,
	.getattr = on_getattr,
	.open = on_open,
	.read = on_read,
	.write = on_write,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options;
	struct fuse_session *session;
	int status;

	if (fuse_parse_cmdline(&args, &options) || !options.mountpoint)
		return 2;
	session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!session || fuse_set_signal_handlers(session) ||
	    fuse_session_mount(session, options.mountpoint))
		return 1;
	fuse_daemonize(options.foreground);
	status = fuse_session_loop(session);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return status;
}
