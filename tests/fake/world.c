/*
 * Owns a model with one domain, and what tests of it have in common: the loop's turns, the writer, the reader, the watcher.
 */
#include "tests/fake/world.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>
#include "jobs/grammar.h"
#include "jobs/journal.h"
#include "jobs/journal_memory.h"
#include "jobs/resume.h"

/* --- the watcher --- */

static size_t place_of(const struct world *world, const void *object)
{
	size_t i = 0;

	while (i < world->shown_count && world->shown[i] != object)
		i++;
	return i;
}

static const void *object_of(const struct domain *domain, const struct disk *disk)
{
	return disk ? (const void *)disk : domain;
}

static void added(void *data, struct domain *domain, struct disk *disk)
{
	struct world *world = data;
	const void *object = object_of(domain, disk);

	cr_assert_eq(place_of(world, object), world->shown_count, "added twice");
	cr_assert_lt(world->shown_count, WORLD_SHOWN_MAX);
	world->shown[world->shown_count++] = object;
}

static void removed(void *data, struct domain *domain, struct disk *disk)
{
	struct world *world = data;
	size_t place = place_of(world, object_of(domain, disk));

	cr_assert_lt(place, world->shown_count, "removed and not there");
	world->shown[place] = world->shown[--world->shown_count];
}

static void changed(void *data, struct domain *domain, struct disk *disk, enum topic topic)
{
	struct world *world = data;

	if (!domain)
		return;
	/* A disk that is being refused, or is gone, is nobody's business. */
	cr_assert_lt(place_of(world, object_of(domain, disk)), world->shown_count,
		     "topic %d of what is not shown has changed", topic);
}

static void logged(void *data, const char *line)
{
	struct world *world = data;
	size_t length = strlen(world->log);

	world->log_lines++;
	snprintf(world->log + length, sizeof(world->log) - length, "%s\n", line);
}

static bool may_add(void *data, struct domain *domain, struct disk *disk, const char **reason)
{
	struct world *world = data;

	if (!world->refuse || strcmp(world->refuse, disk ? disk->name : ""))
		return true;
	*reason = "the test does not want it";
	return false;
}

static const struct model_watcher watcher = {
	.added = added,
	.removed = removed,
	.changed = changed,
	.log = logged,
	.may_add = may_add,
};

/* --- turns --- */

static void tick(uv_timer_t *timer)
{
}

void world_turn(struct world *world)
{
	uv_run(&world->loop, UV_RUN_ONCE);
}

bool world_is_quiet(struct world *world)
{
	const struct domain_link *link = world->domain->link;

	return link->ready && link->synced && !link->syncing && !link->sync_again &&
	       !link->refreshing && !link->finalizing && !link->dropping;
}

/* --- life --- */

void world_new(struct world *world, size_t disks)
{
	memset(world, 0, sizeof(*world));
	world->descriptors = peer_open_descriptors();
	world->memory = -1;
	world->timeout_ms = 3000;
	cr_assert_eq(uv_loop_init(&world->loop), 0);
	uv_timer_init(&world->loop, &world->tick);
	uv_timer_start(&world->tick, tick, 2, 2);
	world->qemu = qemu_new(&world->loop, disks);
	world->peer = world->qemu->peer;
}

static struct journal *open_journal(struct world *world)
{
	const struct journal_settings settings = {
		.path = world->state, .dir = world->state_dir, .log = logged, .log_data = world
	};

	return *world->state ? journal_open(&settings) : NULL;
}

static struct model *new_model(struct world *world)
{
	struct model_settings settings = {
		.timeout_ms = world->timeout_ms,
		.journal = open_journal(world),
		.handover = world->memory >= 0 ? journal_share(world->memory) : NULL,
	};

	world->stopped = world->stopping = false;
	return model_new(&world->loop, &settings, &watcher, world);
}

void world_start(struct world *world)
{
	struct source source = { .kind = SOURCE_UNIX,
				 .name = (char *)"vm",
				 .path = (char *)peer_path(world->peer) };
	char *error = NULL;

	world->model = new_model(world);
	cr_assert_eq(model_add(world->model, &source, &error), 0, "%s", error);
	world->domain = model_find_domain(world->model, "vm");
}

void world_connect(struct world *world)
{
	world_start(world);
	WORLD_UNTIL(world, world->domain->state == DOMAIN_CONNECTED && world_is_quiet(world));
}

static void model_is_stopped(void *data)
{
	((struct world *)data)->stopped = true;
}

void world_begin_stop(struct world *world)
{
	world->stopping = true;
	model_stop(world->model, model_is_stopped, world);
}

void world_stop(struct world *world)
{
	if (!world->stopping)
		world_begin_stop(world);
	WORLD_UNTIL(world, world->stopped);
	cr_assert_null(world->model->ops);
	cr_assert_null(world->model->ops_by_id);
	world_turn(world);
	/* What is in the pool comes back to the model: main() frees that when the loop has ended. */
	WORLD_UNTIL(world, !world->loop.active_reqs.count);
	model_free(world->model);
	world->model = NULL;
	world->domain = NULL;
	world->shown_count = 0;
}

void world_keep_journal(struct world *world)
{
	strcpy(world->state, "/tmp/test_world-XXXXXX");
	cr_assert_not_null(mkdtemp(world->state));
	world->state_dir = open(world->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(world->state_dir, 0);
}

void world_keep_mount(struct world *world)
{
	world->memory = journal_memory_new();
	cr_assert_geq(world->memory, 0);
}

static void copy_record(void *data, const char *key, const char *value)
{
	journal_put(data, key, value);
}

/* What the memory has now, in another one: the end of the model is not to be seen there. */
static int copy_memory(int from)
{
	int to = journal_memory_new();
	struct journal *read = journal_share(from), *written = journal_share(to);

	cr_assert(read && written);
	journal_each(read, "", copy_record, written);
	journal_free(read);
	journal_free(written);
	return to;
}

void world_die(struct world *world)
{
	int left = copy_memory(world->memory);

	world_kill(world);
	close(world->memory);
	world->memory = left;
}

void world_live_again(struct world *world)
{
	world->model = new_model(world);
	model_resume(world->model);
	world->domain = model_find_domain(world->model, "vm");
	cr_assert_not_null(world->domain);
}

void world_take_over(struct world *world)
{
	world_die(world);
	world_live_again(world);
}

void world_kill(struct world *world)
{
	int from = openat(world->state_dir, "journal", O_RDONLY | O_CLOEXEC);
	int to = openat(world->state_dir, "killed", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	cr_assert(from >= 0 && to >= 0);
	while (copy_file_range(from, NULL, to, NULL, 1 << 20, 0) > 0)
		;
	close(from);
	close(to);
	world_stop(world);
	qemu_drop_held(world->qemu);
	cr_assert_eq(renameat(world->state_dir, "killed", world->state_dir, "journal"), 0);
}

static void remove_state(struct world *world)
{
	if (world->memory >= 0)
		close(world->memory);
	if (!*world->state)
		return;
	unlinkat(world->state_dir, "journal", 0);
	close(world->state_dir);
	cr_assert_eq(rmdir(world->state), 0);
}

void world_restart(struct world *world)
{
	world_stop(world);
	/* QEMU notices that its client is gone before the next one comes, or that one would be busy for a moment. */
	qemu_drop_held(world->qemu);
	world_connect(world);
}

void world_free(struct world *world)
{
	if (world->model)
		world_stop(world);
	qemu_free(world->qemu);
	remove_state(world);
	uv_close((uv_handle_t *)&world->tick, NULL);
	cr_assert(peer_run_empty(&world->loop, WORLD_WAIT_MS), "something is left in the loop");
	cr_assert_eq(uv_loop_close(&world->loop), 0);
	cr_assert_eq(peer_open_descriptors(), world->descriptors);
}

/* --- looking --- */

struct disk *world_disk(struct world *world, const char *name)
{
	struct disk *disk = domain_find_disk(world->domain, name);

	cr_assert_not_null(disk, "there is no disk %s", name);
	return disk;
}

struct job *world_job(struct world *world, const char *disk)
{
	return world_disk(world, disk)->job;
}

bool world_is(struct world *world, const char *disk, const char *status)
{
	return !strcmp(disk_status(world_disk(world, disk)), status);
}

unsigned world_count(struct world *world, const char *text)
{
	const struct event_log *log = &world->model->log;
	const char *at = log->bytes, *end = at + log->length;
	unsigned count = 0;

	while (at && (at = memmem(at, (size_t)(end - at), text, strlen(text)))) {
		at++;
		count++;
	}
	return count;
}

unsigned world_events(struct world *world, const char *name)
{
	char text[100];

	snprintf(text, sizeof(text), "\"event\":\"%s\"", name);
	return world_count(world, text);
}

/* --- doing --- */

/* As in the file tables of fs/. */
static const struct key pull_keys[] = {
	{ .name = "base", .kind = KEY_TEXT },
	{ .name = "bandwidth", .kind = KEY_BYTES },
	{ .name = "increment", .kind = KEY_BYTES },
	{ .name = "on-error", .kind = KEY_CHOICE, .choices = "report ignore enospc stop" },
	{ 0 },
};
static const struct key speed_keys[] = {
	{ .name = "speed", .kind = KEY_BYTES, .positional = true, .required = true },
	{ 0 },
};
static const struct key pause_keys[] = {
	{ .name = "pause", .kind = KEY_SWITCH, .positional = true, .required = true },
	{ 0 },
};
static const struct key abort_keys[] = { { .name = "async", .kind = KEY_FLAG }, { 0 } };

static const struct {
	const char *name;
	const struct key *keys;
	void (*write)(struct op *op, const struct command *command);
} files[] = {
	{ "pull", pull_keys, disk_pull },
	{ "speed", speed_keys, disk_speed },
	{ "pause", pause_keys, disk_pause },
	{ "abort", abort_keys, disk_abort },
};

static void answered(struct op *op, int status, void *data)
{
	struct answer_slip *slip = data;

	slip->op = NULL;
	slip->times++;
	slip->status = status;
	snprintf(slip->text, sizeof(slip->text), "%s", text_bytes(op->answer));
}

static struct op *slip_op(struct world *world, const char *disk, struct answer_slip *slip)
{
	struct target target = { world->model, world->domain, world_disk(world, disk) };
	struct who who = { 1000, 1000, 4711 };

	*slip = (struct answer_slip){ .status = 1 };
	slip->op = op_new(&target, &who, answered, slip);
	return slip->op;
}

void world_write(struct world *world, const char *disk, const char *file, const char *text,
		 struct answer_slip *slip)
{
	struct op *op = slip_op(world, disk, slip);
	struct command command;
	struct fault fault;
	size_t i = 0;

	while (strcmp(files[i].name, file))
		i++;
	op_set_written(op, text, strlen(text));
	op->request = world->request;
	op->again = world->again;
	if (grammar_parse(files[i].keys, text, strlen(text), &command, &fault)) {
		op_refuse_fault(op, &fault);
		return;
	}
	files[i].write(op, &command);
	command_clear(&command);
}

void world_refresh(struct world *world, const char *disk, struct answer_slip *slip)
{
	disk_refresh(slip_op(world, disk, slip));
}

void world_wait(struct world *world, const char *disk, struct answer_slip *slip)
{
	disk_wait(slip_op(world, disk, slip));
}

void world_look(struct world *world)
{
	struct domain_link *link = world->domain->link;

	link->synced_ns = 0;
	domain_looked_at(world->domain);
	/* As if the moment had passed that it waits. */
	if (uv_is_active((uv_handle_t *)&link->look)) {
		uv_timer_stop(&link->look);
		domain_sync(world->domain);
	}
}
