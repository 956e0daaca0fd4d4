/*
 * Has the memory of a domain at hand when somebody who goes through all of them comes to it: each step fetches a bit more of each of the next
 * four, since only what is there already tells where the rest is. Used where a read of `jobs` asks, is answered, and lays out its table.
 */
#include "qmp/prefetch.h"
#include "jobs/domain_link.h"

/* What the domain points to. */
static void prefetch_parts(const struct domain *domain)
{
	prefetch(domain->link, offsetof(struct domain_link, features));
	prefetch(domain->name, 1);
	prefetch(domain->disks, 1);
}

/* What those point to. Most machines that have a job have it on their first disk. */
static void prefetch_job(const struct domain *domain)
{
	const struct disk *disk = domain->disks;

	qmp_link_prefetch(domain->link->qmp);
	if (!disk)
		return;
	prefetch(disk->name, 1);
	prefetch(&disk->stamps[TOPIC_PROGRESS], 1);
	prefetch(disk->job, offsetof(struct job, ours));
}

/* And what those point to. */
static void prefetch_rest(const struct domain *domain)
{
	if (domain->link->qmp)
		qmp_link_prefetch_parts(domain->link->qmp);
	if (domain->disks && domain->disks->job)
		prefetch(domain->disks->job->id, 1);
}

void domain_prefetch(const struct domain *domain)
{
	static void (*const steps[])(const struct domain *domain) = { prefetch_rest, prefetch_job,
								      prefetch_parts };

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		domain = domain->next;
		if (!domain)
			return;
		steps[i](domain);
	}
	prefetch(domain->next, offsetof(struct domain, transport));
}
