/*
 * Checks of a file that QEMU is to make. Called by the commands that name one.
 */
#include "jobs/new_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/policy.h"

struct check {
	uv_work_t work;
	struct model *model;
	uint64_t op;
	uint64_t generation;
	size_t offset, length; /* of the word */
	struct who by;
	char *path, *canonical;
	bool reuse;
	int error;
	char *reason;
	new_file_fn checked;
	void *data;
};

static void check_free(struct check *check)
{
	free(check->path);
	free(check->canonical);
	free(check->reason);
	free(check);
}

/* In the pool: looking at a file may block. */
static void look(uv_work_t *work)
{
	struct check *check = work->data;

	check->error = policy_check_new(check->model->policy, &check->by, check->path, check->reuse,
					&check->canonical, &check->reason);
}

static void looked(uv_work_t *work, int status)
{
	struct check *check = work->data;
	struct op *op = op_find(check->model, check->op);
	const char *path = NULL;

	if (op && check->error)
		op_refuse_at(op, check->error, check->offset, check->length, "%s", check->reason);
	else if (op && op->target.disk->generation != check->generation)
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
	else if (op)
		path = check->canonical;
	check->checked(path ? op : NULL, path, check->data);
	check_free(check);
}

void new_file_check(struct op *op, const struct word *word, bool reuse, new_file_fn checked,
		    void *data)
{
	struct check *check;

	if (*word->text != '/') {
		op_refuse_at(op, -EINVAL, word->offset, word->length, "%s is an absolute path",
			     word->key->name);
		checked(NULL, NULL, data);
		return;
	}
	check = calloc(1, sizeof(*check));
	if (!check)
		abort();
	*check = (struct check){
		.model = op->target.model,
		.op = op->id,
		.generation = op->target.disk->generation,
		.offset = word->offset,
		.length = word->length,
		.by = op->by,
		.path = strdup(word->text),
		.reuse = reuse,
		.checked = checked,
		.data = data,
	};
	check->work.data = check;
	if (uv_queue_work(check->model->loop, &check->work, look, looked))
		abort(); /* only for a NULL function */
}
