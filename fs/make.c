/*
 * mkdir(2) and rmdir(2); see fs/make.h. What may be attached by whom is for jobs/attach.c to say.
 */
#include "fs/make.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "fs/notify.h"
#include "jobs/attach.h"

/* --- the toucher --- */

static bool toucher_is_at(const struct face *face, uint64_t parent, const char *name,
			  enum notify_folder what)
{
	uint64_t node, generation;

	return notify_toucher_sees(face->notify, parent, name, &node, &generation) == what;
}

/* --- everybody else --- */

/* The folder `domains`, the only one in which anything can be made and removed. */
static bool is_domains(const struct place *place)
{
	return place->file && !place->domain && place_is_folder(place);
}

static int find_parent(const struct face *face, uint64_t parent, struct place *place)
{
	if (!node_find(&face->nodes, parent, place))
		return -ENOENT;
	if (!is_domains(place))
		return -EPERM;
	if (face->model->stopping)
		return -ESHUTDOWN;
	return face->read_only ? -EROFS : 0;
}

static void keep_status(struct op *op, int status, void *data)
{
	*(int *)data = status;
}

/* What is asked for, as a command, so that a refusal is told like any other. It completes in the call that it is given to. */
static struct op *op_of(const struct asker *asker, const struct place *place, const char *verb,
			const char *name, int *status)
{
	struct target target = place_target(place);
	struct op *op = op_new(&target, &asker->who, keep_status, status);
	char *written;
	int length = asprintf(&written, "%s %s", verb, name);

	if (length < 0)
		abort();
	op_set_written(op, written, (size_t)length);
	op->request = asker->request.number;
	op->again = asker->request.again;
	free(written);
	return op;
}

int make_folder(struct face *face, const struct asker *asker, uint64_t parent, const char *name,
		struct place *made)
{
	struct place folder;
	int status;

	if (asker->toucher)
		return toucher_is_at(face, parent, name, FOLDER_ADDED) &&
				       node_find(&face->nodes, parent, &folder) &&
				       node_child(&folder, name, made)
			       ? 0
			       : -EPERM;
	status = find_parent(face, parent, &folder);
	if (status)
		return status;
	face->by_kernel = true;
	attach_make(op_of(asker, &folder, "mkdir", name, &status), name);
	face->by_kernel = false;
	if (!status && !node_child(&folder, name, made))
		status = -EIO;
	return status;
}

int remove_folder(struct face *face, const struct asker *asker, uint64_t parent, const char *name)
{
	struct place folder, child;
	int status;

	if (asker->toucher)
		return toucher_is_at(face, parent, name, FOLDER_REMOVED) ? 0 : -EPERM;
	status = find_parent(face, parent, &folder);
	if (status)
		return status;
	if (!node_child(&folder, name, &child))
		return asker->request.again
			       ? 0
			       : -ENOENT; /* an earlier life has done it, and has not said so */
	face->by_kernel = true;
	attach_remove(op_of(asker, &child, "rmdir", name, &status));
	face->by_kernel = false;
	return status;
}
