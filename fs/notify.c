/*
 * What is told to those who watch; see fs/notify.h.
 */
#include "fs/notify_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>
#include "fs/face.h"
#include "fs/log.h"
#include "fs/node.h"
#include "fs/notify_kept.h"
#include "fs/toucher.h"
#include "jobs/journal.h"

static void on_due(uv_timer_t *timer);
static void on_stuck(uv_timer_t *timer);
static void on_restart(uv_timer_t *timer);
static void start_toucher(struct notify *notify);

/* --- notices --- */

static bool is_slow(const struct notice *notice)
{
	return notice->apart_ms >= NOTIFY_PROGRESS_MS;
}

static void notice_free(struct notify *notify, struct notice *notice)
{
	notify->slow -= is_slow(notice);
	HASH_DEL(notify->table, notice);
	DL_DELETE(notify->list, notice);
	free(notice->path);
	free(notice);
}

static char *folder_path(const struct domain *domain, const struct disk *disk)
{
	char *path;
	int length;

	if (disk)
		length = asprintf(&path, "domains/%s/disks/%s", domain->name, disk->name);
	else if (domain)
		length = asprintf(&path, "domains/%s", domain->name);
	else
		length = asprintf(&path, ".");
	if (length < 0)
		abort();
	return path;
}

/* Takes @path. */
static struct notice *find_notice(struct notify *notify, char *path, uint64_t node)
{
	struct notice *notice;

	HASH_FIND_STR(notify->table, path, notice);
	if (notice) {
		free(path);
		return notice;
	}
	notice = calloc(1, sizeof(*notice));
	if (!notice)
		abort();
	notice->path = path;
	notice->node = node;
	HASH_ADD_KEYPTR(hh, notify->table, notice->path, strlen(notice->path), notice);
	DL_APPEND(notify->list, notice);
	return notice;
}

static struct journal *handover(const struct notify *notify)
{
	return notify->face->model->handover;
}

static void look_by(struct notify *notify, uint64_t due)
{
	if (due < notify->next_due)
		notify->next_due = due;
}

static void want(struct notify *notify, const struct place *place, const char *folder,
		 unsigned apart_ms)
{
	struct notice *notice;
	char *path;

	if (asprintf(&path, "%s/%s", folder, place->file->name) < 0)
		abort();
	notice = find_notice(notify, path, node_id(place));
	/* The last figures of a job that has just ended are not to wait for their second. */
	if (apart_ms < notice->apart_ms && notice->due > uv_now(notify->loop) + apart_ms)
		notice->due = uv_now(notify->loop);
	if (!notice->wanted && notice->due < uv_now(notify->loop) + NOTIFY_AFTER_MS)
		notice->due = uv_now(notify->loop) + NOTIFY_AFTER_MS;
	notify->slow -= is_slow(notice);
	notice->apart_ms = apart_ms;
	notify->slow += is_slow(notice);
	if (!notice->wanted && !notice->ordered)
		notify_keep_notice(handover(notify), notice->path, notice->node);
	notice->wanted = true;
	look_by(notify, notice->due);
	notify->dirty = true;
}

void notify_changed(struct notify *notify, struct domain *domain, struct disk *disk,
		    enum topic topic)
{
	struct place place = { .model = notify->face->model, .domain = domain, .disk = disk };
	bool slow = topic == TOPIC_PROGRESS && disk && disk_is_busy(disk);
	char *folder;

	if (!notify->running || topic == TOPIC_FIXED || topic == TOPIC_LISTING)
		return;
	/* With a thousand jobs this is what mostly happens. */
	if (slow && disk->progress_due)
		return;
	if (topic == TOPIC_PROGRESS && disk)
		disk->progress_due = true;
	folder = folder_path(domain, disk);
	/* A file that is waited in is not touched: the toucher would wait for its reader (fs/toucher_main.c). */
	for (place.file = place_table(&place); place.file->name; place.file++)
		if (place.file->topic == topic && S_ISREG(place.file->mode) &&
		    !(place.file->flags & FILE_WAITS))
			want(notify, &place, folder, slow ? NOTIFY_PROGRESS_MS : NOTIFY_MS);
	free(folder);
}

static void keep_order(struct notify *notify, struct order *order)
{
	const struct kept_order kept = {
		.what = order->what,
		.path = order->path,
		.name = order->name,
		.domain = order->domain,
		.parent = order->parent,
		.node = order->node,
		.generation = order->generation,
		.domain_generation = order->domain_generation,
		.number = order->number = ++notify->last_number,
	};

	notify_keep_order(handover(notify), &kept);
	DL_APPEND(notify->folders, order);
	notify->folders_due++;
	notify->dirty = true;
}

/* It has been carried out, or is in vain. */
static void order_free(struct notify *notify, struct order *order)
{
	if (order->number)
		notify_drop_order(handover(notify), order->number);
	free(order->path);
	free(order->name);
	free(order->domain);
	free(order);
}

void notify_folder_made(struct notify *notify, const struct domain *domain)
{
	struct order *order, *next;

	DL_FOREACH_SAFE(notify->folders, order, next) {
		if (strcmp(order->domain ? order->domain : order->name, domain->name))
			continue;
		DL_DELETE(notify->folders, order);
		order_free(notify, order);
	}
}

void notify_folder(struct notify *notify, const struct domain *domain, const struct disk *disk,
		   uint64_t generation, bool added)
{
	struct place place = { .domain = (struct domain *)domain, .disk = (struct disk *)disk };
	struct place parent = node_parent(&place);
	struct order *order;

	if (!notify->running)
		return;
	order = calloc(1, sizeof(*order));
	if (!order)
		abort();
	order->what = added ? 'm' : 'r';
	order->path = folder_path(domain, disk);
	order->name = strdup(disk ? disk->name : domain->name);
	order->node = node_id(&place);
	order->generation = generation;
	order->parent = node_id(&parent);
	if (disk) {
		order->domain = strdup(domain->name);
		place.disk = NULL;
		order->domain_generation = node_generation(&notify->face->nodes, &place);
	}
	keep_order(notify, order);
}

void notify_link(struct notify *notify, const struct domain *domain, const char *name, bool added)
{
	struct order *order;

	if (!notify->running)
		return;
	order = calloc(1, sizeof(*order));
	if (!order || asprintf(&order->path, "domains/%s/by-source/%s", domain->name, name) < 0)
		abort();
	order->what = added ? 's' : 'u';
	order->name = strdup(name);
	order->node = node_link_id(domain->name, name);
	order->parent = node_id_of(domain->name, NULL, "by-source");
	order->domain = strdup(domain->name);
	keep_order(notify, order);
}

bool notify_folders_are_told(const struct notify *notify)
{
	return notify->folders_due == 0;
}

/* --- orders --- */

static void send_order(struct notify *notify, struct order *order)
{
	DL_APPEND(notify->orders, order);
	if (notify->ordered++ == 0)
		uv_timer_start(&notify->watchdog, on_stuck, NOTIFY_STUCK_MS, 0);
	toucher_order(notify->toucher, order->what,
		      order->notice ? order->notice->path : order->path);
}

static unsigned apart_ms(const struct notify *notify, const struct notice *notice)
{
	if (!is_slow(notice) || notify->slow < NOTIFY_PROGRESS_A_SECOND)
		return notice->apart_ms;
	return notice->apart_ms * notify->slow / NOTIFY_PROGRESS_A_SECOND;
}

/* From now on a change is to be told once more. */
static void not_due(const struct notify *notify, const struct notice *notice)
{
	struct place place;

	if (node_find(&notify->face->nodes, notice->node, &place) && place.disk && place.file &&
	    place.file->topic == TOPIC_PROGRESS)
		place.disk->progress_due = false;
}

static void order_notice(struct notify *notify, struct notice *notice)
{
	struct order *order = calloc(1, sizeof(*order));

	if (!order)
		abort();
	order->what = 't';
	order->notice = notice;
	notice->wanted = false;
	notice->ordered = true;
	not_due(notify, notice);
	notice->due = uv_now(notify->loop) + apart_ms(notify, notice);
	/* Those that have waited longest come first. */
	DL_DELETE(notify->list, notice);
	DL_APPEND(notify->list, notice);
	send_order(notify, order);
}

/* A link whose domain has gone since: the way to it is gone, too. */
static bool is_vain(const struct notify *notify, const struct order *order)
{
	return (order->what == 's' || order->what == 'u') &&
	       !model_find_domain(notify->face->model, order->domain);
}

static void send_folders(struct notify *notify)
{
	while (notify->folders && notify->ordered < ORDERS_MAX) {
		struct order *order = notify->folders;

		DL_DELETE(notify->folders, order);
		if (is_vain(notify, order)) {
			notify->folders_due--;
			order_free(notify, order);
		} else {
			send_order(notify, order);
		}
	}
}

/*
 * Goes through the list, from those that have waited longest on, until the toucher has enough to do. With ten thousand files in it that
 * must not be done whenever one order is over: only when something may be due.
 */
static void send_notices(struct notify *notify)
{
	uint64_t now = uv_now(notify->loop);
	struct notice *notice, *following;

	notify->next_due = UINT64_MAX;
	DL_FOREACH_SAFE(notify->list, notice, following) {
		if (notify->ordered == ORDERS_MAX) {
			notify->next_due = 0; /* who knows */
			return;
		}
		if (notice->ordered)
			continue;
		if (notice->due <= now && !notice->wanted) {
			notice_free(notify, notice);
			continue;
		}
		if (notice->due <= now && face_node_is_busy(notify->face, notice->node))
			notice->due =
				now + NOTIFY_MS; /* somebody waits for it: the toucher would, too */
		if (notice->due <= now)
			order_notice(notify, notice);
		else
			look_by(notify, notice->due);
	}
}

static void pump(struct notify *notify)
{
	uint64_t now = uv_now(notify->loop);

	if (!notify->running || !notify->toucher)
		return;
	notify->dirty = false;
	send_folders(notify);
	if (notify->next_due <= now && notify->ordered < ORDERS_MAX)
		send_notices(notify);
	toucher_send(notify->toucher);
	/* As long as the toucher has as much as it may have, its answers are what comes next. */
	if (notify->next_due > now && notify->next_due != UINT64_MAX)
		uv_timer_start(&notify->timer, on_due, notify->next_due - now, 0);
	else
		uv_timer_stop(&notify->timer);
}

/* The oldest order is over. */
static void order_over(struct notify *notify)
{
	struct order *order = notify->orders;

	if (!order)
		return;
	DL_DELETE(notify->orders, order);
	notify->ordered--;
	if (!order->notice) {
		notify->folders_due--;
	} else {
		order->notice->ordered = false;
		look_by(notify, order->notice->due);
		if (!order->notice->wanted)
			notify_drop_notice(handover(notify), order->notice->path);
	}
	order_free(notify, order);
	notify->dirty = true;
}

/* What was under way is ordered again: told twice rather than never. */
static void orders_again(struct notify *notify)
{
	while (notify->orders) {
		struct order *last = notify->orders->prev;

		if (last->notice) {
			last->notice->wanted = true;
			last->notice->ordered = false;
			DL_DELETE(notify->orders, last);
			order_free(notify, last);
		} else {
			DL_DELETE(notify->orders, last);
			DL_PREPEND(notify->folders, last);
		}
	}
	notify->ordered = 0;
	notify->next_due = 0;
	notify->dirty = true;
	uv_timer_stop(&notify->watchdog);
}

/* --- the toucher --- */

static void forget_toucher(struct notify *notify, struct toucher *toucher)
{
	char key[TOUCHER_KEY_BYTES];

	journal_drop(notify->face->model->handover, notify_toucher_key(key, toucher_pid(toucher)));
	for (int i = 0; i < TOUCHERS_MAX; i++)
		if (notify->touchers[i] == toucher)
			notify->touchers[i] = NULL;
	if (notify->toucher == toucher)
		notify->toucher = NULL;
}

static void answered(void *data, struct toucher *toucher)
{
	struct notify *notify = data;

	if (toucher != notify->toucher)
		return; /* given up long ago */
	order_over(notify);
	if (notify->ordered)
		uv_timer_start(&notify->watchdog, on_stuck, NOTIFY_STUCK_MS, 0);
	else
		uv_timer_stop(&notify->watchdog);
}

static void died(void *data, struct toucher *toucher)
{
	struct notify *notify = data;
	bool current = toucher == notify->toucher;

	forget_toucher(notify, toucher);
	if (!notify->running || !current)
		return;
	orders_again(notify);
	if (uv_now(notify->loop) - notify->started < RESTART_MS)
		uv_timer_start(&notify->restart, on_restart, RESTART_MS, 0);
	else
		start_toucher(notify);
}

static const struct toucher_handlers toucher_handlers = { .answered = answered, .died = died };

static void start_toucher(struct notify *notify)
{
	char key[TOUCHER_KEY_BYTES], life[24];
	int free_place = 0;

	snprintf(life, sizeof(life), "%llu", (unsigned long long)notify->face->model->lives);

	while (free_place < TOUCHERS_MAX && notify->touchers[free_place])
		free_place++;
	notify->started = uv_now(notify->loop);
	if (free_place < TOUCHERS_MAX)
		notify->toucher =
			toucher_start(notify->loop, notify->mountpoint, &toucher_handlers, notify);
	notify->face->model->metrics.toucher_starts++;
	if (notify->toucher) {
		notify->touchers[free_place] = notify->toucher;
		journal_put(notify->face->model->handover,
			    notify_toucher_key(key, toucher_pid(notify->toucher)), life);
	} else {
		uv_timer_start(&notify->restart, on_restart, RESTART_MS, 0);
	}
}

static void on_restart(uv_timer_t *timer)
{
	struct notify *notify = timer->data;

	if (notify->running && !notify->toucher)
		start_toucher(notify);
}

/* It hangs in a request, for whatever reason. It is killed, which may take effect much later, and another one goes on. */
static void on_stuck(uv_timer_t *timer)
{
	struct notify *notify = timer->data;

	log_line("the toucher does not answer; another one is started");
	if (notify->orders && notify->orders->notice)
		notify->orders->notice->due = uv_now(notify->loop) + NOTIFY_STUCK_MS;
	toucher_kill(notify->toucher);
	notify->toucher = NULL;
	orders_again(notify);
	start_toucher(notify);
}

static void on_due(uv_timer_t *timer)
{
	pump(timer->data);
}

static void before_sleep(uv_prepare_t *prepare)
{
	struct notify *notify = prepare->data;

	if (notify->dirty)
		pump(notify);
}

/* --- life --- */

struct notify *notify_new(uv_loop_t *loop, struct face *face, const char *mountpoint)
{
	struct notify *notify = calloc(1, sizeof(*notify));

	if (!notify)
		abort();
	notify->loop = loop;
	notify->face = face;
	notify->mountpoint = strdup(mountpoint);
	notify->next_due = UINT64_MAX;
	uv_timer_init(loop, &notify->timer);
	uv_timer_init(loop, &notify->watchdog);
	uv_timer_init(loop, &notify->restart);
	uv_prepare_init(loop, &notify->prepare);
	notify->timer.data = notify->watchdog.data = notify->restart.data = notify->prepare.data =
		notify;
	return notify;
}

/* What the last life of the server has not told any more. */
static void take_notice(void *data, const char *path, uint64_t node)
{
	struct notify *notify = data;
	struct notice *notice = find_notice(notify, strdup(path), node);

	notice->apart_ms = NOTIFY_MS;
	notice->wanted = true;
	look_by(notify, notice->due);
	notify->dirty = true;
}

static void take_order(void *data, const struct kept_order *kept)
{
	struct notify *notify = data;
	struct order *order = calloc(1, sizeof(*order));

	if (!order)
		abort();
	order->what = kept->what;
	order->path = strdup(kept->path);
	order->name = strdup(kept->name);
	order->domain = kept->domain ? strdup(kept->domain) : NULL;
	order->parent = kept->parent;
	order->node = kept->node;
	order->generation = kept->generation;
	order->domain_generation = kept->domain_generation;
	order->number = kept->number;
	if (kept->number > notify->last_number)
		notify->last_number = kept->number;
	DL_APPEND(notify->folders, order);
	notify->folders_due++;
}

/* Requests of the touchers of the last life are sent to this one, of those before it to nobody any more. */
static void forget_old(void *data, const char *key, const char *life)
{
	struct model *model = data;

	if (strtoull(life, NULL, 10) + 1 < model->lives)
		journal_drop(model->handover, key);
}

void notify_start(struct notify *notify)
{
	notify->running = true;
	journal_each(handover(notify), "toucher/", forget_old, notify->face->model);
	notify_each_kept(handover(notify), take_notice, take_order, notify);
	start_toucher(notify);
	uv_prepare_start(&notify->prepare, before_sleep);
}

void notify_quiet(struct notify *notify)
{
	notify->running = false;
	orders_again(notify);
	for (int i = 0; i < TOUCHERS_MAX; i++) {
		if (!notify->touchers[i])
			continue;
		toucher_silence(notify->touchers[i]);
		toucher_kill(notify->touchers[i]);
		notify->touchers[i] = NULL;
	}
	notify->toucher = NULL;
}

void notify_stop(struct notify *notify)
{
	struct notice *notice, *next;

	notify_quiet(notify);
	DL_FOREACH_SAFE(notify->list, notice, next)
		notice_free(notify, notice);
	while (notify->folders) {
		struct order *order = notify->folders;

		DL_DELETE(notify->folders, order);
		order_free(notify, order);
	}
	uv_close((uv_handle_t *)&notify->timer, NULL);
	uv_close((uv_handle_t *)&notify->watchdog, NULL);
	uv_close((uv_handle_t *)&notify->restart, NULL);
	uv_close((uv_handle_t *)&notify->prepare, NULL);
}

void notify_free(struct notify *notify)
{
	if (!notify)
		return;
	free(notify->mountpoint);
	free(notify);
}
