/*
 * The command grammar: one written command into words, checked against the keys of the file's row.
 *
 *	command = [ list blank ] [ word { blank word } ] [ newline ] | json-object [ newline ]
 *	list    = value { blank value } ':'             (only where the row has a KEY_LIST)
 *	word    = key "=" value | flag | value          (a bare value only where the row has a positional key)
 *	value   = [ any byte but blank, quote, newline { any byte but blank, newline } ] | '"' { byte | \" | \\ | \n | \t | \ooo } '"'
 *
 * Keys may come in any order, each at most once. A command has no second line and no NUL.
 */
#ifndef JOBS_GRAMMAR_H
#define JOBS_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "jobs/text.h"

enum {
	COMMAND_BYTES_MAX = 16 << 10,
	COMMAND_WORDS_MAX = 64,
};

enum key_kind {
	KEY_FLAG, /* a bare word, or "name": true in JSON */
	KEY_TEXT,
	KEY_CHOICE, /* one of the words in choices */
	KEY_BYTES, /* a size or a rate: a whole number with K, M, G, T or KiB, MiB, GiB, TiB; or "max", which is 0 */
	KEY_SWITCH, /* 1 or 0 */
	KEY_NUMBER, /* a whole number, plain */
	KEY_LIST, /* values in front of everything else, the last with a ':' behind it: a word each; in JSON an array */
	KEY_LINE, /* the whole line, with the blanks in it, unless it begins with a quote; the row's only key */
};

struct key {
	const char *name; /* NULL ends a list of keys */
	enum key_kind kind;
	bool positional; /* may be given as a bare value */
	bool required;
	const char *choices; /* "report ignore enospc stop" */
	const char *shown; /* how usage names the value: "IMAGE", "RATE" */
	const char *help;
};

struct word {
	const struct key *key;
	char *text; /* the value with quotes and escapes undone; NUL-terminated, no NUL inside */
	int64_t number; /* KEY_BYTES, KEY_NUMBER, KEY_SWITCH, KEY_FLAG (1) */
	size_t offset, length; /* where it stands in the command as written */
};

struct command {
	struct word words[COMMAND_WORDS_MAX];
	size_t count;
};

/* What is wrong, and where: for the caret in `error`. */
struct fault {
	int error; /* -EINVAL or -E2BIG */
	size_t offset, length; /* length 0: no place in particular */
	char reason[256];
};

/*
 * Parses @length bytes against @keys (NULL-named end; NULL: no words are taken at all). Returns 0, or -errno with @fault filled
 * and @command empty. On success command_clear() frees the words.
 */
int grammar_parse(const struct key *keys, const char *bytes, size_t length, struct command *command,
		  struct fault *fault);
void command_clear(struct command *command);

const struct word *command_word(const struct command *command,
				const char *key); /* NULL: not given */
const char *command_text(const struct command *command, const char *key); /* NULL: not given */
int64_t command_number(const struct command *command, const char *key, int64_t fallback);
bool command_flag(const struct command *command, const char *key);

/* The usage of a control file, from the same keys that parse it: a line of synopsis, the help, a line for each key. */
void grammar_usage(struct text *out, const char *file, const struct key *keys, const char *help);

/* "64M" and the like into bytes: a whole number and a unit, no sign, no overflow. Returns 0 or -EINVAL. */
int grammar_bytes(const char *text, int64_t *bytes);

#endif
