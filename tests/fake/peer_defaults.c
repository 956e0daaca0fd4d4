/*
 * Owns what a scripted peer answers as long as no test tells it otherwise: just enough for a machine with one disk to be believed.
 */
#include "tests/fake/peer.h"

/* The disk, as query-block and the graph show it. */
static void set_disk(struct peer *peer)
{
	peer_set_answer(
		peer, "query-block",
		"[{'device': '', 'qdev': '/machine/peripheral/vda/virtio-backend', 'inserted': {"
		"'node-name': 'top', 'drv': 'qcow2', 'file': '/vm/top.qcow2', 'image': {"
		"'filename': '/vm/top.qcow2', 'format': 'qcow2', 'virtual-size': 67108864,"
		"'backing-image': {"
		"'filename': '/vm/mid.qcow2', 'format': 'qcow2', 'virtual-size': 67108864,"
		"'backing-image': {"
		"'filename': '/vm/base.qcow2', 'format': 'qcow2', 'virtual-size': 67108864}}}}}]");
	peer_set_answer(peer, "x-debug-query-block-graph",
			"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 'base'},"
			"{'id': 2, 'type': 'block-driver', 'name': '#block001'},"
			"{'id': 3, 'type': 'block-driver', 'name': 'mid'},"
			"{'id': 4, 'type': 'block-driver', 'name': '#block002'},"
			"{'id': 5, 'type': 'block-driver', 'name': 'top'},"
			"{'id': 6, 'type': 'block-driver', 'name': '#block003'},"
			"{'id': 7, 'type': 'block-backend', 'name': "
			"'/machine/peripheral/vda/virtio-backend'}],"
			"'edges': [{'parent': 1, 'child': 2, 'name': 'file'},"
			"{'parent': 3, 'child': 4, 'name': 'file'}, {'parent': 3, 'child': 1, "
			"'name': 'backing'},"
			"{'parent': 5, 'child': 6, 'name': 'file'}, {'parent': 5, 'child': 3, "
			"'name': 'backing'},"
			"{'parent': 7, 'child': 5, 'name': 'root'}]}");
}

/* What a machine says that has one disk, vda: top over mid over base, each of 64 MiB. */
void peer_set_defaults(struct peer *peer)
{
	static const char *const obey[] = {
		"qmp_capabilities", "block-stream", "block-job-set-speed", "job-pause",
		"job-resume",	    "job-cancel",   "job-finalize",	   "job-dismiss",
		"blockdev-del",	    "quit",
	};

	for (size_t i = 0; i < sizeof(obey) / sizeof(obey[0]); i++)
		peer_set_answer(peer, obey[i], "{}");
	peer_set_answer(peer, "query-status",
			"{'status': 'running', 'singlestep': false, 'running': true}");
	peer_set_answer(peer, "human-monitor-command", "''"); /* qemu-io flush: all is well */
	peer_set_answer(peer, "query-jobs", "[]");
	peer_set_answer(peer, "query-block-jobs", "[]");
	peer_set_answer(
		peer, "query-qmp-schema",
		"[{'meta-type': 'command', 'name': 'query-status', 'arg-type': '0', 'ret-type': "
		"'1'},"
		"{'meta-type': 'command', 'name': 'query-jobs', 'arg-type': '0', 'ret-type': '2'},"
		"{'meta-type': 'command', 'name': 'job-cancel', 'arg-type': '3', 'ret-type': '0'},"
		"{'meta-type': 'command', 'name': 'job-pause', 'arg-type': '3', 'ret-type': '0'},"
		"{'meta-type': 'command', 'name': 'block-job-set-speed', 'arg-type': '4'},"
		"{'meta-type': 'command', 'name': 'block-stream', 'arg-type': '5'},"
		"{'meta-type': 'command', 'name': 'x-debug-query-block-graph', 'arg-type': '0'},"
		"{'meta-type': 'command', 'name': 'query-named-block-nodes', 'arg-type': '6'},"
		"{'meta-type': 'command', 'name': 'blockdev-add', 'arg-type': '14'},"
		"{'meta-type': 'command', 'name': 'blockdev-del', 'arg-type': '7'},"
		"{'meta-type': 'command', 'name': 'human-monitor-command', 'arg-type': '8'},"
		"{'meta-type': 'command', 'name': 'blockdev-reopen', 'arg-type': '9'},"
		"{'meta-type': 'command', 'name': 'block-commit', 'arg-type': '11'},"
		"{'meta-type': 'command', 'name': 'job-complete', 'arg-type': '3'},"
		"{'meta-type': 'command', 'name': 'drive-mirror', 'arg-type': '13'},"
		"{'meta-type': 'object', 'name': '13', 'members': [{'name': 'copy-mode', 'type': "
		"'str'}, {'name': 'auto-dismiss', 'type': 'bool'}]},"
		"{'meta-type': 'command', 'name': 'block-job-cancel', 'arg-type': '12'},"
		"{'meta-type': 'object', 'name': '11', 'members': [{'name': 'base-node', 'type': "
		"'str'}, {'name': 'auto-dismiss', 'type': 'bool'}]},"
		"{'meta-type': 'object', 'name': '12', 'members': [{'name': 'force', 'type': "
		"'bool'}]},"
		"{'meta-type': 'command', 'name': 'blockdev-snapshot', 'arg-type': '10'},"
		"{'meta-type': 'command', 'name': 'drive-backup', 'arg-type': '14'},"
		"{'meta-type': 'command', 'name': 'blockdev-backup', 'arg-type': '14'},"
		"{'meta-type': 'object', 'name': '14', 'members': [{'name': 'bitmap-mode', 'type': "
		"'str'}, {'name': 'auto-finalize', 'type': 'bool'}]},"
		"{'meta-type': 'command', 'name': 'blockdev-create', 'arg-type': '15'},"
		"{'meta-type': 'command', 'name': 'blockdev-snapshot-sync', 'arg-type': '16'},"
		"{'meta-type': 'object', 'name': '16', 'members': [{'name': 'snapshot-node-name', "
		"'type': 'str'}]},"
		"{'meta-type': 'object', 'name': '9', 'members': [{'name': 'options', 'type': "
		"'[str]'}]},"
		"{'meta-type': 'object', 'name': '5', 'members': [{'name': 'job-id', 'type': "
		"'str'},"
		"{'name': 'device', 'type': 'str'}, {'name': 'base-node', 'type': 'str'},"
		"{'name': 'auto-finalize', 'type': 'bool'}, {'name': 'auto-dismiss', 'type': "
		"'bool'}]},"
		"{'meta-type': 'object', 'name': '6', 'members': [{'name': 'flat', 'type': "
		"'bool'}]}]");
	set_disk(peer);
}
