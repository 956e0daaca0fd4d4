/*
 * Checks of a file that QEMU is to make. Called by the commands that name one.
 */
#include "jobs/new_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include <uv.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/make_image.h"
#include "jobs/policy.h"
#include "jobs/request.h"
#include "qmp/value.h"

struct check {
	uv_work_t work;
	struct model *model;
	uint64_t op;
	uint64_t generation;
	size_t offset, length; /* of the word */
	struct who by;
	struct domain *domain; /* on another host; else NULL */
	char node[32];
	char *path, *canonical;
	char *reuse; /* a format; NULL: nothing may be there */
	char *left; /* a file that an earlier life of the server has begun to make; NULL: none */
	time_t since_s; /* since then */
	int error;
	char *reason;
	new_file_fn checked;
	void *data;
};

static void check_free(struct check *check)
{
	free(check->path);
	free(check->left);
	free(check->reuse);
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

static void decide(struct check *check)
{
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

static void looked(uv_work_t *work, int status)
{
	decide(work->data);
}

/* --- on another host: QEMU itself is made to look, by opening the file --- */

__attribute__((format(printf, 3, 4))) static void say_no(struct check *check, int error,
							 const char *format, ...)
{
	va_list arguments;

	check->error = error;
	va_start(arguments, format);
	if (vasprintf(&check->reason, format, arguments) < 0)
		abort();
	va_end(arguments);
}

static bool ends_in(const char *text, const char *end)
{
	size_t length = strlen(text), rest = strlen(end);

	return length >= rest && !strcmp(text + length - rest, end);
}

static void closed(void *data, const struct qmp_error *error)
{
	struct check *check = data;

	if (error && error->code != -EHOSTDOWN)
		domain_log(check->domain, "the node %s, by which %s was looked at, is left: %s",
			   check->node, check->path, error->text);
	decide(check);
}

static void opened(void *data, const struct qmp_error *error)
{
	struct check *check = data;

	if (!error) {
		say_no(check, -EEXIST,
		       "%s is there already: name another file, or say reuse to overwrite it",
		       check->path);
		qmp_blockdev_del(check->domain->link->qmp, check->node, closed, check);
		return;
	}
	if (error->code != -EREMOTEIO)
		say_no(check, error->code, "%s", error->text);
	else if (ends_in(error->text, ": No such file or directory"))
		check->canonical = strdup(check->path);
	else
		say_no(check, -EREMOTEIO,
		       "whether something is there cannot be told (say reuse to overwrite it): %s",
		       error->text);
	decide(check);
}

static void look_from_afar(struct check *check, struct domain *domain)
{
	/* In a QEMU's life no name may come twice, as one whose connection was lost in between is left there. */
	uint64_t number = check->op ^ uv_hrtime();

	check->domain = domain;
	snprintf(check->node, sizeof(check->node), "blockjobfs-look-%012" PRIx64,
		 number & 0xffffffffffff);
	if (!policy_is_owner(&check->by)) {
		say_no(check, -EPERM,
		       "on another host only the mount's owner may have images made");
	} else if (check->reuse) {
		check->canonical = strdup(check->path);
	} else if (!qmp_has(domain->link->features, QMP_HAS_BLOCKDEV_ADD)) {
		say_no(check, -EOPNOTSUPP,
		       "this QEMU cannot be asked whether something is there (it has no %s): say "
		       "reuse to overwrite it",
		       qmp_feature_name(QMP_HAS_BLOCKDEV_ADD));
	} else {
		qmp_blockdev_add_file(domain->link->qmp, check->node, check->path, opened, check);
		return;
	}
	decide(check);
}

static void begin(void *data)
{
	struct check *check = data;

	if (uv_queue_work(check->model->loop, &check->work, look, looked))
		abort(); /* only for a NULL function */
}

static bool uses(const struct disk *disk, const char *path)
{
	const struct job *job = disk->job;

	for (size_t i = 0; i < disk->depth; i++)
		if (!strcmp(disk->chain[i].path, path))
			return true;
	return job_is_live(job) && job->dest && !strcmp(job->dest, path);
}

/* True if a disk under this mount has the file, or may have: of every machine must be known what it has. */
static bool may_be_used(const struct model *model, const char *path)
{
	const struct domain *domain;
	const struct disk *disk;

	DL_FOREACH(model->domains, domain) {
		if (!domain->link->laid_out && !domain->link->gone)
			return true;
		DL_FOREACH(domain->disks, disk)
			if (uses(disk, path))
				return true;
	}
	return false;
}

/* QEMU has no node of it any more. */
static void let_go(void *data, const struct qmp_error *error)
{
	struct check *check = data;

	make_image_take_away(check->domain, check->left, check->since_s, begin, check);
}

/*
 * True if an earlier life has begun to make a file for this command: it goes, unless it is in use, or nobody knows whether it is. Then the command is refused,
 * since the file is there.
 */
static bool take_away_first(struct check *check, const struct op *op)
{
	struct domain *domain = op->target.disk->domain;
	struct qmp_value *note = request_noted(op);
	const char *path = qmp_value_text(note, "file", NULL),
		   *node = qmp_value_text(note, "node", NULL);
	bool may = path && !may_be_used(op->target.model, path);

	if (may) {
		check->domain = domain;
		check->left = strdup(path);
		check->since_s = (time_t)qmp_value_number(note, "since", 0);
	}
	if (may && node && qmp_has(domain->link->features, QMP_HAS_BLOCKDEV_DEL))
		qmp_blockdev_del(domain->link->qmp, node, let_go, check);
	else if (may)
		let_go(check, NULL);
	qmp_value_free(note);
	return may;
}

void new_file_note(const struct op *op, const char *path, time_t since_s, const char *node)
{
	struct qmp_value *note = qmp_add_text(qmp_object(), "file", path);

	qmp_add_number(note, "since", since_s);
	if (node)
		qmp_add_text(note, "node", node);
	request_note(op, note);
}

bool new_file_may_format(struct op *op, const struct word *format)
{
	static const char *const known[] = { "raw",  "qcow2", "qed",  "qcow",	   "vdi",
					     "vmdk", "vpc",   "vhdx", "parallels", "luks" };

	for (size_t i = 0; format && i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(format->text, known[i]))
			return true;
	if (format)
		op_refuse_at(op, -EINVAL, format->offset, format->length,
			     "%s is no format of a disk image that can be made: raw, qcow2, qed, "
			     "qcow, vdi, vmdk, vpc, vhdx, parallels or luks",
			     format->text);
	return !format;
}

void new_file_check(struct op *op, const struct word *word, const char *reuse, new_file_fn checked,
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
		.reuse = reuse ? strdup(reuse) : NULL,
		.checked = checked,
		.data = data,
	};
	check->work.data = check;
	if (domain_is_remote(op->target.disk->domain))
		look_from_afar(check, op->target.disk->domain);
	else if (!take_away_first(check, op))
		begin(check);
}
