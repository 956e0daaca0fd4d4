/*
 * JSON values: the reader of a stream under every split and every kind of rubbish, and reading and building of values.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "qmp/value.h"

/* Feeds @text in pieces of @piece bytes; returns the values that came, printed, one a line, then the error. Not freed by us. */
static char *feed(const char *text, size_t length, size_t piece)
{
	struct qmp_reader *reader = qmp_reader_new();
	const char *error = NULL;
	char *printed = NULL;
	size_t size;
	FILE *out = open_memstream(&printed, &size);

	for (size_t at = 0; at < length && !error;) {
		size_t end = at + piece < length ? at + piece : length, used;

		while (at < end && !error) {
			struct qmp_value *value =
				qmp_reader_feed(reader, text + at, end - at, &used, &error);

			at += used;
			if (value)
				fprintf(out, "%s\n", qmp_value_print(value));
			qmp_value_free(value);
		}
	}
	if (error)
		fprintf(out, "! %s\n", error);
	fclose(out);
	qmp_reader_free(reader);
	return printed;
}

static void expect(const char *text, size_t length, const char *wanted)
{
	for (size_t piece = 1; piece <= length; piece = piece < 16 ? piece + 1 : piece * 2) {
		char *got = feed(text, length, piece);

		cr_assert_str_eq(got, wanted, "pieces of %zu: %s", piece, got);
		free(got);
	}
}

#define EXPECT(text, wanted) expect(text, sizeof(text) - 1, wanted)

Test(qmp_reader, every_split_of_a_message)
{
	/* Catches state lost between two reads: in numbers, literals, escapes, surrogate pairs and UTF-8 characters. */
	static const char text[] =
		"{\"a\": -12.5e+3, \"b\": [true, false, null, 9223372036854775807], "
		"\"c\": \"x\\\"\\u00e9\\ud83d\\ude00\\n\", \"d\": "
		"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\", \"e\": {}}";
	static const char wanted[] = "{\"a\":-12.5e+3,\"b\":[true,false,null,9223372036854775807],"
				     "\"c\":\"x\\\"\xc3\xa9\xf0\x9f\x98\x80\\n\","
				     "\"d\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\",\"e\":{}}\n";

	EXPECT(text, wanted);
	/* And each place for a single cut. */
	for (size_t cut = 1; cut < sizeof(text) - 1; cut++) {
		struct qmp_reader *reader = qmp_reader_new();
		struct qmp_value *value;
		const char *error;
		size_t used;

		value = qmp_reader_feed(reader, text, cut, &used, &error);
		cr_assert(!value && !error && used == cut, "cut at %zu: %s", cut, error);
		value = qmp_reader_feed(reader, text + cut, sizeof(text) - 1 - cut, &used, &error);
		cr_assert(value && !error, "cut at %zu: %s", cut, error);
		qmp_value_free(value);
		qmp_reader_free(reader);
	}
}

Test(qmp_reader, several_messages_a_read)
{
	/* Catches bytes of the next message eaten with the one before. */
	EXPECT("{\"a\":1}{\"b\":2}\r\n \t{\"c\":3}\n\n\r\n[4]\"5\"6 7\n",
	       "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n[4]\n\"5\"\n6\n7\n");
}

Test(qmp_reader, no_end_no_message)
{
	/* Catches a message handed out before its end. */
	EXPECT("{\"a\": \"unterminated", "");
	EXPECT("{\"a\": [1, 2", "");
	EXPECT("12", "");
	EXPECT(" \r\n\t ", "");
}

Test(qmp_reader, rubbish)
{
	/* Catches what is not JSON let through, and any message after it. */
	EXPECT("hello\n{}", "! not JSON\n");
	EXPECT("{}xyz{}", "{}\n! not JSON\n");
	EXPECT("{\"a\": 'x'}{}", "! not JSON\n");
	EXPECT("{\"a\": 1,}{}", "! not JSON\n");
	EXPECT("{\"a\" 1}{}", "! not JSON\n");
	EXPECT("[1 2]{}", "! not JSON\n");
	EXPECT("]{}", "! not JSON\n");
	EXPECT("/* */{}", "! not JSON\n");
	EXPECT("null {}", "! a message is null\n");
	EXPECT("SSH-2.0-OpenSSH_9.2\r\n", "! not JSON\n");
}

Test(qmp_reader, nul_bytes)
{
	/* Catches a NUL taken for the end of the buffer: json-c does that. */
	EXPECT("\0", "! a NUL or broken UTF-8\n");
	EXPECT("{}\0{}", "{}\n! a NUL or broken UTF-8\n");
	EXPECT("{\"a\0b\": 1}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"b\0c\"}", "! a NUL or broken UTF-8\n");
	EXPECT("12\0 ", "! a NUL or broken UTF-8\n");
}

Test(qmp_reader, broken_utf8)
{
	/* Catches text that is not UTF-8, which would go from here into files that promise to be. */
	EXPECT("{\"a\": \"\xff\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\xc3\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\xc0\xaf\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\xe0\x80\xaf\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\xed\xa0\x80\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\xf4\x90\x80\x80\"}", "! a NUL or broken UTF-8\n");
	EXPECT("{\"a\": \"\x80\"}", "! a NUL or broken UTF-8\n");
}

static char *repeat(const char *head, const char *middle, size_t count, const char *tail)
{
	char *text, *at;

	text = at = malloc(strlen(head) + strlen(middle) * count + strlen(tail) + 1);
	cr_assert(text);
	at = stpcpy(at, head);
	for (size_t i = 0; i < count; i++)
		at = stpcpy(at, middle);
	strcpy(at, tail);
	return text;
}

static void expect_long(char *text, size_t piece, const char *end_wanted)
{
	char *got = feed(text, strlen(text), piece);
	size_t length = strlen(got), end = strlen(end_wanted);

	cr_assert(length >= end && !strcmp(got + length - end, end_wanted), "ends with: %s",
		  length > 80 ? got + length - 80 : got);
	free(got);
	free(text);
}

static char *nested(const char *open, const char *close, size_t depth)
{
	char *front = repeat("", open, depth, "");
	char *text = repeat(front, close, depth, "");

	free(front);
	return text;
}

Test(qmp_reader, depth)
{
	/* Catches a peer that makes us recurse: 64 levels pass, 65 do not. */
	expect_long(nested("[", "]", 64), 7, "]\n");
	expect_long(nested("[", "]", 65), 7, "! a message is nested deeper than 64 levels\n");
	expect_long(nested("{\"a\":[", "]}", 32), 7, "]}\n");
	expect_long(nested("{\"a\":[", "]}", 33), 7,
		    "! a message is nested deeper than 64 levels\n");
	expect_long(nested("[", "]", 1000000), 65536,
		    "! a message is nested deeper than 64 levels\n");
}

Test(qmp_reader, size)
{
	/* Catches a peer that makes us grow, with one long text or with many small parts; blanks cost nothing. */
	expect_long(repeat("[\"", "0123456789", QMP_MESSAGE_BYTES_MAX / 10 - 1, "\"]"), 65536,
		    "9\"]\n");
	expect_long(repeat("[\"", "0123456789", QMP_MESSAGE_BYTES_MAX / 10 + 1, "\"]"), 65536,
		    "! a message is larger than 10 MiB\n");
	expect_long(repeat("[\"", "0123456789", QMP_MESSAGE_BYTES_MAX / 10 + 10000, ""), 65536,
		    "! a message is larger than 10 MiB\n");
	expect_long(repeat("[", "0,", QMP_MESSAGE_PARTS_MAX - 1, "0]"), 65536, "0,0]\n");
	expect_long(repeat("[", "0,", QMP_MESSAGE_PARTS_MAX, "0]"), 65536,
		    "! a message has more than 1048576 parts\n");
	expect_long(repeat("[", "[],", QMP_MESSAGE_PARTS_MAX / 2, "0]"), 65536,
		    "! a message has more than 1048576 parts\n");
	expect_long(repeat("", "\r\n         ", QMP_MESSAGE_BYTES_MAX / 10, "{}"), 65536, "{}\n");
	expect_long(repeat("", "{} \r\n     ", QMP_MESSAGE_BYTES_MAX / 50, "[]"), 65536,
		    "{}\n[]\n");
}

Test(qmp_reader, numbers)
{
	/* Catches a peer that keeps us busy with a number without end, which is read from its start with each piece. */
	expect_long(repeat("[-", "1", 63, "]"), 7, "]\n");
	expect_long(repeat("[-", "1", 64, "]"), 7,
		    "! a message has a number of more than 64 characters\n");
	expect_long(repeat("[", "1", 8 << 20, "]"), 65536,
		    "! a message has a number of more than 64 characters\n");
	expect_long(repeat("[\"", "1", 100, "\"]"), 7, "1\"]\n");
}

Test(qmp_reader, dead_after_an_error)
{
	/* Catches a reader that finds its way back into a stream that it has lost. */
	struct qmp_reader *reader = qmp_reader_new();
	const char *error;
	size_t used;

	cr_assert_null(qmp_reader_feed(reader, "{]", 2, &used, &error));
	cr_assert_not_null(error);
	cr_assert_eq(used, 1);
	cr_assert_null(qmp_reader_feed(reader, "{}", 2, &used, &error));
	cr_assert_str_eq(error, "not JSON");
	qmp_reader_free(reader);
	qmp_reader_free(NULL);
}

static void expect_parse(const char *text, size_t length, const char *wanted, size_t error_at)
{
	size_t at = 12345;
	struct qmp_value *value = qmp_value_parse(text, length, &at);

	if (wanted) {
		cr_assert(value, "%s: wrong at %zu", text, at);
		cr_assert_str_eq(qmp_value_print(value), wanted);
	} else {
		cr_assert_null(value, "%s", text);
		cr_assert_eq(at, error_at, "%s: %zu", text, at);
	}
	qmp_value_free(value);
}

Test(qmp_value, parse_exactly_one)
{
	/* Catches a command's JSON form taken in part. */
	expect_parse("{\"a\":1}", 7, "{\"a\":1}", 0);
	expect_parse(" 12 ", 4, "12", 0);
	expect_parse("12", 2, "12", 0);
	expect_parse("1234", 2, "12", 0);
	expect_parse("\r\n{ } \n", 7, "{}", 0);
	expect_parse("{} {}", 5, NULL, 3);
	expect_parse("{\"a\"", 4, NULL, 4);
	expect_parse("", 0, NULL, 0);
	expect_parse("  ", 2, NULL, 2);
	expect_parse("{\"a\":x}", 7, NULL, 5);
	expect_parse("{}\0", 3, NULL, 2);
	expect_parse("\"ab", 3, NULL, 3);
	cr_assert_null(qmp_value_parse("{", 1, NULL));
}

Test(qmp_value, reading_never_trusts_types)
{
	/* Catches a crash on a peer that sends something else than what was asked for. */
	static const char text[] =
		"{\"t\":\"x\\u0000y\",\"n\":5,\"d\":2.9,\"big\":1e300,\"neg\":-1e300,"
		"\"u\":18446744073709551615,\"f\":true,\"z\":null,\"l\":[1,\"two\"],\"o\":{}}";
	struct qmp_value *value = qmp_value_parse(text, strlen(text), NULL);
	const struct qmp_value *list = qmp_value_get(value, "l");

	cr_assert_str_eq(qmp_value_text(value, "t", "?"), "x");
	cr_assert_str_eq(qmp_value_text(value, "n", "?"), "?");
	cr_assert_str_eq(qmp_value_text(value, "none", "?"), "?");
	cr_assert_str_eq(qmp_value_text(NULL, "none", "?"), "?");
	cr_assert_str_eq(qmp_value_text(NULL, NULL, "?"), "?");
	cr_assert_str_eq(qmp_value_text(list, "none", "?"), "?");
	cr_assert_eq(qmp_value_number(value, "n", -1), 5);
	cr_assert_eq(qmp_value_number(value, "d", -1), 2);
	cr_assert_eq(qmp_value_number(value, "big", -1), INT64_MAX);
	cr_assert_eq(qmp_value_number(value, "neg", -1), INT64_MIN);
	cr_assert_eq(qmp_value_number(value, "u", -1), INT64_MAX);
	cr_assert_eq(qmp_value_number(value, "t", -1), -1);
	cr_assert_eq(qmp_value_number(value, "f", -1), -1);
	cr_assert_eq(qmp_value_number(value, "z", -1), -1);
	cr_assert(qmp_value_flag(value, "f", false));
	cr_assert(qmp_value_flag(value, "n", true));
	cr_assert_eq(qmp_value_count(list), 2);
	cr_assert_eq(qmp_value_count(value), 0);
	cr_assert_eq(qmp_value_count(NULL), 0);
	cr_assert_str_eq(qmp_value_text(qmp_value_item(list, 1), NULL, "?"), "two");
	cr_assert_null(qmp_value_item(list, 2));
	cr_assert_null(qmp_value_item(value, 0));
	cr_assert(qmp_value_is_object(value) && !qmp_value_is_object(list) &&
		  !qmp_value_is_object(NULL));
	cr_assert(qmp_value_is_list(list) && !qmp_value_is_list(value));
	cr_assert(qmp_value_is_number(qmp_value_get(value, "n")));
	cr_assert(!qmp_value_is_number(qmp_value_get(value, "d")));
	cr_assert(qmp_value_is_text(qmp_value_get(value, "t")));
	cr_assert(qmp_value_is_flag(qmp_value_get(value, "f")));
	qmp_value_free(value);
	qmp_value_free(NULL);
}

Test(qmp_value, not_a_number)
{
	/* Catches undefined behaviour: json-c takes NaN and Infinity, which no integer can hold. */
	struct qmp_value *value = qmp_value_parse("[NaN, Infinity, -Infinity]", 26, NULL);

	for (size_t i = 0; i < qmp_value_count(value); i++)
		cr_assert_neq(qmp_value_number(qmp_value_item(value, i), NULL, 7), 0);
	qmp_value_free(value);
}

static int stop_at_b(void *data, const char *key, const struct qmp_value *value)
{
	strcat(data, key);
	return *key == 'b' ? 42 : 0;
}

Test(qmp_value, each_member_in_order)
{
	/* Catches members out of order, and a walk that does not stop. */
	struct qmp_value *value = qmp_value_parse("{\"c\":1,\"a\":2,\"b\":3,\"d\":4}", 25, NULL);
	char seen[10] = "";

	cr_assert_eq(qmp_value_each(value, stop_at_b, seen), 42);
	cr_assert_str_eq(seen, "cab");
	cr_assert_eq(qmp_value_each(NULL, stop_at_b, seen), 0);
	cr_assert_eq(qmp_value_each(qmp_value_get(value, "c"), stop_at_b, seen), 0);
	qmp_value_free(value);
}

Test(qmp_value, building)
{
	/* Catches lost escapes, and strings that are not UTF-8 sent to a QEMU, which would end the link. */
	struct qmp_value *value = qmp_object(), *other;

	qmp_add_text(qmp_add_number(qmp_add_flag(value, "f", false), "n", INT64_MIN), "t",
		     "a\"b\\c/d\n\x01\x7f\xc3\xa9");
	qmp_add_text(value, "z", NULL);
	qmp_add_text(value, "bad",
		     "a\xff\xfe"
		     "b\xc3"
		     "c\xe2\x82"
		     "d\xe2\x82\xac\xe2\x82");
	qmp_add_value(value, "l",
		      qmp_append_value(qmp_append_text(qmp_array(), "x"), qmp_object()));
	qmp_add_number(value, "n", 7);
	other = qmp_value_share(value);
	qmp_value_free(value);
	cr_assert_str_eq(
		qmp_value_print(other),
		"{\"f\":false,\"n\":7,\"t\":\"a\\\"b\\\\c/d\\n\\u0001\x7f\xc3\xa9\",\"z\":null,"
		"\"bad\":\"a\xef\xbf\xbd\xef\xbf\xbd"
		"b\xef\xbf\xbd"
		"c\xef\xbf\xbd"
		"d\xe2\x82\xac\xef\xbf\xbd\",\"l\":[\"x\",{}]}");
	qmp_value_free(other);
	cr_assert_null(qmp_value_share(NULL));
}
