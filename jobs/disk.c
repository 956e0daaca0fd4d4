/*
 * One disk: what is read from it. The commands are in pull.c and steer.c, its making and its removal in inventory.c.
 */
#include "jobs/disk.h"

#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/job_record.h"

const char *disk_status(const struct disk *disk)
{
	return job_state_words[disk->job ? disk->job->state : JOB_IDLE];
}

static void tell(struct disk *disk, enum topic topic)
{
	struct model *model = disk->domain->model;

	stamp_touch(&disk->stamps[topic]);
	model->watcher->changed(model->watcher_data, disk->domain, disk, topic);
}

void disk_changed(struct disk *disk, enum topic topic)
{
	struct model *model = disk->domain->model;
	const char *status = disk_status(disk);

	tell(disk, topic);
	if (topic == TOPIC_JOB)
		job_record_hand_over(disk);
	if (topic == TOPIC_JOB && status != disk->told_status) {
		disk->told_status = status;
		tell(disk, TOPIC_STATUS);
		/* The table of all live jobs. */
		stamp_touch(&model->stamps[TOPIC_STATUS]);
		model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_STATUS);
	}
}

static void wait_over(struct op *op)
{
	op_complete(op, 0);
}

void disk_wait(struct op *op)
{
	if (disk_is_busy(op->target.disk))
		op->job_ended = wait_over;
	else
		op_complete(op, 0);
}
