/*
 * Layouts from recorded answers of QEMU 7.2 (tests/unit/data, with only what nobody looks at taken out), and the asking for them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "tests/fake/peer.h"
#include "tests/unit/test_qmp_layout.h"

static void expect_recorded(const char *name, const char *wanted)
{
	struct qmp_value *data = peer_load(name);
	char *got = layout_of(data, qmp_value_get(data, "graph"));

	cr_assert_str_eq(got, wanted, "%s:\n%s", name, got);
	free(got);
	qmp_value_free(data);
}

/* --- recorded --- */

Test(qmp_layout, machine_backup)
{
	/* Catches the shown copy-before-write filter taken for an image. */
	expect_recorded("machine_backup.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_blockdev)
{
	/* Catches nodes that QEMU named itself left without a name. */
	expect_recorded(
		"machine_blockdev.json",
		"disk vda - top: top=qcow2:/vm/top.qcow2:64 #block235=qcow2:/vm/mid.qcow2:64 "
		"#block466=qcow2:/vm/base.qcow2:64\n");
}

Test(qmp_layout, machine_blockdev_stream)
{
	/* Catches a stream's filter taken for the disk, or its job lost. */
	expect_recorded(
		"machine_blockdev_stream.json",
		"disk vda - top: top=qcow2:/vm/top.qcow2:64 #block235=qcow2:/vm/mid.qcow2:64 "
		"#block466=qcow2:/vm/base.qcow2:64\n"
		"job pull0 on 0\n");
}

Test(qmp_layout, machine_commit)
{
	/* Catches the hidden commit_top counted as an image. */
	expect_recorded("machine_commit.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_drive)
{
	/* Catches an anonymous device given an id, and empty drives shown as disks. */
	expect_recorded("machine_drive.json",
			"disk - drv0 #block143: #block143=qcow2:/vm/top.qcow2:64 "
			"#block307=qcow2:/vm/mid.qcow2:64 #block582=qcow2:/vm/base.qcow2:64\n"
			"disk vdb drv1 #block742: #block742=raw:/vm/raw.img:1\n");
}

Test(qmp_layout, machine_drive_stream)
{
	/* Catches a filter without a name of its own taken for an image. */
	expect_recorded("machine_drive_stream.json",
			"disk - drv0 #block143: #block143=qcow2:/vm/top.qcow2:64 "
			"#block307=qcow2:/vm/mid.qcow2:64 #block582=qcow2:/vm/base.qcow2:64\n"
			"disk vdb drv1 #block742: #block742=raw:/vm/raw.img:1\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_inline)
{
	/* Catches json: names shown as paths. */
	expect_recorded("machine_inline.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n");
}

Test(qmp_layout, machine_inline_stream_base)
{
	/* Catches a job that stops at a base put on another disk. */
	expect_recorded("machine_inline_stream_base.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_inline_stream_mid)
{
	/* Catches a filter in the middle of a chain counted as an image. */
	expect_recorded("machine_inline_stream_mid.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_mirror)
{
	/* Catches a job placed by its target. */
	expect_recorded("machine_mirror.json",
			"disk vda - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, machine_throttle)
{
	/* Catches a filter that the user has put on top shown as the active image. */
	expect_recorded(
		"machine_throttle.json",
		"disk vda - top: top=qcow2:/vm/top.qcow2:64 #block211=qcow2:/vm/mid.qcow2:64 "
		"#block464=qcow2:/vm/base.qcow2:64\n");
}

Test(qmp_layout, machine_throttle_stream)
{
	/* Catches two filters, one shown and one hidden, taken for one. */
	expect_recorded(
		"machine_throttle_stream.json",
		"disk vda - top: top=qcow2:/vm/top.qcow2:64 #block211=qcow2:/vm/mid.qcow2:64 "
		"#block464=qcow2:/vm/base.qcow2:64\n"
		"job pull0 on 0\n");
}

Test(qmp_layout, nodes_auto)
{
	/* Catches backing and protocol nodes shown as disks. */
	expect_recorded("nodes_auto.json",
			"disk - - top: top=qcow2:/vm/top.qcow2:64 #block288=qcow2:/vm/mid.qcow2:64 "
			"#block456=qcow2:/vm/base.qcow2:64\n"
			"loose top\n");
}

Test(qmp_layout, nodes_auto_stream)
{
	/* Catches a disk lost while it hangs under a filter. */
	expect_recorded("nodes_auto_stream.json",
			"disk - - top: top=qcow2:/vm/top.qcow2:64 #block288=qcow2:/vm/mid.qcow2:64 "
			"#block456=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, nodes_inline)
{
	/* Catches named backing and protocol nodes shown as disks. */
	expect_recorded("nodes_inline.json",
			"disk - - data: data=raw:/vm/raw.img:1\n"
			"disk - - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"loose data\n"
			"loose top\n");
}

Test(qmp_layout, nodes_inline_stream_base)
{
	/* Catches a job put on the wrong one of two disks. */
	expect_recorded("nodes_inline_stream_base.json",
			"disk - - data: data=raw:/vm/raw.img:1\n"
			"disk - - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 1\n"
			"loose data\n");
}

Test(qmp_layout, nodes_inline_stream_mid)
{
	/* Catches a named node under a filter in a chain shown as a disk. */
	expect_recorded("nodes_inline_stream_mid.json",
			"disk - - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n"
			"loose top\n");
}

Test(qmp_layout, nodes_mirror)
{
	/* Catches a job placed by its target, which is a disk too. */
	expect_recorded("nodes_mirror.json",
			"disk - - dst: dst=raw:json:{\"driver\": \"raw\", \"file\": {\"driver\": "
			"\"null-co\", \"size\": 67108864}}:64\n"
			"disk - - top: top=qcow2:/vm/top.qcow2:64 mid=qcow2:/vm/mid.qcow2:64 "
			"base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 1\n");
}

Test(qmp_layout, nodes_backup)
{
	/* Catches the target of a backup shown as a disk, and the disk taken for a part of it: sync=none has it for a backing image. */
	expect_recorded("nodes_backup.json",
			"disk - - top: top=qcow2:/vm/top.qcow2:64 base=qcow2:/vm/base.qcow2:64\n"
			"job pull0 on 0\n");
}

Test(qmp_layout, nodes_throttle)
{
	/* Catches an exported filter shown as the disk. */
	expect_recorded("nodes_throttle.json",
			"disk - - top: top=qcow2:/vm/top.qcow2:64 #block216=qcow2:/vm/mid.qcow2:64 "
			"#block436=qcow2:/vm/base.qcow2:64\n");
}

/* --- asking --- */

struct asked {
	int called;
	int code;
	char *layout;
};

static void on_layout(void *data, const struct qmp_error *error, struct qmp_layout *layout)
{
	struct asked *asked = data;

	asked->called++;
	asked->code = error ? error->code : 0;
	cr_assert_eq(!error, !!layout);
	free(asked->layout);
	asked->layout = layout ? render(layout) : NULL;
}

static void on_nothing(void *owner)
{
}

static void on_ready(void *owner)
{
	*(bool *)owner = true;
}

static void on_event(void *owner, const struct qmp_event *event)
{
}

static void on_closed(void *owner, int code, const char *reason)
{
}

static bool is_true(void *flag)
{
	return *(bool *)flag;
}

static bool is_called(void *asked)
{
	return ((struct asked *)asked)->called > 0;
}

static const struct qmp_link_handlers handlers = {
	.ready = on_ready, .busy = on_nothing, .event = on_event, .closed = on_closed
};

static void ask_for(struct qmp_link *link, struct peer *peer, unsigned long bits, size_t nodes,
		    int code, const char *wanted)
{
	struct asked asked = { 0 };

	qmp_query_layout(link, (struct qmp_features){ bits }, nodes, on_layout, &asked);
	cr_assert_eq(asked.called, 0);
	cr_assert(peer_run_until(peer_loop(peer), is_called, &asked, 5000));
	peer_run_for(peer_loop(peer), 5);
	cr_assert_eq(asked.called, 1);
	cr_assert_eq(asked.code, code, "%d", asked.code);
	if (wanted)
		cr_assert_str_eq(asked.layout, wanted, "%s", asked.layout);
	free(asked.layout);
}

static void ask(struct qmp_link *link, struct peer *peer, unsigned long bits, int code,
		const char *wanted)
{
	ask_for(link, peer, bits, 0, code, wanted);
}

Test(qmp_layout, two_questions_one_answer)
{
	/* Catches a callback called twice or never, and a wrong command sent to a machine or a daemon. */
	unsigned long graph = 1ul << QMP_HAS_BLOCK_GRAPH, machine = 1ul << QMP_HAS_QUERY_STATUS;
	unsigned long flat = 1ul << QMP_HAS_FLAT_NODES;
	static const char vda[] = "disk vda - top: top=qcow2:/vm/top.qcow2:64 "
				  "mid=qcow2:/vm/mid.qcow2:64 base=qcow2:/vm/base.qcow2:64\n";
	static const char nameless[] = "disk vda - top: top=qcow2:/vm/top.qcow2:64 "
				       "-=qcow2:/vm/mid.qcow2:64 -=qcow2:/vm/base.qcow2:64\n";
	uv_loop_t loop;
	struct peer *peer;
	struct qmp_link *link;
	struct asked last = { 0 };
	bool ready = false;

	uv_loop_init(&loop);
	peer = peer_new(&loop);
	link = qmp_link_open(&loop, &(struct qmp_address){ QMP_UNIX, peer_path(peer) }, 10000,
			     &handlers, &ready);
	cr_assert(peer_run_until(&loop, is_true, &ready, 5000));
	ask(link, peer, graph | machine | flat, 0, vda);
	ask(link, peer, machine, 0, nameless);
	cr_assert_eq(peer_count_of(peer, "query-named-block-nodes"), 0);
	ask(link, peer, graph | flat, -EREMOTEIO, NULL);
	cr_assert_str_eq(qmp_value_print((struct qmp_value *)peer_arguments(
				 peer, peer_last_of(peer, "query-named-block-nodes"))),
			 "{\"flat\":true}");
	ask_for(link, peer, graph | flat, 5, -EREMOTEIO, NULL);
	cr_assert(peer_arguments(peer, peer_last_of(peer, "query-named-block-nodes")));
	ask_for(link, peer, graph | flat, 4, -EREMOTEIO, NULL);
	cr_assert_null(peer_arguments(peer, peer_last_of(peer, "query-named-block-nodes")));
	peer_set_refusal(peer, "x-debug-query-block-graph", "GenericError", "no");
	ask(link, peer, graph | machine, -EREMOTEIO, NULL);
	peer_set_answer(peer, "query-block", "{}");
	ask(link, peer, machine, -EPROTO, NULL);
	qmp_query_layout(link, (struct qmp_features){ graph | machine }, 0, on_layout, &last);
	qmp_link_close(link);
	cr_assert(peer_run_until(&loop, is_called, &last, 5000));
	cr_assert_eq(last.code, -EHOSTDOWN);
	peer_free(peer);
	cr_assert(peer_run_empty(&loop, 5000));
	cr_assert_eq(uv_loop_close(&loop), 0);
	cr_assert_eq(last.called, 1);
}
