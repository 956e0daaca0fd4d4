/*
 * Relative backing names; see backing_name.h. Used by the commands that give an image another backing image.
 */
#include "jobs/backing_name.h"

#include <stdlib.h>
#include <string.h>
#include "jobs/text.h"

/* A relative path of a file: no absolute one, no "json:{...}", "nbd://host/disk" or "host_device:x". */
static bool is_relative(const char *name)
{
	return name && *name && *name != '/' && name[strcspn(name, ":/")] != ':';
}

/* The length of what stands before the last part: "../a/b.qcow2" has "../a/". */
static size_t folder_length(const char *name)
{
	const char *slash = strrchr(name, '/');

	return slash ? (size_t)(slash - name) + 1 : 0;
}

char *backing_name(const struct qmp_image *chain, size_t from, size_t base)
{
	struct text *name;
	char *result;

	for (size_t i = from; i < base; i++)
		if (!is_relative(chain[i].backing))
			return NULL;
	/* Each name is seen from the folder of the image whose header has it. */
	name = text_new();
	for (size_t i = from; i + 1 < base; i++)
		text_append(name, chain[i].backing, folder_length(chain[i].backing));
	text_puts(name, chain[base - 1].backing);
	result = strdup(text_bytes(name));
	text_free(name);
	return result;
}

char *backing_name_new(const struct qmp_image *chain, size_t index, const char *path, bool relative)
{
	size_t folder = folder_length(path);
	const char *active = chain[0].path;
	bool together = folder && folder == folder_length(active) && !strncmp(active, path, folder);

	if (together && index == 1 && is_relative(chain[0].backing))
		return strdup(chain[0].backing);
	if (together && index == 0 && (relative || is_relative(chain[0].backing)))
		return strdup(active + folder);
	return strdup(*chain[index].path == '/' ? chain[index].path : chain[index].filename);
}
