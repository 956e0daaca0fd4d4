/*
 * Links over TCP, against the scripted peer.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include "tests/unit/test_qmp_transport.h"

static bool begin_tcp(struct owner *owner, const char *host)
{
	begin_alone(owner);
	owner->peer = peer_new_tcp(&owner->loop, host);
	if (owner->peer)
		return true;
	end_alone(owner);
	return false;
}

/* An option of the connection's end that is ours. */
static int option(const struct owner *owner, int level, int name)
{
	int port = atoi(strrchr(peer_path(owner->peer), ':') + 1);

	for (int fd = 3; fd < 200; fd++) {
		struct sockaddr_in there;
		socklen_t size = sizeof(there);
		int value;

		if (getpeername(fd, (struct sockaddr *)&there, &size) ||
		    there.sin_family != AF_INET || ntohs(there.sin_port) != port)
			continue;
		size = sizeof(value);
		cr_assert_eq(getsockopt(fd, level, name, &value, &size), 0);
		return value;
	}
	cr_assert_fail("there is no connection");
	return 0;
}

Test(qmp_tcp, talks)
{
	/* Catches bytes lost at either end, and a dead host that nobody notices. */
	struct owner owner;

	cr_assert(begin_tcp(&owner, "127.0.0.1"));
	open_at(&owner, QMP_TCP, peer_path(owner.peer));
	until(&owner, "ready ");
	cr_assert_eq(qmp_link_peer(owner.link), 0, "its files are not ours");
	cr_assert(option(&owner, IPPROTO_TCP, TCP_NODELAY));
	cr_assert(option(&owner, SOL_SOCKET, SO_KEEPALIVE));
	cr_assert_leq(option(&owner, IPPROTO_TCP, TCP_KEEPIDLE) +
			      option(&owner, IPPROTO_TCP, TCP_KEEPINTVL) *
				      option(&owner, IPPROTO_TCP, TCP_KEEPCNT),
		      60);
	cr_assert_leq(option(&owner, IPPROTO_TCP, TCP_USER_TIMEOUT), 60000);
	cr_assert_gt(option(&owner, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
	peer_set_answer(owner.peer, "a", "{'n': 11}");
	send_one(&owner, "a", 1);
	until(&owner, "reply1:11 ");
	for (int i = 0; i < 100; i++)
		peer_send_event(owner.peer, "STOP", NULL);
	peer_send_event(owner.peer, "SHUTDOWN", NULL);
	peer_hang_up(owner.peer);
	until(&owner, "event:SHUTDOWN closed:ECONNRESET ");
	cr_assert_str_eq(owner.reason, "the peer hung up");
	end(&owner);
}

Test(qmp_tcp, version_6)
{
	/* Catches brackets that go to the resolver. */
	struct owner owner;

	if (!begin_tcp(&owner, "::1"))
		cr_skip_test("no IPv6 here");
	open_at(&owner, QMP_TCP, peer_path(owner.peer));
	until(&owner, "ready ");
	end(&owner);
}

Test(qmp_tcp, every_address_of_a_name)
{
	/* Catches a link that gives up when the first address of a name has nobody: localhost is ::1, too. */
	struct owner owner;
	char where[64];

	cr_assert(begin_tcp(&owner, "127.0.0.1"));
	snprintf(where, sizeof(where), "localhost%s", strrchr(peer_path(owner.peer), ':'));
	open_at(&owner, QMP_TCP, where);
	until(&owner, "ready ");
	end(&owner);
}

Test(qmp_tcp, refused)
{
	/* Catches a reason that does not say where, and a code that does not tell that nobody is there. */
	struct owner owner;
	char where[64], wanted[128];

	cr_assert(begin_tcp(&owner, "127.0.0.1"));
	strcpy(where, peer_path(owner.peer));
	peer_stop_listening(owner.peer);
	peer_run_for(&owner.loop, 5);
	open_at(&owner, QMP_TCP, where);
	until(&owner, "closed:ECONNREFUSED ");
	expect_log(&owner, "closed:ECONNREFUSED ");
	snprintf(wanted, sizeof(wanted), "%s: connection refused", where);
	cr_assert_str_eq(owner.reason, wanted);
	end(&owner);
}

Test(qmp_tcp, no_such_name)
{
	/* Catches a name that is taken for a QEMU which is gone: that would end its jobs as lost. */
	struct owner owner;

	begin_alone(&owner);
	open_at(&owner, QMP_TCP, "no..name:4444");
	until(&owner, "closed:EHOSTUNREACH ");
	cr_assert(strstr(owner.reason, "no..name cannot be looked up: "), "%s", owner.reason);
	end_alone(&owner);
}

Test(qmp_tcp, closed_at_every_step)
{
	/* Catches an attempt, or a lookup that a thread is at, which outlives its link and finds it freed. */
	static const char *const names[] = { "localhost", "127.0.0.1", "no..name" };

	for (int turns = 0; turns < 6; turns++) {
		for (int i = 0; i < 3; i++) {
			struct owner owner;
			char where[64];

			cr_assert(begin_tcp(&owner, "127.0.0.1"));
			snprintf(where, sizeof(where), "%s%s", names[i],
				 strrchr(peer_path(owner.peer), ':'));
			open_at(&owner, QMP_TCP, where);
			send_one(&owner, "early", 1);
			for (int turn = 0; turn < turns; turn++)
				uv_run(&owner.loop, UV_RUN_NOWAIT);
			let_go(&owner, true);
			peer_run_for(&owner.loop, 20);
			cr_assert(strstr(owner.log, "reply1:EHOSTDOWN "), "%s", owner.log);
			end(&owner);
		}
	}
}

Test(qmp_tcp, nobody_answers)
{
	/* Catches a link that cannot be closed while a host leaves it waiting, as one does whose queue is full. */
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fillers[3];
	struct owner owner;
	char where[64];

	cr_assert_eq(bind(listener, (struct sockaddr *)&address, size), 0);
	cr_assert_eq(listen(listener, 0), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
	for (int i = 0; i < 3; i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(fillers[i], (struct sockaddr *)&address, size);
	}
	begin_alone(&owner);
	snprintf(where, sizeof(where), "127.0.0.1:%d", ntohs(address.sin_port));
	open_at(&owner, QMP_TCP, where);
	peer_run_for(&owner.loop, 100);
	expect_log(&owner, "");
	end_alone(&owner);
	for (int i = 0; i < 3; i++)
		close(fillers[i]);
	close(listener);
}

/* A network of our own, in which every connection goes out from @port. */
static bool live_on_one_port(int port)
{
	struct ifreq loopback = { .ifr_name = "lo" };
	int fd, file;
	char range[32];
	bool done;

	if (unshare(CLONE_NEWNET))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	loopback.ifr_flags = IFF_UP | IFF_RUNNING;
	done = ioctl(fd, SIOCSIFFLAGS, &loopback) == 0;
	close(fd);
	file = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	snprintf(range, sizeof(range), "%d %d", port, port);
	done &= file >= 0 && write(file, range, strlen(range)) > 0;
	close(file);
	return done;
}

Test(qmp_tcp, not_to_itself)
{
	/* Catches a socket that is connected to itself, since nobody listens on the port that it goes out from. */
	struct owner owner;

	if (!live_on_one_port(45678))
		cr_skip_test("no network of our own to be had");
	begin_alone(&owner);
	open_at(&owner, QMP_TCP, "127.0.0.1:45678");
	until(&owner, "closed:ECONNREFUSED ");
	expect_log(&owner, "closed:ECONNREFUSED ");
	end_alone(&owner);
}
