/* Answers that have come before: qmp/same.c alone, and on a link. */
#include <stdlib.h>
#include "qmp/same.h"
#include "tests/unit/test_qmp_link.h"

/* --- the comparing --- */

static const char *const texts[] = { "[{\"n\": 1}]", "[{\"n\": 2}, 3]", NULL };

static const char *text_of(size_t number, size_t *length)
{
	if (number >= sizeof(texts) / sizeof(texts[0]) - 1)
		return NULL;
	*length = strlen(texts[number]);
	return texts[number];
}

static const struct qmp_known two = { .text = text_of };

/* What becomes of @message in pieces of @step bytes: "is N", or "read:" and all of it. */
static char *take_in_steps(const char *message, size_t step)
{
	struct same *same = same_new(&two, 7);
	size_t length = strlen(message), at = 0, begun;
	enum same_state state = SAME_SO_FAR;
	const char *bytes;
	char *said;

	while (at < length && state == SAME_SO_FAR) {
		size_t piece = length - at < step ? length - at : step;

		at += same_take(same, message + at, piece, &state);
	}
	if (state == SAME_WHOLE) {
		if (asprintf(&said, "is %zu, left %zu", same_number(same), length - at) < 0)
			abort();
	} else if (state == SAME_SO_FAR) {
		said = strdup("so far");
	} else {
		said = calloc(1, length + 10);
		strcpy(said, "read:");
		while ((bytes = same_begun(same, &begun)) && begun)
			strncat(said, bytes, begun);
		strcat(said, message + at);
	}
	same_free(same);
	return said;
}

static void expect_all_steps(const char *message, const char *wanted)
{
	for (size_t step = 1; step <= strlen(message); step++) {
		char *said = take_in_steps(message, step);

		/* With what comes behind it the last step may take more than a piece of one byte would. */
		cr_assert_str_eq(said, wanted, "in steps of %zu: %s", step, said);
		free(said);
	}
}

Test(qmp_same, however_it_comes)
{
	/* Catches an answer that is taken for another one, and bytes that are lost or come twice when it is none. */
	expect_all_steps("{\"return\": [{\"n\": 1}], \"id\": 7}", "is 0, left 0");
	expect_all_steps("\r\n{\"return\": [{\"n\": 2}, 3], \"id\": 7}", "is 1, left 0");
	expect_all_steps("{\"return\": [{\"n\": 2}, 4], \"id\": 7}",
			 "read:{\"return\": [{\"n\": 2}, 4], \"id\": 7}");
	expect_all_steps("{\"return\": [{\"n\": 1}], \"id\": 8}",
			 "read:{\"return\": [{\"n\": 1}], \"id\": 8}");
	expect_all_steps("{\"return\": [{\"n\": 1}]}", "read:{\"return\": [{\"n\": 1}]}");
	expect_all_steps("{\"error\": {}, \"id\": 7}", "read:{\"error\": {}, \"id\": 7}");
	expect_all_steps("{\"return\": [{\"n\": 1}], \"id\": 7", "so far");
}

Test(qmp_same, what_stands_behind_it)
{
	/* Catches a comparison that goes on behind the end. */
	char *said = take_in_steps("{\"return\": [{\"n\": 1}], \"id\": 7}\r\n{\"ev", 100);

	cr_assert_str_eq(said, "is 0, left 6");
	free(said);
}

Test(qmp_same, what_is_noted)
{
	/* Catches a text with a part of what stands around it, or of the message before it. */
	struct same *same = same_new(&two, 7);
	size_t length = 0;
	char *large = calloc(1, SAME_BYTES_MAX);

	cr_assert_null(same_noted(same, &length));
	same_note(same, "{\"event\": 1}", 12, true);
	cr_assert_null(same_noted(same, &length));
	same_note(same, "\r\n{\"retu", 8, true);
	same_note(same, "rn\": [5], \"id\": 7}", 18, false);
	cr_assert_eq(strncmp(same_noted(same, &length), "[5]", 3), 0);
	cr_assert_eq(length, 3);
	same_note(same, "{\"return\": [5], \"id\": 77}", 25, true);
	cr_assert_null(same_noted(same, &length));
	same_note(same, "{\"return\": ", 11, true);
	same_note(same, large, SAME_BYTES_MAX, false);
	same_note(same, ", \"id\": 7}", 10, false);
	cr_assert_null(same_noted(same, &length), "too long");
	same_note(same, "{\"return\": [], \"id\": 7}", 23, true);
	cr_assert_not_null(same_noted(same, &length));
	cr_assert_eq(length, 2);
	free(large);
	same_free(same);
}

/* --- on a link --- */

static char *kept[SAME_TEXTS_MAX];
static size_t kept_count;

static const char *kept_text(size_t number, size_t *length)
{
	if (number >= kept_count)
		return NULL;
	*length = strlen(kept[number]);
	return kept[number];
}

static void kept_is(void *data, size_t number)
{
	struct sent *sent = data;

	note(sent->owner, "is%d:%zu ", sent->number, number);
}

static void kept_came(void *data, const char *text, size_t length)
{
	struct sent *sent = data;

	note(sent->owner, "came%d:%.*s ", sent->number, (int)length, text);
	kept[kept_count++] = strndup(text, length);
}

static const struct qmp_known known = { kept_text, kept_is, kept_came };

/* The place of the command in the peer's record. */
static size_t ask_known(struct owner *owner, int number)
{
	size_t before = peer_count(owner->peer), asked = 0;

	for (size_t i = 0; i < before; i++)
		asked += !strcmp(peer_command(owner->peer, i), "ask");
	sents[number] = (struct sent){ owner, number };
	qmp_link_ask_known(owner->link, "ask", &known, on_reply, &sents[number]);
	cr_assert(peer_run_until_command(owner->peer, "ask", asked + 1, LONG_MS));
	return before;
}

/* As QEMU writes it, in pieces of @step bytes, each read by itself. */
static void answer(struct owner *owner, size_t place, const char *text, size_t step)
{
	const char *id = strstr(peer_message(owner->peer, place), "\"id\":") + 5;
	char line[512];
	int length;

	length = snprintf(line, sizeof(line), "{\"return\": %s, \"id\": %d}\r\n", text, atoi(id));
	for (int at = 0; at < length; at += (int)step) {
		size_t piece = step < (size_t)(length - at) ? step : (size_t)(length - at);

		peer_send_bytes(owner->peer, line + at, piece);
		peer_run_for(&owner->loop, 1);
	}
}

Test(qmp_same, on_a_link)
{
	/* Catches a known answer that is read, a new one that is not kept, and whatever is around them that goes missing. */
	struct owner owner;
	size_t first, second;

	ready(&owner, TIMEOUT_MS);
	peer_set_answer(owner.peer, "ask", NULL);
	peer_set_answer(owner.peer, "a", NULL);
	for (size_t step = 1; step < 60; step += step < 10 ? 3 : 17) {
		while (kept_count)
			free(kept[--kept_count]);
		owner.log[0] = 0;
		answer(&owner, ask_known(&owner, 1), "{\"n\": 10}", step);
		until(&owner, "reply1");
		first = ask_known(&owner, 2);
		second = ask_known(&owner, 3);
		peer_send_event(owner.peer, "STOP", NULL);
		answer(&owner, first, "{\"n\": 10}", step);
		answer(&owner, second, "{\"n\": 11}", step);
		until(&owner, "reply3");
		answer(&owner, ask_known(&owner, 4), "{\"n\": 11}", step);
		until(&owner, "is4");
		expect_log(&owner, "came1:{\"n\": 10} reply1:10 event:STOP is2:0 came3:{\"n\": 11} "
				   "reply3:11 is4:1 ");
	}
	while (kept_count)
		free(kept[--kept_count]);
	end(&owner);
}

Test(qmp_same, asked_in_the_middle_of_a_message)
{
	/* Catches the end of a message that is kept as an answer, and what is freed when it is given back as if it were the beginning of one. */
	static const char text[] = "{\"return\": [1], \"id\": %d}, \"return\": [2], \"id\": %d}";
	struct owner owner;
	char line[128];
	size_t place;
	int id;

	for (size_t piece = 1; piece < 30; piece += 4) {
		ready(&owner, TIMEOUT_MS);
		peer_set_answer(owner.peer, "ask", NULL);
		peer_send(owner.peer, "{\"a\": ");
		peer_run_for(&owner.loop, 5);
		place = ask_known(&owner, 1);
		id = atoi(strstr(peer_message(owner.peer, place), "\"id\":") + 5);
		snprintf(line, sizeof(line), text, id, id);
		peer_send(owner.peer, line);
		until(&owner, "reply1");
		cr_assert_eq(kept_count, 0);
		/* Were it kept all the same: this is known as far as it goes, and then it is not. */
		kept[0] = strdup("[1], \"id\": 2}, \"return\": [2]");
		kept_count = 1;
		place = ask_known(&owner, 2);
		cr_assert_eq(atoi(strstr(peer_message(owner.peer, place), "\"id\":") + 5), 2);
		peer_send_bytes(owner.peer, "{\"return\": [1], \"id\": 2}, \"re",
				piece < 30 ? piece : 30);
		peer_run_for(&owner.loop, 5);
		peer_send(owner.peer, "???\"]");
		until(&owner, "closed:EPROTO");
		free(kept[--kept_count]);
		end(&owner);
	}
}

Test(qmp_same, a_known_one_that_is_late)
{
	/* Catches the second half of an answer whose command has timed out read as a message, or compared with the next. */
	struct owner owner;
	size_t first, second;
	char line[64];

	kept[0] = strdup("{\"n\": 10}");
	kept_count = 1;
	ready(&owner, 100);
	peer_set_answer(owner.peer, "ask", NULL);
	first = ask_known(&owner, 1);
	snprintf(line, sizeof(line), "{\"return\": {\"n\": 10}, \"id\": %d}\r\n",
		 atoi(strstr(peer_message(owner.peer, first), "\"id\":") + 5));
	peer_send_bytes(owner.peer, line, 15);
	until(&owner, "reply1:ETIMEDOUT");
	second = ask_known(&owner, 2);
	peer_send(owner.peer, line + 15);
	answer(&owner, second, "{\"n\": 10}", 100);
	until(&owner, "is2");
	expect_log(&owner, "reply1:ETIMEDOUT is2:0 ");
	first = ask_known(&owner, 3);
	peer_send_bytes(owner.peer, line, 15);
	peer_run_for(&owner.loop, 10);
	free(kept[--kept_count]);
	end(&owner);
}
