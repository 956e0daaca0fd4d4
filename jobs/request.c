/*
 * Commands that come a second time; see request.h.
 */
#include "jobs/request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "jobs/history.h"
#include "jobs/journal.h"
#include "jobs/model.h"
#include "qmp/value.h"

#define PREFIX "request/"

static void key_of(const struct op *op, char key[40])
{
	snprintf(key, 40, PREFIX "%" PRIx64, op->request);
}

uint64_t request_number(const struct op *op)
{
	uint64_t number = op->request ^ op->target.model->mount_number;

	if (!op->request) {
		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			number = (uint64_t)time(NULL) ^ op->id << 32;
		return number;
	}
	/* The finalizer of splitmix64: what is read of it are a few bits. */
	number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
	return number ^ number >> 31;
}

void request_note(const struct op *op, struct qmp_value *note)
{
	char key[40];

	if (op->request) {
		key_of(op, key);
		journal_put(op->target.model->handover, key, qmp_value_print(note));
	}
	qmp_value_free(note);
}

struct qmp_value *request_noted(const struct op *op)
{
	const char *text;
	char key[40];

	if (!op->again)
		return NULL;
	key_of(op, key);
	text = journal_get(op->target.model->handover, key);
	return text ? qmp_value_parse(text, strlen(text), NULL) : NULL;
}

void request_over(const struct op *op)
{
	char key[40];

	if (!op->request)
		return;
	key_of(op, key);
	journal_drop(op->target.model->handover, key);
}

struct wanted {
	const char *node;
	bool found;
};

static void look(void *data, const char *key, const char *text)
{
	struct wanted *wanted = data;
	struct qmp_value *note = qmp_value_parse(text, strlen(text), NULL);

	wanted->found |= !strcmp(qmp_value_text(note, "node", ""), wanted->node);
	qmp_value_free(note);
}

bool request_has_node(struct model *model, const char *node)
{
	struct wanted wanted = { .node = node };

	journal_each(model->handover, PREFIX, look, &wanted);
	return wanted.found;
}

void request_note_job(const struct op *op)
{
	request_note(op, qmp_add_text(qmp_object(), "job", op->target.disk->job->id));
}

bool request_job_is_over(const struct op *op)
{
	const struct job *job = op->target.disk->job;
	struct qmp_value *note = request_noted(op);
	const char *noted = qmp_value_text(note, "job", NULL);
	bool over = noted && (!job_is_live(job) || strcmp(job->id, noted));

	qmp_value_free(note);
	return over;
}

/* The id of a job of this disk that ends so; NULL: there is none. */
static const char *find_job(const struct disk *disk, const char *end, char *room, size_t size)
{
	size_t length = strlen(end);

	if (disk->job && strlen(disk->job->id) > length &&
	    !strcmp(disk->job->id + strlen(disk->job->id) - length, end))
		return disk->job->id;
	for (size_t i = disk->history_count; i-- > 0;) {
		struct qmp_value *line =
			qmp_value_parse(disk->history[i], strlen(disk->history[i]), NULL);
		const char *id = qmp_value_text(line, "job", "");
		bool found = strlen(id) > length && !strcmp(id + strlen(id) - length, end);

		snprintf(room, size, "%s", id);
		qmp_value_free(line);
		if (found)
			return room;
	}
	return NULL;
}

/* Nobody was told that it has begun, and QEMU has not shown it to this life. */
static bool is_unconfirmed(const struct disk *disk, const char *id)
{
	const struct job *job = disk->job;

	return job_is_live(job) && job->carried && !job->told && !strcmp(job->id, id);
}

bool request_has_started(struct op *op)
{
	char end[JOB_ID_END_BYTES], room[256];
	const char *id;

	if (!op->again)
		return false;
	job_id_end(end, request_number(op));
	id = find_job(op->target.disk, end, room, sizeof(room));
	if (!id)
		return false;
	if (is_unconfirmed(op->target.disk, id)) {
		op_refuse(op, -EHOSTDOWN,
			  "blockjobfs was started anew meanwhile, and cannot reach QEMU; the job "
			  "may have been "
			  "started: `job` tells");
		return true;
	}
	text_printf(op->answer, "started %s\n", id);
	op_complete(op, 0);
	return true;
}
