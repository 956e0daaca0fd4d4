/*
 * Owns the reading of QMP events: from a message to a plain struct. Called by link.c for each event; must not know
 * what anybody does about it.
 */
#include "qmp/event.h"

#include <string.h>
#include "qmp/value.h"

static const struct event_name {
	const char *name;
	enum qmp_event_kind kind;
} event_names[] = {
	{ "JOB_STATUS_CHANGE", QMP_EVENT_JOB_STATUS_CHANGE },
	{ "BLOCK_JOB_COMPLETED", QMP_EVENT_BLOCK_JOB_COMPLETED },
	{ "BLOCK_JOB_CANCELLED", QMP_EVENT_BLOCK_JOB_CANCELLED },
	{ "BLOCK_JOB_READY", QMP_EVENT_BLOCK_JOB_READY },
	{ "BLOCK_JOB_PENDING", QMP_EVENT_BLOCK_JOB_PENDING },
	{ "BLOCK_JOB_ERROR", QMP_EVENT_BLOCK_JOB_ERROR },
	{ "STOP", QMP_EVENT_RUN_STATE },
	{ "RESUME", QMP_EVENT_RUN_STATE },
	{ "SUSPEND", QMP_EVENT_RUN_STATE },
	{ "SUSPEND_DISK", QMP_EVENT_RUN_STATE },
	{ "WAKEUP", QMP_EVENT_RUN_STATE },
	{ "POWERDOWN", QMP_EVENT_RUN_STATE },
	{ "RESET", QMP_EVENT_RUN_STATE },
	{ "WATCHDOG", QMP_EVENT_RUN_STATE },
	{ "GUEST_PANICKED", QMP_EVENT_RUN_STATE },
	{ "GUEST_CRASHLOADED", QMP_EVENT_RUN_STATE },
	{ "SHUTDOWN", QMP_EVENT_SHUTDOWN },
	{ "DEVICE_DELETED", QMP_EVENT_DEVICES },
	{ "DEVICE_TRAY_MOVED", QMP_EVENT_DEVICES },
	{ "DEVICE_UNPLUG_GUEST_ERROR", QMP_EVENT_DEVICES },
	{ "BLOCK_EXPORT_DELETED", QMP_EVENT_DEVICES },
};

enum qmp_event_kind qmp_event_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(event_names) / sizeof(event_names[0]); i++)
		if (!strcmp(name, event_names[i].name))
			return event_names[i].kind;
	return QMP_EVENT_OTHER;
}

const char *qmp_event_job_key(enum qmp_event_kind kind)
{
	switch (kind) {
	case QMP_EVENT_JOB_STATUS_CHANGE:
	case QMP_EVENT_BLOCK_JOB_PENDING:
		return "id";
	case QMP_EVENT_BLOCK_JOB_COMPLETED:
	case QMP_EVENT_BLOCK_JOB_CANCELLED:
	case QMP_EVENT_BLOCK_JOB_READY:
	case QMP_EVENT_BLOCK_JOB_ERROR:
		return "device";
	default:
		return NULL;
	}
}

static const char *job_id(enum qmp_event_kind kind, const struct qmp_value *data)
{
	const char *key = qmp_event_job_key(kind);

	return key ? qmp_value_text(data, key, NULL) : NULL;
}

void qmp_event_read(struct qmp_event *event, const struct qmp_value *message)
{
	const struct qmp_value *data = qmp_value_get(message, "data");
	const char *name = qmp_value_text(message, "event", "");
	enum qmp_event_kind kind = qmp_event_kind(name);

	*event = (struct qmp_event){
		.kind = kind,
		.name = name,
		.job = job_id(kind, data),
		.offset = -1,
		.length = -1,
		.speed = -1,
	};
	if (!event->job)
		return;
	event->type = qmp_value_text(data, "type", NULL);
	event->status = qmp_value_text(data, "status", NULL);
	event->error = qmp_value_text(data, "error", NULL);
	event->operation = qmp_value_text(data, "operation", NULL);
	event->action = qmp_value_text(data, "action", NULL);
	event->offset = qmp_value_number(data, "offset", -1);
	event->length = qmp_value_number(data, "len", -1);
	event->speed = qmp_value_number(data, "speed", -1);
}
