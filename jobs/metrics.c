/*
 * Counters and figures as text. Sends nothing: figures of jobs are those of the last look, which is at most a second old while
 * a job runs.
 */
#include "jobs/metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>
#include "jobs/model.h"

struct meter {
	uint64_t count, failed, ns;
	UT_hash_handle hh;
	char labels[]; /* kind="read" */
};

void metrics_init(struct metrics *metrics)
{
	*metrics = (struct metrics){ .started_ns = uv_hrtime() };
}

static void clear(struct meter **meters)
{
	struct meter *meter, *next;

	HASH_ITER(hh, *meters, meter, next) {
		HASH_DEL(*meters, meter);
		free(meter);
	}
}

void metrics_clear(struct metrics *metrics)
{
	clear(&metrics->commands);
	clear(&metrics->requests);
	clear(&metrics->ended);
}

static struct meter *meter_of(struct meter **meters, const char *labels)
{
	size_t length = strlen(labels);
	struct meter *meter;

	HASH_FIND(hh, *meters, labels, length, meter);
	if (meter)
		return meter;
	meter = calloc(1, sizeof(*meter) + length + 1);
	if (!meter)
		abort();
	memcpy(meter->labels, labels, length);
	HASH_ADD_KEYPTR(hh, *meters, meter->labels, length, meter);
	return meter;
}

void metrics_command(struct metrics *metrics, const char *name, uint64_t ns, bool failed)
{
	struct meter *meter = meter_of(&metrics->commands, name);

	meter->count++;
	meter->failed += failed;
	meter->ns += ns;
}

void metrics_request(struct metrics *metrics, const char *kind, uint64_t ns)
{
	struct meter *meter = meter_of(&metrics->requests, kind);

	meter->count++;
	meter->ns += ns;
}

void metrics_ended(struct metrics *metrics, const char *type, const char *result)
{
	char labels[128];

	snprintf(labels, sizeof(labels), "%s\",result=\"%s", type, result);
	meter_of(&metrics->ended, labels)->count++;
}

/* --- showing --- */

static void family(struct text *out, const char *name, const char *type, const char *help)
{
	text_printf(out, "# HELP blockjobfs_%s %s\n", name, help);
	if (type)
		text_printf(out, "# TYPE blockjobfs_%s %s\n", name, type);
}

static void counter(struct text *out, const char *name, uint64_t value, const char *help)
{
	family(out, name, NULL, help);
	text_printf(out, "blockjobfs_%s %llu\n", name, (unsigned long long)value);
}

static void put_seconds(struct text *out, uint64_t ns)
{
	text_printf(out, "%llu.%09llu\n", (unsigned long long)(ns / 1000000000),
		    (unsigned long long)(ns % 1000000000));
}

static void show_counts(struct text *out, const char *name, const char *label,
			const struct meter *meters, const char *help)
{
	family(out, name, NULL, help);
	for (const struct meter *meter = meters; meter; meter = meter->hh.next)
		text_printf(out, "blockjobfs_%s{%s=\"%s\"} %llu\n", name, label, meter->labels,
			    (unsigned long long)meter->count);
}

static void show_seconds(struct text *out, const char *name, const char *label,
			 const struct meter *meters, const char *help)
{
	family(out, name, NULL, help);
	for (const struct meter *meter = meters; meter; meter = meter->hh.next) {
		text_printf(out, "blockjobfs_%s{%s=\"%s\"} ", name, label, meter->labels);
		put_seconds(out, meter->ns);
	}
}

static void show_failed(struct text *out, const struct meter *meters)
{
	family(out, "qmp_command_errors_total", NULL,
	       "QMP commands that were refused, or not answered.");
	for (const struct meter *meter = meters; meter; meter = meter->hh.next)
		text_printf(out, "blockjobfs_qmp_command_errors_total{command=\"%s\"} %llu\n",
			    meter->labels, (unsigned long long)meter->failed);
}

static void show_domains(const struct model *model, struct text *out)
{
	unsigned count[DOMAIN_STATE_COUNT] = { 0 };
	const struct domain *domain;

	DL_FOREACH(model->domains, domain)
		count[domain_shown_state(domain)]++;
	family(out, "domains", "gauge", "Domains by the state of their link.");
	for (int i = 0; i < DOMAIN_STATE_COUNT; i++)
		text_printf(out, "blockjobfs_domains{state=\"%s\"} %u\n", domain_state_words[i],
			    count[i]);
}

/* A name as the value of a label: folders' names have neither control characters nor broken UTF-8. */
static void put_name(struct text *out, const char *name)
{
	for (; *name; name++) {
		if (*name == '\\' || *name == '"')
			text_puts(out, "\\");
		text_append(out, name, 1);
	}
}

/* The beginning of a sample about a disk; the caller closes it. */
static void put_disk(struct text *out, const char *name, const struct disk *disk)
{
	text_printf(out, "blockjobfs_%s{domain=\"", name);
	put_name(out, disk->domain->name);
	text_puts(out, "\",disk=\"");
	put_name(out, disk->name);
}

/* Calls @put for every disk with a job, live or over. */
static void each_job(const struct model *model, struct text *out, bool live,
		     void (*put)(const struct disk *disk, struct text *out))
{
	const struct domain *domain;
	const struct disk *disk;

	DL_FOREACH(model->domains, domain)
		DL_FOREACH(domain->disks, disk)
			if (disk->job && job_is_live(disk->job) == live)
				put(disk, out);
}

static void show_live(const struct model *model, struct text *out)
{
	static const char *const types[] = { "pull", "commit", "active-commit",
					     "copy", "backup", "unknown" };
	unsigned count[sizeof(types) / sizeof(*types)] = { 0 };
	const struct domain *domain;
	const struct disk *disk;

	DL_FOREACH(model->domains, domain)
		DL_FOREACH(domain->disks, disk)
			for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
				count[i] += job_is_live(disk->job) &&
					    !strcmp(disk->job->type, types[i]);
	family(out, "jobs_live", "gauge", "Live jobs by type.");
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		text_printf(out, "blockjobfs_jobs_live{type=\"%s\"} %u\n", types[i], count[i]);
}

static void put_done(const struct disk *disk, struct text *out)
{
	int64_t cur, end;

	job_progress(disk->job, &cur, &end);
	put_disk(out, "job_done_bytes", disk);
	text_printf(out, "\",type=\"%s\"} %lld\n", disk->job->type, (long long)cur);
}

static void put_size(const struct disk *disk, struct text *out)
{
	int64_t cur, end;

	job_progress(disk->job, &cur, &end);
	put_disk(out, "job_size_bytes", disk);
	text_printf(out, "\",type=\"%s\"} %lld\n", disk->job->type, (long long)end);
}

static void put_ended(const struct disk *disk, struct text *out)
{
	const struct timespec *ended = &disk->job->ended;

	put_disk(out, "last_job_end_timestamp_seconds", disk);
	text_printf(out, "\"} %lld.%09ld\n", (long long)ended->tv_sec, ended->tv_nsec);
}

static void put_result(const struct disk *disk, struct text *out)
{
	put_disk(out, "last_job_result", disk);
	text_printf(out, "\",type=\"%s\",result=\"%s\"} 1\n", disk->job->type,
		    job_result(disk->job));
}

static void show_jobs(const struct model *model, struct text *out)
{
	show_live(model, out);
	show_counts(out, "jobs_ended_total", "type", model->metrics.ended,
		    "Jobs that have ended, by type and result.");
	family(out, "job_done_bytes", "gauge",
	       "CUR of `progress` of a live job, at most a second old.");
	each_job(model, out, true, put_done);
	family(out, "job_size_bytes", "gauge", "END of `progress` of a live job.");
	each_job(model, out, true, put_size);
	family(out, "last_job_end_timestamp_seconds", "gauge", "When the disk's last job ended.");
	each_job(model, out, false, put_ended);
	family(out, "last_job_result", "gauge", "How the disk's last job ended; always 1.");
	each_job(model, out, false, put_result);
}

void metrics_show(const struct model *model, struct text *out)
{
	const struct metrics *metrics = &model->metrics;

	family(out, "build_info", "gauge", "The program; always 1.");
	text_puts(out, "blockjobfs_build_info{version=\"" BLOCKJOBFS_VERSION "\"} 1\n");
	family(out, "uptime_seconds", "gauge", "How long this process has been counting.");
	text_puts(out, "blockjobfs_uptime_seconds ");
	put_seconds(out, uv_hrtime() - metrics->started_ns);
	show_domains(model, out);
	show_jobs(model, out);
	show_counts(out, "fuse_requests_total", "kind", metrics->requests,
		    "FUSE requests that were answered.");
	show_seconds(out, "fuse_request_seconds_total", "kind", metrics->requests,
		     "From their arrival to their answer, parked reads included.");
	show_counts(out, "qmp_commands_total", "command", metrics->commands,
		    "QMP commands that were answered or given up.");
	show_failed(out, metrics->commands);
	show_seconds(out, "qmp_command_seconds_total", "command", metrics->commands,
		     "From sending a command to its answer.");
	counter(out, "connects_total", metrics->connects,
		"Monitors that greeted us: reconnects are those beyond one a domain.");
	counter(out, "overruns_total", metrics->overruns,
		"Readers of `events` that were told of a loss.");
	counter(out, "server_starts_total", model->lives,
		"Servers of this mount so far; those beyond the first have followed one that "
		"died.");
	counter(out, "helper_starts_total", metrics->toucher_starts,
		"Starts of the helper that tells inotify: restarts are those beyond one.");
	text_puts(out, "# EOF\n");
}
