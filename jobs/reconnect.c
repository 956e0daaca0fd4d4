/*
 * When a domain that is not connected tries again: after a pause that grows, and at once when the socket's file changes. Called by
 * domain.c, which does the connecting.
 */
#include <errno.h>
#include <sys/stat.h>
#include "jobs/domain_link.h"
#include "jobs/socket_watch.h"

enum {
	PAUSE_MS_MIN = 100,
	PAUSE_MS_MAX = 10000,
	/* A connection that has lasted so long is tried again at once; one that was complete, but shorter, after at most so long. */
	LASTING_MS = 1000,
};

static void remember_socket(struct domain *domain)
{
	struct domain_link *link = domain->link;
	struct stat status = { 0 };

	if (domain->transport == QMP_UNIX && !domain->engine && stat(domain->socket, &status) < 0)
		status = (struct stat){ 0 };
	link->socket_device = status.st_dev;
	link->socket_inode = status.st_ino;
}

/* True if the file is there and is not the one that the link was opened to. */
static bool is_replaced(const struct domain *domain)
{
	const struct domain_link *link = domain->link;
	struct stat status;

	return stat(domain->socket, &status) == 0 &&
	       (status.st_dev != link->socket_device || status.st_ino != link->socket_inode);
}

void reconnect_now(struct domain *domain)
{
	struct domain_link *link = domain->link;

	if (link->stopping || link->synced)
		return;
	if (link->qmp) {
		/* It waits for a monitor that nobody finds by this name any more. */
		if (!is_replaced(domain))
			return;
		qmp_link_close(link->qmp);
		domain_link_closed(domain, -ECONNRESET, "the socket was replaced by another one");
	}
	/* Whoever makes a socket listens on it a moment later, and no event tells of that: the short pauses follow. */
	link->retry_ms = PAUSE_MS_MIN;
	if (!uv_is_active((uv_handle_t *)&link->retry) ||
	    uv_timer_get_due_in(&link->retry) > FRESH_SOCKET_MS)
		domain_retry_in(domain, FRESH_SOCKET_MS);
}

static void socket_changed(void *data)
{
	reconnect_now(data);
}

static void watch_closed(void *data)
{
	struct domain *domain = data;

	domain->link->watches--;
	domain_part_closed(domain);
}

void reconnect_begin(struct domain *domain)
{
	struct domain_link *link = domain->link;

	link->retry_ms = PAUSE_MS_MIN;
	/* Of a socket in a folder that is watched as a whole, that watch tells. */
	if (domain->transport != QMP_UNIX || domain->engine || domain->folder || !domain->socket)
		return;
	link->watch = socket_watch_new(domain->model->loop, domain->socket, socket_changed, domain);
	link->watches++;
	socket_watch_start(link->watch);
}

void reconnect_attempt(struct domain *domain)
{
	uv_update_time(domain->model->loop);
	domain->link->attempt_ms = uv_now(domain->model->loop);
	remember_socket(domain);
}

void reconnect_synced(struct domain *domain)
{
	struct domain_link *link = domain->link;

	/* Also after each later sync. */
	if (domain->state == DOMAIN_CONNECTED)
		return;
	link->synced_ms = uv_now(domain->model->loop);
	/* What happens to the file of a connection that stands is nobody's business. */
	if (link->watch)
		socket_watch_stop(link->watch);
}

void reconnect_lost(struct domain *domain, bool was_synced)
{
	struct domain_link *link = domain->link;
	unsigned pause = link->retry_ms;

	/* Before the attempt, so that there is no moment at which a new file is missed. */
	if (link->watch && !link->stopping)
		socket_watch_start(link->watch);
	if (was_synced && uv_now(domain->model->loop) - link->synced_ms >= LASTING_MS) {
		link->retry_ms = PAUSE_MS_MIN;
		pause = 0;
	} else {
		if (was_synced && pause > LASTING_MS)
			pause = LASTING_MS;
		link->retry_ms = pause * 2 > PAUSE_MS_MAX ? PAUSE_MS_MAX : pause * 2;
	}
	domain_retry_in(domain, pause);
}

void reconnect_close(struct domain *domain)
{
	if (domain->link->watch)
		socket_watch_close(domain->link->watch, watch_closed);
	domain->link->watch = NULL;
}
