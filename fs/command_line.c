/*
 * Starting our own program again; see fs/command_line.h.
 */
#include "fs/command_line.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

char *own_path(void)
{
	static const char gone[] =
		" (deleted)"; /* what the kernel adds to the name of one that was replaced or removed */
	char path[4096];
	ssize_t length = readlink(OWN_PROGRAM, path, sizeof(path) - 1);
	size_t tail = sizeof(gone) - 1;

	if (length <= 0)
		return NULL;
	path[length] = 0;
	if ((size_t)length > tail && !strcmp(path + length - tail, gone))
		path[(size_t)length - tail] = 0;
	return strdup(path);
}

char **command_line_new(char **argv, const char *first, const char *second, const char *folder)
{
	size_t count = 0, at = 0;
	char **line;

	while (argv[count])
		count++;
	line = calloc(count + 4, sizeof(*line));
	if (!line)
		abort();
	line[at++] = argv[0];
	line[at++] = (char *)first;
	if (second)
		line[at++] = (char *)second;
	line[at++] = (char *)folder;
	memcpy(line + at, argv + 1, (count - 1) * sizeof(*line));
	return line;
}
