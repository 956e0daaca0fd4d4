/*
 * Fresh figures of every live job under the mount, for who wants to see them side by side: one query a domain, shared with whoever else
 * asks. Nobody waits long here for a QEMU that hangs: then its last figures have to do.
 */
#include <assert.h>
#include <stdlib.h>
#include <utlist.h>
#include "jobs/domain_link.h"

struct round {
	uv_timer_t timer;
	struct model *model;
	uint64_t op;
	size_t asked; /* domains that have not answered */
	struct refresh_wait *waits; /* one each */
	bool over, closed;
};

static void free_if_done(struct round *round)
{
	if (!round->closed || round->asked)
		return;
	free(round->waits);
	free(round);
}

static void timer_closed(uv_handle_t *handle)
{
	struct round *round = handle->data;

	round->closed = true;
	free_if_done(round);
}

static void finish_round(struct round *round)
{
	struct op *op = op_find(round->model, round->op);

	if (round->over)
		return;
	round->over = true;
	uv_close((uv_handle_t *)&round->timer, timer_closed);
	if (op)
		op_complete(op, 0);
}

static void patience_over(uv_timer_t *timer)
{
	finish_round(timer->data);
}

/* Answered or not: what is known is shown. */
static void one_is_fresh(void *data)
{
	struct round *round = data;

	if (--round->asked == 0)
		finish_round(round);
	free_if_done(round);
}

/* One query tells of all jobs of the domain. */
static bool has_figures(const struct domain *domain)
{
	const struct disk *disk;

	DL_FOREACH(domain->disks, disk)
		if (job_is_live(disk->job) && disk->job->phase < JOB_CONCLUDED)
			return true;
	return false;
}

void model_refresh(struct op *op)
{
	struct model *model = op->target.model;
	struct round *round = calloc(1, sizeof(*round));
	size_t count = HASH_CNT(by_name, model->by_name);
	struct refresh_wait *wait;
	struct domain *domain;

	if (!round || !(round->waits = malloc((count + 1) * sizeof(*round->waits))))
		abort();
	wait = round->waits;
	round->model = model;
	round->op = op->id;
	round->asked = 1; /* nothing is over before all were asked */
	uv_timer_init(model->loop, &round->timer);
	round->timer.data = round;
	uv_timer_start(&round->timer, patience_over, REFRESH_ALL_MS, 0);
	DL_FOREACH(model->domains, domain) {
		domain_prefetch(domain);
		if (domain_is_late(domain) || !has_figures(domain))
			continue;
		assert(round->asked <= count);
		round->asked++;
		*wait = (struct refresh_wait){ .done = one_is_fresh, .data = round };
		domain_refresh_then(domain, wait++);
	}
	one_is_fresh(round);
}

bool domain_is_late(const struct domain *domain)
{
	const struct domain_link *link = domain->link;

	return !link->ready || (link->refreshing && uv_hrtime() - link->refresh_sent_ns >=
							    REFRESH_ALL_MS * (uint64_t)1000000);
}
