/*
 * SOURCE words: what they mean, and names that a folder can bear. Called by main() and, for names, by the inventory of disks.
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
		return fail(error, -EOPNOTSUPP,
			    "%s: a folder as a source is not supported yet; name the sockets in it",
			    path);
	else
		return fail(error, -EINVAL, "%s: neither a monitor's socket nor an image", path);
	return 0;
}

static int read_kind(const char **rest, enum source_kind *kind, char **error)
{
	static const char *const later[] = { "tcp:", "exec:", "dir:" };

	for (size_t i = 0; i < sizeof(later) / sizeof(*later); i++)
		if (!strncmp(*rest, later[i], strlen(later[i])))
			return fail(error, -EOPNOTSUPP,
				    "%s: this kind of source is not supported yet; unix: and "
				    "image: are",
				    *rest);
	if (!strncmp(*rest, "unix:", 5)) {
		*kind = SOURCE_UNIX;
		*rest += 5;
	} else if (!strncmp(*rest, "image:", 6)) {
		*kind = SOURCE_IMAGE;
		*rest += 6;
	} else {
		return **rest ? kind_of_path(*rest, kind, error) : 0;
	}
	return 0;
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
	if (!status && !*rest)
		status = fail(error, -EINVAL, "%s: a path is missing", word);
	if (!status && !(source->path = absolute_path(rest)))
		status = fail(error, -errno, "%s: the current folder: %s", word, strerror(errno));
	if (!status) {
		if (source->kind == SOURCE_UNIX &&
		    strlen(source->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
			status = fail(error, -ENAMETOOLONG, "%s: too long for a socket",
				      source->path);
		if (!name)
			name = name_of_path(rest);
		source->name = source_escape_name(name);
	}
	free(name);
	return status;
}

void source_clear(struct source *source)
{
	free(source->name);
	free(source->path);
	*source = (struct source){ 0 };
}
