/*
 * The command grammar: what makes a command, what does not, and what is said about it.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/grammar.h"

static const struct key keys[] = {
	{ .name = "base", .kind = KEY_TEXT, .shown = "IMAGE", .help = "down to this one" },
	{ .name = "bandwidth", .kind = KEY_BYTES, .shown = "RATE", .help = "bytes a second" },
	{ .name = "on-error", .kind = KEY_CHOICE, .choices = "report ignore stop", .help = "what" },
	{ .name = "reuse", .kind = KEY_FLAG, .help = "it is there" },
	{ .name = "wish", .kind = KEY_SWITCH, .help = "1 or 0" },
	{ 0 },
};
static const struct key rate_keys[] = {
	{ .name = "speed",
	  .kind = KEY_BYTES,
	  .positional = true,
	  .required = true,
	  .shown = "RATE",
	  .help = "bytes a second" },
	{ 0 },
};
static const struct key path_keys[] = {
	{ .name = "file", .kind = KEY_TEXT, .positional = true, .shown = "PATH", .help = "where" },
	{ .name = "async", .kind = KEY_FLAG, .help = "soon" },
	{ 0 },
};

static const struct key list_keys[] = {
	{ .name = "disks",
	  .kind = KEY_LIST,
	  .positional = true,
	  .required = true,
	  .shown = "DISK...:",
	  .help = "names and a colon" },
	{ .name = "do",
	  .kind = KEY_CHOICE,
	  .positional = true,
	  .required = true,
	  .choices = "pivot abort",
	  .shown = "pivot|abort",
	  .help = "what" },
	{ 0 },
};

/* The command as "key=text,key=text", or "! " and the reason, with "@offset+length" in front if it has a place. Static. */
static const char *parse(const struct key *row, const char *bytes, size_t length)
{
	static char out[3000];
	struct command command;
	struct fault fault = { 0 };
	size_t at = 0;
	/* Exactly as long as it says, so that a sanitizer sees a step too far. */
	char *exact = malloc(length ? length : 1);
	int error;

	memcpy(exact, bytes, length);
	error = grammar_parse(row, exact, length, &command, &fault);
	free(exact);
	*out = 0;
	if (error) {
		cr_assert_eq(error, fault.error);
		cr_assert(error == -EINVAL || error == -E2BIG);
		cr_assert_eq(command.count, 0, "words are left of a command that is none");
		cr_assert_leq(fault.offset, length);
		if (fault.length)
			at = (size_t)sprintf(out, "@%zu+%zu", fault.offset, fault.length);
		snprintf(out + at, sizeof(out) - at, "! %s", fault.reason);
		return out;
	}
	for (size_t i = 0; i < command.count; i++)
		at += (size_t)snprintf(out + at, sizeof(out) - at, "%s%s=%.500s", i ? "," : "",
				       command.words[i].key->name, command.words[i].text);
	command_clear(&command);
	return out;
}

static void expect(const struct key *row, const char *text, const char *wanted)
{
	cr_assert_str_eq(parse(row, text, strlen(text)), wanted, "%s: %s", text,
			 parse(row, text, strlen(text)));
}

/* Only the place and the beginning of the reason. */
static void refuse(const struct key *row, const char *text, const char *wanted)
{
	const char *got = parse(row, text, strlen(text));

	cr_assert_eq(strncmp(got, wanted, strlen(wanted)), 0, "%s: %s", text, got);
	cr_assert(strchr(got, '!'), "%s: %s", text, got);
}

Test(jobs_grammar, words)
{
	/* Catches words taken in part, in the wrong order, or with blanks that matter. */
	expect(keys, "", "");
	expect(keys, "\n", "");
	expect(keys, " \t \n", "");
	expect(NULL, "", "");
	expect(keys, "base=/a/b", "base=/a/b");
	expect(keys, "base=/a/b\n", "base=/a/b");
	expect(keys, " base=/a\tbandwidth=5K  reuse \n", "base=/a,bandwidth=5K,reuse=reuse");
	expect(keys, "reuse base=a=b==", "reuse=reuse,base=a=b==");
	expect(keys, "base=\xc3\xa9\xff", "base=\xc3\xa9\xff");
	expect(keys, "on-error=stop wish=0", "on-error=stop,wish=0");
	expect(keys, "base=/a#b{c}'d'\\e", "base=/a#b{c}'d'\\e");
}

Test(jobs_grammar, quotes)
{
	/* Catches escapes that mean something else, and quotes that end too early or never. */
	expect(keys, "base=\"a b\"", "base=a b");
	expect(keys, "base=\"a\\\"b\\\\c\\nd\\te\\101\\377\" reuse",
	       "base=a\"b\\c\nd\te\101\377,reuse=reuse");
	expect(keys, "base=\"a\\012b\"\n", "base=a\nb");
	expect(keys, "base=\"=\"", "base==");
	refuse(keys, "base=\"", "@5+1! the quote is not closed");
	refuse(keys, "base=\"abc", "@5+1! the quote is not closed");
	refuse(keys, "base=\"abc\\\"", "@5+1! the quote is not closed");
	refuse(keys, "\"", "@0+1! ");
	refuse(path_keys, "\"", "@0+1! the quote is not closed");
	refuse(keys, "base=\"a\"b", "@7+1! a blank is missing");
	refuse(keys, "base=\"a\"\"b\"", "@7+1! a blank is missing");
	refuse(keys, "base=\"\\x41\"", "@6+2! inside quotes");
	refuse(keys, "base=\"\\0\"", "@6+2! inside quotes");
	refuse(keys, "base=\"\\000\"", "@6+2! inside quotes");
	refuse(keys, "base=\"\\400\"", "@6+2! inside quotes");
	refuse(keys, "base=\"\\18\"", "@6+2! inside quotes");
	refuse(keys, "base=\"\\", "@6+2! inside quotes");
	refuse(keys, "base=\"\"", "@0+7! base= has no value");
}

Test(jobs_grammar, words_that_are_wrong)
{
	/* Catches a word that is swallowed, and a fault that points elsewhere. */
	refuse(keys, "bass=/a",
	       "@0+4! unknown word \"bass\"; known here: base= bandwidth= "
	       "on-error= reuse wish=");
	refuse(keys, "reuse nonsense", "@6+8! unknown word \"nonsense\"");
	refuse(keys, "reusee", "@0+6! unknown word");
	refuse(keys, "reus", "@0+4! unknown word");
	refuse(keys, "=", "");
	refuse(keys, "base", "@0+4! base= needs a value");
	refuse(keys, "base=", "@0+5! base= has no value");
	refuse(keys, "base= x", "@0+5! base= has no value");
	refuse(keys, "reuse=1", "@0+7! reuse is a flag");
	refuse(keys, "base=a base=b", "@7+6! base is given twice");
	refuse(keys, "reuse reuse", "@6+5! reuse is given twice");
	refuse(keys, "on-error=", "@0+9! on-error is one of: report ignore stop");
	refuse(keys, "on-error=repor", "@0+14! on-error is one of");
	refuse(keys, "on-error=\"report ignore\"", "@0+24! on-error is one of");
	refuse(keys, "wish=yes", "@0+8! wish is 1 or 0");
	refuse(keys, "wish=10", "@0+7! wish is 1 or 0");
	refuse(NULL, "x", "@0+1! this file takes no words");
	refuse(NULL, "x=y", "@0+1! this file takes no words");
}

Test(jobs_grammar, bytes_that_are_wrong)
{
	/* Catches a second command carried out, a NUL that hides the rest, and a limit that is off by one. */
	char *text = malloc(COMMAND_BYTES_MAX + 2);

	expect(keys, "reuse", "reuse=reuse");
	refuse(keys, "reuse\nreuse", "@5+1! one write is one command");
	refuse(keys, "reuse\n\n", "@5+1! one write is one command");
	refuse(keys, "\nreuse", "@0+1! one write is one command");
	refuse(keys, "base=\"a\nb\"", "@7+1! one write is one command");
	cr_assert_str_eq(parse(keys, "reuse\0x", 7), "@5+1! a NUL byte");
	cr_assert_str_eq(parse(keys, "\0", 1), "@0+1! a NUL byte");
	cr_assert_str_eq(parse(keys, "{\"reuse\":true}\0", 15), "@14+1! a NUL byte");
	memset(text, 'x', COMMAND_BYTES_MAX + 2);
	memcpy(text, "base=", 5);
	cr_assert_eq(strncmp(parse(keys, text, COMMAND_BYTES_MAX), "base=xxx", 8), 0);
	text[COMMAND_BYTES_MAX - 1] = '\n';
	cr_assert_eq(strncmp(parse(keys, text, COMMAND_BYTES_MAX), "base=xxx", 8), 0);
	text[COMMAND_BYTES_MAX - 1] = 'x';
	cr_assert_str_eq(parse(keys, text, COMMAND_BYTES_MAX + 1),
			 "! a command has at most 16384 bytes");
	memset(text, 0, COMMAND_BYTES_MAX + 2);
	cr_assert_str_eq(parse(keys, text, COMMAND_BYTES_MAX + 2),
			 "! a command has at most 16384 bytes");
	free(text);
}

static void expect_bytes(const char *text, int64_t wanted)
{
	int64_t bytes = -7;
	int error = grammar_bytes(text, &bytes);

	cr_assert_eq(error, wanted < 0 ? -EINVAL : 0, "%s: %d", text, error);
	if (wanted >= 0)
		cr_assert_eq(bytes, wanted, "%s: %lld", text, (long long)bytes);
}

Test(jobs_grammar, sizes)
{
	/* Catches a unit that means something else, an overflow that wraps, and a sign. */
	static const char *const wrong[] = {
		"",
		" ",
		"-1",
		"+1",
		"-0",
		" 1",
		"1 ",
		"1.5",
		"1e3",
		"0x10",
		"K",
		"1k",
		"1KB",
		"1Ki",
		"1KiBx",
		"1B",
		"1iB",
		"1KK",
		"1P",
		"max",
		"MAX",
		"1\n",
		"1M1",
		"9223372036854775808",
		"8388608T",
		"18446744073709551617",
		"99999999999999999999999",
		"9007199254740992K",
		"1\xc2\xa0K",
	};

	expect_bytes("0", 0);
	expect_bytes("007", 7);
	expect_bytes("1K", 1024);
	expect_bytes("1KiB", 1024);
	expect_bytes("3M", 3 << 20);
	expect_bytes("2GiB", (int64_t)2 << 30);
	expect_bytes("8388607T", (int64_t)8388607 << 40);
	expect_bytes("9223372036854775807", INT64_MAX);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		expect_bytes(wrong[i], -1);
}

static void expect_number(const char *text, const char *key, int64_t wanted)
{
	struct command command;
	struct fault fault;

	cr_assert_eq(grammar_parse(strcmp(key, "speed") ? keys : rate_keys, text, strlen(text),
				   &command, &fault),
		     0, "%s", fault.reason);
	cr_assert_eq(command_number(&command, key, -1), wanted, "%s", text);
	command_clear(&command);
}

Test(jobs_grammar, numbers_and_lookups)
{
	/* Catches a number that is not what was written, and a fallback where something was. */
	struct command command;
	struct fault fault;

	expect_number("bandwidth=1M", "bandwidth", 1 << 20);
	expect_number("bandwidth=max", "bandwidth", 0);
	expect_number("bandwidth=0", "bandwidth", 0);
	expect_number("base=x", "bandwidth", -1);
	expect_number("wish=1", "wish", 1);
	expect_number("wish=0", "wish", 0);
	expect_number("reuse", "reuse", 1);
	expect_number("10K", "speed", 10240);
	expect_number("speed=10K", "speed", 10240);
	expect_number("max\n", "speed", 0);
	cr_assert_eq(grammar_parse(keys, "base=\"x y\" reuse", 16, &command, &fault), 0);
	cr_assert_str_eq(command_text(&command, "base"), "x y");
	cr_assert_null(command_text(&command, "bandwidth"));
	cr_assert(command_flag(&command, "reuse"));
	cr_assert(!command_flag(&command, "wish"));
	cr_assert_eq(command_word(&command, "base")->offset, 0);
	cr_assert_eq(command_word(&command, "base")->length, 10);
	cr_assert_eq(command_word(&command, "reuse")->offset, 11);
	command_clear(&command);
	cr_assert_eq(command.count, 0);
}

Test(jobs_grammar, bare_values)
{
	/* Catches a bare value taken where there is none to take, a second one, and one that is missing. */
	expect(rate_keys, "5", "speed=5");
	expect(rate_keys, "\"5\"", "speed=5");
	refuse(rate_keys, "", "! RATE is missing");
	refuse(rate_keys, "\n", "! RATE is missing");
	refuse(rate_keys, "{}", "! RATE is missing");
	refuse(rate_keys, "5 6", "@2+1! speed is given twice");
	refuse(rate_keys, "-5", "@0+2! speed is a whole number of bytes");
	refuse(rate_keys, "speed", "@0+5! speed= needs a value");
	expect(path_keys, "/a/b async", "file=/a/b,async=async");
	expect(path_keys, "\"async\"", "file=async");
	expect(path_keys, "\"a=b\"", "file=a=b");
	refuse(path_keys, "a=b", "@0+1! unknown word \"a\"");
	refuse(path_keys, "\"\"", "@0+2! file= has no value");
}

Test(jobs_grammar, too_many_words)
{
	/* Catches a write behind the end of the words. */
	struct key many[COMMAND_WORDS_MAX + 2] = { 0 };
	char names[COMMAND_WORDS_MAX + 1][8], text[500] = "";

	for (int i = 0; i <= COMMAND_WORDS_MAX; i++) {
		sprintf(names[i], "f%d", i);
		many[i].name = names[i];
		sprintf(text + strlen(text), "f%d ", i);
		if (i == COMMAND_WORDS_MAX - 1)
			cr_assert_null(strchr(parse(many, text, strlen(text)), '!'));
	}
	cr_assert(strstr(parse(many, text, strlen(text)), "! too many words"));
}

Test(jobs_grammar, json)
{
	/* Catches a JSON form that is not the same command, or lets through what the text form does not. */
	expect(keys, "{}", "");
	expect(keys, "{\"base\": \"a b\", \"reuse\": true, \"bandwidth\": 5}\n",
	       "base=a b,reuse=1,bandwidth=5");
	expect(keys, "{\n \"base\": \"a\\nb\"\n}\n", "base=a\nb");
	expect(keys, "{\"reuse\": false}", "");
	expect(keys, "{\"wish\": true}", "wish=1");
	expect(keys, "{\"wish\": 0}", "wish=0");
	expect(keys, "{\"bandwidth\": \"5K\"}", "bandwidth=5K");
	expect(rate_keys, "{\"speed\": \"max\"}", "speed=max");
	refuse(keys, "{\"bandwidth\": -5}", "! bandwidth is a whole number");
	refuse(keys, "{\"bandwidth\": 1.5}", "! bandwidth has a value of the wrong type");
	refuse(keys, "{\"bandwidth\": 1e3}", "! bandwidth has a value of the wrong type");
	refuse(keys, "{\"bandwidth\": 18446744073709551615}", "! ");
	refuse(keys, "{\"bandwidth\": 99999999999999999999999999}", "! ");
	refuse(keys, "{\"bandwidth\": \"5 K\"}", "! bandwidth is a whole number");
	refuse(keys, "{\"base\": 5}", "! base has a value of the wrong type");
	refuse(keys, "{\"base\": null}", "! base has a value of the wrong type");
	refuse(keys, "{\"base\": [\"x\"]}", "! base has a value of the wrong type");
	refuse(keys, "{\"base\": {}}", "! base has a value of the wrong type");
	refuse(keys, "{\"base\": \"\"}", "! base= has no value");
	refuse(keys, "{\"base\": \"a\\u0000b\"}", "! a NUL inside a value");
	refuse(keys, "{\"reuse\": 1}", "! reuse is a flag");
	refuse(keys, "{\"reuse\": \"true\"}", "! reuse is a flag");
	refuse(keys, "{\"wish\": 2}", "! wish is 1 or 0");
	refuse(keys, "{\"on-error\": \"x\"}", "! on-error is one of");
	refuse(keys, "{\"what\": 1}", "! unknown word \"what\"");
	refuse(keys, "{\"a\\nb\": 1}", "! unknown word");
	refuse(keys, "{", "@0+1! this is not a JSON object");
	refuse(keys, "{\"base\": \"a:\\\"{\", \"base\": \"b\"}", "! a key is given twice");
	refuse(keys, "{\"base\": \"a\"", "@11+1! this is not a JSON object");
	refuse(keys, "{\"base\": \"a\"} x", "@14+1! this is not a JSON object");
	refuse(keys, "{\"base\": \"a\"}{}", "@13+1! this is not a JSON object");
	refuse(keys, "{'base': 'a'}", "@");
	refuse(keys, "[]", "@0+2! unknown word");
	refuse(NULL, "{\"x\":1}", "! this file takes no words");
}

Test(jobs_grammar, usage)
{
	/* Catches a usage text that does not come from the keys which parse. */
	struct text *out = text_new();

	grammar_usage(out, "pull", keys, "does it");
	cr_assert_str_eq(text_bytes(out),
			 "usage: echo \"[base=IMAGE] [bandwidth=RATE] [on-error=on-error] [reuse] "
			 "[wish=wish]\" > pull\ndoes it\n"
			 "  base         down to this one\n"
			 "  bandwidth    bytes a second\n"
			 "  on-error     what (report ignore stop)\n"
			 "  reuse        it is there\n"
			 "  wish         1 or 0\n");
	text_clear(out);
	grammar_usage(out, "speed", rate_keys, "limits it");
	cr_assert_str_eq(text_bytes(out), "usage: echo \"RATE\" > speed\nlimits it\n"
					  "  speed        bytes a second\n");
	text_clear(out);
	grammar_usage(out, "pivot", NULL, "goes over");
	cr_assert(strstr(text_bytes(out), "pivot\ngoes over\n"));
	text_free(out);
}

Test(jobs_grammar, fuzz)
{
	/* Catches a crash, a leak, a step outside, and a text with a NUL or without its end, on any bytes. */
	static const char *const pieces[] = { "base=", "bandwidth=", "\"",   "\\",	 " ",
					      "reuse", "{",	     "}",    "\"base\"", ":",
					      "true",  "5K",	     "\n",   "\\101",	 "\t",
					      "=",     "wish=1",     ",",    "\xff",	 "max",
					      "[0]",   "on-error=",  "stop", "\\u0000",	 "-" };
	const struct key *rows[] = { keys, rate_keys, path_keys, NULL };

	srandom(20);
	for (int round = 0; round < 60000; round++) {
		char text[200];
		size_t length = 0;

		for (long i = random() % 9; i > 0; i--) {
			const char *piece =
				pieces[(size_t)random() % (sizeof(pieces) / sizeof(*pieces))];

			memcpy(text + length, piece, strlen(piece));
			length += strlen(piece);
		}
		if (length && random() % 3 == 0)
			text[(size_t)random() % length] = (char)random();
		parse(rows[random() % 4], text, length);
	}
}

Test(grammar, a_list_ends_with_a_colon)
{
	/* Catches a name that loses its colon, and a list without an end. */
	expect(list_keys, "vda: pivot", "disks=vda,do=pivot");
	expect(list_keys, "vda  vdb:\tabort\n", "disks=vda,disks=vdb,do=abort");
	expect(list_keys, "vda vdb : pivot", "disks=vda,disks=vdb,do=pivot");
	expect(list_keys, "drive:0: pivot", "disks=drive:0,do=pivot");
	expect(list_keys, "\"a b\" \"c:\": pivot", "disks=a b,disks=c:,do=pivot");
	expect(list_keys, "\"a b\" c=d: pivot", "disks=a b,disks=c=d,do=pivot");
	expect(list_keys, "disks do: pivot", "disks=disks,disks=do,do=pivot");
	expect(list_keys, "a: do=pivot", "disks=a,do=pivot");
	expect(list_keys, "{\"disks\": [\"a\", \"b:\"], \"do\": \"abort\"}",
	       "disks=a,disks=b:,do=abort");
	expect(list_keys, "{\"do\": \"abort\", \"disks\": \"a\"}", "do=abort,disks=a");
	refuse(list_keys, "", "! names and a colon");
	refuse(list_keys, "vda pivot", "! names and a colon");
	refuse(list_keys, ": pivot", "! an empty name");
	refuse(list_keys, "\"\": pivot", "@0+2! an empty name");
	refuse(list_keys, "a \"b\":c: pivot", "@6+1! a blank");
	refuse(list_keys, "a \"b: pivot", "@2+1! the quote");
	refuse(list_keys, "a b a: pivot", "@4+1! this one is given twice");
	refuse(list_keys, "a:", "! pivot|abort is missing");
	refuse(list_keys, "a: jump", "@3+4! do is one of");
	refuse(list_keys, "a: pivot abort", "@9+5! do is given twice");
	refuse(list_keys, "a: disks=b", "@3+5! unknown word");
	refuse(list_keys, "{\"disks\": [], \"do\": \"abort\"}", "! DISK...: is missing");
	refuse(list_keys, "{\"disks\": [\"a\", \"a\"], \"do\": \"abort\"}", "! this one");
	refuse(list_keys, "{\"disks\": 7, \"do\": \"abort\"}", "! disks has a value");
}
