/*
 * The domains of a folder of sockets; see jobs/folder.h. Looking at files is in folder_scan.c, watching in folder_watch.c.
 *
 * A look is worth nothing if something could change unseen during it: it counts when all folders on the way to this one were watched
 * before it began, and nothing was heard of them meanwhile. Whatever it finds goes into the table of entries; what follows for the
 * domains is done from there, a few in each turn of the loop, so that a thousand at once hold up nobody.
 */
#include "jobs/folder_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <uthash.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/events.h"
#include "jobs/folder_scan.h"
#include "jobs/journal.h"

enum {
	LOOK_MS = 50, /* two looks are at least so far apart */
	ADD_MAX = 8, /* domains begun in one turn of the loop */
};

static void begin_look(struct folder *folder);

/* --- telling --- */

void folder_tell(struct folder *folder, const char *format, ...)
{
	struct model *model = folder->model;
	struct text *line = text_new(), *safe = text_new();
	va_list arguments;

	text_printf(line, "dir:%s: ", folder->path);
	va_start(arguments, format);
	text_vprintf(line, format, arguments);
	va_end(arguments);
	text_put_safe(safe, text_bytes(line), text_length(line));
	model->watcher->log(model->watcher_data, text_bytes(safe));
	text_free(line);
	text_free(safe);
}

/* The state of the folder itself: told when it is another one. NULL: all is well. */
static void tell_trouble(struct folder *folder, const char *trouble)
{
	if (trouble && (!folder->trouble || strcmp(folder->trouble, trouble)))
		folder_tell(folder, "%s", trouble);
	else if (!trouble && folder->trouble)
		folder_tell(folder, "it is there");
	free(folder->trouble);
	folder->trouble = trouble ? strdup(trouble) : NULL;
}

/* Takes @reason. */
static void refuse(struct entry *entry, struct folder *folder, const char *name, char *reason)
{
	entry->waits = true;
	if (entry->refused && !strcmp(entry->refused, reason)) {
		free(reason);
		return;
	}
	free(entry->refused);
	entry->refused = reason;
	folder_tell(folder, "%s is not shown: %s", entry->file, reason);
	event_domain_refused(folder->model, name, folder->path, entry->file, reason);
}

/* --- what follows for the domains --- */

static void entry_free(struct folder *folder, struct entry *entry)
{
	HASH_DEL(folder->entries, entry);
	free(entry->file);
	free(entry->refused);
	free(entry);
}

static char *join(const char *folder, const char *file)
{
	char *path;

	if (asprintf(&path, "%s/%s", strcmp(folder, "/") ? folder : "", file) < 0)
		abort();
	return path;
}

/* The same socket by another name in here; also one that was renamed while its domain is connected. */
static const struct entry *find_twin(const struct folder *folder, const struct entry *entry)
{
	const struct entry *other;

	for (other = folder->entries; other; other = other->hh.next)
		if (other != entry && other->domain &&
		    identity_is(&other->identity, &entry->identity))
			return other;
	return NULL;
}

/* Why the socket cannot have a domain, malloc'ed; NULL: it can. */
static char *why_not(const struct folder *folder, const struct entry *entry,
		     const struct source *source)
{
	const struct entry *twin = find_twin(folder, entry);
	struct source real = { .kind = SOURCE_UNIX, .name = source->name };
	char *reason;

	if (strlen(source->path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return strdup("its path is too long for a socket");
	if (twin) {
		if (asprintf(&reason, "it is the same socket as %s", twin->file) < 0)
			abort();
		return reason;
	}
	if (model_find_domain(folder->model, source->name)) {
		if (asprintf(&reason, "there is another domain of the name %s", source->name) < 0)
			abort();
		return reason;
	}
	reason = model_may_add(folder->model, source, NULL);
	if (reason || !folder->real)
		return reason;
	real.path = join(folder->real, entry->file);
	reason = model_may_add(folder->model, &real, NULL);
	free(real.path);
	return reason;
}

static void add_domain(struct folder *folder, struct entry *entry)
{
	struct source source = {
		.kind = SOURCE_UNIX,
		.name = source_name_of_path(entry->file),
		.path = join(folder->path, entry->file),
		.folder = folder,
		.fresh = folder->settled,
	};
	char *reason = why_not(folder, entry, &source);

	if (!reason && model_add(folder->model, &source, &reason) == 0) {
		entry->domain = model_find_domain(folder->model, source.name);
		free(entry->refused);
		entry->refused = NULL;
	} else {
		refuse(entry, folder, source.name, reason);
	}
	source_clear(&source);
}

static void drop_entry(struct folder *folder, struct entry *entry)
{
	struct domain *domain = entry->domain;

	entry_free(folder, entry);
	if (domain)
		model_remove(domain, "its socket is gone");
}

/* True if there is more to do. */
static bool do_some(struct folder *folder)
{
	struct entry *entry, *next;
	unsigned added = 0;

	for (entry = folder->entries; entry; entry = next) {
		next = entry->hh.next;
		/* A machine unlinks its socket at its end; if somebody else did, it still serves us. */
		if (entry->gone && (!entry->domain || !entry->domain->link->ready)) {
			drop_entry(folder, entry);
		} else if (!entry->gone && !entry->domain && !entry->detached && !entry->waits) {
			if (added++ == ADD_MAX)
				return true;
			add_domain(folder, entry);
		}
	}
	return false;
}

static void on_turn(uv_timer_t *timer)
{
	struct folder *folder = timer->data;

	if (folder->model->stopping)
		return;
	if (do_some(folder)) {
		uv_timer_start(&folder->turn, on_turn, 1, 0);
	} else if (folder->known && !folder->settled) {
		folder->settled = true;
		model_domain_settled(folder->model, NULL);
	}
}

/* Never at once: who calls may be in the middle of a domain's business. */
static void go_on(struct folder *folder)
{
	if (!folder->stopping && !uv_is_active((uv_handle_t *)&folder->turn))
		uv_timer_start(&folder->turn, on_turn, 0, 0);
}

/* --- taking over what was found --- */

struct entry *folder_find_entry(const struct folder *folder, const char *file)
{
	struct entry *entry;

	HASH_FIND_STR(folder->entries, file, entry);
	return entry;
}

static struct entry *entry_new(struct folder *folder, const char *file)
{
	struct entry *entry = calloc(1, sizeof(*entry));

	if (!entry || !(entry->file = strdup(file)))
		abort();
	HASH_ADD_KEYPTR(hh, folder->entries, entry->file, strlen(entry->file), entry);
	return entry;
}

static void take_socket(struct folder *folder, const struct found_socket *found)
{
	struct entry *entry = folder_find_entry(folder, found->file);

	if (!entry) {
		entry = entry_new(folder, found->file);
		entry->identity = found->identity;
	} else if (entry->carried) {
		entry->identity = found->identity;
		entry->carried = false;
	} else if (!identity_is(&entry->identity, &found->identity)) {
		entry->identity = found->identity;
		entry->detached = entry->waits = false;
		if (entry->domain)
			reconnect_now(entry->domain);
	}
	entry->seen = true;
	entry->gone = false;
}

static void take_over(struct folder *folder, const struct scan *scan)
{
	struct entry *entry;
	char trouble[200];

	snprintf(trouble, sizeof(trouble), "%s; its sockets are shown when it can be read",
		 scan->error ? strerror(-scan->error) : "");
	tell_trouble(folder, scan->error ? trouble : NULL);
	folder->known = true;
	if (!scan->error || is_absence(scan->error)) {
		free(folder->real);
		folder->real = scan->real ? strdup(scan->real) : NULL;
		if (scan->too_many)
			folder_tell(folder, "only the first %d sockets are shown",
				    FOLDER_SOCKETS_MAX);
		for (entry = folder->entries; entry; entry = entry->hh.next)
			entry->seen = false;
		for (size_t i = 0; i < scan->socket_count; i++)
			take_socket(folder, &scan->sockets[i]);
		for (entry = folder->entries; entry; entry = entry->hh.next)
			entry->gone |= !entry->seen;
	}
	go_on(folder);
}

/* --- looking --- */

static void on_later(uv_timer_t *timer)
{
	begin_look(timer->data);
}

static void look_done(struct scan *scan)
{
	struct folder *folder = scan->data;
	int error = scan->error;

	folder->scan = NULL;
	if (folder->stopping) {
		scan_free(scan);
		model_stop_step(folder->model);
		return;
	}
	folder->look_again |= folder_set_watches(folder, scan);
	if (!folder->look_again)
		take_over(folder, scan);
	scan_free(scan);
	if (folder->look_again && !folder->known)
		begin_look(folder);
	else if (folder->look_again)
		folder_look(folder);
	else if (folder_is_blind(folder, error))
		uv_timer_start(&folder->later, on_later, BLIND_MS, 0);
}

static void begin_look(struct folder *folder)
{
	if (folder->stopping || folder->scan)
		return;
	uv_timer_stop(&folder->later);
	folder->look_again = false;
	folder->scanned = uv_now(folder->model->loop);
	folder->scan = scan_start(folder->model->loop, folder->path, look_done, folder);
}

void folder_look(struct folder *folder)
{
	uint64_t now = uv_now(folder->model->loop), next = folder->scanned + LOOK_MS;

	folder->look_again = true;
	if (!folder->stopping && !folder->scan)
		uv_timer_start(&folder->later, on_later, next > now ? next - now : 0, 0);
}

void folder_link_ended(struct folder *folder, int code)
{
	go_on(folder);
	if (code == -ENOENT)
		folder_look(folder); /* a link to a socket that has gone elsewhere */
}

void folders_domain_removed(const struct domain *domain)
{
	struct folder *folder;
	struct entry *entry;

	DL_FOREACH(domain->model->folders, folder) {
		for (entry = folder->entries; entry; entry = entry->hh.next) {
			entry->waits = false;
			if (entry->domain != domain)
				continue;
			entry->domain = NULL;
			entry->detached = true;
		}
		go_on(folder);
	}
}

/* --- beginning and end --- */

static void handle_closed(uv_handle_t *handle)
{
	struct folder *folder = handle->data;

	folder->handles--;
	model_stop_step(folder->model);
}

static size_t path_length(const char *path)
{
	size_t length = strlen(path);

	while (length > 1 && path[length - 1] == '/')
		length--;
	return length;
}

struct folder *folder_find(struct model *model, const char *path)
{
	size_t length = path_length(path);
	struct folder *folder;

	DL_FOREACH(model->folders, folder)
		if (strlen(folder->path) == length && !memcmp(folder->path, path, length))
			return folder;
	return NULL;
}

const char *folder_path(const struct folder *folder)
{
	return folder->path;
}

void folder_take_over(struct folder *folder, struct domain *domain)
{
	const char *slash = domain->socket ? strrchr(domain->socket, '/') : NULL;
	struct entry *entry;

	if (!slash || folder_find_entry(folder, slash + 1))
		return;
	entry = entry_new(folder, slash + 1);
	entry->domain = domain;
	entry->carried = true;
}

static void keep_path(const struct folder *folder)
{
	char *key;

	if (asprintf(&key, FOLDER_KEY "%s", folder->path) < 0)
		abort();
	journal_put(folder->model->handover, key, folder->path);
	free(key);
}

int folder_add(struct model *model, const char *path, char **error)
{
	size_t length = path_length(path);
	struct folder *folder = folder_find(model, path);

	if (folder) {
		if (asprintf(error, "dir:%s: two sources are this folder", folder->path) < 0)
			abort();
		return -EEXIST;
	}
	folder = calloc(1, sizeof(*folder));
	if (!folder || !(folder->path = strndup(path, length)))
		abort();
	folder->model = model;
	uv_timer_init(model->loop, &folder->later);
	uv_timer_init(model->loop, &folder->turn);
	folder->later.data = folder->turn.data = folder;
	folder->handles = 2;
	DL_APPEND(model->folders, folder);
	keep_path(folder);
	begin_look(folder);
	return 0;
}

bool folders_settled(const struct model *model)
{
	const struct folder *folder;

	DL_FOREACH(model->folders, folder)
		if (!folder->settled)
			return false;
	return true;
}

bool folders_stop(struct model *model)
{
	struct folder *folder;
	bool over = true;

	DL_FOREACH(model->folders, folder) {
		if (!folder->stopping) {
			folder->stopping = true;
			while (folder->watches)
				folder_watch_end(folder->watches);
			uv_close((uv_handle_t *)&folder->later, handle_closed);
			uv_close((uv_handle_t *)&folder->turn, handle_closed);
		}
		over &= !folder->scan && !folder->handles;
	}
	return over;
}

void folders_free(struct model *model)
{
	struct folder *folder, *next;
	struct entry *entry, *following;

	DL_FOREACH_SAFE(model->folders, folder, next) {
		HASH_ITER(hh, folder->entries, entry, following)
			entry_free(folder, entry);
		free(folder->path);
		free(folder->real);
		free(folder->trouble);
		free(folder);
	}
}
