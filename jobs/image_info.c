/*
 * Runs qemu-img info; see image_info.h. Called by the commands that take `reuse`.
 */
#include "jobs/image_info.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "jobs/program.h"
#include "qmp/value.h"

struct asking {
	uv_work_t work;
	struct model *model;
	char *expected;
	struct qmp_value *told;
	char *complaint;
	bool same;
	image_info_fn known;
	void *data;
};

static void answer(struct asking *asking)
{
	struct image_info info = {
		.complaint = asking->complaint,
		.size = qmp_value_number(asking->told, "virtual-size", -1),
		.backing = qmp_value_text(asking->told, "full-backing-filename", NULL),
		.backing_is_expected = asking->same,
	};

	asking->known(asking->data, &info);
	qmp_value_free(asking->told);
	free(asking->expected);
	free(asking->complaint);
	free(asking);
}

/* In the pool. */
static void compare(uv_work_t *work)
{
	struct asking *asking = work->data;
	const char *backing = qmp_value_text(asking->told, "full-backing-filename", NULL);
	struct stat one, other;

	asking->same = backing && (!strcmp(backing, asking->expected) ||
				   (!stat(backing, &one) && !stat(asking->expected, &other) &&
				    one.st_dev == other.st_dev && one.st_ino == other.st_ino));
}

static void compared(uv_work_t *work, int status)
{
	answer(work->data);
}

static void told(void *data, const struct program_end *end)
{
	struct asking *asking = data;

	if (end->error)
		asking->complaint = strdup("qemu-img cannot be run: install qemu-utils");
	else if (end->status)
		asking->complaint = strdup(end->complaint);
	else
		asking->told = qmp_value_parse(end->output, end->output_length, NULL);
	if (!asking->told && !asking->complaint)
		asking->complaint = strdup("qemu-img tells nothing of it");
	if (asking->complaint || !asking->expected)
		answer(asking);
	else if (uv_queue_work(asking->model->loop, &asking->work, compare, compared))
		abort(); /* only for a NULL function */
}

void image_info_get(struct model *model, const char *path, const char *format, const char *expected,
		    image_info_fn known, void *data)
{
	const char *program = model->settings.qemu_img;
	char *arguments[] = { (char *)(program ? program : "qemu-img"),
			      "info",
			      "-U",
			      "--output=json",
			      "-f",
			      (char *)format,
			      (char *)path,
			      NULL };
	struct asking *asking = calloc(1, sizeof(*asking));

	if (!asking)
		abort();
	asking->work.data = asking;
	asking->model = model;
	asking->expected = expected ? strdup(expected) : NULL;
	asking->known = known;
	asking->data = data;
	program_run(model->loop, arguments, told, asking);
}
