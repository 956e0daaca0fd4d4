/*
 * Lists of verbs; see fs/verbs.h. Used by the command line and by the row `allow`.
 */
#include "fs/verbs.h"

#include <stdlib.h>
#include <string.h>
#include "fs/files.h"

static bool is(const char *word, size_t length, const char *name)
{
	return strlen(name) == length && !strncmp(word, name, length);
}

bool verb_is_known(const char *name, size_t length)
{
	for (const struct file *file = disk_files; file->name; file++)
		if (file->write && is(name, length, file->name))
			return true;
	return false;
}

/* The next word at or after @at; false: there is none. */
static bool next_word(const char **at, size_t *length)
{
	*at += strspn(*at, ", ");
	*length = strcspn(*at, ", ");
	return *length;
}

static bool has(const char *list, const char *name)
{
	size_t length;

	for (; next_word(&list, &length); list += length)
		if (is(list, length, name))
			return true;
	return false;
}

/* Those of @list in the order of the table; NULL: all. malloc'ed */
static char *in_order(const char *list)
{
	struct text *text = text_new();
	char *verbs;

	for (const struct file *file = disk_files; file->name; file++)
		if (file->write && (!list || has(list, file->name)))
			text_printf(text, "%s%s", text_length(text) ? "," : "", file->name);
	verbs = strdup(text_bytes(text));
	text_free(text);
	return verbs;
}

bool verbs_read(const char *text, char **verbs, size_t *bad, size_t *bad_length)
{
	const char *at = text;
	size_t length;

	*verbs = !strcmp(text, "all") ? strdup("all") : !strcmp(text, "none") ? strdup("") : NULL;
	if (*verbs)
		return true;
	for (; next_word(&at, &length); at += length) {
		if (verb_is_known(at, length))
			continue;
		*bad = (size_t)(at - text);
		*bad_length = length;
		return false;
	}
	*verbs = in_order(text);
	*bad = *bad_length = 0;
	if (**verbs)
		return true;
	free(*verbs); /* nothing but commas: "none" is said so */
	*verbs = NULL;
	return false;
}

void verbs_show(const char *verbs, struct text *out)
{
	char *all = verbs && strcmp(verbs, "all") ? NULL : in_order(NULL);

	text_puts(out, all ? all : *verbs ? verbs : "none");
	free(all);
}
