/*
 * Checks of a file that QEMU is to make. Called by the commands that name one.
 */
#include "jobs/new_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"

struct check {
	uv_work_t work;
	struct model *model;
	uint64_t op;
	uint64_t generation;
	size_t offset, length; /* of the word */
	char *path;
	bool reuse, exists;
	new_file_fn checked;
	void *data;
};

static void check_free(struct check *check)
{
	free(check->path);
	free(check);
}

/* In the pool: looking at a file may block. */
static void look(uv_work_t *work)
{
	struct check *check = work->data;
	struct stat status;

	check->exists = lstat(check->path, &status) == 0;
}

static void looked(uv_work_t *work, int status)
{
	struct check *check = work->data;
	struct op *op = op_find(check->model, check->op);
	const char *path = NULL;

	/* QEMU would overwrite whatever is there: only if that was asked for. */
	if (op && check->exists && !check->reuse)
		op_refuse_at(op, -EEXIST, check->offset, check->length,
			     "%s is there already: name another file, or say reuse to overwrite it",
			     check->path);
	else if (op && op->target.disk->generation != check->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op)
		path = check->path;
	check->checked(path ? op : NULL, path, check->data);
	check_free(check);
}

/* Whoever has been given the file to write may still not have files made anywhere. */
static bool may_make(const struct op *op)
{
	return op->by.uid == geteuid() || op->by.uid == 0;
}

void new_file_check(struct op *op, const struct word *word, bool reuse, new_file_fn checked,
		    void *data)
{
	struct check *check;

	if (*word->text != '/')
		op_refuse_at(op, -EINVAL, word->offset, word->length, "%s is an absolute path",
			     word->key->name);
	else if (!may_make(op))
		op_refuse(op, -EPERM, "only the mount's owner may have images made");
	else {
		check = calloc(1, sizeof(*check));
		if (!check)
			abort();
		*check = (struct check){
			.model = op->target.model,
			.op = op->id,
			.generation = op->target.disk->generation,
			.offset = word->offset,
			.length = word->length,
			.path = strdup(word->text),
			.reuse = reuse,
			.checked = checked,
			.data = data,
		};
		check->work.data = check;
		if (uv_queue_work(check->model->loop, &check->work, look, looked))
			abort(); /* only for a NULL function */
		return;
	}
	checked(NULL, NULL, data);
}
