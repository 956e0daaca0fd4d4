/*
 * Memory that is about to be used, fetched ahead. What is known of a thousand machines is more than the caches of a processor hold, and going through
 * it was mostly waiting for it, one line of the cache after the other (docs/performance.md, "cat jobs"). It changes nothing: where it guesses
 * wrong a moment is lost.
 */
#ifndef QMP_PREFETCH_H
#define QMP_PREFETCH_H

#include <stddef.h>

/* NULL is nothing. */
static inline void prefetch(const void *memory, size_t bytes)
{
	enum { LINE_BYTES = 64 };

	for (size_t at = 0; memory && at < bytes; at += LINE_BYTES)
		__builtin_prefetch((const char *)memory + at);
}

#endif
