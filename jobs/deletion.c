/*
 * A list of images to be deleted; see deletion.h.
 */
#include "jobs/deletion.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "jobs/json.h"
#include "qmp/value.h"

struct deletion *deletion_new(size_t count)
{
	struct deletion *deletion = calloc(1, sizeof(*deletion));

	if (!deletion || !(deletion->images = calloc(count + 1, sizeof(*deletion->images))))
		abort();
	deletion->count = count;
	return deletion;
}

void deletion_free(struct deletion *deletion)
{
	if (!deletion)
		return;
	for (size_t i = 0; i < deletion->count; i++)
		free(deletion->images[i].path);
	free(deletion->images);
	free(deletion);
}

int doomed_look(struct doomed *image, const char **reason)
{
	struct statx status;

	if (*image->path != '/') {
		*reason = "is no file with an absolute path on this host";
		return -EINVAL;
	}
	if (statx(AT_FDCWD, image->path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		  STATX_BASIC_STATS | STATX_BTIME, &status) < 0)
		return -errno;
	if (!S_ISREG(status.stx_mode)) {
		*reason = S_ISLNK(status.stx_mode) ? "is a symbolic link" : "is no regular file";
		return -EINVAL;
	}
	image->device = makedev(status.stx_dev_major, status.stx_dev_minor);
	image->inode = status.stx_ino;
	image->born_ns = status.stx_mask & STATX_BTIME
				 ? status.stx_btime.tv_sec * 1000000000 + status.stx_btime.tv_nsec
				 : -1;
	return 0;
}

bool doomed_is(const struct doomed *image, const struct doomed *other)
{
	return image->device == other->device && image->inode == other->inode &&
	       image->born_ns == other->born_ns;
}

/* --- the record --- */

void deletion_put(struct text *record, const struct deletion *deletion)
{
	if (!deletion)
		return;
	json_open(record, "delete", '[');
	for (size_t i = 0; i < deletion->count; i++) {
		const struct doomed *image = &deletion->images[i];

		json_open(record, NULL, '{');
		json_text(record, "path", image->path);
		json_number(record, "device", (int64_t)image->device);
		json_number(record, "inode", (int64_t)image->inode);
		json_number(record, "born", image->born_ns);
		json_close(record, '}');
	}
	json_close(record, ']');
	json_flag(record, "deleting", deletion->begun);
}

struct deletion *deletion_take(const struct qmp_value *record)
{
	const struct qmp_value *list = qmp_value_get(record, "delete");
	struct deletion *deletion;

	if (!qmp_value_count(list))
		return NULL;
	deletion = deletion_new(qmp_value_count(list));
	deletion->begun = qmp_value_flag(record, "deleting", false);
	for (size_t i = 0; i < deletion->count; i++) {
		const struct qmp_value *item = qmp_value_item(list, i);
		struct doomed *image = &deletion->images[i];

		/* An empty path, as of a record that is damaged, is no file: it is told, and nothing is deleted. */
		image->path = strdup(qmp_value_text(item, "path", ""));
		image->device = (uint64_t)qmp_value_number(item, "device", 0);
		image->inode = (uint64_t)qmp_value_number(item, "inode", 0);
		image->born_ns = qmp_value_number(item, "born", -1);
	}
	return deletion;
}
