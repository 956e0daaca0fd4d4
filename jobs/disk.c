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

static const char *type_of(const struct disk *disk)
{
	return disk->job ? disk->job->type : NULL;
}

void disk_is_told(struct disk *disk)
{
	disk->told_status = disk_status(disk);
	disk->told_type = type_of(disk);
}

void disk_changed(struct disk *disk, enum topic topic)
{
	struct model *model = disk->domain->model;
	bool is_status;

	tell(disk, topic);
	if (topic != TOPIC_JOB)
		return;
	job_record_hand_over(disk);
	is_status = disk_status(disk) != disk->told_status;
	if (!is_status && type_of(disk) == disk->told_type)
		return;
	disk_is_told(disk);
	if (is_status)
		tell(disk, TOPIC_STATUS);
	/* The table of all live jobs has both. */
	stamp_touch(&model->stamps[TOPIC_STATUS]);
	model->watcher->changed(model->watcher_data, NULL, NULL, TOPIC_STATUS);
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
