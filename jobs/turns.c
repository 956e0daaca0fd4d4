/*
 * Monitors that have just been reached are asked what they can do, a question whose answer is some 100 KiB long, a few at a time: a thousand at
 * once would fill the memory with half-read answers and keep the loop from everybody else. One that does not answer loses its turn soon, and
 * may answer later all the same. Called by jobs/domain.c.
 */
#include <utlist.h>
#include "jobs/domain_link.h"

enum {
	TURNS_MAX = 8, /* questions that are being answered at the same time */
	TURN_MS = 50, /* so long one keeps others waiting */
};

static void next_turn(struct model *model)
{
	while (model->turns_waiting && model->turns < TURNS_MAX) {
		struct domain_link *link = model->turns_waiting;

		DL_DELETE2(model->turns_waiting, link, turn_prev, turn_next);
		link->turn = TURN_TAKEN;
		model->turns++;
		uv_timer_start(&link->turn_timer, domain_turn_expired, TURN_MS, 0);
		domain_learn(link->domain);
	}
}

void domain_turn_over(struct domain *domain)
{
	struct domain_link *link = domain->link;
	struct model *model = domain->model;
	enum turn turn = link->turn;

	link->turn = TURN_NONE;
	if (turn == TURN_WAITING)
		DL_DELETE2(model->turns_waiting, link, turn_prev, turn_next);
	if (turn != TURN_TAKEN)
		return;
	uv_timer_stop(&link->turn_timer);
	model->turns--;
	next_turn(model);
}

void domain_turn_expired(uv_timer_t *timer)
{
	domain_turn_over(timer->data);
}

void domain_turn(struct domain *domain)
{
	struct domain_link *link = domain->link;

	link->turn = TURN_WAITING;
	DL_APPEND2(domain->model->turns_waiting, link, turn_prev, turn_next);
	next_turn(domain->model);
}
