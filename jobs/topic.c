/*
 * Stamps: how often and when something changed. Used by domains and disks; read by fs/ for mtime and poll.
 */
#include "jobs/topic.h"

static int later(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static struct timespec now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	return time;
}

void stamp_touch(struct stamp *stamp)
{
	struct timespec time = now();

	if (!later(time, stamp->time)) {
		/* The clock has stood still or was set back: watchers look for a time that rises. */
		time = stamp->time;
		if (++time.tv_nsec == 1000000000) {
			time.tv_nsec = 0;
			time.tv_sec++;
		}
	}
	stamp->time = time;
	stamp->version++;
}

void stamps_init(struct stamp stamps[TOPIC_COUNT])
{
	struct timespec time = now();

	for (int topic = 0; topic < TOPIC_COUNT; topic++)
		stamps[topic] = (struct stamp){ .time = time };
}
