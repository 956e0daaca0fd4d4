/*
 * read(2) and write(2): snapshots, answers, offsets, waiting, interrupts. That every request gets exactly one reply is
 * asserted by the fake kernel itself.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "fs/reply.h"
#include "tests/fake/kernel.h"

#define DISK "domains/vm/disks/vda/"

struct opened {
	uint64_t node, fh;
};

static struct opened open_file(struct kernel *kernel, const char *path, uint32_t flags)
{
	struct opened opened = { .node = kernel_walk(kernel, path) };

	cr_assert_eq(kernel_open(kernel, opened.node, flags, &opened.fh), 0);
	return opened;
}

static const char *read_at(struct kernel *kernel, struct opened file, uint64_t offset)
{
	const struct kernel_reply *reply = kernel_read(kernel, file.node, file.fh, offset, 4096);

	cr_assert_eq(reply->error, 0, "%d", reply->error);
	return reply->bytes;
}

static int write_at(struct kernel *kernel, struct opened file, uint64_t offset, const char *text)
{
	return kernel_write(kernel, file.node, file.fh, offset, text);
}

static void release(struct kernel *kernel, struct opened file)
{
	cr_assert_eq(kernel_release(kernel, file.node, file.fh), 0);
}

static void assert_error_has(struct kernel *kernel, const char *words)
{
	char *error = kernel_cat(kernel, DISK "error");

	cr_assert(strstr(error, words), "%s", error);
	free(error);
}

/* --- reading --- */

/* Would catch: reads at an offset that start anew, an error at the end of file. */
Test(fs_io, a_file_is_read_in_pieces_and_ends)
{
	struct kernel *kernel = kernel_new(false);
	struct opened chain = open_file(kernel, DISK "chain", O_RDONLY);
	const char *whole = "/vm/top.qcow2\n/vm/mid.qcow2\n/vm/base.qcow2\n";
	const struct kernel_reply *reply;

	for (size_t at = 0; at < strlen(whole); at += 5) {
		reply = kernel_read(kernel, chain.node, chain.fh, at, 5);
		cr_assert_eq(reply->error, 0);
		cr_assert_eq(strncmp(reply->bytes, whole + at, 5), 0);
	}
	cr_assert_str_eq(read_at(kernel, chain, strlen(whole)), "");
	cr_assert_str_eq(read_at(kernel, chain, 1 << 20), "");
	cr_assert_str_eq(read_at(kernel, chain, UINT64_C(1) << 62), "");
	cr_assert_str_eq(read_at(kernel, chain, 0), whole);
	release(kernel, chain);
	kernel_free(kernel);
}

/* Would catch: content that changes under a reader between two reads. */
Test(fs_io, a_snapshot_is_not_torn)
{
	struct kernel *kernel = kernel_new(false);
	struct opened error = open_file(kernel, DISK "error", O_RDONLY);
	struct opened status = open_file(kernel, DISK "status", O_RDONLY);

	cr_assert_str_eq(read_at(kernel, error, 0), "");
	cr_assert_str_eq(read_at(kernel, status, 0), "idle\n");
	kernel_start_pull(kernel);
	cr_assert_eq(kernel_echo(kernel, DISK "speed", "bogus"), -EINVAL);
	cr_assert_str_eq(read_at(kernel, status, 2), "le\n");
	cr_assert_str_eq(read_at(kernel, error, 0),
			 "bogus\n^^^^^\nEINVAL: speed is a whole number of "
			 "bytes, with K, M, G or T behind it if wanted, or max\n");
	cr_assert_str_eq(read_at(kernel, status, 0), "running\n");
	release(kernel, error);
	release(kernel, status);
	kernel_free(kernel);
}

/* Would catch: figures from before the read began. */
Test(fs_io, progress_of_a_live_job_is_asked_for)
{
	struct kernel *kernel = kernel_new(false);
	struct peer *peer = kernel_peer(kernel);
	struct opened progress = open_file(kernel, DISK "progress", O_RDONLY);
	size_t asked;

	cr_assert_str_eq(read_at(kernel, progress, 0), "0 0\n");
	kernel_start_pull(kernel);
	kernel_set_progress(kernel, 2 << 20);
	asked = peer_count_of(peer, "query-block-jobs");
	cr_assert_str_eq(read_at(kernel, progress, 0), "2097152 67108864\n");
	cr_assert_gt(peer_count_of(peer, "query-block-jobs"), asked);
	kernel_set_progress(kernel, 3 << 20);
	cr_assert_str_eq(read_at(kernel, progress, 8), "67108864\n"); /* the same snapshot */
	cr_assert_str_eq(read_at(kernel, progress, 0), "3145728 67108864\n");
	release(kernel, progress);
	kernel_free(kernel);
}

/* Would catch: a reader left waiting by a QEMU that does not answer. */
Test(fs_io, fresh_figures_that_do_not_come_are_etimedout)
{
	struct kernel *kernel = kernel_new(false);
	struct opened progress = open_file(kernel, DISK "progress", O_RDONLY);
	struct opened status = open_file(kernel, DISK "status", O_RDONLY);
	uint64_t read;

	kernel_start_pull(kernel);
	peer_set_answer(kernel_peer(kernel), "query-block-jobs", NULL);
	read = kernel_send_read(kernel, progress.node, progress.fh, 0, 100);
	cr_assert_str_eq(read_at(kernel, status, 0), "running\n"); /* nobody else waits */
	cr_assert_eq(kernel_wait(kernel, read)->error, -ETIMEDOUT);
	release(kernel, progress);
	release(kernel, status);
	kernel_free(kernel);
}

static void end_job(struct kernel *kernel)
{
	struct peer *peer = kernel_peer(kernel);

	peer_set_answer(peer, "query-block-jobs", "[]");
	peer_set_answer(peer, "query-jobs", "[]");
	peer_hang_up(peer);
}

/* Would catch: a parked reader that is not woken, or woken twice. */
Test(fs_io, wait_parks_every_reader_until_the_job_is_over)
{
	enum {
		READERS = 50,
	};
	struct kernel *kernel = kernel_new(false);
	struct opened waits[READERS];
	uint64_t reads[READERS];

	kernel_start_pull(kernel);
	for (int i = 0; i < READERS; i++) {
		waits[i] = open_file(kernel, DISK "wait", O_RDONLY);
		reads[i] = kernel_send_read(kernel, waits[i].node, waits[i].fh, 0, 100);
	}
	kernel_idle(kernel);
	cr_assert_eq(kernel_unanswered(kernel), READERS);
	cr_assert_eq(reply_pending(), READERS);
	end_job(kernel);
	for (int i = 0; i < READERS; i++) {
		const struct kernel_reply *reply = kernel_wait(kernel, reads[i]);

		cr_assert_eq(reply->error, 0);
		cr_assert_str_eq(reply->bytes, "lost\n");
		cr_assert_str_eq(read_at(kernel, waits[i], 5), "");
		release(kernel, waits[i]);
	}
	kernel_free(kernel);
}

/* Would catch: an event log that is read as a snapshot, a place shared by two readers. */
Test(fs_io, events_go_on_where_the_reader_was)
{
	struct kernel *kernel = kernel_new(false);
	struct opened one = open_file(kernel, DISK "events", O_RDONLY);
	struct opened two = open_file(kernel, DISK "events", O_RDONLY);
	size_t first = strlen(read_at(kernel, one, 0));

	cr_assert_gt(first, 0);
	cr_assert_str_eq(read_at(kernel, one, first), "");
	cr_assert_eq(kernel_echo(kernel, DISK "abort", "\n"), -ESRCH);
	cr_assert(strstr(read_at(kernel, one, first), "command-refused"));
	cr_assert(strstr(read_at(kernel, two, 0), "disk-added"));
	release(kernel, one);
	release(kernel, two);
	kernel_free(kernel);
}

/* --- writing --- */

/* Would catch: an answer that is lost, that starts at the wrong offset, or that another open file sees. */
Test(fs_io, the_answer_is_read_back_on_the_same_open_file)
{
	struct kernel *kernel = kernel_new(false);
	struct opened speed = open_file(kernel, DISK "speed", O_RDWR);
	struct opened other = open_file(kernel, DISK "speed", O_RDWR);
	const char *answer;

	cr_assert_eq(write_at(kernel, speed, 0, "1M\n"), -ESRCH);
	answer = read_at(kernel, speed, 0);
	cr_assert(strstr(answer, "ESRCH: "), "%s", answer);
	cr_assert_str_eq(read_at(kernel, speed, 3), answer + 3);
	cr_assert_str_eq(read_at(kernel, speed, strlen(answer)), "");
	cr_assert_str_eq(read_at(kernel, speed, 0), answer);
	cr_assert_str_eq(read_at(kernel, other, 0), "0\n");
	release(kernel, speed);
	release(kernel, other);
	kernel_free(kernel);
}

/* Would catch: the value in force being cut off, or hidden, after a command that has nothing to answer. */
Test(fs_io, after_a_command_without_an_answer)
{
	struct kernel *kernel = kernel_new(false);
	struct opened speed = open_file(kernel, DISK "speed", O_RDWR);

	kernel_start_pull(kernel);
	peer_set_answer(kernel_peer(kernel), "query-block-jobs", "[]");
	kernel_set_progress(kernel, 0);
	cr_assert_eq(write_at(kernel, speed, 0, "64M\n"), 0);
	/* Going on where the write has ended: nothing there, rather than the tail of something else. */
	cr_assert_str_eq(read_at(kernel, speed, 4), "");
	cr_assert_str_eq(read_at(kernel, speed, 0), "0\n"); /* as the peer says it is */
	cr_assert_eq(write_at(kernel, speed, 0, "1M\n"), 0); /* a file may take many commands */
	release(kernel, speed);
	kernel_free(kernel);
}

/* Would catch: half a command, or a second one, being carried out. */
Test(fs_io, one_write_is_one_command)
{
	struct kernel *kernel = kernel_new(false);
	struct opened pull = open_file(kernel, DISK "pull", O_WRONLY);
	struct opened append = open_file(kernel, DISK "pull", O_WRONLY | O_APPEND);

	cr_assert_eq(write_at(kernel, pull, 7, "bandwidth=1M\n"), -EINVAL);
	assert_error_has(kernel, "one write is one command");
	cr_assert_eq(write_at(kernel, pull, 0, "bandwidth=1M\nbandwidth=2M\n"), -EINVAL);
	cr_assert_eq(write_at(kernel, pull, 0, ""), -EINVAL);
	cr_assert_eq(kernel_write_bytes(kernel, pull.node, pull.fh, 0, "on-error=\0stop", 14),
		     -EINVAL);
	cr_assert_eq(write_at(kernel, append, 555, "bogus\n"),
		     -EINVAL); /* the words, not the offset */
	assert_error_has(kernel, "bogus");
	assert_error_has(kernel, "^^^^^");
	cr_assert_eq(write_at(kernel, append, 555, "bandwidth=1M\n"), -EINVAL);
	assert_error_has(kernel, "one write is one command");
	cr_assert_eq(peer_count_of(kernel_peer(kernel), "block-stream"), 0);
	release(kernel, pull);
	release(kernel, append);
	kernel_free(kernel);
}

/* Would catch: a `>>` that never works: the kernel makes the file's size the offset. */
Test(fs_io, an_appending_write_is_a_command_once)
{
	struct kernel *kernel = kernel_new(false);
	struct opened abort_file = open_file(kernel, DISK "abort", O_WRONLY | O_APPEND);

	cr_assert_eq(write_at(kernel, abort_file, 127, "\n"), -ESRCH);
	cr_assert_eq(write_at(kernel, abort_file, 127, "\n"), -EINVAL);
	release(kernel, abort_file);
	kernel_free(kernel);
}

static int write_size(struct kernel *kernel, struct opened file, size_t size, char last)
{
	char *bytes = malloc(size);
	int error;

	memset(bytes, ' ', size);
	bytes[size - 1] = last;
	error = kernel_write_bytes(kernel, file.node, file.fh, 0, bytes, size);
	free(bytes);
	return error;
}

/* Would catch: a long command being cut, carried out in part, or refused without its reason. */
Test(fs_io, sizes_of_commands)
{
	struct kernel *kernel = kernel_new(false);
	struct opened file = open_file(kernel, DISK "abort", O_WRONLY);

	cr_assert_eq(write_size(kernel, file, 16 << 10, '\n'), -ESRCH);
	cr_assert_eq(write_size(kernel, file, 4096, '\n'), -ESRCH);
	cr_assert_eq(write_size(kernel, file, 4095, ' '), -ESRCH);
	cr_assert_eq(write_size(kernel, file, 4096, ' '), -EINVAL);
	assert_error_has(kernel, "4096");
	cr_assert_eq(write_size(kernel, file, 16 << 10, ' '), -EINVAL);
	cr_assert_eq(write_size(kernel, file, (16 << 10) + 1, '\n'), -E2BIG);
	assert_error_has(kernel, "E2BIG");
	cr_assert_eq(write_size(kernel, file, 17 << 10, ' '), -E2BIG);
	cr_assert_eq(write_size(kernel, file, 1 << 20, ' '), -E2BIG);
	release(kernel, file);
	kernel_free(kernel);
}

/* Would catch: the writer being taken for the opener (CVE-2021-4197). */
Test(fs_io, who_opened_counts_not_who_writes)
{
	struct kernel *kernel = kernel_new(false);
	struct opened file;
	char *events;

	kernel_set_user(kernel, 1234, 99, 777);
	file = open_file(kernel, DISK "abort", O_WRONLY);
	kernel_set_user(kernel, 0, 0, 1);
	cr_assert_eq(write_at(kernel, file, 0, "\n"), -ESRCH);
	events = kernel_cat(kernel, DISK "events");
	cr_assert(strstr(events, "\"uid\":1234,\"pid\":777"), "%s", events);
	free(events);
	release(kernel, file);
	kernel_free(kernel);
}

/* --- interrupts, releases, the end --- */

/* Would catch: a reader that a signal does not free, a job harmed by it. */
Test(fs_io, an_interrupt_ends_a_parked_read)
{
	struct kernel *kernel = kernel_new(false);
	struct opened wait = open_file(kernel, DISK "wait", O_RDONLY);
	uint64_t read;

	kernel_start_pull(kernel);
	read = kernel_send_read(kernel, wait.node, wait.fh, 0, 100);
	kernel_idle(kernel);
	kernel_interrupt(kernel, read);
	cr_assert_eq(kernel_wait(kernel, read)->error, -EINTR);
	kernel_interrupt(kernel, read); /* too late: nothing happens */
	cr_assert_str_eq(read_at(kernel, open_file(kernel, DISK "status", O_RDONLY), 0),
			 "running\n");
	kernel_free(kernel);
}

/* Would catch: an answer inside libfuse's registration of the interrupt (a freed request, a hang). */
Test(fs_io, an_interrupt_may_overtake_its_request)
{
	struct kernel *kernel = kernel_new(false);
	struct opened wait = open_file(kernel, DISK "wait", O_RDONLY);
	struct opened pull = open_file(kernel, DISK "pull", O_WRONLY);
	uint64_t read;

	/* The request after the interrupt has the number after its own. */
	kernel_interrupt(kernel, kernel_send_read(kernel, wait.node, wait.fh, 0, 100) + 2);
	read = kernel_send_write(kernel, pull.node, pull.fh, 0, "\n", 1);
	cr_assert_eq(kernel_wait(kernel, read)->error, -EINTR);
	cr_assert_eq(peer_count_of(kernel_peer(kernel), "block-stream"), 0);
	kernel_start_pull(kernel);
	kernel_interrupt(kernel, kernel_send_read(kernel, wait.node, wait.fh, 1000, 100) + 2);
	read = kernel_send_read(kernel, wait.node, wait.fh, 0, 100);
	cr_assert_eq(kernel_wait(kernel, read)->error, -EINTR);
	release(kernel, wait);
	release(kernel, pull);
	kernel_free(kernel);
}

/* Would catch: a writer that cannot be killed while QEMU is silent. */
Test(fs_io, an_interrupt_ends_a_waiting_write)
{
	struct kernel *kernel = kernel_new(false);
	struct opened pull = open_file(kernel, DISK "pull", O_RDWR);
	uint64_t write;

	peer_set_answer(kernel_peer(kernel), "block-stream", NULL);
	write = kernel_send_write(kernel, pull.node, pull.fh, 0, "\n", 1);
	cr_assert(peer_run_until_command(kernel_peer(kernel), "block-stream", 1, 1000));
	kernel_interrupt(kernel, write);
	cr_assert_eq(kernel_wait(kernel, write)->error, -EINTR);
	release(kernel, pull);
	kernel_free(kernel);
}

/* Would catch: a closed open file being used when what it waited for is there. */
Test(fs_io, a_release_during_a_parked_read)
{
	struct kernel *kernel = kernel_new(false);
	struct opened wait = open_file(kernel, DISK "wait", O_RDONLY);
	struct opened speed = open_file(kernel, DISK "speed", O_RDWR);
	uint64_t read, write;

	kernel_start_pull(kernel);
	read = kernel_send_read(kernel, wait.node, wait.fh, 0, 100);
	peer_set_answer(kernel_peer(kernel), "block-job-set-speed", NULL);
	write = kernel_send_write(kernel, speed.node, speed.fh, 0, "1M", 2);
	release(kernel, wait);
	release(kernel, speed);
	end_job(kernel);
	cr_assert_str_eq(kernel_wait(kernel, read)->bytes, "lost\n");
	cr_assert_neq(kernel_wait(kernel, write)->error, 0);
	kernel_free(kernel);
}

/* Would catch: a request left without an answer by the daemon's end. */
Test(fs_io, the_end_answers_everybody)
{
	struct kernel *kernel = kernel_new(false);
	struct opened wait = open_file(kernel, DISK "wait", O_RDONLY);
	struct opened progress = open_file(kernel, DISK "progress", O_RDONLY);
	struct opened pause = open_file(kernel, DISK "pause", O_WRONLY);
	uint64_t requests[3];

	kernel_start_pull(kernel);
	peer_set_answer(kernel_peer(kernel), "query-block-jobs", NULL);
	peer_set_answer(kernel_peer(kernel), "job-pause", NULL);
	requests[0] = kernel_send_read(kernel, wait.node, wait.fh, 0, 100);
	requests[1] = kernel_send_read(kernel, progress.node, progress.fh, 0, 100);
	requests[2] = kernel_send_write(kernel, pause.node, pause.fh, 0, "1", 1);
	kernel_idle(kernel);
	kernel_stop_model(kernel);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(kernel_wait(kernel, requests[i])->error, -ESHUTDOWN);
	kernel_free(kernel);
}

/* --- open files of another life --- */

/* Would catch: a number of an earlier life crashing the daemon, or being taken for one of this life. */
Test(fs_io, an_open_file_of_an_earlier_life_goes_on_reading)
{
	struct kernel *kernel = kernel_new(false);
	struct opened old = { .node = kernel_walk(kernel, DISK "status"), .fh = 5 };
	struct opened log = { .node = kernel_walk(kernel, DISK "events"), .fh = 6 };
	struct opened pull = { .node = kernel_walk(kernel, DISK "pull"), .fh = 7 };
	struct opened ours = open_file(kernel, DISK "status", O_RDONLY);

	cr_assert_str_eq(read_at(kernel, old, 0), "idle\n");
	cr_assert_str_eq(read_at(kernel, old, 5), "");
	cr_assert(strstr(read_at(kernel, log, 0), "disk-added"));
	cr_assert_eq(write_at(kernel, pull, 0, "\n"), -ESTALE);
	cr_assert(strstr(read_at(kernel, pull, 0), "usage"));
	cr_assert_eq(write_at(kernel, pull, 0, "\n"), -ESTALE);
	release(kernel, old);
	release(kernel, pull);
	release(kernel, ours);
	cr_assert_eq(kernel_read(kernel, ours.node, ours.fh, 0, 10)->error, -EBADF);
	/* The number of one file for another. */
	cr_assert_eq(kernel_read(kernel, log.node, pull.fh, 0, 10)->error, 0);
	cr_assert_eq(kernel_read(kernel, pull.node, log.fh, 0, 10)->error, -EBADF);
	cr_assert_eq(peer_count_of(kernel_peer(kernel), "block-stream"), 0);
	kernel_free(kernel);
}
