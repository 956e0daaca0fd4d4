/*
 * A QMP event as a plain struct. Filled by event.c from the message; the strings are borrowed from it and live as long as the
 * callback that delivers the event.
 */
#ifndef QMP_EVENT_H
#define QMP_EVENT_H

#include <stdint.h>

struct qmp_value;

enum qmp_event_kind {
	QMP_EVENT_OTHER, /* any event we have no name for: something happened in there */
	QMP_EVENT_JOB_STATUS_CHANGE, /* job, status */
	QMP_EVENT_BLOCK_JOB_COMPLETED, /* job, type, offset, length, speed, error (NULL: ended well) */
	QMP_EVENT_BLOCK_JOB_CANCELLED, /* job, type, offset, length, speed */
	QMP_EVENT_BLOCK_JOB_READY, /* job, type, offset, length, speed */
	QMP_EVENT_BLOCK_JOB_PENDING, /* job, type */
	QMP_EVENT_BLOCK_JOB_ERROR, /* job, operation, action: one for each failed request, unlimited in number */
	QMP_EVENT_RUN_STATE, /* STOP, RESUME, SUSPEND, WAKEUP, POWERDOWN, RESET, GUEST_PANICKED, ... : ask query-status */
	QMP_EVENT_SHUTDOWN, /* QEMU is about to go */
	QMP_EVENT_DEVICES, /* DEVICE_DELETED, DEVICE_TRAY_MOVED, BLOCK_EXPORT_DELETED, ...: look at the disks again */
};

struct qmp_event {
	enum qmp_event_kind kind;
	const char *name; /* QEMU's own name, never NULL */
	const char *job; /* the job's id, or NULL */
	const char *type; /* stream, commit, mirror, backup, ... or NULL */
	const char *status; /* JOB_STATUS_CHANGE's, or NULL */
	const char *error; /* or NULL */
	const char *operation, *action; /* BLOCK_JOB_ERROR's, or NULL */
	int64_t offset, length,
		speed; /* bytes, bytes, bytes a second; -1 if the event does not tell */
};

enum qmp_event_kind qmp_event_kind(const char *name);
/*
 * What it calls the job's id: JOB_STATUS_CHANGE and BLOCK_JOB_PENDING say "id"; the older ones say "device" and mean the job's id. NULL: it is about
 * no job.
 */
const char *qmp_event_job_key(enum qmp_event_kind kind);
/* Fills @event from a message that has the key "event". */
void qmp_event_read(struct qmp_event *event, const struct qmp_value *message);

#endif
