/*
 * Layouts from answers that do not fit together, or were made to hurt.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <string.h>
#include "tests/fake/peer.h"
#include "tests/unit/test_qmp_layout.h"

/* --- what does not fit together --- */

static struct qmp_value *parse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* JSON with single quotes. */
static struct qmp_value *parse(const char *format, ...)
{
	struct qmp_value *value;
	char *text = NULL;
	va_list args;

	va_start(args, format);
	cr_assert(vasprintf(&text, format, args) >= 0);
	va_end(args);
	for (char *at = text; *at; at++)
		*at = *at == '\'' ? '"' : *at;
	value = qmp_value_parse(text, strlen(text), NULL);
	cr_assert(value, "not JSON: %s", text);
	free(text);
	return value;
}

/* A graph of driver nodes, from "top:backing:mid mid:file:f"; ids in the order of appearance. Jobs begin with !, users with $. */
static int graph_node(struct qmp_value *nodes, const char *word)
{
	bool is_job = *word == '!', is_user = *word == '$';
	const char *name = word + (is_job || is_user);
	struct qmp_value *node;

	for (size_t i = 0; i < qmp_value_count(nodes); i++)
		if (!strcmp(qmp_value_text(qmp_value_item(nodes, i), "name", ""), name))
			return i + 1;
	node = qmp_add_number(qmp_object(), "id", qmp_value_count(nodes) + 1);
	qmp_add_text(node, "type",
		     is_job    ? "block-job"
		     : is_user ? "block-backend"
			       : "block-driver");
	qmp_append_value(nodes, qmp_add_text(node, "name", name));
	return qmp_value_count(nodes);
}

static struct qmp_value *graph_of(const char *text)
{
	struct qmp_value *nodes = qmp_array(), *edges = qmp_array();
	char *copy = strdup(text), *rest = copy, *word;

	while ((word = strsep(&rest, " "))) {
		char *parent = strsep(&word, ":"), *name = strsep(&word, ":"),
		     *child = strsep(&word, ":");
		struct qmp_value *edge = qmp_object();

		for (char *at = name; *at; at++)
			*at = *at == '_' ? ' ' : *at;
		qmp_add_number(edge, "parent", graph_node(nodes, parent));
		qmp_add_number(edge, "child", graph_node(nodes, child));
		qmp_append_value(edges, qmp_add_text(edge, "name", name));
	}
	free(copy);
	return qmp_add_value(qmp_add_value(qmp_object(), "nodes", nodes), "edges", edges);
}

/* One device "vda" whose images are @formats, "qcow2 throttle qcow2". */
static struct qmp_value *device_of(const char *node, const char *formats)
{
	struct qmp_value *image = NULL;
	char *copy = strdup(formats), *word;

	while ((word = strrchr(copy, ' ')) || *copy) {
		struct qmp_value *above = qmp_object();

		qmp_add_text(above, "format", word ? word + 1 : copy);
		qmp_add_number(qmp_add_text(above, "filename", "f"), "virtual-size", 1 << 20);
		if (image)
			qmp_add_value(above, "backing-image", image);
		image = above;
		*(word ? word : copy) = 0;
	}
	free(copy);
	return qmp_add_value(
		qmp_add_text(qmp_object(), "qdev", "vda"), "inserted",
		qmp_add_value(qmp_add_text(qmp_object(), "node-name", node), "image", image));
}

static void expect_machine(const char *node, const char *formats, const char *edges,
			   const char *wanted)
{
	struct qmp_value *query = qmp_append_value(qmp_array(), device_of(node, formats));
	struct qmp_value *graph = edges ? graph_of(edges) : NULL;
	char *got = render(qmp_layout_from_machine(query, graph));

	cr_assert_str_eq(got, wanted, "%s | %s:\n%s", formats, edges, got);
	free(got);
	qmp_value_free(query);
	qmp_value_free(graph);
}

Test(qmp_layout_odd, no_node_name_is_guessed)
{
	/* Catches a job sent to the wrong image, when graph and images do not agree (they are two answers). */
	expect_machine("t", "qcow2 qcow2", NULL, "disk vda - t: t=qcow2:f:1 -=qcow2:f:1\n");
	expect_machine("t", "qcow2 qcow2", "t:file:a t:backing:b b:file:c",
		       "disk vda - t: t=qcow2:f:1 b=qcow2:f:1\n"
		       "loose t\n");
	expect_machine("t", "qcow2 qcow2 qcow2", "$d:root:t t:file:a t:backing:b b:file:c",
		       "disk vda - t: t=qcow2:f:1 -=qcow2:f:1 -=qcow2:f:1\n");
	expect_machine("t", "qcow2 qcow2", "$d:root:t t:file:a t:backing:b b:backing:c b:file:e",
		       "disk vda - t: t=qcow2:f:1 -=qcow2:f:1\n");
	expect_machine("t", "qcow2", "$d:root:x x:file:y", "disk vda - t: t=qcow2:f:1\n");
	expect_machine("t", "throttle qcow2", "$d:root:x x:file:y", "");
	expect_machine("t", "throttle", "$d:root:t t:file:y !j:main_node:t", "");
	expect_machine("t", "throttle qcow2", "$d:root:t t:file:q q:file:y",
		       "disk vda - q: q=qcow2:f:1\n");
}

Test(qmp_layout_odd, unnamed_node_with_a_file_is_an_image_unless_a_job_says_else)
{
	/* Catches the bottom image of a chain taken for a stream's filter, and the other way round. */
	expect_machine("t", "qcow2 qcow2", "$d:root:t t:file:a t:backing:#1 #1:file:#2 #2:file:#3",
		       "disk vda - t: t=qcow2:f:1 #1=qcow2:f:1\n");
	expect_machine("t", "qcow2 qcow2",
		       "$d:root:t t:file:a t:backing:#1 #1:file:#2 #2:file:#3 !j:main_node:#1 "
		       "!j:active_node:#2",
		       "disk vda - t: t=qcow2:f:1 #2=qcow2:f:1\njob j on 0\n");
}

Test(qmp_layout_odd, filters_on_top_still_lead_to_the_disk)
{
	/* Catches a job without a disk when several filters are between its node and the disk's. */
	expect_machine("t", "qcow2",
		       "$d:root:#1 #1:backing:#2 #2:file:t t:file:a !j:main_node:#1 !j:source:#2",
		       "disk vda - t: t=qcow2:f:1\njob j on 0\n");
	expect_machine("t", "qcow2", "$d:root:t t:file:a x:file:y !j:main_node:x",
		       "disk vda - t: t=qcow2:f:1\n");
	expect_machine("t", "qcow2", "$d:root:t t:file:a !j:main_node:x !j:active_node:t",
		       "disk vda - t: t=qcow2:f:1\njob j on 0\n");
}

Test(qmp_layout_odd, graphs_that_contradict_themselves)
{
	/* Catches half a truth taken for one: such a graph counts as none. */
	static const char *const graphs[] = {
		"{}",
		"[]",
		"{'nodes': 5, 'edges': 5}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'},"
		"{'id': 1, 'type': 'block-driver', 'name': 'b'}], 'edges': []}",
		"{'nodes': [{'type': 'block-driver', 'name': 't'}], 'edges': []}",
		"{'nodes': [{'id': 'x', 'type': 'block-driver', 'name': 't'}], 'edges': []}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'},"
		"{'id': 2, 'type': 'block-driver', 'name': 't'}], 'edges': []}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'}],"
		"'edges': [{'parent': 1, 'child': 7, 'name': 'backing'}]}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'}],"
		"'edges': [{'parent': 1, 'name': 'backing'}]}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'},"
		"{'id': 2, 'type': 'block-driver', 'name': 'b'}],"
		"'edges': [{'parent': 1, 'child': 2, 'name': 'backing'},"
		"{'parent': 1, 'child': 2, 'name': 'backing'}]}",
		"{'nodes': [{'id': 1, 'type': 'block-driver', 'name': 't'},"
		"{'id': 2, 'type': 'block-job', 'name': 'b'}],"
		"'edges': [{'parent': 1, 'child': 2, 'name': 'backing'}]}",
	};
	struct qmp_value *query = qmp_append_value(qmp_array(), device_of("t", "qcow2 qcow2"));
	struct qmp_value *nodes = parse("[{'node-name': 't', 'drv': 'qcow2', 'image': {}}]");

	for (size_t i = 0; i < sizeof(graphs) / sizeof(graphs[0]); i++) {
		struct qmp_value *graph = parse("%s", graphs[i]);
		char *machine = render(qmp_layout_from_machine(query, graph));
		char *daemon = render(qmp_layout_from_nodes(nodes, graph));

		cr_assert_str_eq(machine, "disk vda - t: t=qcow2:f:1 -=qcow2:f:1\n", "%s:\n%s",
				 graphs[i], machine);
		cr_assert_str_empty(daemon);
		free(machine);
		free(daemon);
		qmp_value_free(graph);
	}
	qmp_value_free(query);
	qmp_value_free(nodes);
}

Test(qmp_layout_odd, circles)
{
	/* Catches a walk without end. */
	struct qmp_value *nodes =
		parse("[{'node-name': 'a', 'drv': 'qcow2'}, {'node-name': 'b', 'drv': 'qcow2'},"
		      "{'node-name': 'c', 'drv': 'throttle'}, {'node-name': 'r', 'drv': 'raw'}]");
	struct qmp_value *graph =
		graph_of("a:backing:b b:backing:c c:file:b r:backing:c !j:main_node:c");
	char *got = render(qmp_layout_from_nodes(nodes, graph));

	cr_assert_str_eq(got, "loose a\nloose r\n", "%s", got);
	free(got);
	qmp_value_free(graph);
	graph = graph_of("r:backing:c c:file:c !j:main_node:c a:file:a #1:backing:#1 t:file:#1");
	got = render(qmp_layout_from_nodes(nodes, graph));
	cr_assert_str_eq(got, "loose r\nloose t\n", "%s", got);
	free(got);
	qmp_value_free(nodes);
	qmp_value_free(graph);
	expect_machine("a", "qcow2 qcow2 qcow2", "a:backing:b b:backing:a",
		       "disk vda - a: a=qcow2:f:1 -=qcow2:f:1 -=qcow2:f:1\n");
	expect_machine("a", "qcow2 qcow2", "a:file:f a:backing:#1 #1:backing:#1 !j:main_node:#1",
		       "disk vda - a: a=qcow2:f:1 -=qcow2:f:1\njob j on 0\nloose a\n");
}

static void expect_device(const char *device, const char *wanted)
{
	struct qmp_value *query = parse("[%s]", device);
	char *got = render(qmp_layout_from_machine(query, NULL));

	cr_assert_str_eq(got, wanted, "%s: %s", device, got);
	free(got);
	qmp_value_free(query);
}

Test(qmp_layout_odd, device_names)
{
	/* Catches a QOM path shown as a name, and a device of somebody else's name. */
#define INSERTED "'inserted': {'node-name': 'n', 'image': {'format': 'raw', 'filename': 'x'}}"
	expect_device("{'qdev': 'vda', " INSERTED "}", "disk vda - n: n=raw:x:0\n");
	expect_device("{'qdev': '/machine/peripheral/v.1/virtio-backend', " INSERTED "}",
		      "disk v.1 - n: n=raw:x:0\n");
	expect_device("{'qdev': '/machine/peripheral/sd0', " INSERTED "}",
		      "disk sd0 - n: n=raw:x:0\n");
	expect_device("{'qdev': '/machine/peripheral/', " INSERTED "}", "disk - - n: n=raw:x:0\n");
	expect_device("{'qdev': '/machine/peripheral-anon/device[1]', " INSERTED "}",
		      "disk - - n: n=raw:x:0\n");
	expect_device("{'qdev': '/machine/unattached/device[23]', " INSERTED "}",
		      "disk - - n: n=raw:x:0\n");
	expect_device("{'qdev': '', 'device': 'd', " INSERTED "}", "disk - d n: n=raw:x:0\n");
	expect_device("{" INSERTED "}", "disk - - n: n=raw:x:0\n");
	expect_device("{'qdev': 5, 'device': [], 'inserted': {'node-name': 7}}", "");
	expect_device("{'qdev': 'a', 'inserted': {'node-name': 'n'}}", "");
	expect_device("{'qdev': 'a', 'inserted': {'node-name': 'n', 'image': {}}}",
		      "disk a - n: n=::0\n");
	expect_device("5, null, [], 'x'", "");
}

Test(qmp_layout_odd, paths)
{
	/* Catches a path that base= could not be compared with. */
	static const char *const paths[][2] = {
		{ "/vm/a.qcow2", "/vm/a.qcow2" },
		{ "a.qcow2", "a.qcow2" },
		{ "file:/vm/a:b", "/vm/a:b" },
		{ "nbd://host/x", "nbd://host/x" },
		{ "", "" },
		{ "json:", "node:n" }, /* cut short: another image may be called so, too */
		{ "json:[]", "json:[]" },
		{ "json:{\"driver\":\"raw\"", "node:n" },
		{ "json:{\"file\": {\"filename\": \"/vm/a b\"}}", "/vm/a b" },
		{ "json:{\"file.filename\": \"/vm/a\"}", "/vm/a" },
		{ "json:{\"file\": {\"file.filename\": \"/vm/a\"}}", "/vm/a" },
		{ "json:{\"filename\": \"file:/vm/a\"}", "/vm/a" },
		{ "json:{\"file\": \"node\"}", "json:{\"file\": \"node\"}" },
		{ "json:{\"file\": {\"filename\": 5}}", "json:{\"file\": {\"filename\": 5}}" },
		{ "json:{\"backing\": {\"filename\": \"/vm/b\"}}",
		  "json:{\"backing\": {\"filename\": \"/vm/b\"}}" },
	};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct qmp_value *image = qmp_add_text(qmp_object(), "filename", paths[i][0]);
		struct qmp_value *inserted = qmp_add_text(qmp_object(), "node-name", "n");
		struct qmp_value *device = qmp_object(), *query = qmp_array();
		struct qmp_layout *layout;

		qmp_add_value(device, "inserted", qmp_add_value(inserted, "image", image));
		layout = qmp_layout_from_machine(qmp_append_value(query, device), NULL);
		cr_assert_eq(layout->disk_count, 1);
		cr_assert_str_eq(layout->disks[0].chain[0].path, paths[i][1]);
		cr_assert_str_eq(layout->disks[0].chain[0].filename, paths[i][0]);
		qmp_layout_free(layout);
		qmp_value_free(query);
	}
}

static struct qmp_value *big_name(const char *letter, int number)
{
	char name[30];

	snprintf(name, sizeof(name), "%s%d", letter, number);
	return qmp_add_text(qmp_object(), "node-name", name);
}

static void big_edge(struct qmp_value *edges, int parent, int child, const char *name)
{
	struct qmp_value *edge = qmp_add_number(qmp_object(), "parent", parent);

	qmp_append_value(edges, qmp_add_text(qmp_add_number(edge, "child", child), "name", name));
}

/* @backing_of(i) is the backing node of node i, or -1. */
static void expect_quick(int count, int (*backing_of)(int count, int i), size_t most_disks)
{
	struct qmp_value *nodes = qmp_array(), *edges = qmp_array(), *named = qmp_array();
	struct qmp_value *graph = qmp_object();
	struct qmp_layout *layout;
	uint64_t start;

	for (int i = 0; i < count + count / 10; i++) {
		struct qmp_value *node = big_name("n", i), *copy = big_name("n", i);
		int backing = i < count ? backing_of(count, i) : (i - count) * 10;

		qmp_append_value(named, qmp_add_text(node, "drv", "qcow2"));
		qmp_add_text(copy, "name", qmp_value_text(copy, "node-name", ""));
		qmp_add_text(copy, "type", i < count ? "block-driver" : "block-job");
		qmp_append_value(nodes, qmp_add_number(copy, "id", i));
		if (backing >= 0)
			big_edge(edges, i, backing, i < count ? "backing" : "main node");
	}
	qmp_add_value(qmp_add_value(graph, "nodes", nodes), "edges", edges);
	start = uv_hrtime();
	layout = qmp_layout_from_nodes(named, graph);
	cr_assert_lt((uv_hrtime() - start) / 1000000, 4000);
	cr_assert_leq(layout->disk_count, most_disks);
	qmp_layout_free(layout);
	qmp_value_free(named);
	qmp_value_free(graph);
}

static int one_chain(int count, int i)
{
	return i + 1 < count ? i + 1 : -1;
}

static int all_on_one_chain(int count, int i)
{
	return i > 990 ? 0 : i < 990 ? i + 1 : -1;
}

static int circle(int count, int i)
{
	return (i + 1) % count;
}

static int all_into_a_circle(int count, int i)
{
	return i < 3 ? (i + 1) % 3 : i % 3;
}

Test(qmp_layout_odd, a_hundred_thousand_nodes)
{
	/* Catches time or memory that grows with the square of what a peer sends. */
	expect_quick(100000, one_chain, 0);
	expect_quick(100000, all_on_one_chain, 100);
	expect_quick(100000, circle, 0);
	expect_quick(100000, all_into_a_circle, 0);
}

Test(qmp_layout_odd, recorded_data_gone_wrong)
{
	/* Catches a crash on answers of any wrong shape; sanitizers do the catching. */
	static const char *const names[] = { "machine_throttle_stream.json", "machine_commit.json",
					     "nodes_inline_stream_mid.json", "nodes_mirror.json" };

	srandom(7);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct qmp_value *whole = peer_load(names[i]);
		char *text = strdup(qmp_value_print(whole));
		size_t length = strlen(text), parsed = 0;

		qmp_value_free(whole);
		for (int round = 0; round < 5000; round++) {
			size_t at = random() % length, from = random() % length;
			char saved = text[at];
			struct qmp_value *data;

			/* One byte taken from elsewhere in it: often JSON still, and another graph. */
			text[at] = text[from];
			data = qmp_value_parse(text, length, NULL);
			if (data) {
				free(layout_of(data, qmp_value_get(data, "graph")));
				parsed++;
			}
			qmp_value_free(data);
			if (!data || round % 10 == 9)
				text[at] = saved;
		}
		cr_assert_gt(parsed, 500);
		free(text);
	}
}
