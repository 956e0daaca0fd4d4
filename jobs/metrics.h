/*
 * What `metrics.prom` shows: counters that are kept here, and what the model is at the moment. Owned by the model; fed by whoever does
 * what is counted, fs/ included.
 */
#ifndef JOBS_METRICS_H
#define JOBS_METRICS_H

#include <stdbool.h>
#include <stdint.h>

struct model;
struct text;
struct meter;

struct metrics {
	struct meter *commands; /* QMP commands that were answered, by name */
	struct meter *requests; /* FUSE requests that were answered, by kind */
	struct meter *ended; /* jobs that ended, by type and result */
	uint64_t connects; /* that came as far as the greeting's answer */
	uint64_t overruns; /* readers of logs that were told of a loss */
	uint64_t toucher_starts;
	uint64_t started_ns; /* uv_hrtime() when counting began */
};

void metrics_init(struct metrics *metrics);
void metrics_clear(struct metrics *metrics);

/* @name, @kind, @type and @result are words of ours: there is one counter for each, for ever. */
void metrics_command(struct metrics *metrics, const char *name, uint64_t ns, bool failed);
void metrics_request(struct metrics *metrics, const char *kind, uint64_t ns);
void metrics_ended(struct metrics *metrics, const char *type, const char *result);

/*
 * Appends everything, in the text form that Prometheus, its textfile collector, promtool and OpenMetrics readers all take. Counters have no
 * TYPE line: the old form wants the name of the family to end in _total there, and OpenMetrics wants it not to.
 */
void metrics_show(const struct model *model, struct text *out);

#endif
