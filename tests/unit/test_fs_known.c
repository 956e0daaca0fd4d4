/*
 * The contents whose sizes the kernel was told, as long as it holds on to the files.
 */
#include <criterion/criterion.h>
#include <uv.h>
#include "fs/known.h"

enum {
	NODE = 1 << 20,
};

static struct text *text_of(const char *string)
{
	struct text *text = text_new();

	text_puts(text, string);
	return text;
}

/* Would catch: a content that is gone because one of several lookups was given back. */
Test(fs_known, stays_until_every_lookup_is_given_back)
{
	struct known known = { 0 };

	for (int i = 0; i < 3; i++)
		known_looked_up(&known, NODE);
	known_tell(&known, NODE, text_of("running\n"), false);
	known_forget(&known, NODE, 2);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "running\n");
	cr_assert_null(known_told(&known, NODE + 1));
	known_forget(&known, NODE, 1);
	cr_assert_null(known_told(&known, NODE));
	known_forget(&known, NODE, 7); /* of an earlier life */
	known_clear(&known);
}

/* Would catch: contents kept for nodes that nobody holds. */
Test(fs_known, what_was_told_goes_with_the_node)
{
	struct known known = { 0 };

	known_tell(&known, NODE, text_of("nobody"), false);
	cr_assert_null(known_told(&known, NODE));
	known_looked_up(&known, NODE);
	cr_assert_null(known_told(&known, NODE));
	known_tell(&known, NODE, text_of("running\n"), false);
	known_tell(&known, NODE, text_of("paused\n"), false);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "paused\n");
	known_tell(&known, NODE, NULL, false);
	cr_assert_null(known_told(&known, NODE));
	known_tell(&known, NODE, text_of("ready\n"), false);
	known_forget(&known, NODE, 1);
	cr_assert_null(known_told(&known, NODE));
	known_clear(&known);
}

/* Would catch: a content that is told again though it is another by now, or is freed twice. */
Test(fs_known, told_again_while_nothing_has_changed)
{
	struct known known = { 0 };
	struct text *text;

	cr_assert_null(known_again(&known, NODE, 7));
	known_looked_up(&known, NODE);
	cr_assert_null(known_again(&known, NODE, 7));
	known_tell(&known, NODE, text_of("vda 1%\n"), false);
	for (int i = 0; i < 3; i++) {
		text = known_again(&known, NODE, 7);
		cr_assert_str_eq(text_bytes(text), "vda 1%\n");
		known_tell(&known, NODE, text, false);
		cr_assert_eq(known_told(&known, NODE), text);
	}
	cr_assert_null(known_again(&known, NODE, 8), "something has changed");
	known_tell(&known, NODE, text_of("vda 1%\nvdb 2%\n"), false);
	text = known_again(&known, NODE, 8);
	cr_assert_str_eq(text_bytes(text), "vda 1%\nvdb 2%\n");
	text_free(text);
	known_clear(&known);
}

Test(fs_known, the_shorter_of_two_at_once)
{
	/* Catches half a word given to a kernel that has dropped the second of two answers under way at the same time. */
	struct known known = { 0 };

	known_looked_up(&known, NODE);
	known_tell(&known, NODE, text_of("paused\n"), false);
	known_tell(&known, NODE, text_of("running\n"), false);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "paused\n");
	uv_sleep(5);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "running\n");
	known_tell(&known, NODE, text_of("completed\n"), false);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "completed\n");
	known_clear(&known);
}

Test(fs_known, what_the_toucher_has_done_with)
{
	/* Catches a word of a moment ago that is given since our own toucher has just been told it, and that one of two at once is. */
	struct known known = { 0 };

	known_looked_up(&known, NODE);
	known_tell(&known, NODE, text_of("aborting\n"), true);
	known_touched(&known, NODE);
	known_tell(&known, NODE, text_of("cancelled\n"), false);
	cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "cancelled\n");
	known_clear(&known);

	for (int who = 0; who < 3; who++) {
		known_looked_up(&known, NODE);
		if (who == 1)
			known_tell(&known, NODE, text_of("paused\n"), false);
		known_tell(&known, NODE, text_of("aborting\n"), who < 2);
		if (who) /* the toucher is not done with it; somebody was told right before it; somebody else was told */
			known_touched(&known, NODE);
		known_tell(&known, NODE, text_of("cancelled\n"), false);
		cr_assert_str_eq(text_bytes(known_told(&known, NODE)), "aborting\n");
		known_clear(&known);
	}
	known_touched(&known, NODE);
}
