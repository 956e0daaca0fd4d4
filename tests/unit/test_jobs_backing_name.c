/*
 * How a header names its new backing image: relative names stay relative.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include "jobs/backing_name.h"

static void expect(const char *const names[], size_t base, const char *wanted)
{
	struct qmp_image chain[4] = { 0 };
	char *name;

	for (size_t i = 0; i < base; i++)
		chain[i].backing = (char *)names[i];
	name = backing_name(chain, 0, base);
	if (wanted)
		cr_assert_str_eq(name, wanted);
	else
		cr_assert_null(name, "%s", name);
	free(name);
}

#define NAMES(...)            \
	(const char *const[]) \
	{                     \
		__VA_ARGS__   \
	}

/* Would catch: a name seen from the wrong folder, and a relative one made of absolute ones. */
Test(backing_name, relative_stays_relative)
{
	expect(NAMES("base"), 1, "base");
	expect(NAMES("mid", "base"), 2, "base");
	expect(NAMES("mid", "../b/base"), 2, "../b/base");
	expect(NAMES("../a/mid", "base"), 2, "../a/base");
	expect(NAMES("x/mid", "../b/low", "c/base"), 3, "x/../b/c/base");
	expect(NAMES("/abs/mid", "base"), 2, NULL);
	expect(NAMES("mid", "/abs/base"), 2, NULL);
	expect(NAMES("mid", NULL), 2, NULL);
	expect(NAMES("json:{\"a\":1}"), 1, NULL);
	expect(NAMES("nbd://host/disk"), 1, NULL);
	expect(NAMES("a:b/c"), 1, NULL);
	expect(NAMES("dir/a:b"), 1, "dir/a:b");
}
