/*
 * SOURCE words: what they mean, and names that a folder can bear. Called by main() and, for names, by the inventory of disks.
 *
 *	word    = [ name "=" ] source
 *	source  = "unix:" path | "tcp:" host ":" port | "exec:" command | "image:" path | path
 *	name    = anything without "=", "/" and ":"
 */
#include "jobs/source.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "jobs/text.h"
#include "qmp/reaper.h"
#include "qmp/transport.h"

enum {
	NAME_BYTES_MAX = 255, /* NAME_MAX of every Linux file system, and of ours */
};

static void cut_name(char *escaped, const char *name)
{
	uint64_t hash =
		0xcbf29ce484222325; /* FNV-1a: names alike in their first 200 bytes stay apart */
	size_t keep = NAME_BYTES_MAX - 17;

	if (strlen(escaped) <= NAME_BYTES_MAX)
		return;
	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
	while (keep && ((unsigned char)escaped[keep] & 0xc0) == 0x80)
		keep--; /* not in the middle of a character */
	sprintf(escaped + keep, "~%016llx", (unsigned long long)hash);
}

char *source_escape_name(const char *name)
{
	const char *at = name;
	char *escaped = malloc(4 * strlen(name) + 5), *out = escaped;

	if (!escaped)
		abort();
	if (!*at)
		out += sprintf(out, "\\x00");
	while (*at) {
		size_t length = text_utf8_length(at, strlen(at));
		unsigned char byte = (unsigned char)*at;

		if (!length || text_is_control(at) || byte == '/' || byte == '\\' ||
		    (byte == '.' && at == name)) {
			out += sprintf(out, "\\x%02x", byte);
			at++;
			continue;
		}
		memcpy(out, at, length);
		out += length;
		at += length;
	}
	*out = 0;
	cut_name(escaped, name);
	return escaped;
}

/* "web1" of "/run/vm/web1.qmp". */
static char *name_of_path(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *name = strdup(slash ? slash + 1 : path), *dot = strrchr(name, '.');

	if (dot && dot != name)
		*dot = 0;
	return name;
}

char *source_name_of_path(const char *path)
{
	char *name = name_of_path(path), *escaped = source_escape_name(name);

	free(name);
	return escaped;
}

/* "relay" of "/usr/bin/relay.py --to web1". */
static char *name_of_command(const char *command)
{
	char *word = strndup(command, strcspn(command, " \t\n")), *name = name_of_path(word);

	free(word);
	return name;
}

/* NULL, with errno: it is relative to a folder that is gone. */
static char *absolute_path(const char *path)
{
	char *cwd, *absolute;

	if (*path == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return NULL;
	if (asprintf(&absolute, "%s/%s", cwd, path) < 0)
		abort();
	free(cwd);
	return absolute;
}

__attribute__((format(printf, 3, 4))) static int fail(char **error, int code, const char *format,
						      ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(error, format, arguments) < 0)
		abort();
	va_end(arguments);
	return code;
}

/* What a bare path is. */
static int kind_of_path(const char *path, enum source_kind *kind, char **error)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return fail(error, -errno,
			    "%s: %s (write unix:PATH for a socket that is not there yet)", path,
			    strerror(errno));
	if (S_ISSOCK(status.st_mode))
		*kind = SOURCE_UNIX;
	else if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode))
		*kind = SOURCE_IMAGE;
	else if (S_ISDIR(status.st_mode))
		*kind = SOURCE_DIR;
	else
		return fail(error, -EINVAL,
			    "%s: neither a monitor's socket, nor a folder of them, nor an image",
			    path);
	return 0;
}

static const char *const kind_words[] = {
	[SOURCE_UNIX] = "unix:",   [SOURCE_TCP] = "tcp:", [SOURCE_EXEC] = "exec:",
	[SOURCE_IMAGE] = "image:", [SOURCE_DIR] = "dir:",
};

static int read_kind(const char **rest, enum source_kind *kind, char **error)
{
	for (size_t i = 0; i < sizeof(kind_words) / sizeof(*kind_words); i++) {
		if (strncmp(*rest, kind_words[i], strlen(kind_words[i])))
			continue;
		*kind = (enum source_kind)i;
		*rest += strlen(kind_words[i]);
		return 0;
	}
	return **rest ? kind_of_path(*rest, kind, error) : 0;
}

/* What a path is: of a socket, of an image. */
static int read_path(struct source *source, const char *word, const char *rest, char **error)
{
	if (!*rest)
		return fail(error, -EINVAL, "%s: a path is missing", word);
	source->path = absolute_path(rest);
	if (!source->path)
		return fail(error, -errno, "%s: the current folder: %s", word, strerror(errno));
	if (source->kind == SOURCE_UNIX &&
	    strlen(source->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return fail(error, -ENAMETOOLONG, "%s: too long for a socket", source->path);
	if (source->kind != SOURCE_DIR)
		source->name = name_of_path(rest);
	return 0;
}

static int read_tcp(struct source *source, const char *word, const char *rest, char **error)
{
	char *host, *port;
	const char *wrong = qmp_split_tcp(rest, &host, &port);

	if (wrong)
		return fail(error, -EINVAL, "%s: %s", word, wrong);
	source->path = strdup(rest);
	if (asprintf(&source->name, "%s-%s", host, port) < 0)
		abort();
	free(host);
	free(port);
	return 0;
}

static int read_command(struct source *source, const char *word, const char *rest, char **error)
{
	rest += strspn(rest, " \t\n");
	if (!*rest)
		return fail(error, -EINVAL, "%s: a command is missing", word);
	source->path = strdup(rest);
	source->name = name_of_command(rest);
	return 0;
}

static int read_rest(struct source *source, const char *word, const char *rest, char **error)
{
	switch (source->kind) {
	case SOURCE_TCP:
		return read_tcp(source, word, rest, error);
	case SOURCE_EXEC:
		return read_command(source, word, rest, error);
	default:
		return read_path(source, word, rest, error);
	}
}

int source_parse(struct source *source, const char *word, char **error)
{
	size_t name_length = strcspn(word, "=/:");
	const char *rest = word;
	char *name = NULL;
	int status;

	*source = (struct source){ 0 };
	/* "web1=unix:/run/x": what stands before the first '=', if no path or address has begun. */
	if (word[name_length] == '=') {
		if (!name_length)
			return fail(error, -EINVAL, "%s: there is no name before the '='", word);
		name = strndup(word, name_length);
		rest += name_length + 1;
	}
	status = read_kind(&rest, &source->kind, error);
	if (!status)
		status = read_rest(source, word, rest, error);
	if (!status && source->kind == SOURCE_DIR && name)
		status = fail(error, -EINVAL,
			      "%s: the sockets in a folder give the domains their names: leave out "
			      "\"%s=\"",
			      word, name);
	if (!name)
		name = source->name;
	else
		free(source->name);
	source->name = name ? source_escape_name(name) : NULL;
	free(name);
	return status;
}

char *source_address(const struct source *source)
{
	char *address;

	if (source->kind == SOURCE_NONE)
		return strdup("");
	if (asprintf(&address, "%s%s", kind_words[source->kind], source->path) < 0)
		abort();
	return address;
}

void source_keep_command(int argc, char **argv)
{
	reaper_run_if_asked(argc, argv);
}

void source_clear(struct source *source)
{
	free(source->name);
	free(source->path);
	*source = (struct source){ 0 };
}
