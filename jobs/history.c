/*
 * History: lines of JSON in slots, as many as are kept, used in turn.
 */
#include "jobs/history.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "jobs/deletion.h"
#include "jobs/disk.h"
#include "jobs/events.h"
#include "jobs/journal.h"
#include "jobs/json.h"
#include "jobs/model.h"
#include "qmp/value.h"

#define HISTORY "history/"
#define CHAIN	"chain/"

/* --- what lies in the journal --- */

static char *key_of(const char *kind, const struct disk *disk, size_t slot)
{
	char *key;
	int done =
		!strcmp(kind, HISTORY)
			? asprintf(&key, "%s%s/%s/%zu", kind, disk->domain->name, disk->name, slot)
			: asprintf(&key, "%s%s/%s", kind, disk->domain->name, disk->name);

	if (done < 0)
		abort();
	return key;
}

/* The number in front of a value; *@rest is what it is put before. */
static uint64_t number_of(const char *value, const char **rest)
{
	char *end;
	uint64_t number = strtoull(value, &end, 10);

	*rest = *end == ' ' ? end + 1 : end;
	return number;
}

static size_t size_of(const char *key, const char *value)
{
	return strlen(key) + strlen(value);
}

struct aged {
	uint64_t number;
	size_t size;
	char *key;
};

struct all_aged {
	struct aged *entries;
	size_t count;
};

static void collect(void *data, const char *key, const char *value)
{
	struct all_aged *all = data;
	const char *rest;

	all->entries = reallocarray(all->entries, all->count + 1, sizeof(*all->entries));
	if (!all->entries)
		abort();
	all->entries[all->count++] =
		(struct aged){ number_of(value, &rest), size_of(key, value), strdup(key) };
}

static int by_age(const void *a, const void *b)
{
	const struct aged *one = a, *other = b;

	return (one->number > other->number) - (one->number < other->number);
}

/* The oldest go, until a quarter is free. Returns what is left. What disks show of it they keep as long as they are there. */
static size_t drop_oldest(struct model *model, const char *history, const char *chain, size_t most)
{
	struct all_aged all = { 0 };
	size_t total = 0;

	journal_each(model->journal, history, collect, &all);
	journal_each(model->journal, chain, collect, &all);
	qsort(all.entries, all.count, sizeof(*all.entries), by_age);
	for (size_t i = 0; i < all.count; i++)
		total += all.entries[i].size;
	for (size_t i = 0; i < all.count; i++) {
		if (total > most / 4 * 3) {
			journal_drop(model->journal, all.entries[i].key);
			total -= all.entries[i].size;
			model->history_bytes -= all.entries[i].size;
		}
		free(all.entries[i].key);
	}
	free(all.entries);
	return total;
}

static void drop_oldest_of(struct domain *domain)
{
	char *history, *chain;

	if (asprintf(&history, HISTORY "%s/", domain->name) < 0 ||
	    asprintf(&chain, CHAIN "%s/", domain->name) < 0)
		abort();
	domain->history_bytes = drop_oldest(domain->model, history, chain, HISTORY_DOMAIN_MAX);
	free(history);
	free(chain);
}

static void put(struct domain *domain, const char *key, const char *line)
{
	struct model *model = domain->model;
	const char *before = journal_get(model->journal, key);
	size_t size = before ? size_of(key, before) : 0;
	char *value;

	if (asprintf(&value, "%llu %s", (unsigned long long)++model->history_number, line) < 0)
		abort();
	journal_put(model->journal, key, value);
	model->history_bytes += size_of(key, value) - size;
	domain->history_bytes += size_of(key, value);
	domain->history_bytes -= size < domain->history_bytes ? size : domain->history_bytes;
	free(value);
	if (domain->history_bytes > HISTORY_DOMAIN_MAX)
		drop_oldest_of(domain);
	if (model->history_bytes > HISTORY_BYTES_MAX)
		drop_oldest(model, HISTORY, CHAIN, HISTORY_BYTES_MAX);
}

static void count(void *data, const char *key, const char *value)
{
	struct model *model = data;
	const char *rest;
	uint64_t number = number_of(value, &rest);

	if (number > model->history_number)
		model->history_number = number;
	model->history_bytes += size_of(key, value);
}

void history_begin(struct model *model)
{
	journal_each(model->journal, HISTORY, count, model);
	journal_each(model->journal, CHAIN, count, model);
}

/* --- the last job of an earlier life --- */

static struct timespec read_time(const char *text)
{
	struct timespec time = { 0 };
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest)
		time.tv_sec = timegm(&tm);
	if (rest && *rest == '.')
		time.tv_nsec = atol(rest + 1) * 1000;
	return time;
}

static enum job_state read_state(const char *word)
{
	for (int state = JOB_COMPLETED; state < JOB_STATE_COUNT; state++)
		if (!strcmp(job_state_words[state], word))
			return (enum job_state)state;
	return JOB_LOST;
}

static bool has_text(const struct qmp_value *list, const char *text)
{
	for (size_t i = 0; i < qmp_value_count(list); i++)
		if (!strcmp(qmp_value_text(qmp_value_item(list, i), NULL, ""), text))
			return true;
	return false;
}

static void take_released(struct job *job, const struct qmp_value *released,
			  const struct qmp_value *shared)
{
	job->released_count = qmp_value_count(released);
	job->released = calloc(job->released_count + 1, sizeof(*job->released));
	job->released_shared = calloc(job->released_count + 1, sizeof(*job->released_shared));
	if (!job->released || !job->released_shared)
		abort();
	for (size_t i = 0; i < job->released_count; i++) {
		job->released[i] = strdup(qmp_value_text(qmp_value_item(released, i), NULL, ""));
		job->released_shared[i] = has_text(shared, job->released[i]);
	}
}

static void take_end(struct job *job, const struct qmp_value *line)
{
	const char *error = qmp_value_text(line, "error", NULL);

	job->state = read_state(qmp_value_text(line, "state", ""));
	job->offset = qmp_value_number(line, "cur", 0);
	job->length = qmp_value_number(line, "end", 0);
	job->speed = qmp_value_number(line, "bandwidth", 0);
	job->error = error ? strdup(error) : NULL;
	job->pivoted = !strcmp(qmp_value_text(line, "result", ""), "pivoted");
	job->started = read_time(qmp_value_text(line, "started", ""));
	job->ended = read_time(qmp_value_text(line, "ended", ""));
	take_released(job, qmp_value_get(line, "released"), qmp_value_get(line, "shared"));
	job->deletion = deletion_take(line);
	if (job->deletion)
		job->deletion->over = true;
	if (qmp_value_is_number(qmp_value_get(line, "uid"))) {
		job->by.uid = (uid_t)qmp_value_number(line, "uid", 0);
		job->by.pid = (pid_t)qmp_value_number(line, "pid", 0);
	}
}

static void show_last(struct disk *disk)
{
	const char *text = disk->history[disk->history_count - 1];
	struct qmp_value *line = qmp_value_parse(text, strlen(text), NULL);

	if (line && qmp_value_is_text(qmp_value_get(line, "job"))) {
		disk->job = job_new(qmp_value_text(line, "job", ""),
				    job_type_known(qmp_value_text(line, "type", "")));
		disk->job->phase = JOB_ENDED;
		disk->job->told = disk->job->outcome_known = true;
		take_end(disk->job, line);
	}
	qmp_value_free(line);
}

/* --- what a disk shows --- */

static uint64_t chain_hash(const struct disk *disk)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < disk->depth; i++) {
		for (const char *at = disk->chain[i].path; *at; at++)
			hash = (hash ^ (unsigned char)*at) * 0x100000001b3;
		hash *= 0x100000001b3; /* where one ends counts, too */
	}
	return hash >> 1 | 1; /* JSON has no larger numbers */
}

static void put_generation(const struct disk *disk, uint64_t hash)
{
	struct text *value = json_new();
	char *key = key_of(CHAIN, disk, 0);

	json_number(value, "generation", (int64_t)disk->generation);
	json_number(value, "hash", (int64_t)hash);
	json_close(value, '}');
	put(disk->domain, key, text_bytes(value));
	text_free(value);
	free(key);
}

void history_keep_generation(const struct disk *disk)
{
	put_generation(disk, chain_hash(disk));
}

void history_unplugged(const struct disk *disk)
{
	put_generation(disk, 0);
}

/* False if it was unplugged since it was last seen. */
static bool load_generation(struct disk *disk)
{
	char *key = key_of(CHAIN, disk, 0);
	const char *text = journal_get(disk->domain->model->journal, key), *rest = "";
	struct qmp_value *value;
	bool same, gone;

	if (text)
		number_of(text, &rest);
	value = qmp_value_parse(rest, strlen(rest), NULL);
	gone = qmp_value_number(value, "hash", 1) == 0;
	same = (uint64_t)qmp_value_number(value, "hash", -1) == chain_hash(disk);
	disk->generation = (uint64_t)qmp_value_number(value, "generation", 0) + !same;
	if (!same)
		history_keep_generation(disk);
	qmp_value_free(value);
	free(key);
	return !gone;
}

void history_load(struct disk *disk)
{
	struct aged found[DISK_HISTORY_MAX];
	size_t kept = 0;

	for (size_t slot = 0; slot < DISK_HISTORY_MAX; slot++) {
		char *key = key_of(HISTORY, disk, slot);
		const char *value = journal_get(disk->domain->model->journal, key), *line;

		if (value)
			disk->domain->history_bytes += size_of(key, value);
		free(key);
		if (!value)
			continue;
		found[kept].number = number_of(value, &line);
		found[kept].size = slot;
		if (asprintf(&found[kept++].key, "%s\n", line) < 0)
			abort();
	}
	qsort(found, kept, sizeof(*found), by_age);
	for (size_t i = 0; i < kept; i++)
		disk->history[disk->history_count++] = found[i].key;
	if (kept)
		disk->history_slot = (found[kept - 1].size + 1) % DISK_HISTORY_MAX;
	if (load_generation(disk) && kept)
		show_last(disk);
}

/* The line without what may make it long: QEMU's chains and errors are. */
static char *shorten(char *line)
{
	struct qmp_value *value = qmp_value_parse(line, strlen(line), NULL);
	const char *error = qmp_value_text(value, "error", NULL);
	struct text *text = text_new();
	char *shorter;

	if (error && strlen(error) > 1000) {
		text_put_safe(text, error, 1000);
		qmp_add_text(value, "error", text_bytes(text));
	}
	qmp_add_value(value, "released", qmp_array());
	qmp_add_value(value, "shared", qmp_array());
	qmp_add_flag(value, "shortened", true);
	if (asprintf(&shorter, "%s\n", qmp_value_print(value)) < 0)
		abort();
	text_free(text);
	qmp_value_free(value);
	free(line);
	return shorter;
}

void history_add(struct disk *disk)
{
	char *line = event_history_line(disk), *key = key_of(HISTORY, disk, disk->history_slot);

	if (strlen(line) > HISTORY_LINE_MAX)
		line = shorten(line);
	if (disk->history_count == DISK_HISTORY_MAX) {
		free(disk->history[0]);
		memmove(disk->history, disk->history + 1,
			(DISK_HISTORY_MAX - 1) * sizeof(*disk->history));
		disk->history_count--;
	}
	disk->history[disk->history_count++] = line;
	disk->history_slot = (disk->history_slot + 1) % DISK_HISTORY_MAX;
	line[strlen(line) - 1] = 0;
	put(disk->domain, key, line);
	line[strlen(line)] = '\n';
	free(key);
	disk_changed(disk, TOPIC_HISTORY);
}

bool history_has(const struct disk *disk, const char *job)
{
	char *wanted;
	bool has = false;

	if (asprintf(&wanted, "\"job\":\"%s\"", job) < 0)
		abort();
	for (size_t i = 0; i < disk->history_count && !has; i++)
		has = strstr(disk->history[i], wanted) != NULL;
	free(wanted);
	return has;
}

void history_clear(struct disk *disk)
{
	for (size_t i = 0; i < disk->history_count; i++)
		free(disk->history[i]);
	disk->history_count = 0;
}

/* --- the end of a domain --- */

static void forget(void *data, const char *key, const char *value)
{
	struct model *model = data;

	model->history_bytes -= size_of(key, value);
	journal_drop(model->journal, key);
}

void history_forget(struct model *model, const char *domain)
{
	static const char *const kinds[] = { HISTORY, CHAIN };

	for (int i = 0; i < 2; i++) {
		char *prefix;

		if (asprintf(&prefix, "%s%s/", kinds[i], domain) < 0)
			abort();
		journal_each(model->journal, prefix, forget, model);
		free(prefix);
	}
}
