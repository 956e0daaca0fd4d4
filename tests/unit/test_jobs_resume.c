/*
 * The server is killed and the next one takes over the mount, at QEMU in small: what is there before anybody was asked, what is told, and
 * what becomes of commands that come a second time.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/grammar.h"
#include "jobs/journal.h"
#include "jobs/journal_memory.h"
#include "tests/fake/world.h"

static void begin(struct world *world)
{
	world_new(world, 2);
	world_keep_journal(world);
	world_keep_mount(world);
	world_connect(world);
}

static void start(struct world *world)
{
	struct answer_slip pull;

	world_write(world, "vda", "pull", "", &pull);
	WORLD_UNTIL(world, !pull.op);
	cr_assert_eq(pull.status, 0, "%s", pull.text);
	WORLD_UNTIL(world, world_is_quiet(world));
}

static void settle(struct world *world)
{
	WORLD_UNTIL(world, world->domain->state == DOMAIN_CONNECTED && world_is_quiet(world));
}

static char *log_of(const struct event_log *log)
{
	return strndup(log->length ? log->bytes : "", log->length);
}

/* --- what is there before QEMU has been asked --- */

Test(jobs_resume, at_once)
{
	/* Catches a tree that is empty, or a job that seems to be over, until QEMU has answered. */
	struct world world;
	struct disk *disk;
	char *id, *events, *after;
	int64_t cur, end;

	begin(&world);
	start(&world);
	qemu_job(world.qemu, 0)->offset = 5 << 20;
	id = strdup(world_job(&world, "vda")->id);
	events = log_of(&world.model->log);
	world_take_over(&world);
	disk = world_disk(&world, "vda");
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert(world_is(&world, "vdb", "idle"));
	cr_assert_str_eq(disk->job->id, id);
	cr_assert_eq(disk->depth, 3);
	cr_assert_str_eq(disk->chain[0].path, "/vm/vda-top.qcow2");
	cr_assert_eq(domain_shown_state(world.domain), DOMAIN_CONNECTED);
	job_progress(disk->job, &cur, &end);
	cr_assert_gt(end, cur);
	after = log_of(&world.model->log);
	cr_assert_str_eq(after, events, "events are told again, or lost");
	settle(&world);
	free(after);
	after = log_of(&world.model->log);
	cr_assert_str_eq(after, events, "something is told that has not happened");
	cr_assert_str_eq(world_job(&world, "vda")->id, id);
	cr_assert_eq(world_disk(&world, "vda")->generation, 1);
	free(id);
	free(events);
	free(after);
	world_free(&world);
}

Test(jobs_resume, many_lives)
{
	/* Catches what is lost with each life, or told once more. */
	struct world world;

	begin(&world);
	start(&world);
	for (int i = 0; i < 10; i++) {
		world_take_over(&world);
		if (i % 2)
			settle(&world);
		cr_assert(world_is(&world, "vda", "running"));
	}
	settle(&world);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
	cr_assert_eq(world_events(&world, "job-started"), 1);
	cr_assert_eq(world_events(&world, "job-completed"), 1);
	cr_assert_eq(world_events(&world, "domain-connected"), 1);
	cr_assert_eq(world_events(&world, "domain-disconnected"), 0);
	cr_assert_eq(world_events(&world, "disk-added"), 2);
	world_take_over(&world);
	cr_assert(world_is(&world, "vda", "completed"));
	settle(&world);
	cr_assert_eq(world_events(&world, "job-completed"), 1);
	world_free(&world);
}

Test(jobs_resume, ended_meanwhile)
{
	/* Catches an end that nobody hears of, or `lost` where QEMU could have told. */
	struct world world;

	begin(&world);
	start(&world);
	world_die(&world);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	world_live_again(&world);
	cr_assert(world_is(&world, "vda", "running"));
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
	cr_assert_eq(world_events(&world, "job-completed"), 1);
	world_free(&world);
}

Test(jobs_resume, gone_meanwhile)
{
	/* Catches a job that is called anything but lost when QEMU does not have it any more, and its disk that stays busy. */
	struct world world;

	begin(&world);
	start(&world);
	world_die(&world);
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	world_live_again(&world);
	WORLD_UNTIL(&world, world_is(&world, "vda", "lost") && world_is_quiet(&world));
	cr_assert_eq(world_events(&world, "job-lost"), 1);
	world_free(&world);
}

Test(jobs_resume, foreign_job)
{
	/* Catches a job of somebody else's that is shown as over, or told twice. */
	struct world world;

	begin(&world);
	qemu_add_job(world.qemu, 0, "theirs", "running");
	world_look(&world);
	WORLD_UNTIL(&world, world_is(&world, "vda", "running") && world_is_quiet(&world));
	world_take_over(&world);
	cr_assert(world_is(&world, "vda", "running"));
	cr_assert_str_eq(world_job(&world, "vda")->id, "theirs");
	settle(&world);
	cr_assert_eq(world_events(&world, "job-started"), 1);
	qemu_forget(world.qemu, qemu_job(world.qemu, 0));
	world_free(&world);
}

Test(jobs_resume, paused_is_told_once)
{
	/* Catches job-paused or job-resumed that is told again, or not at all. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	start(&world);
	world_write(&world, "vda", "pause", "1", &slip);
	WORLD_UNTIL(&world, !slip.op && world_is_quiet(&world));
	world_take_over(&world);
	cr_assert(world_is(&world, "vda", "paused"));
	settle(&world);
	cr_assert_eq(world_events(&world, "job-paused"), 1);
	world_die(&world);
	qemu_job(world.qemu, 0)->paused = false;
	snprintf(qemu_job(world.qemu, 0)->status, 16, "running");
	world_live_again(&world);
	cr_assert(world_is(&world, "vda", "paused"));
	WORLD_UNTIL(&world, world_is(&world, "vda", "running"));
	cr_assert_eq(world_events(&world, "job-resumed"), 1);
	world_free(&world);
}

Test(jobs_resume, errors)
{
	/* Catches a reason that is gone before its writer has read it. */
	struct world world;
	struct answer_slip slip;
	char *error;

	begin(&world);
	world_write(&world, "vda", "speed", "1", &slip);
	cr_assert_eq(slip.status, -ESRCH);
	error = strdup(world_disk(&world, "vda")->error);
	world_take_over(&world);
	cr_assert_str_eq(world_disk(&world, "vda")->error, error);
	cr_assert_eq(world_events(&world, "command-refused"), 1);
	free(error);
	settle(&world);
	world_free(&world);
}

Test(jobs_resume, logs_that_were_shortened)
{
	/* Catches a place in a log that means another line in the next life: each reader would miss some, or see some twice. */
	struct world world;
	struct answer_slip slip;
	struct event_log before;
	char *text, *after;

	begin(&world);
	for (int i = 0; i < EVENT_LOG_MOST + 100; i++)
		world_write(&world, i % 3 ? "vda" : "vdb", "speed", "1", &slip);
	before = world.model->log;
	cr_assert_gt(before.lines_dropped, 0);
	text = log_of(&before);
	world_take_over(&world);
	after = log_of(&world.model->log);
	cr_assert_eq(world.model->log.start, before.start);
	cr_assert_eq(world.model->log.lines, before.lines);
	cr_assert_eq(world.model->log.lines_dropped, before.lines_dropped);
	cr_assert_str_eq(after, text);
	free(text);
	free(after);
	world_write(&world, "vda", "speed", "1", &slip);
	cr_assert_eq(world.model->seq, before.lines + 1);
	settle(&world);
	world_free(&world);
}

Test(jobs_resume, qemu_is_gone)
{
	/* Catches a disk that vanishes from the tree since its QEMU is not there, and a state that goes on to say connected. */
	struct world world;

	begin(&world);
	world_die(&world);
	peer_stop_listening(world.peer);
	world_live_again(&world);
	cr_assert_eq(domain_shown_state(world.domain), DOMAIN_CONNECTED);
	WORLD_UNTIL(&world, domain_shown_state(world.domain) == DOMAIN_DISCONNECTED);
	cr_assert_eq(world_events(&world, "domain-disconnected"), 1);
	cr_assert_not_null(world_disk(&world, "vda"));
	world_free(&world);
}

/* --- commands that come a second time --- */

/* A pull that QEMU has begun and not answered. */
static void start_unanswered(struct world *world)
{
	static struct answer_slip slip;

	world->qemu->left = "block-stream";
	peer_set_answer(world->peer, "block-stream", NULL);
	world_write(world, "vda", "pull", "", &slip);
	cr_assert(peer_run_until_command(world->peer, "block-stream", 1, WORLD_WAIT_MS));
	qemu_add_job(world->qemu, 0, world_job(world, "vda")->id, "running");
}

/* What the kernel does with a command whose writer has not been answered. */
static void send_again(struct world *world, const char *file, const char *text,
		       struct answer_slip *slip)
{
	settle(world);
	world->again = true;
	world_write(world, "vda", file, text, slip);
	world->again = false;
}

Test(jobs_resume, start_that_qemu_has)
{
	/* Catches a start that is sent twice, and a writer that is told that his own job is in the way. */
	struct world world;
	struct answer_slip slip;
	char *id;

	begin(&world);
	world.request = 4242;
	start_unanswered(&world);
	id = strdup(qemu_job(world.qemu, 0)->id);
	world_die(&world);
	world_live_again(&world);
	send_again(&world, "pull", "", &slip);
	WORLD_UNTIL(&world, !slip.op);
	cr_assert_eq(slip.status, 0, "%s", slip.text);
	cr_assert_not_null(strstr(slip.text, id));
	cr_assert_str_eq(world_job(&world, "vda")->id, id);
	cr_assert_null(qemu_job(world.qemu, 0)->next);
	WORLD_UNTIL(&world, world_events(&world, "job-started") == 1 && world_is_quiet(&world));
	free(id);
	world_free(&world);
}

Test(jobs_resume, start_that_qemu_has_not)
{
	/* Catches a start that is lost with the server, and a job that is called lost though it never was. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	world.request = 4242;
	qemu_hold(world.qemu, "block-stream", true);
	world_write(&world, "vda", "pull", "", &slip);
	WORLD_UNTIL(&world, world.qemu->held_count);
	world_die(&world);
	world_live_again(&world);
	settle(&world);
	cr_assert(world_is(&world, "vda", "idle"));
	cr_assert_eq(world_events(&world, "job-lost"), 0);
	send_again(&world, "pull", "", &slip);
	WORLD_UNTIL(&world, !slip.op);
	cr_assert_eq(slip.status, 0, "%s", slip.text);
	WORLD_UNTIL(&world, world_events(&world, "job-started") == 1 && world_is_quiet(&world));
	cr_assert_eq(world_events(&world, "job-lost"), 0);
	world_free(&world);
}

Test(jobs_resume, start_whose_job_is_over)
{
	/* Catches a second job where the first one has ended before the writer was answered. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	world.request = 4242;
	start_unanswered(&world);
	world_die(&world);
	qemu_pend(world.qemu, qemu_job(world.qemu, 0));
	world_live_again(&world);
	settle(&world);
	WORLD_UNTIL(&world, world_is(&world, "vda", "completed") && world_is_quiet(&world));
	send_again(&world, "pull", "", &slip);
	WORLD_UNTIL(&world, !slip.op);
	cr_assert_eq(slip.status, 0, "%s", slip.text);
	cr_assert(world_is(&world, "vda", "completed"));
	cr_assert_null(qemu_job(world.qemu, 0));
	world_free(&world);
}

Test(jobs_resume, another_start_of_the_same_words)
{
	/* Catches a new command that is taken for one that was under way. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	world.request = 4242;
	start(&world);
	world_take_over(&world);
	settle(&world);
	world.request = 4244;
	world_write(&world, "vda", "pull", "", &slip);
	cr_assert_eq(slip.status, -EBUSY);
	world_free(&world);
}

Test(jobs_resume, abort_of_a_job_that_is_over)
{
	/* Catches an abort that ends in ESRCH since it has succeeded, and one that hits the next job. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	start(&world);
	world.request = 17;
	world.qemu->slow_cancel = true;
	world_write(&world, "vda", "abort", "", &slip);
	WORLD_UNTIL(&world, !strcmp(qemu_job(world.qemu, 0)->status, "aborting"));
	world_die(&world);
	qemu_end(world.qemu, qemu_job(world.qemu, 0), NULL);
	world_live_again(&world);
	WORLD_UNTIL(&world, world_is(&world, "vda", "cancelled") && world_is_quiet(&world));
	world.request = 0;
	start(&world);
	world.request = 17;
	send_again(&world, "abort", "", &slip);
	cr_assert_null(slip.op);
	cr_assert_eq(slip.status, 0, "%s", slip.text);
	cr_assert(world_is(&world, "vda", "running"));
	world_free(&world);
}

Test(jobs_resume, notes_go)
{
	/* Catches notes of commands that stay when they are answered: there would be more and more of them. */
	struct world world;
	struct answer_slip slip;

	begin(&world);
	start(&world);
	world.request = 99;
	world_write(&world, "vda", "abort", "", &slip);
	WORLD_UNTIL(&world, !slip.op && world_is_quiet(&world));
	cr_assert_null(journal_get(world.model->handover, "request/63"));
	world_free(&world);
}

/* --- killed as soon as a writer has been answered --- */

struct killed {
	struct world *world;
	int status, memory; /* what the next life finds, as it was then */
};

static void copy_record(void *data, const char *key, const char *value)
{
	journal_put(data, key, value);
}

static void answered(struct op *op, int status, void *data)
{
	struct killed *killed = data;
	int folder = killed->world->state_dir;
	int from = openat(folder, "journal", O_RDONLY | O_CLOEXEC);
	int to = openat(folder, "killed", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct journal *read = journal_share(killed->world->memory), *written;

	cr_assert(from >= 0 && to >= 0);
	while (copy_file_range(from, NULL, to, NULL, 1 << 20, 0) > 0)
		;
	close(from);
	close(to);
	killed->memory = journal_memory_new();
	written = journal_share(killed->memory);
	journal_each(read, "", copy_record, written);
	journal_free(read);
	journal_free(written);
	killed->status = status;
}

static void write_pull(struct killed *killed)
{
	static const struct key keys[] = { { .name = "base", .kind = KEY_TEXT }, { 0 } };
	struct world *world = killed->world;
	struct target target = { world->model, world->domain, world_disk(world, "vda") };
	struct who who = { 1000, 1000, 4711 };
	struct op *op = op_new(&target, &who, answered, killed);
	struct command command;
	struct fault fault;

	op_set_written(op, "", 0);
	op->request = 4711;
	cr_assert(!grammar_parse(keys, "", 0, &command, &fault));
	disk_pull(op, &command);
	command_clear(&command);
}

Test(jobs_resume, killed_when_the_writer_has_been_answered)
{
	/* Catches a job that its writer was told of, and that vanishes without a word. */
	for (int gone = 0; gone < 2; gone++) {
		struct world world;
		struct killed killed = { .world = &world, .status = 1 };

		begin(&world);
		write_pull(&killed);
		WORLD_UNTIL(&world, killed.status != 1);
		cr_assert_eq(killed.status, 0);
		world_stop(&world);
		cr_assert_eq(renameat(world.state_dir, "killed", world.state_dir, "journal"), 0);
		close(world.memory);
		world.memory = killed.memory;
		if (gone)
			qemu_forget(world.qemu, world.qemu->jobs);
		world_live_again(&world);
		settle(&world);
		cr_assert(world_is(&world, "vda", gone ? "lost" : "running"));
		cr_assert_eq(world_events(&world, "job-started"), 1);
		cr_assert_eq(world_events(&world, "job-lost"), (unsigned)gone);
		cr_assert_eq(world_disk(&world, "vda")->history_count, (size_t)gone);
		world_free(&world);
	}
}
