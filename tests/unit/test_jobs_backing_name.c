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

static void expect_new(const char *own, size_t index, const char *path, bool relative,
		       const char *wanted)
{
	struct qmp_image chain[2] = {
		{ .path = "/vm/a/top", .filename = "json:{}", .backing = (char *)own },
		{ .path = "nbd://host/base", .filename = "nbd://host/base" },
	};
	char *name = backing_name_new(chain, index, path, relative);

	cr_assert_str_eq(name, wanted, "%s", name);
	free(name);
}

/* Would catch: a relative name from another folder, where it would be another file or none. */
Test(backing_name, of_a_new_image)
{
	expect_new("base", 0, "/vm/a/new", false, "top");
	expect_new(NULL, 0, "/vm/a/new", true, "top");
	expect_new(NULL, 0, "/vm/a/new", false, "/vm/a/top");
	expect_new("/vm/a/base", 0, "/vm/a/new", false, "/vm/a/top");
	expect_new("base", 0, "/vm/b/new", true, "/vm/a/top");
	expect_new("base", 0, "/vm/a/b/new", true, "/vm/a/top");
	expect_new("base", 0, "/vm/new", true, "/vm/a/top");
	expect_new("../base", 1, "/vm/a/new", false, "../base");
	expect_new("../base", 1, "/vm/b/new", false, "nbd://host/base");
	expect_new("/vm/base", 1, "/vm/a/new", false, "nbd://host/base");
}
