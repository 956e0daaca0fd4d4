/*
 * Owns the jobs of a QEMU in small: the commands it takes and the events it sends. Used by the unit tests of jobs/; what its disks
 * look like is in qemu_layout.c.
 */
#include "tests/fake/qemu.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* --- events --- */

static void tell(struct qemu *qemu, const char *event, struct qmp_value *data)
{
	peer_send_event(qemu->peer, event, qmp_value_print(data));
	qmp_value_free(data);
}

static struct qmp_value *job_data(const struct qemu_job *job)
{
	struct qmp_value *data = qmp_add_text(qmp_object(), "device", job->id);

	qmp_add_text(data, "type", job->type);
	qmp_add_number(data, "len", job->length);
	qmp_add_number(data, "offset", job->offset);
	return qmp_add_number(data, "speed", job->speed);
}

void qemu_move(struct qemu *qemu, struct qemu_job *job, const char *status)
{
	struct qmp_value *data = qmp_add_text(qmp_object(), "id", job->id);

	snprintf(job->status, sizeof(job->status), "%s", status);
	tell(qemu, "JOB_STATUS_CHANGE", qmp_add_text(data, "status", status));
}

/* --- jobs --- */

struct qemu_job *qemu_job(struct qemu *qemu, size_t disk)
{
	struct qemu_job *job;

	DL_SEARCH_SCALAR(qemu->jobs, job, disk, disk);
	return job;
}

static struct qemu_job *find_job(struct qemu *qemu, const char *id)
{
	struct qemu_job *job;

	DL_FOREACH(qemu->jobs, job)
		if (!strcmp(job->id, id))
			return job;
	return NULL;
}

struct qemu_job *qemu_add_job(struct qemu *qemu, size_t disk, const char *id, const char *status)
{
	struct qemu_job *job = must(calloc(1, sizeof(*job)));

	job->id = must(strdup(id));
	job->disk = disk;
	job->length = 64 << 20;
	strcpy(job->type, "stream");
	snprintf(job->status, sizeof(job->status), "%s", status);
	DL_APPEND(qemu->jobs, job);
	return job;
}

void qemu_forget(struct qemu *qemu, struct qemu_job *job)
{
	DL_DELETE(qemu->jobs, job);
	free(job->id);
	free(job->error);
	free(job);
}

void qemu_pend(struct qemu *qemu, struct qemu_job *job)
{
	job->offset = job->length;
	qemu_move(qemu, job, "waiting");
	qemu_move(qemu, job, "pending");
}

/* The stream has left the chain: mid and base have no parent any more. */
static void detach(struct qemu *qemu, const struct qemu_job *job)
{
	qemu->disks[job->disk].pulled = true;
	qemu->disks[job->disk].left = 2;
}

static void conclude(struct qemu *qemu, struct qemu_job *job)
{
	qemu_move(qemu, job, "concluded");
	if (!job->auto_dismiss)
		return;
	qemu_move(qemu, job, "null");
	qemu_forget(qemu, job);
}

void qemu_end(struct qemu *qemu, struct qemu_job *job, const char *error)
{
	if (strcmp(job->status, "aborting"))
		qemu_move(qemu, job, "aborting");
	free(job->error);
	job->error = must(strdup(error ? error : "Operation canceled"));
	tell(qemu, error ? "BLOCK_JOB_COMPLETED" : "BLOCK_JOB_CANCELLED",
	     error ? qmp_add_text(job_data(job), "error", error) : job_data(job));
	conclude(qemu, job);
}

/* --- commands --- */

static void obeyed(struct qemu *qemu, size_t number)
{
	peer_reply(qemu->peer, number, "{}");
}

static void refused(struct qemu *qemu, size_t number, const char *desc)
{
	peer_reply_error(qemu->peer, number, "GenericError", desc);
}

static bool may_do(struct qemu *qemu, size_t number, const struct qemu_job *job, const char *verb,
		   const char *states)
{
	char text[400];

	if (!job) {
		refused(qemu, number, "Job not found");
		return false;
	}
	if (strstr(states, job->status))
		return true;
	snprintf(text, sizeof(text), "Job '%s' in state '%s' cannot accept command verb '%s'",
		 job->id, job->status, verb);
	refused(qemu, number, text);
	return false;
}

static void stream(struct qemu *qemu, size_t number, const struct qmp_value *arguments)
{
	const char *node = qmp_value_text(arguments, "device", "");
	struct qemu_job *job;
	size_t disk;

	for (disk = 0; disk < qemu->disk_count; disk++)
		if (!strcmp(node, qemu_node_name(&qemu->disks[disk], 0)))
			break;
	if (disk == qemu->disk_count) {
		refused(qemu, number, "Cannot find device");
		return;
	}
	job = qemu_add_job(qemu, disk, qmp_value_text(arguments, "job-id", ""), "undefined");
	job->auto_finalize = qmp_value_flag(arguments, "auto-finalize", true);
	job->auto_dismiss = qmp_value_flag(arguments, "auto-dismiss", true);
	job->speed = qmp_value_number(arguments, "speed", 0);
	qemu_move(qemu, job, "created");
	if (qemu->refuse) {
		qemu_move(qemu, job, "null");
		qemu_forget(qemu, job);
		refused(qemu, number, qemu->refuse);
		return;
	}
	qemu_move(qemu, job, "running");
	if (qemu->quick)
		qemu_pend(qemu, job);
	obeyed(qemu, number);
}

static void finalize(struct qemu *qemu, size_t number, struct qemu_job *job)
{
	qemu->finalizing = false;
	if (!may_do(qemu, number, job, "finalize", "pending"))
		return;
	tell(qemu, "BLOCK_JOB_COMPLETED", job_data(job));
	detach(qemu, job);
	conclude(qemu, job);
	obeyed(qemu, number);
}

static void dismiss(struct qemu *qemu, size_t number, struct qemu_job *job)
{
	if (!may_do(qemu, number, job, "dismiss", "concluded"))
		return;
	if (!qemu->stubborn) {
		qemu_move(qemu, job, "null");
		qemu_forget(qemu, job);
	}
	obeyed(qemu, number);
}

static void cancel(struct qemu *qemu, size_t number, struct qemu_job *job)
{
	if (!may_do(qemu, number, job, "cancel",
		    "created running paused ready standby waiting pending"))
		return;
	obeyed(qemu, number);
	qemu_move(qemu, job, "aborting");
	if (!qemu->slow_cancel)
		qemu_end(qemu, job, NULL);
}

static void set_paused(struct qemu *qemu, size_t number, struct qemu_job *job, bool paused)
{
	if (!may_do(qemu, number, job, paused ? "pause" : "resume", "created running paused ready"))
		return;
	if (job->paused == paused) {
		refused(qemu, number,
			paused ? "Job is already paused"
			       : "Can't resume a job that was not paused");
		return;
	}
	job->paused = paused;
	qemu_move(qemu, job, paused ? "paused" : "running");
	obeyed(qemu, number);
}

static void list_jobs(struct qemu *qemu, size_t number)
{
	struct qmp_value *list = qmp_array();
	struct qemu_job *job;

	DL_FOREACH(qemu->jobs, job) {
		struct qmp_value *info = job_data(job);

		qmp_add_text(info, "status", job->status);
		qmp_add_text(info, "io-status", "ok");
		qmp_add_flag(info, "paused", job->paused);
		qmp_add_flag(info, "ready", job->ready);
		qmp_add_flag(info, "busy", true);
		qmp_add_flag(info, "auto-finalize", job->auto_finalize);
		qmp_add_flag(info, "auto-dismiss", job->auto_dismiss);
		if (job->error)
			qmp_add_text(info, "error", job->error);
		qmp_append_value(list, info);
	}
	peer_reply(qemu->peer, number, qmp_value_print(list));
	qmp_value_free(list);
}

static void answer_value(struct qemu *qemu, size_t number, struct qmp_value *value)
{
	peer_reply(qemu->peer, number, qmp_value_print(value));
	qmp_value_free(value);
}

static bool carry_out_job(struct qemu *qemu, size_t number, const char *command,
			  const struct qmp_value *arguments)
{
	struct qemu_job *job = find_job(qemu, qmp_value_text(arguments, "id", ""));

	if (!strcmp(command, "job-finalize"))
		finalize(qemu, number, job);
	else if (!strcmp(command, "job-dismiss"))
		dismiss(qemu, number, job);
	else if (!strcmp(command, "job-cancel"))
		cancel(qemu, number, job);
	else if (!strcmp(command, "job-pause"))
		set_paused(qemu, number, job, true);
	else if (!strcmp(command, "job-resume"))
		set_paused(qemu, number, job, false);
	else
		return false;
	return true;
}

static bool carry_out(struct qemu *qemu, size_t number, const char *command,
		      const struct qmp_value *arguments)
{
	struct qemu_job *job;

	if (!strcmp(command, "block-stream")) {
		stream(qemu, number, arguments);
	} else if (!strcmp(command, "block-job-set-speed")) {
		job = find_job(qemu, qmp_value_text(arguments, "device", ""));
		if (may_do(qemu, number, job, "set-speed", "created running paused ready")) {
			job->speed = qmp_value_number(arguments, "speed", 0);
			obeyed(qemu, number);
		}
	} else if (!strcmp(command, "blockdev-del")) {
		if (qemu->stubborn ||
		    qemu_drop_node(qemu, qmp_value_text(arguments, "node-name", "")))
			obeyed(qemu, number);
		else
			refused(qemu, number, "Node is in use");
	} else if (!strcmp(command, "query-block-jobs")) {
		list_jobs(qemu, number);
	} else if (!strcmp(command, "query-block")) {
		answer_value(qemu, number, qemu_block(qemu));
	} else if (!strcmp(command, "query-named-block-nodes")) {
		answer_value(qemu, number, qemu_nodes(qemu));
	} else if (!strcmp(command, "x-debug-query-block-graph")) {
		answer_value(qemu, number, qemu_graph(qemu));
	} else {
		return carry_out_job(qemu, number, command, arguments);
	}
	return true;
}

/* --- danger, and answers that are kept back --- */

static void watch_danger(struct qemu *qemu, const char *command)
{
	struct qemu_job *job;
	bool danger = qemu->finalizing;

	if (!strcmp(command, "job-finalize"))
		qemu->finalizing = true;
	if (strcmp(command, "query-block") && strcmp(command, "query-named-block-nodes"))
		return;
	DL_FOREACH(qemu->jobs, job)
		danger |= !strcmp(job->status, "concluded") &&
			  (qemu->daemon || !strncmp(job->id, "blockjobfs-", 11));
	qemu->in_danger += danger;
}

static void hold_back(struct qemu *qemu, size_t number)
{
	if (qemu->held_count == QEMU_HELD_MAX)
		abort();
	qemu->held[qemu->held_count++] = number;
}

/* It is done, and nobody is told. */
static void carry_out_in_silence(struct qemu *qemu, const char *command,
				 const struct qmp_value *arguments)
{
	/* An answer to a number that is none goes to the client without an id; so to nobody. */
	struct qemu_job *job = find_job(qemu, qmp_value_text(arguments, "id", ""));

	if (!strcmp(command, "job-dismiss") && job) {
		qemu_move(qemu, job, "null");
		qemu_forget(qemu, job);
	} else if (!strcmp(command, "job-finalize") && job) {
		tell(qemu, "BLOCK_JOB_COMPLETED", job_data(job));
		detach(qemu, job);
		conclude(qemu, job);
		qemu->finalizing = false;
	}
}

static bool hook(void *data, struct peer *peer, size_t number, const char *command,
		 const struct qmp_value *arguments)
{
	struct qemu *qemu = data;
	bool held = qemu->hold && !strcmp(qemu->hold, command);

	held |= qemu->hangs && qemu->held_count;
	if (held && qemu->hold_effect) {
		hold_back(qemu, number);
		return true;
	}
	if (qemu->before)
		qemu->before(qemu->before_data, command);
	watch_danger(qemu, command);
	if (qemu->left && !strcmp(qemu->left, command))
		return false;
	if (!held)
		return carry_out(qemu, number, command, arguments);
	hold_back(qemu, number);
	carry_out_in_silence(qemu, command, arguments);
	return true;
}

void qemu_hold(struct qemu *qemu, const char *command, bool effect)
{
	qemu->hold = command;
	qemu->hold_effect = effect;
}

void qemu_hang(struct qemu *qemu, const char *command)
{
	qemu_hold(qemu, command, true);
	qemu->hangs = true;
}

void qemu_drop_held(struct qemu *qemu)
{
	qemu->hold = NULL;
	qemu->hold_effect = qemu->hangs = qemu->finalizing = false;
	qemu->held_count = 0;
}

void qemu_release(struct qemu *qemu)
{
	bool late = qemu->hold_effect;
	size_t held[QEMU_HELD_MAX], count = qemu->held_count;
	const char *hold = qemu->hold;

	memcpy(held, qemu->held, sizeof(held));
	qemu_drop_held(qemu);
	for (size_t i = 0; i < count; i++) {
		if (late)
			peer_answer(qemu->peer, held[i]);
		else if (!strcmp(hold, "human-monitor-command"))
			peer_reply(qemu->peer, held[i], "''");
		else
			obeyed(qemu, held[i]);
	}
}

/* --- its life --- */

void qemu_set_monitor(struct qemu *qemu)
{
	peer_set_answer(qemu->peer, "human-monitor-command", "''");
	peer_set_answer(
		qemu->peer, "query-qmp-schema",
		"[{'meta-type': 'command', 'name': 'query-status', 'arg-type': '0'},"
		"{'meta-type': 'command', 'name': 'human-monitor-command', 'arg-type': '8'},"
		"{'meta-type': 'command', 'name': 'block-stream', 'arg-type': '5'},"
		"{'meta-type': 'command', 'name': 'x-debug-query-block-graph', 'arg-type': '0'},"
		"{'meta-type': 'command', 'name': 'blockdev-del', 'arg-type': '7'},"
		"{'meta-type': 'object', 'name': '5', 'members': [{'name': 'base-node'},"
		"{'name': 'auto-finalize'}, {'name': 'auto-dismiss'}]}]");
}

void qemu_set_daemon(struct qemu *qemu)
{
	qemu->daemon = true;
	for (size_t i = 0; i < qemu->disk_count; i++)
		qemu->disks[i].bare = true;
	peer_set_answer(
		qemu->peer, "query-qmp-schema",
		"[{'meta-type': 'command', 'name': 'query-jobs', 'arg-type': '0'},"
		"{'meta-type': 'command', 'name': 'job-cancel', 'arg-type': '3'},"
		"{'meta-type': 'command', 'name': 'job-pause', 'arg-type': '3'},"
		"{'meta-type': 'command', 'name': 'block-job-set-speed', 'arg-type': '4'},"
		"{'meta-type': 'command', 'name': 'block-stream', 'arg-type': '5'},"
		"{'meta-type': 'command', 'name': 'x-debug-query-block-graph', 'arg-type': '0'},"
		"{'meta-type': 'command', 'name': 'query-named-block-nodes', 'arg-type': '6'},"
		"{'meta-type': 'command', 'name': 'blockdev-del', 'arg-type': '7'},"
		"{'meta-type': 'object', 'name': '5', 'members': [{'name': 'base-node'},"
		"{'name': 'auto-finalize'}, {'name': 'auto-dismiss'}]},"
		"{'meta-type': 'object', 'name': '6', 'members': [{'name': 'flat'}]}]");
}

struct qemu *qemu_new(uv_loop_t *loop, size_t disks)
{
	struct qemu *qemu = must(calloc(1, sizeof(*qemu)));

	qemu->peer = peer_new(loop);
	qemu->disk_count = disks;
	for (size_t i = 0; i < disks; i++)
		if (asprintf(&qemu->disks[i].name, "vd%c", (char)('a' + i)) < 0)
			abort();
	peer_set_hook(qemu->peer, hook, qemu);
	return qemu;
}

void qemu_free(struct qemu *qemu)
{
	struct qemu_job *job, *next;

	peer_set_hook(qemu->peer, NULL, NULL);
	peer_free(qemu->peer);
	DL_FOREACH_SAFE(qemu->jobs, job, next)
		qemu_forget(qemu, job);
	for (size_t i = 0; i < qemu->disk_count; i++)
		free(qemu->disks[i].name);
	free(qemu);
}
