/*
 * A monitor on a unix socket. Used by transport.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "qmp/transport_private.h"

enum {
	/* Descriptors that monitors leave for the rest: the journal, the toucher, looks at files, programs that are run. */
	RESERVE = 32,
};

struct unix_transport {
	struct transport base;
	uv_pipe_t pipe;
	uv_timer_t timer;
	uv_connect_t connect;
	char *path;
};

static pid_t peer_pid(const uv_pipe_t *pipe)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)pipe, &fd) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return 0;
	return peer.pid;
}

static void connected(uv_connect_t *connect, int error)
{
	struct unix_transport *this = connect->data;

	if (this->base.ended)
		return;
	if (error) {
		transport_ended(&this->base, error, "%s: %s", this->path,
				error == -EAGAIN ? "too many clients wait for this monitor"
						 : uv_strerror(error));
		return;
	}
	this->base.peer = peer_pid(&this->pipe);
	transport_connected(&this->base, (uv_stream_t *)&this->pipe, (uv_stream_t *)&this->pipe,
			    QMP_GREETING_MS);
}

static rlim_t limit_of_files(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

/* The kernel gives out the lowest free number. */
static bool is_room(void)
{
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return errno != EMFILE;
	close(fd);
	return (rlim_t)fd + RESERVE < limit_of_files();
}

static void no_room(uv_timer_t *timer)
{
	struct unix_transport *this = timer->data;

	transport_ended(&this->base, -EMFILE,
			"blockjobfs may not have more than %llu files open, and has: raise its "
			"limit (LimitNOFILE= of a service, ulimit -n); it is tried again",
			(unsigned long long)limit_of_files());
}

static void too_long(uv_timer_t *timer)
{
	struct unix_transport *this = timer->data;

	transport_ended(&this->base, -ENAMETOOLONG, "the socket's path is too long");
}

static void unix_open(struct transport *transport, const char *path)
{
	struct unix_transport *this = (struct unix_transport *)transport;

	this->path = transport_must(strdup(path));
	this->connect.data = this;
	uv_pipe_init(transport->loop, &this->pipe, 0);
	transport_hold(transport, &this->pipe);
	uv_timer_init(transport->loop, &this->timer);
	transport_hold(transport, &this->timer);
	/* libuv 1.44 would cut the path off and connect to somebody else. */
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		uv_timer_start(&this->timer, too_long, 0, 0);
	else if (!is_room())
		uv_timer_start(&this->timer, no_room, 0, 0);
	else
		uv_pipe_connect(&this->connect, &this->pipe, path, connected);
}

static void unix_close(struct transport *transport)
{
	struct unix_transport *this = (struct unix_transport *)transport;

	transport_release(transport, &this->pipe);
	transport_release(transport, &this->timer);
}

static void unix_clear(struct transport *transport)
{
	free(((struct unix_transport *)transport)->path);
}

const struct transport_kind transport_unix = {
	.size = sizeof(struct unix_transport),
	.open = unix_open,
	.close = unix_close,
	.clear = unix_clear,
};
