/*
 * Lists of verbs, as `-o allow=` and `allow` take and show them: names of the disks' control files with commas between, "all", "none".
 * jobs/policy.h keeps them as it is given them here: "all", "" for none, or names.
 */
#ifndef FS_VERBS_H
#define FS_VERBS_H

#include <stdbool.h>
#include <stddef.h>
#include "jobs/text.h"

bool verb_is_known(const char *name, size_t length);
/*
 * Reads a list. Returns true and *@verbs (malloc'ed, in the order of the file table), or false and where in @text the word stands that
 * is no verb.
 */
bool verbs_read(const char *text, char **verbs, size_t *bad, size_t *bad_length);
/* Appends the list. */
void verbs_show(const char *verbs, struct text *out);

#endif
