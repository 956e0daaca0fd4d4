/*
 * What can change about a domain or a disk. Each object has a stamp for each topic, and each row of a file table names the topic
 * that its content hangs on: mtime, poll and notification all come from there.
 */
#ifndef JOBS_TOPIC_H
#define JOBS_TOPIC_H

#include <stdint.h>
#include <time.h>

enum topic {
	TOPIC_FIXED, /* never changes */
	TOPIC_LISTING, /* entries of the folder */
	TOPIC_ADDRESS, /* where the monitor is */
	TOPIC_STATE, /* the link, the run state */
	TOPIC_STATUS, /* the word of `status` */
	TOPIC_JOB, /* that, limits, result: all that `job` shows but the figures */
	TOPIC_PROGRESS, /* figures of a live job */
	TOPIC_CHAIN,
	TOPIC_SOURCES, /* of a domain: which active images its disks have */
	TOPIC_ERROR,
	TOPIC_HISTORY,
	TOPIC_EVENTS,
	TOPIC_POLICY, /* who may do what */
	TOPIC_COUNT,
};

struct stamp {
	uint64_t version; /* rises by one with each change */
	struct timespec time; /* of the last change; strictly rising, never 0 */
};

/* Counts a change: the time is now, or a nanosecond after the last one if the clock has not moved on. */
void stamp_touch(struct stamp *stamp);
/* Every stamp as of now, version 0. */
void stamps_init(struct stamp stamps[TOPIC_COUNT]);

#endif
