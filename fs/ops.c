/*
 * FUSE requests. All but read and write are answered here and now, from the model; these two become a
 * struct reply and go to fs/io.c. Called by libfuse out of fs/session.c; knows rows only as rows.
 *
 * Nothing of a file is cached: it is read directly, entries are valid for 0 seconds, and attributes too, but for an open(2) that follows
 * at once. Folders, which every path leads through, are remembered by the kernel for a moment.
 */
#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <utlist.h>
#include "fs/access.h"
#include "fs/io.h"
#include "fs/kept.h"
#include "fs/make.h"
#include "fs/notify.h"

enum {
	READDIR_BYTES_MAX = 64 << 10,
	FOLDER_SECONDS = 1, /* how long at most the kernel may show a folder as it was */
};

static struct face *face_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct who who_asks(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct who){ .uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid };
}

static bool find(fuse_req_t req, fuse_ino_t ino, struct place *place)
{
	return node_find(&face_of(req)->nodes, ino, place);
}

/* The process that touches files for us: what it does has no effect but that watchers are told. */
static bool is_toucher(fuse_req_t req)
{
	const struct face *face = face_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return face->notify && ctx->uid == face->uid &&
	       notify_is_toucher(face->notify, ctx->pid, face->request.again);
}

/* QEMU tells nobody of disks that are plugged in: somebody who looks is a reason to ask it. */
static void looked_at(fuse_req_t req, const struct place *folder)
{
	if (folder->domain && !is_toucher(req))
		domain_looked_at(folder->domain);
}

/* As place_stat(); *@content need not be set before. */
static void fill_stat(fuse_req_t req, const struct place *place, struct stat *stat,
		      struct text **content)
{
	struct face *face = face_of(req);
	uint64_t node = node_id(place);
	bool steady = place->file && place->file->flags & FILE_STEADY;

	*content = steady ? known_again(&face->known, node, place_stamp(place)->version) : NULL;
	place_stat(place, stat, content);
	stat->st_ino = node;
	access_stat(face, place, stat);
	if (!face->overrides && is_toucher(req)) /* it opens for writing what nobody writes */
		stat->st_mode |= S_ISDIR(stat->st_mode) ? S_IRWXU : S_IWUSR;
}

/* --- names and attributes --- */

static void op_init(void *data, struct fuse_conn_info *conn)
{
	struct face *face = data;

	face->started = true;
	/* Messages are small, and a hand-over of the descriptor wants no pipes. */
	conn->want &=
		~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

/*
 * How long the kernel may take the answer for true, in seconds. Of a folder's change it is told (fs/session.c), and it is the kernel that
 * makes and removes folders for the toucher: until it has, none must be remembered, or its mkdir(2) would find what it is to make. What
 * the toucher is shown is for it alone.
 */
static double valid_seconds(fuse_req_t req, const struct place *place)
{
	const struct face *face = face_of(req);

	return place_is_folder(place) && face->notify && notify_folders_are_told(face->notify) &&
			       !is_toucher(req)
		       ? FOLDER_SECONDS
		       : 0;
}

/*
 * The open(2) that follows a lookup asks for the modes: a request more, if nothing may be remembered. The shortest time there is
 * makes one or two ticks of the kernel's clock. A log is followed by its size: not even that; and the toucher's lookup ends it.
 */
static double until_opened(fuse_req_t req, const struct place *place)
{
	bool not_even = place_is_folder(place) || place->link || is_toucher(req);

	return not_even || place->file->flags & (FILE_LOG | FILE_WAITS) ? 0 : 1e-6;
}

static void reply_entry(fuse_req_t req, const struct place *place)
{
	struct fuse_entry_param entry = { 0 };
	struct face *face = face_of(req); /* req is gone after the answer */
	bool toucher = is_toucher(req);
	struct text *content;

	fill_stat(req, place, &entry.attr, &content);
	entry.ino = entry.attr.st_ino;
	entry.generation = node_generation(&face->nodes, place);
	entry.entry_timeout = valid_seconds(req, place);
	entry.attr_timeout = entry.entry_timeout ? entry.entry_timeout : until_opened(req, place);
	if (fuse_reply_entry(req, &entry) == 0)
		known_looked_up(&face->known, entry.ino);
	known_tell(&face->known, entry.ino, content, toucher);
}

/* A folder that is only there for the toucher. */
static struct stat stat_of_gone(const struct face *face, uint64_t node)
{
	return (struct stat){
		.st_ino = node,
		.st_mode = S_IFDIR | 0755,
		.st_nlink = 2,
		.st_uid = face->uid,
		.st_gid = face->gid,
	};
}

/* A folder that is just being made or removed once more for those who watch. True if it has been answered. */
static bool toucher_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { 0 };
	struct face *face = face_of(req);
	uint64_t node;

	switch (notify_toucher_sees(face->notify, parent, name, &node, &entry.generation)) {
	case FOLDER_ADDED:
		fuse_reply_err(req, ENOENT);
		return true;
	case FOLDER_REMOVED:
		entry.ino = node;
		entry.attr = stat_of_gone(face, node);
		if (node_has_links(&face->nodes, parent))
			entry.attr.st_mode = source_link_row.mode;
		if (fuse_reply_entry(req, &entry) == 0)
			known_looked_up(&face->known, node);
		return true;
	case FOLDER_OTHER:
		break;
	}
	return false;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct place folder, child;

	if (is_toucher(req) && toucher_lookup(req, parent, name))
		return;
	if (!find(req, parent, &folder) || !place_is_folder(&folder)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	looked_at(req, &folder);
	if (!node_child(&folder, name, &child)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	reply_entry(req, &child);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	known_forget(&face_of(req)->known, ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		known_forget(&face_of(req)->known, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct place place;
	struct stat stat;
	struct text *content;

	if (!find(req, ino, &place)) {
		stat = stat_of_gone(face_of(req), ino);
		if (is_toucher(req) && notify_toucher_walks(face_of(req)->notify, ino))
			fuse_reply_attr(req, &stat, 0);
		else
			fuse_reply_err(req, ESTALE);
		return;
	}
	fill_stat(req, &place, &stat, &content);
	known_tell(&face_of(req)->known, ino, content, is_toucher(req));
	fuse_reply_attr(req, &stat, valid_seconds(req, &place));
}

/* chown, chmod: delegation. truncate(2) and touch change nothing and are no error: shells and tools do both on the way to a write. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wanted, int to_set,
		       struct fuse_file_info *fi)
{
	const struct access access = {
		.mode = wanted->st_mode,
		.uid = wanted->st_uid,
		.gid = wanted->st_gid,
	};
	unsigned what = (to_set & FUSE_SET_ATTR_MODE ? DELEGATE_MODE : 0) |
			(to_set & FUSE_SET_ATTR_UID ? DELEGATE_UID : 0) |
			(to_set & FUSE_SET_ATTR_GID ? DELEGATE_GID : 0);
	struct who who = who_asks(req);
	struct place place;
	int error = 0;

	if (what && find(req, ino, &place)) {
		error = access_set(face_of(req), &place, &who, what, &access);
		face_forget_heirs(face_of(req), &place);
	}
	if (error)
		fuse_reply_err(req, -error);
	else
		op_getattr(req, ino, fi);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct place place;
	char *target = NULL;

	if (find(req, ino, &place) && place.link)
		target = source_link_target(&place);
	if (target)
		fuse_reply_readlink(req, target);
	else
		fuse_reply_err(req, ENOENT);
	free(target);
}

static void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	fuse_reply_err(req, 0); /* the kernel has checked: default_permissions */
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs statvfs = { .f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255 };

	fuse_reply_statfs(req, &statvfs);
}

/* --- what this tree does not do --- */

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	fuse_reply_err(req, EPERM);
}

static struct asker asker(fuse_req_t req)
{
	return (struct asker){ .who = who_asks(req),
			       .request = face_of(req)->request,
			       .toucher = is_toucher(req) };
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct asker who = asker(req);
	struct place made;
	int status = make_folder(face_of(req), &who, parent, name, &made);

	if (status)
		fuse_reply_err(req, -status);
	else
		reply_entry(req, &made);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	fuse_reply_err(req, EPERM);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct asker who = asker(req);
	struct place made;

	if (who.toucher && make_folder(face_of(req), &who, parent, name, &made) == 0)
		reply_entry(req, &made);
	else
		fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct asker who = asker(req);

	fuse_reply_err(req, who.toucher ? -remove_folder(face_of(req), &who, parent, name) : EPERM);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct asker who = asker(req);

	fuse_reply_err(req, -remove_folder(face_of(req), &who, parent, name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	fuse_reply_err(req, EPERM);
}

/* --- open files --- */

static struct open_file *open_new(fuse_req_t req, const struct place *place,
				  struct fuse_file_info *fi)
{
	struct face *face = face_of(req);
	struct who who = who_asks(req);
	struct open_file *file = face->request.again
					 ? open_file_of_request(&face->files, face->request.number)
					 : NULL;

	if (!file)
		file = open_file_new(&face->files, place, &who, fi->flags);
	file->request = face->request.number;
	fi->fh = file->number;
	return file;
}

static void close_file(struct face *face, uint64_t number)
{
	struct open_file *file = open_file_find(&face->files, number);

	if (file && file->touch)
		known_touched(&face->known, file->node);
	if (file)
		open_file_free(&face->files, file);
}

static void reply_open(fuse_req_t req, struct open_file *file, struct fuse_file_info *fi)
{
	struct face *face = face_of(req); /* req is gone after the answer */

	open_file_keep(file);
	/* The opener was interrupted: no release will come. */
	if (fuse_reply_open(req, fi) == -ENOENT)
		close_file(face, fi->fh);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct open_file *file;
	struct place place;
	bool touch = is_toucher(req);
	int error;

	if (!find(req, ino, &place)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (place_is_folder(&place) || place.link) {
		fuse_reply_err(req, place.link ? ELOOP : EISDIR);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY && !touch) {
		error = face_of(req)->read_only ? EROFS : place.file->write ? 0 : EACCES;
		if (error) {
			fuse_reply_err(req, error); /* mode bits do not stop root */
			return;
		}
	}
	file = open_new(req, &place, fi);
	file->touch = touch;
	fi->direct_io = 1;
	fi->noflush = 1;
	reply_open(req, file, fi);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct place place;

	if (!find(req, ino, &place)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (!place_is_folder(&place)) {
		fuse_reply_err(req, ENOTDIR);
		return;
	}
	reply_open(req, open_new(req, &place, fi), fi);
}

/* release and releasedir */
static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close_file(face_of(req), fi->fh);
	fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

/* As many entries from @offset on as go into @size bytes. */
static void reply_listing(fuse_req_t req, const struct open_file *file, size_t offset, size_t size)
{
	char *bytes = malloc(size + 1);
	size_t used = 0;

	if (!bytes) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = offset; i < file->listed; i++) {
		struct stat stat = { .st_ino = file->list[i].node, .st_mode = file->list[i].mode };
		size_t need = fuse_add_direntry(req, bytes + used, size - used, file->list[i].name,
						&stat, (off_t)i + 1);

		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, bytes, used);
	free(bytes);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	struct open_file *file;
	struct place folder;

	if (!find(req, ino, &folder)) {
		fuse_reply_err(req, ENOENT); /* readdir(3) ends with that as on a removed folder */
		return;
	}
	file = place_is_folder(&folder) ? open_file_adopt(&face_of(req)->files, fi->fh, &folder)
					: NULL;
	if (!file) {
		file = open_file_find(&face_of(req)->files, fi->fh);
		fuse_reply_err(req, file && file->gone ? ENOENT : EBADF);
		return;
	}
	if (offset == 0 || !file->list) {
		looked_at(req, &folder);
		open_file_list(file, &folder);
		file->seen = place_stamp(&folder)->version;
	}
	reply_listing(req, file, offset < 0 ? SIZE_MAX : (size_t)offset,
		      size < READDIR_BYTES_MAX ? size : READDIR_BYTES_MAX);
}

static struct reply *reply_for(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
			       const struct fuse_file_info *fi, const char *kind)
{
	struct reply *reply = reply_new(req, face_of(req), kind);

	reply->node = ino;
	reply->fh = fi->fh;
	reply->offset = (uint64_t)offset;
	reply->size = size;
	return reply;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	enum {
		READ_BYTES_MAX = 1 << 20,
	};
	struct reply *reply;

	reply = reply_for(req, ino, size < READ_BYTES_MAX ? size : READ_BYTES_MAX, offset, fi,
			  "read");
	/* read(2) on a file that is read directly names its caller; what fills a page is read on nobody's behalf (fs/fuse/file.c). */
	reply->cached = fi->lock_owner == 0;
	io_read(reply);
}

/* write_buf, not write: libfuse checks only here that the request has as many bytes as it says. */
static void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data, off_t offset,
			 struct fuse_file_info *fi)
{
	const struct fuse_buf *buf = &data->buf[0];

	if (data->count != 1 || buf->flags & FUSE_BUF_IS_FD)
		fuse_reply_err(req, EIO); /* op_init() has ruled it out */
	else
		io_write(reply_for(req, ino, buf->size, offset, fi, "write"), buf->mem);
}

/* --- poll --- */

/*
 * kernfs's rule: always readable and writable, and POLLPRI | POLLERR when the topic has changed since
 * this open file was last read from its beginning.
 */
static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *poll)
{
	unsigned events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
	struct open_files *files = &face_of(req)->files;
	uint64_t handle = poll ? face_of(req)->request.poll : 0;
	struct open_file *file = NULL;
	struct place place;
	uint64_t version;

	if (poll)
		fuse_pollhandle_destroy(
			poll); /* it cannot be handed to the next life; the number in it can */
	if (find(req, ino, &place))
		file = open_file_adopt(files, fi->fh, &place);
	if (!file) {
		fuse_reply_poll(req, events | POLLPRI | POLLERR);
		return;
	}
	version = place_stamp(&place)->version;
	if (version != file->seen)
		events |= POLLPRI | POLLERR;
	if (handle)
		open_file_set_poll(files, file, handle, version);
	fuse_reply_poll(req, events);
}

void ops_wake_pollers(struct face *face, void (*wake)(void *data, uint64_t poll), void *data)
{
	struct open_file *file, *next;
	struct place place;

	for (file = face->files.pollers; file; file = next) {
		next = file->next;
		if (!file->gone && node_find(&face->nodes, file->node, &place) &&
		    place_stamp(&place)->version == file->polled)
			continue;
		wake(data, file->poll);
		open_file_set_poll(&face->files, file, 0, 0);
	}
	face->changed = false;
}

const struct fuse_lowlevel_ops face_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.access = op_access,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.create = op_create,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.open = op_open,
	.opendir = op_opendir,
	.read = op_read,
	.write_buf = op_write_buf,
	.readdir = op_readdir,
	.poll = op_poll,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.release = op_release,
	.releasedir = op_release,
};
