/*
 * Jobs on trial; see trial.h. Begun by jobs/copy.c; told by jobs/refresh.c and jobs/finish.c what has become of the job.
 */
#include "jobs/trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/make_image.h"
#include "jobs/start.h"

/* It is a job like any other: the writer may go on. */
static void passed(struct disk *disk)
{
	disk->job->trial = false;
	disk_job_seen(disk);
}

void trial_look(struct disk *disk, const struct qmp_job_info *info)
{
	if (disk->job->trial && !info->error && strcmp(info->status, "aborting"))
		passed(disk);
}

/* The look that was asked for. If it had shown that all is well, the trial would be over. */
static void looked(struct op *look, int status, void *data)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);

	if (disk && disk->job->trial && status)
		passed(disk); /* what becomes of it will be seen in time */
	free(call);
}

void trial_answered(void *data, const struct qmp_error *error)
{
	struct call *call = data;
	struct disk *disk = call_disk(call);
	struct op *op = call_op(call);

	if (disk && error)
		disk->job->trial = false;
	if (!disk || error || !op) {
		if (disk && disk->job->trial)
			passed(disk); /* nobody waits */
		start_answered(call, error);
		return;
	}
	if (!disk->job->trial) {
		free(call); /* it was seen, and the writer is answered */
		return;
	}
	disk_job_seen(disk);
	disk_refresh(op_new(&op->target, &op->by, looked, call));
}

/* --- the verdict --- */

struct refusal {
	struct model *model;
	uint64_t op;
	char *reason;
};

static void tell(void *data)
{
	struct refusal *refusal = data;
	struct op *op = op_find(refusal->model, refusal->op);

	if (op)
		op_refuse(op, -EREMOTEIO, "%s", refusal->reason);
	free(refusal->reason);
	free(refusal);
}

bool trial_ended(struct disk *disk)
{
	struct job *job = disk->job;
	struct model *model = disk->domain->model;
	struct op *op = job->trial ? op_find(model, job->starter) : NULL;
	struct refusal *refusal;
	char *dest;

	if (!job->trial)
		return false;
	if (!op || job_final_state(job) != JOB_FAILED) {
		passed(disk);
		return false;
	}
	refusal = malloc(sizeof(*refusal));
	if (!refusal)
		abort();
	*refusal = (struct refusal){ model, op->id, strdup(job->error) };
	dest = job->made_s ? strdup(job->dest) : NULL;
	if (dest)
		make_image_undo(disk->domain, dest, job->made_s, tell, refusal);
	disk_job_forget(disk);
	if (!dest)
		tell(refusal);
	free(dest);
	return true;
}
