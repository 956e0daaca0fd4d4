/*
 * Watching a folder of sockets and those on the way to it: what is heard leads to a look (jobs/folder.c).
 */
#include "jobs/folder_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The modes of a socket may be others now, or those of the folder. */
static void on_attributes(struct watch *watch, const char *name)
{
	struct folder *folder = watch->folder;
	const char *child = watch->point.child;
	struct entry *entry = child ? NULL : folder_find_entry(folder, name);
	bool on_the_way =
		!strcmp(name, last_part(watch->point.path)) || (child && !strcmp(name, child));

	if (entry && entry->domain)
		reconnect_now(entry->domain);
	else if (folder->trouble && on_the_way)
		folder_look(folder);
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
	struct watch *watch = event->data;
	const char *child = watch->point.child;

	if (status < 0 || !name) {
		watch->stale = true;
		folder_look(watch->folder);
		return;
	}
	if (events == UV_CHANGE) {
		on_attributes(watch, name);
		return;
	}
	/* The folder itself was moved or removed; or something in it has its name. */
	watch->stale |= !strcmp(name, last_part(watch->point.path));
	if (watch->stale || (child ? !strcmp(name, child) : scan_is_fit(name)))
		folder_look(watch->folder);
}

static void watch_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;
	struct folder *folder = watch->folder;

	free(watch->point.path);
	free(watch->point.child);
	free(watch);
	folder->handles--;
	model_stop_step(folder->model);
}

void folder_watch_end(struct watch *watch)
{
	DL_DELETE(watch->folder->watches, watch);
	uv_close((uv_handle_t *)&watch->event, watch_closed);
}

static bool same_name(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static struct watch *find_watch(const struct folder *folder, const struct waypoint *point)
{
	struct watch *watch;

	DL_FOREACH(folder->watches, watch)
		if (!watch->stale && !strcmp(watch->point.path, point->path) &&
		    same_name(watch->point.child, point->child) &&
		    identity_is(&watch->point.identity, &point->identity))
			return watch;
	return NULL;
}

static void watch_begin(struct folder *folder, const struct waypoint *point)
{
	struct watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		abort();
	watch->folder = folder;
	watch->wanted = true;
	watch->point = *point;
	watch->point.path = strdup(point->path);
	watch->point.child = point->child ? strdup(point->child) : NULL;
	uv_fs_event_init(folder->model->loop, &watch->event);
	watch->event.data = watch;
	folder->handles++;
	watch->error = uv_fs_event_start(&watch->event, on_event, watch->point.path, 0);
	DL_APPEND(folder->watches, watch);
	if (watch->error)
		folder_tell(folder, "%s cannot be watched: %s; it is looked at every %d s",
			    point->path, uv_strerror(watch->error), BLIND_MS / 1000);
}

/* True if something was not watched yet: another look is due. */
bool folder_set_watches(struct folder *folder, const struct scan *scan)
{
	struct watch *watch, *next;
	bool changed = false;

	DL_FOREACH(folder->watches, watch)
		watch->wanted = false;
	/* From the root on: what is replaced after its turn is seen by the watch above it. */
	for (size_t i = 0; i < scan->way_length; i++) {
		watch = find_watch(folder, &scan->way[i]);
		if (watch) {
			watch->wanted = true;
		} else {
			watch_begin(folder, &scan->way[i]);
			changed = true;
		}
	}
	DL_FOREACH_SAFE(folder->watches, watch, next)
		if (!watch->wanted)
			folder_watch_end(watch);
	return changed;
}

/* True if what happens next may not be told by any event. */
bool folder_is_blind(const struct folder *folder, int error)
{
	const struct watch *watch;

	DL_FOREACH(folder->watches, watch)
		if (watch->error)
			return true;
	return error && !is_absence(error) && error != -EACCES;
}
