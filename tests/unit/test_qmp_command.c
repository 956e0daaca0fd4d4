/*
 * The words on the wire: commands' exact JSON and their answers, features from recorded schemas, events.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "qmp/command.h"
#include "qmp/flush.h"
#include "qmp/schema.h"
#include "tests/fake/peer.h"

struct wire {
	uv_loop_t loop;
	struct peer *peer;
	struct qmp_link *link;
	bool ready;
	char log[2000];
};

static void on_ready(void *data)
{
	((struct wire *)data)->ready = true;
}

static void on_busy(void *data)
{
}

static void on_event(void *data, const struct qmp_event *event)
{
}

static void on_closed(void *data, int code, const char *reason)
{
	((struct wire *)data)->link = NULL;
}

static const struct qmp_link_handlers handlers = {
	.ready = on_ready, .busy = on_busy, .event = on_event, .closed = on_closed
};

static bool is_ready(void *data)
{
	return ((struct wire *)data)->ready;
}

static bool has_log(void *data)
{
	return *((struct wire *)data)->log;
}

static void begin(struct wire *wire)
{
	memset(wire, 0, sizeof(*wire));
	uv_loop_init(&wire->loop);
	wire->peer = peer_new(&wire->loop);
	wire->link =
		qmp_link_open(&wire->loop, &(struct qmp_address){ QMP_UNIX, peer_path(wire->peer) },
			      10000, &handlers, wire);
	cr_assert(peer_run_until(&wire->loop, is_ready, wire, 5000));
}

static void end(struct wire *wire)
{
	if (wire->link)
		qmp_link_close(wire->link);
	peer_free(wire->peer);
	cr_assert(peer_run_empty(&wire->loop, 5000));
	cr_assert_eq(uv_loop_close(&wire->loop), 0);
}

static void on_done(void *data, const struct qmp_error *error)
{
	struct wire *wire = data;

	strcpy(wire->log, error ? error->text : "done");
}

/* The last command sent was @json (without its id, which all but one have), and was answered with @log. */
static void expect(struct wire *wire, const char *json, const char *log)
{
	const char *message, *id, *end;

	cr_assert_str_empty(wire->log);
	cr_assert(peer_run_until(&wire->loop, has_log, wire, 5000));
	message = peer_message(wire->peer, peer_count(wire->peer) - 1);
	id = strstr(message, ",\"id\":");
	cr_assert_eq(!id, !strcmp(json, "{\"execute\":\"query-block-jobs\""), "%s", message);
	end = id ? id : message + strlen(message) - 1;
	cr_assert(strlen(json) == (size_t)(end - message) &&
			  !strncmp(message, json, (size_t)(end - message)),
		  "%s", message);
	cr_assert_str_eq(wire->log, log);
	wire->log[0] = 0;
}

Test(qmp_command, exact_json)
{
	/* Catches a wrong argument's name: "id" and "device" both mean a job, in different commands. */
	struct wire wire;

	begin(&wire);
	qmp_block_stream(wire.link, &(struct qmp_stream){ .job = "j", .node = "top" }, on_done,
			 &wire);
	expect(&wire,
	       "{\"execute\":\"block-stream\",\"arguments\":{\"job-id\":\"j\",\"device\":\"top\","
	       "\"speed\":0,\"auto-finalize\":false,\"auto-dismiss\":false}",
	       "done");
	qmp_block_stream(wire.link,
			 &(struct qmp_stream){ "j", "top", "base", "../b", "stop", 1 << 20 },
			 on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"block-stream\",\"arguments\":{\"job-id\":\"j\",\"device\":\"top\","
	       "\"base-node\":\"base\",\"backing-file\":\"../"
	       "b\",\"speed\":1048576,\"on-error\":\"stop\","
	       "\"auto-finalize\":false,\"auto-dismiss\":false}",
	       "done");
	qmp_job_pause(wire.link, "j", on_done, &wire);
	expect(&wire, "{\"execute\":\"job-pause\",\"arguments\":{\"id\":\"j\"}", "done");
	qmp_job_resume(wire.link, "j", on_done, &wire);
	expect(&wire, "{\"execute\":\"job-resume\",\"arguments\":{\"id\":\"j\"}", "done");
	qmp_job_finalize(wire.link, "j", on_done, &wire);
	expect(&wire, "{\"execute\":\"job-finalize\",\"arguments\":{\"id\":\"j\"}", "done");
	qmp_job_dismiss(wire.link, "j", on_done, &wire);
	expect(&wire, "{\"execute\":\"job-dismiss\",\"arguments\":{\"id\":\"j\"}", "done");
	qmp_job_cancel(wire.link, "j", on_done, &wire);
	expect(&wire, "{\"execute\":\"job-cancel\",\"arguments\":{\"id\":\"j\"}", "done");
	qmp_job_set_speed(wire.link, "j", INT64_MAX, on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"block-job-set-speed\",\"arguments\":{\"device\":\"j\","
	       "\"speed\":9223372036854775807}",
	       "done");
	qmp_blockdev_del(wire.link, "n", on_done, &wire);
	expect(&wire, "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"n\"}", "done");
	peer_set_refusal(wire.peer, "quit", "GenericError", "no");
	qmp_quit(wire.link, on_done, &wire);
	expect(&wire, "{\"execute\":\"quit\"", "no");
	qmp_job_cancel(wire.link, "j", NULL, NULL);
	end(&wire);
}

Test(qmp_command, backup)
{
	/* Catches a target that is not told from a path, and the mode in which a bitmap is lost. */
	struct qmp_backup backup = {
		.job = "j",
		.node = "top",
		.target = "/a \"b\"",
		.format = "raw",
		.target_node = "t",
		.sync = "full",
	};
	struct wire wire;

	begin(&wire);
	peer_set_answer(wire.peer, "drive-backup", "{}");
	qmp_drive_backup(wire.link, &backup, on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"drive-backup\",\"arguments\":{\"job-id\":\"j\",\"device\":\"top\","
	       "\"sync\":\"full\",\"target\":\"json:{\\\"driver\\\":\\\"raw\\\","
	       "\\\"node-name\\\":\\\"t\\\",\\\"file\\\":{\\\"driver\\\":\\\"file\\\","
	       "\\\"filename\\\":\\\"/a \\\\\\\"b\\\\\\\"\\\"}}\",\"format\":\"raw\","
	       "\"mode\":\"existing\",\"speed\":0,\"auto-finalize\":false,\"auto-dismiss\":false}",
	       "done");
	backup.sync = "bitmap";
	backup.bitmap = "b";
	backup.target = "/a";
	backup.on_error = "stop";
	qmp_drive_backup(wire.link, &backup, on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"drive-backup\",\"arguments\":{\"job-id\":\"j\",\"device\":\"top\","
	       "\"sync\":\"bitmap\",\"bitmap\":\"b\",\"bitmap-mode\":\"never\",\"target\":\"json:{"
	       "\\\"driver\\\":\\\"raw\\\",\\\"node-name\\\":\\\"t\\\",\\\"file\\\":{"
	       "\\\"driver\\\":\\\"file\\\",\\\"filename\\\":\\\"/a\\\"}}\",\"format\":\"raw\","
	       "\"mode\":\"existing\",\"speed\":0,\"on-source-error\":\"stop\","
	       "\"on-target-error\":\"stop\",\"auto-finalize\":false,\"auto-dismiss\":false}",
	       "done");
	end(&wire);
}

Test(qmp_command, backup_probe)
{
	/* Catches a reason that is not the bitmap's taken for it, and the reverse. */
	struct qmp_backup backup = {
		.job = "j", .node = "n", .sync = "incremental", .bitmap = "b"
	};
	struct wire wire;

	begin(&wire);
	peer_set_refusal(wire.peer, "blockdev-backup", "GenericError", "the same");
	qmp_backup_probe(wire.link, &backup, on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"blockdev-backup\",\"arguments\":{\"job-id\":\"j\",\"device\":\"n\","
	       "\"sync\":\"incremental\",\"bitmap\":\"b\",\"target\":\"n\"}",
	       "done");
	peer_set_answer(wire.peer, "blockdev-backup", "{}");
	qmp_backup_probe(wire.link, &backup, on_done, &wire);
	expect(&wire,
	       "{\"execute\":\"blockdev-backup\",\"arguments\":{\"job-id\":\"j\",\"device\":\"n\","
	       "\"sync\":\"full\",\"target\":\"n\"}",
	       "QEMU takes a backup of a disk onto itself");
	end(&wire);
}

static void on_jobs(void *data, const struct qmp_error *error, const struct qmp_job_info *jobs,
		    size_t count)
{
	struct wire *wire = data;
	char *out = wire->log;

	out += sprintf(out, "%s %zu", error ? error->text : "jobs", count);
	for (size_t i = 0; i < count; i++)
		out += sprintf(out, " | %s %s %s %s %s %lld/%lld %lld %d%d%d%d", jobs[i].id,
			       jobs[i].type, jobs[i].status,
			       jobs[i].io_status ? jobs[i].io_status : "-",
			       jobs[i].error ? jobs[i].error : "-", (long long)jobs[i].offset,
			       (long long)jobs[i].length, (long long)jobs[i].speed, jobs[i].paused,
			       jobs[i].ready, jobs[i].auto_finalize, jobs[i].auto_dismiss);
}

Test(qmp_command, jobs)
{
	/* Catches fields mixed up, and a job without an id or of a wrong shape let through. */
	struct wire wire;

	begin(&wire);
	qmp_query_block_jobs(wire.link, on_jobs, &wire);
	expect(&wire, "{\"execute\":\"query-block-jobs\"", "jobs 0");
	peer_set_answer(
		wire.peer, "query-block-jobs",
		"[{'auto-finalize': false, 'io-status': 'ok', 'device': 'pull0', 'auto-dismiss': "
		"false,"
		"'busy': true, 'len': 67108864, 'offset': 1048576, 'status': 'running',"
		"'paused': false, 'speed': 5, 'ready': false, 'type': 'stream'},"
		"{'device': 'x', 'status': 'concluded', 'paused': true, 'ready': true, 'error': "
		"'No space',"
		"'auto-finalize': true, 'auto-dismiss': true, 'offset': 1, 'len': 2, 'speed': 0,"
		"'type': 'mirror', 'io-status': 'nospace'}, {'device': ''}, {}, 5, null]");
	qmp_query_block_jobs(wire.link, on_jobs, &wire);
	expect(&wire, "{\"execute\":\"query-block-jobs\"",
	       "jobs 2 | pull0 stream running ok - 1048576/67108864 5 0000"
	       " | x mirror concluded nospace No space 1/2 0 1111");
	peer_set_answer(wire.peer, "query-block-jobs", "{}");
	qmp_query_block_jobs(wire.link, on_jobs, &wire);
	expect(&wire, "{\"execute\":\"query-block-jobs\"",
	       "query-block-jobs was answered with no list 0");
	end(&wire);
}

static void on_text(void *data, const struct qmp_error *error, const char *text)
{
	sprintf(((struct wire *)data)->log, "%d %s", error ? error->code : 0, text ? text : "-");
}

static void on_features(void *data, const struct qmp_error *error, struct qmp_features features)
{
	sprintf(((struct wire *)data)->log, "%d %lx", error ? error->code : 0, features.bits);
}

Test(qmp_command, questions)
{
	/* Catches an answer of the wrong shape taken for one. */
	struct wire wire;
	char wanted[40];

	begin(&wire);
	qmp_query_run_state(wire.link, on_text, &wire);
	expect(&wire, "{\"execute\":\"query-status\"", "0 running");
	peer_set_answer(wire.peer, "query-status", "{'status': 5}");
	qmp_query_run_state(wire.link, on_text, &wire);
	snprintf(wanted, sizeof(wanted), "%d -", -EPROTO);
	expect(&wire, "{\"execute\":\"query-status\"", wanted);
	qmp_query_features(wire.link, on_features, &wire);
	snprintf(wanted, sizeof(wanted), "0 %lx", (1ul << QMP_FEATURE_COUNT) - 1);
	expect(&wire, "{\"execute\":\"query-qmp-schema\"", wanted);
	peer_set_answer(wire.peer, "query-qmp-schema", "{}");
	qmp_query_features(wire.link, on_features, &wire);
	snprintf(wanted, sizeof(wanted), "%d 0", -EPROTO);
	expect(&wire, "{\"execute\":\"query-qmp-schema\"", wanted);
	end(&wire);
}

/* --- features --- */

static unsigned long bits_of(const char *name)
{
	struct qmp_value *data = peer_load(name);
	struct qmp_features features = qmp_features_read(qmp_value_get(data, "schema"));

	qmp_value_free(data);
	return features.bits;
}

Test(qmp_schema, recorded)
{
	/* Catches a storage daemon taken for a machine, and a feature that this QEMU has but is not found. */
	unsigned long all = (1ul << QMP_FEATURE_COUNT) - 1;

	cr_assert_eq(bits_of("schema_machine.json"), all);
	cr_assert_eq(bits_of("schema_storage_daemon.json"),
		     all & ~(1ul << QMP_HAS_QUERY_STATUS | 1ul << QMP_HAS_HUMAN_MONITOR));
}

static unsigned long bits_in(const char *json)
{
	struct qmp_value *schema = qmp_value_parse(json, strlen(json), NULL);
	struct qmp_features features = qmp_features_read(schema);

	cr_assert(schema);
	qmp_value_free(schema);
	return features.bits;
}

Test(qmp_schema, arguments_of_the_command_itself)
{
	/* Catches an argument found in another command's type, or in no command at all. */
	cr_assert_eq(bits_in("[{\"meta-type\":\"object\",\"name\":\"5\","
			     "\"members\":[{\"name\":\"base-node\"}]},"
			     "{\"meta-type\":\"command\",\"name\":\"block-stream\",\"arg-type\":"
			     "\"6\"}]"),
		     1ul << QMP_HAS_STREAM);
	cr_assert_eq(bits_in("[{\"meta-type\":\"object\",\"name\":\"5\","
			     "\"members\":[{\"name\":\"base-node\"}]},"
			     "{\"meta-type\":\"command\",\"name\":\"block-stream\",\"arg-type\":"
			     "\"5\"}]"),
		     1ul << QMP_HAS_STREAM | 1ul << QMP_HAS_STREAM_BASE_NODE);
	cr_assert_eq(bits_in("[{\"meta-type\":\"event\",\"name\":\"block-stream\"}]"), 0);
	cr_assert_eq(bits_in("[{\"meta-type\":\"object\",\"name\":\"5\","
			     "\"members\":[{\"name\":\"base-node\"}]}]"),
		     0);
	cr_assert_eq(
		bits_in("[5,null,[],{\"meta-type\":[],\"name\":{}},{\"meta-type\":\"command\"}]"),
		0);
	cr_assert_eq(bits_in("{}"), 0);
}

Test(qmp_schema, every_feature_has_a_name)
{
	/* Catches a feature that was added without its row. */
	for (int i = 0; i < QMP_FEATURE_COUNT; i++)
		cr_assert(qmp_feature_name(i) && *qmp_feature_name(i));
	cr_assert_str_eq(qmp_feature_name(QMP_HAS_STREAM_BASE_NODE), "block-stream base-node");
}

/* --- events --- */

static void expect_event(const char *json, enum qmp_event_kind kind, const char *wanted)
{
	struct qmp_value *message = qmp_value_parse(json, strlen(json), NULL);
	struct qmp_event event;
	char got[300];

	cr_assert(message, "not JSON: %s", json);
	qmp_event_read(&event, message);
#define OR_DASH(text) (text ? text : "-")
	snprintf(got, sizeof(got), "%s %s %s %s %s %s %s %lld/%lld %lld", event.name,
		 OR_DASH(event.job), OR_DASH(event.type), OR_DASH(event.status),
		 OR_DASH(event.error), OR_DASH(event.operation), OR_DASH(event.action),
		 (long long)event.offset, (long long)event.length, (long long)event.speed);
	cr_assert_eq(event.kind, kind);
	cr_assert_str_eq(got, wanted, "%s", got);
	qmp_value_free(message);
}

Test(qmp_event, recorded_and_odd)
{
	/* Catches a job's id looked for under the wrong key ("device" or "id"), and trust in what a peer sends. */
	expect_event(
		"{\"event\":\"JOB_STATUS_CHANGE\",\"data\":{\"status\":\"running\",\"id\":\"j\"}}",
		QMP_EVENT_JOB_STATUS_CHANGE, "JOB_STATUS_CHANGE j - running - - - -1/-1 -1");
	expect_event("{\"event\":\"BLOCK_JOB_COMPLETED\",\"data\":{\"device\":\"j\",\"len\":9,"
		     "\"offset\":8,\"speed\":0,\"type\":\"stream\",\"error\":\"No space\"}}",
		     QMP_EVENT_BLOCK_JOB_COMPLETED,
		     "BLOCK_JOB_COMPLETED j stream - No space - - 8/9 0");
	expect_event("{\"event\":\"BLOCK_JOB_CANCELLED\",\"data\":{\"device\":\"j\",\"len\":9,"
		     "\"offset\":8,\"speed\":7,\"type\":\"stream\"}}",
		     QMP_EVENT_BLOCK_JOB_CANCELLED, "BLOCK_JOB_CANCELLED j stream - - - - 8/9 7");
	expect_event(
		"{\"event\":\"BLOCK_JOB_READY\",\"data\":{\"device\":\"j\",\"type\":\"mirror\"}}",
		QMP_EVENT_BLOCK_JOB_READY, "BLOCK_JOB_READY j mirror - - - - -1/-1 -1");
	expect_event(
		"{\"event\":\"BLOCK_JOB_PENDING\",\"data\":{\"id\":\"j\",\"type\":\"stream\"}}",
		QMP_EVENT_BLOCK_JOB_PENDING, "BLOCK_JOB_PENDING j stream - - - - -1/-1 -1");
	expect_event("{\"event\":\"BLOCK_JOB_ERROR\",\"data\":{\"device\":\"j\","
		     "\"operation\":\"write\",\"action\":\"stop\"}}",
		     QMP_EVENT_BLOCK_JOB_ERROR, "BLOCK_JOB_ERROR j - - - write stop -1/-1 -1");
	expect_event("{\"event\":\"STOP\"}", QMP_EVENT_RUN_STATE, "STOP - - - - - - -1/-1 -1");
	expect_event("{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":false}}", QMP_EVENT_SHUTDOWN,
		     "SHUTDOWN - - - - - - -1/-1 -1");
	expect_event("{\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"vda\"}}",
		     QMP_EVENT_DEVICES, "DEVICE_DELETED - - - - - - -1/-1 -1");
	expect_event("{\"event\":\"NEW_THING\",\"data\":{\"device\":\"vda\"}}", QMP_EVENT_OTHER,
		     "NEW_THING - - - - - - -1/-1 -1");
	expect_event("{\"event\":\"BLOCK_JOB_READY\",\"data\":[]}", QMP_EVENT_BLOCK_JOB_READY,
		     "BLOCK_JOB_READY - - - - - - -1/-1 -1");
	expect_event("{\"event\":\"JOB_STATUS_CHANGE\",\"data\":{\"status\":{},\"id\":5}}",
		     QMP_EVENT_JOB_STATUS_CHANGE, "JOB_STATUS_CHANGE - - - - - - -1/-1 -1");
	expect_event("{\"event\":7}", QMP_EVENT_OTHER, " - - - - - - -1/-1 -1");
}

static void log_flush(void *data, const struct qmp_error *error)
{
	struct wire *wire = data;

	snprintf(wire->log, sizeof(wire->log), "%s", error ? error->text : "flushed");
}

Test(qmp_flush, told_by_a_refusal)
{
	/* Catches an image called flushed though the snapshot that a storage daemon was to flush for was refused for another reason. */
	static const struct {
		const char *refusal, *outcome;
	} cases[] = {
		{ "The overlay is already in use", "flushed" },
		{ "An IO error has occurred", "An IO error has occurred" },
		{ "Write to node 'disk0' failed: No space left on device",
		  "Write to node 'disk0' failed: No space left on device" },
	};
	const struct qmp_features features = { 1ul << QMP_HAS_SNAPSHOT };
	const struct qmp_flush flush = { .node = "disk0", .file_node = "file0" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct wire wire;

		begin(&wire);
		peer_set_refusal(wire.peer, "blockdev-snapshot", "GenericError", cases[i].refusal);
		cr_assert(qmp_flush_idle(wire.link, features, &flush, log_flush, &wire));
		cr_assert(peer_run_until(&wire.loop, has_log, &wire, 5000));
		cr_assert_str_eq(wire.log, cases[i].outcome);
		end(&wire);
	}
}
