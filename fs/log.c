/*
 * The daemon's own log; see fs/log.h. Called from everywhere in fs/.
 */
#include "fs/log.h"

#include <fuse_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

static bool to_syslog, holding;
static char held[256];

static void log_words(const char *words)
{
	if (to_syslog)
		syslog(LOG_NOTICE, "%s", words);
	else
		fprintf(stderr, "blockjobfs: %s\n", words);
}

/* libfuse gives a line in pieces, ends it with a newline, and begins most with its name. */
static void from_fuse(enum fuse_log_level level, const char *format, va_list arguments)
{
	static char line[sizeof(held)];
	size_t length = strlen(line);
	const char *start = line;

	if (level == FUSE_LOG_DEBUG) {
		vfprintf(stderr, format, arguments);
		return;
	}
	vsnprintf(line + length, sizeof(line) - length, format, arguments);
	length = strcspn(line, "\n");
	if (!line[length] && length < sizeof(line) - 1)
		return;
	line[length] = 0;
	if (!strncmp(start, "fuse: ", 6))
		start += 6;
	if (!holding)
		log_line("fuse: %s", start);
	else if (!*held)
		snprintf(held, sizeof(held), "%s", start);
	*line = 0;
}

void log_open(void)
{
	fuse_set_log_func(from_fuse);
}

void log_to_syslog(void)
{
	openlog("blockjobfs", LOG_PID, LOG_DAEMON);
	to_syslog = true;
}

void log_line(const char *format, ...)
{
	char words[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words, sizeof(words), format, arguments);
	va_end(arguments);
	log_words(words);
}

void log_hold(void)
{
	holding = true;
	*held = 0;
}

const char *log_held(void)
{
	holding = false;
	return *held ? held : NULL;
}
