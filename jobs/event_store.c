/*
 * Events for the next life; see event_store.h.
 */
#include "jobs/event_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/journal.h"

#define EVENT "event/"
#define LOG   "log"

static char *log_key(const char *domain, const char *disk)
{
	char *key;

	if (asprintf(&key, LOG "%s%s%s%s", domain ? "/" : "", domain ? domain : "", disk ? "/" : "",
		     disk ? disk : "") < 0)
		abort();
	return key;
}

/* The number of the event on a line; UINT64_MAX: there is no line. */
static uint64_t seq_of(const char *line, size_t length)
{
	static const char key[] = "\"seq\":";
	const char *at = length ? memmem(line, length, key, sizeof(key) - 1) : NULL;

	return at ? strtoull(at + sizeof(key) - 1, NULL, 10) : UINT64_MAX;
}

static void keep_log(struct model *model, const char *domain, const char *disk,
		     const struct event_log *log)
{
	uint64_t first = seq_of(log->bytes, log->length);
	char *key = log_key(domain, disk), *value;

	if (first == UINT64_MAX)
		first = model->seq + 1;
	if (asprintf(&value, "%" PRIu64 " %" PRIu64 " %" PRIu64, log->start, log->lines_dropped,
		     first) < 0)
		abort();
	journal_put(model->handover, key, value);
	free(value);
	free(key);
}

static const struct event_log *log_of(const struct model *model, const struct domain *domain,
				      const struct disk *disk)
{
	return disk ? &disk->log : domain ? &domain->log : &model->log;
}

static const char *name_of(const struct domain *domain)
{
	return domain ? domain->name : NULL;
}

void event_store_begin(struct model *model, const struct domain *domain, const struct disk *disk)
{
	keep_log(model, name_of(domain), disk ? disk->name : NULL, log_of(model, domain, disk));
}

void event_store_end(struct model *model, const struct domain *domain, const struct disk *disk)
{
	char *key = log_key(name_of(domain), disk ? disk->name : NULL);

	journal_drop(model->handover, key);
	free(key);
}

/* --- what no log has any more --- */

/* One that was kept, taken apart. */
struct kept_event {
	char *domain, *disk; /* "": it was about none */
	const char *line;
	uint64_t seq;
};

static bool read_event(const char *key, const char *value, struct kept_event *event)
{
	const char *disk = strchr(value, '\t'), *line = disk ? strchr(disk + 1, '\t') : NULL;

	if (!line)
		return false;
	event->seq = strtoull(key + sizeof(EVENT) - 1, NULL, 10);
	event->domain = strndup(value, (size_t)(disk - value));
	event->disk = strndup(disk + 1, (size_t)(line - disk - 1));
	event->line = line + 1;
	return true;
}

static void clear_event(struct kept_event *event)
{
	free(event->domain);
	free(event->disk);
}

/* NULL if it is of none, or of one that has gone. */
static struct domain *domain_of(struct model *model, const struct kept_event *event)
{
	return *event->domain ? model_find_domain(model, event->domain) : NULL;
}

static struct disk *disk_of(struct domain *domain, const struct kept_event *event)
{
	return domain && *event->disk ? domain_find_disk(domain, event->disk) : NULL;
}

static bool has(const struct event_log *log, uint64_t seq)
{
	return seq_of(log->bytes, log->length) <= seq;
}

static void drop_if_gone(void *data, const char *key, const char *value)
{
	struct model *model = data;
	struct kept_event event;
	struct domain *domain;
	struct disk *disk;

	if (!read_event(key, value, &event))
		return;
	domain = domain_of(model, &event);
	disk = disk_of(domain, &event);
	if (!has(&model->log, event.seq) && !(domain && has(&domain->log, event.seq)) &&
	    !(disk && has(&disk->log, event.seq)))
		journal_drop(model->handover, key);
	clear_event(&event);
}

/* True if the log has dropped something since it was kept last. */
static bool has_dropped(struct model *model, const char *domain, const char *disk,
			const struct event_log *log)
{
	char *key = log_key(domain, disk);
	const char *value = journal_get(model->handover, key);
	bool dropped = !value || strtoull(value, NULL, 10) != log->start;

	free(key);
	return dropped;
}

static void look_at_log(struct model *model, const struct domain *domain, const struct disk *disk)
{
	const struct event_log *log = log_of(model, domain, disk);
	const char *name = disk ? disk->name : NULL;

	if (!log->lines_dropped || !has_dropped(model, name_of(domain), name, log))
		return;
	keep_log(model, name_of(domain), name, log);
	/* The others go when the log of the whole mount drops some, which it does after them all. */
	if (!domain)
		journal_each(model->handover, EVENT, drop_if_gone, model);
}

void event_store_add(struct model *model, const struct domain *domain, const struct disk *disk,
		     const char *line)
{
	char *value, key[40];

	if (asprintf(&value, "%s\t%s\t%.*s", domain ? domain->name : "", disk ? disk->name : "",
		     (int)strcspn(line, "\n"), line) < 0)
		abort();
	snprintf(key, sizeof(key), EVENT "%" PRIu64, model->seq);
	journal_put(model->handover, key, value);
	free(value);
	look_at_log(model, NULL, NULL);
	if (domain)
		look_at_log(model, domain, NULL);
	if (disk)
		look_at_log(model, domain, disk);
}

/* --- the next life --- */

/* The first event that the log may have, by what was kept of it; *@log begins where it began. */
static uint64_t begin_log(const struct model *model, const char *domain, const char *disk,
			  struct event_log *log)
{
	char *key = log_key(domain, disk);
	const char *value = journal_get(model->handover, key);
	uint64_t start = 0, dropped = 0, first = 0;

	free(key);
	if (value &&
	    sscanf(value, "%" SCNu64 " %" SCNu64 " %" SCNu64, &start, &dropped, &first) != 3)
		start = dropped = first = 0;
	if (!log->lines) {
		log->start = start;
		log->lines = log->lines_dropped = dropped;
	}
	return first;
}

static void take_line(const struct model *model, const char *domain, const char *disk,
		      struct event_log *log, const struct kept_event *event)
{
	size_t length = strlen(event->line);
	char *line;

	if (event->seq < begin_log(model, domain, disk, log))
		return;
	line = malloc(length + 1);
	if (!line)
		abort();
	memcpy(line, event->line, length);
	line[length] = '\n';
	event_log_append(log, line, length + 1);
	free(line);
}

static void load(void *data, const char *key, const char *value)
{
	struct model *model = data;
	struct kept_event event;
	struct domain *domain;
	struct disk *disk;

	if (!read_event(key, value, &event))
		return;
	if (event.seq > model->seq)
		model->seq = event.seq;
	take_line(model, NULL, NULL, &model->log, &event);
	domain = domain_of(model, &event);
	disk = disk_of(domain, &event);
	if (domain)
		take_line(model, domain->name, NULL, &domain->log, &event);
	if (disk)
		take_line(model, domain->name, disk->name, &disk->log, &event);
	clear_event(&event);
}

void event_store_load(struct model *model)
{
	struct domain *domain;
	struct disk *disk;

	/* A log of which nothing is left begins where it began, too. */
	begin_log(model, NULL, NULL, &model->log);
	for (domain = model->domains; domain; domain = domain->next) {
		begin_log(model, domain->name, NULL, &domain->log);
		for (disk = domain->disks; disk; disk = disk->next)
			begin_log(model, domain->name, disk->name, &disk->log);
	}
	journal_each(model->handover, EVENT, load, model);
}

bool event_log_has_job(const struct event_log *log, const char *id, const char *const *names,
		       const char **latest)
{
	const char *at = log->bytes, *end, *line_end;
	char *job, *event;
	bool found = false;

	if (!log->length)
		return false;
	end = at + log->length;
	if (asprintf(&job, "\"job\":\"%s\"", id) < 0)
		abort();
	for (; at < end; at = line_end + 1) {
		line_end = memchr(at, '\n', (size_t)(end - at));
		if (!memmem(at, (size_t)(line_end - at), job, strlen(job)))
			continue;
		for (size_t i = 0; names[i]; i++) {
			if (asprintf(&event, "\"event\":\"%s\"", names[i]) < 0)
				abort();
			if (memmem(at, (size_t)(line_end - at), event, strlen(event))) {
				found = true;
				if (latest)
					*latest = names[i];
			}
			free(event);
		}
	}
	free(job);
	return found;
}
