/*
 * poll(2): kernfs's rule, one wake-up a change and handle, no handle left over.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include "tests/fake/kernel.h"

#define DISK "domains/vm/disks/vda/"

enum {
	QUIET = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM,
	CHANGED = QUIET | POLLPRI | POLLERR,
};

struct opened {
	uint64_t node, fh;
};

static struct opened open_file(struct kernel *kernel, const char *path)
{
	struct opened opened = { .node = kernel_walk(kernel, path) };

	cr_assert_eq(kernel_open(kernel, opened.node, O_RDONLY, &opened.fh), 0);
	return opened;
}

static unsigned poll_file(struct kernel *kernel, struct opened file, uint64_t kh)
{
	return kernel_poll(kernel, file.node, file.fh, kh);
}

static void read_file(struct kernel *kernel, struct opened file, uint64_t offset)
{
	cr_assert_eq(kernel_read(kernel, file.node, file.fh, offset, 65536)->error, 0);
}

/* Would catch: a change before the first poll, or between read and poll, that is not seen. */
Test(fs_poll, changed_means_since_it_was_read_from_the_beginning)
{
	struct kernel *kernel = kernel_new(false);
	struct opened status = open_file(kernel, DISK "status");

	cr_assert_eq(poll_file(kernel, status, 0), CHANGED); /* never read */
	read_file(kernel, status, 0);
	cr_assert_eq(poll_file(kernel, status, 0), QUIET);
	kernel_start_pull(kernel);
	cr_assert_eq(poll_file(kernel, status, 0), CHANGED);
	read_file(kernel, status, 3);
	cr_assert_eq(poll_file(kernel, status, 0), CHANGED);
	read_file(kernel, status, 0);
	cr_assert_eq(poll_file(kernel, status, 0), QUIET);
	kernel_free(kernel);
}

/* Would catch: no wake-up, one for each poll(2) instead of one for each change, one for somebody else's file. */
Test(fs_poll, one_wake_up_a_change)
{
	struct kernel *kernel = kernel_new(false);
	struct opened status = open_file(kernel, DISK "status");
	struct opened error = open_file(kernel, DISK "error");
	struct opened chain = open_file(kernel, DISK "chain");

	read_file(kernel, status, 0);
	read_file(kernel, error, 0);
	read_file(kernel, chain, 0);
	cr_assert_eq(poll_file(kernel, status, 10), QUIET);
	cr_assert_eq(poll_file(kernel, status, 10), QUIET); /* replaces the first handle */
	cr_assert_eq(poll_file(kernel, error, 11), QUIET);
	cr_assert_eq(poll_file(kernel, chain, 12), QUIET);
	kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 10), 0);
	kernel_start_pull(kernel);
	kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 10), 1);
	cr_assert_eq(kernel_woken(kernel, 11), 0);
	cr_assert_eq(kernel_woken(kernel, 12), 0);
	cr_assert_eq(kernel_echo(kernel, DISK "speed", "bogus"), -EINVAL);
	kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 10), 1);
	cr_assert_eq(kernel_woken(kernel, 11), 1);
	cr_assert_eq(kernel_woken(kernel, 12), 0);
	kernel_free(kernel);
}

/* Would catch: a follower of a log that is woken for what it has read, or not for what is new. */
Test(fs_poll, a_log_has_changed_when_there_is_more)
{
	struct kernel *kernel = kernel_new(false);
	struct opened events = open_file(kernel, "events");

	cr_assert_eq(poll_file(kernel, events, 0), CHANGED);
	read_file(kernel, events, 0);
	cr_assert_eq(poll_file(kernel, events, 20), QUIET);
	cr_assert_eq(kernel_echo(kernel, DISK "abort", "\n"), -ESRCH);
	kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 20), 1);
	cr_assert_eq(poll_file(kernel, events, 0), CHANGED);
	read_file(kernel, events, 0);
	cr_assert_eq(poll_file(kernel, events, 0), QUIET);
	kernel_free(kernel);
}

/* Would catch: a handle used after release (the sanitizer's business), one that is left over. */
Test(fs_poll, a_handle_goes_with_its_open_file)
{
	struct kernel *kernel = kernel_new(false);
	struct opened status = open_file(kernel, DISK "status");

	read_file(kernel, status, 0);
	cr_assert_eq(poll_file(kernel, status, 30), QUIET);
	cr_assert_eq(kernel_release(kernel, status.node, status.fh), 0);
	kernel_start_pull(kernel);
	kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 30), 0);
	/* A poll on what is closed, or never was. */
	cr_assert_eq(poll_file(kernel, status, 31), CHANGED);
	cr_assert_eq(kernel_poll(kernel, 4711, 1, 32), CHANGED);
	kernel_free(kernel);
}

/* Would catch: pollers that sleep on when their disk has gone. */
Test(fs_poll, a_disk_that_goes_wakes)
{
	struct kernel *kernel = kernel_new(false);
	struct opened chain = open_file(kernel, DISK "chain");

	read_file(kernel, chain, 0);
	cr_assert_eq(poll_file(kernel, chain, 40), QUIET);
	peer_set_answer(kernel_peer(kernel), "query-block", "[]");
	peer_send_event(kernel_peer(kernel), "DEVICE_DELETED",
			"{'path': '/machine/peripheral/vda'}");
	for (int i = 0; i < 100 && !kernel_woken(kernel, 40); i++)
		kernel_idle(kernel);
	cr_assert_eq(kernel_woken(kernel, 40), 1);
	cr_assert_eq(poll_file(kernel, chain, 0), CHANGED);
	kernel_free(kernel);
}

/* Would catch: wake-ups that get lost among many, a cost that grows with every poller a request. */
Test(fs_poll, a_thousand_pollers)
{
	enum {
		POLLERS = 1000,
	};
	struct kernel *kernel = kernel_new(false);
	uint64_t node = kernel_walk(kernel, DISK "status");

	for (int i = 1; i <= POLLERS; i++) {
		struct opened file = open_file(kernel, DISK "status");

		read_file(kernel, file, 0);
		cr_assert_eq(kernel_poll(kernel, node, file.fh, (uint64_t)i), QUIET);
	}
	kernel_start_pull(kernel);
	kernel_idle(kernel);
	for (int i = 1; i <= POLLERS; i++)
		cr_assert_eq(kernel_woken(kernel, (uint64_t)i), 1, "%d", i);
	kernel_free(kernel);
}
