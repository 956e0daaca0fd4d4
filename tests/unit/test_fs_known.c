/*
 * What the kernel holds on to: counts of lookups, and the contents whose sizes it was told.
 */
#include <criterion/criterion.h>
#include "fs/known.h"
#include "fs/node.h"

enum {
	NODE = 1 << 20,
};

static struct text *text_of(const char *string)
{
	struct text *text = text_new();

	text_puts(text, string);
	return text;
}

/* Would catch: a watched file that counts as forgotten, because one of several lookups was given back. */
Test(fs_known, is_known_until_every_lookup_is_given_back)
{
	struct known known = { 0 };

	cr_assert(!known_is(&known, NODE));
	known_looked_up(&known, NODE);
	known_looked_up(&known, NODE);
	known_looked_up(&known, NODE);
	known_forget(&known, NODE, 1);
	cr_assert(known_is(&known, NODE));
	cr_assert(!known_is(&known, NODE + 1));
	known_forget(&known, NODE, 2);
	cr_assert(!known_is(&known, NODE));
	known_forget(&known, NODE, 7); /* of an earlier life */
	known_looked_up(&known, NODE);
	cr_assert(known_is(&known, NODE));
	known_clear(&known);
	cr_assert(!known_is(&known, NODE));
}

/* Would catch: a root that is never looked up taken for one that nobody watches; watches of an earlier life taken for none. */
Test(fs_known, what_is_always_known)
{
	struct known known = { 0 };

	cr_assert(known_is(&known, NODE_ROOT));
	known.incomplete = true;
	cr_assert(known_is(&known, NODE));
}

/* Would catch: contents kept for nodes that nobody holds. */
Test(fs_known, what_was_told_goes_with_the_node)
{
	struct known known = { 0 };

	known_tell(&known, NODE, text_of("nobody"));
	cr_assert_null(known_told(&known, NODE));
	known_looked_up(&known, NODE);
	cr_assert_null(known_told(&known, NODE));
	known_tell(&known, NODE, text_of("running\n"));
	known_tell(&known, NODE, text_of("paused\n"));
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "paused\n");
	known_tell(&known, NODE, NULL);
	cr_assert_null(known_told(&known, NODE));
	known_tell(&known, NODE, text_of("ready\n"));
	known_forget(&known, NODE, 1);
	cr_assert_null(known_told(&known, NODE));
	known_clear(&known);
}
