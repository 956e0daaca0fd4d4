/*
 * Finding the image that a user names. Names are compared first; only if none is equal, files are, which may block and is done
 * in the work pool. Called by the commands that take images.
 */
#include "jobs/find_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"

struct search {
	uv_work_t work;
	struct model *model;
	uint64_t op;
	uint64_t generation;
	size_t offset, length; /* of the word */
	char *wanted;
	char **paths;
	size_t count;
	long index; /* -1: none */
	find_image_fn found;
	void *data;
};

static void search_free(struct search *search)
{
	for (size_t i = 0; i < search->count; i++)
		free(search->paths[i]);
	free(search->paths);
	free(search->wanted);
	free(search);
}

/* In the pool. */
static void compare_files(uv_work_t *work)
{
	struct search *search = work->data;
	struct stat wanted, image;

	if (stat(search->wanted, &wanted) < 0)
		return;
	for (size_t i = 0; i < search->count && search->index < 0; i++)
		if (stat(search->paths[i], &image) == 0 && image.st_dev == wanted.st_dev &&
		    image.st_ino == wanted.st_ino)
			search->index = (long)i;
}

static void compared(uv_work_t *work, int status)
{
	struct search *search = work->data;
	struct op *op = op_find(search->model, search->op);
	long index = search->index;

	if (op && op->target.disk->generation != search->generation) {
		op_refuse(
			op, -ESTALE,
			"the chain has changed meanwhile: see `chain` and write the command again");
		index = -1;
	} else if (op && index < 0) {
		op_refuse_at(op, -ENOENT, search->offset, search->length,
			     "%s is not in the chain of this disk: see `chain`", search->wanted);
	}
	search->found(op, index, search->data);
	search_free(search);
}

static void search_files(struct op *op, const struct word *word, find_image_fn found, void *data)
{
	struct disk *disk = op->target.disk;
	struct search *search = calloc(1, sizeof(*search));

	if (!search || !(search->paths = calloc(disk->depth, sizeof(*search->paths))))
		abort();
	search->work.data = search;
	search->model = op->target.model;
	search->op = op->id;
	search->generation = disk->generation;
	search->offset = word->offset;
	search->length = word->length;
	search->wanted = strdup(word->text);
	search->count = disk->depth;
	for (size_t i = 0; i < disk->depth; i++)
		search->paths[i] = strdup(disk->chain[i].path);
	search->index = -1;
	search->found = found;
	search->data = data;
	if (uv_queue_work(op->target.model->loop, &search->work, compare_files, compared))
		abort(); /* only for a NULL function */
}

/* "[N]" into N; -1: it has another form. */
static long read_index(const char *text)
{
	char *end;
	long index;

	if (text[0] != '[' || text[1] < '0' || text[1] > '9')
		return -1;
	errno = 0;
	index = strtol(text + 1, &end, 10);
	return errno || strcmp(end, "]") ? -1 : index;
}

/* The path, as it is or as `chain` shows it, or what QEMU calls the image. */
static bool is_name_of(const char *text, const struct qmp_image *image)
{
	struct text *shown = text_new();
	bool is;

	text_put_path(shown, image->path);
	is = !strcmp(text, image->path) || !strcmp(text, image->filename) ||
	     !strcmp(text, text_bytes(shown));
	text_free(shown);
	return is;
}

void disk_find_image(struct op *op, const struct word *word, find_image_fn found, void *data)
{
	struct disk *disk = op->target.disk;
	long index = read_index(word->text);

	if (index >= 0) {
		if ((size_t)index >= disk->depth) {
			op_refuse_at(op, -ENOENT, word->offset, word->length,
				     "the chain has %zu images: [0] to [%zu]", disk->depth,
				     disk->depth - 1);
			index = -1;
		}
		found(op, index, data);
		return;
	}
	for (size_t i = 0; i < disk->depth; i++) {
		if (is_name_of(word->text, &disk->chain[i])) {
			found(op, (long)i, data);
			return;
		}
	}
	if (*word->text != '/') {
		op_refuse_at(
			op, -EINVAL, word->offset, word->length,
			"name an image by an absolute path, or by [N], the N-th line of `chain`");
		found(op, -1, data);
		return;
	}
	/* The files of another host cannot be looked at. */
	if (domain_is_remote(disk->domain)) {
		op_refuse_at(op, -ENOENT, word->offset, word->length,
			     "%s is not in the chain of this disk, as QEMU names its images: see "
			     "`chain`",
			     word->text);
		found(op, -1, data);
		return;
	}
	search_files(op, word, found, data);
}
