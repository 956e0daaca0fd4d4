/*
 * A SOURCE word of the command line: [NAME=] unix:PATH | tcp:HOST:PORT | exec:COMMAND | image:PATH | a bare path to a socket or an
 * image; or dir:PATH | a bare path to a folder of sockets.
 */
#ifndef JOBS_SOURCE_H
#define JOBS_SOURCE_H

#include <stdbool.h>

struct folder;

enum source_kind {
	SOURCE_UNIX,
	SOURCE_TCP,
	SOURCE_EXEC,
	SOURCE_IMAGE,
	SOURCE_DIR, /* every socket in a folder; has no name */
	SOURCE_NONE, /* no address yet: a folder made by mkdir */
};

struct source {
	enum source_kind kind;
	char *name; /* of the domain, escaped as a folder's name; NULL: SOURCE_DIR */
	char *path; /* absolute; HOST:PORT; the command; NULL: SOURCE_NONE */
	struct folder *folder; /* in which the socket was found; NULL: named by somebody */
	bool fresh; /* the socket has just been made (FRESH_SOCKET_MS) */
};

/*
 * Reads @word. Returns 0 and fills @source (freed by source_clear()), or -errno and *@error, one line for a stranger (malloc'ed).
 * A bare path is looked at (stat) to see what it is.
 */
int source_parse(struct source *source, const char *word, char **error);
void source_clear(struct source *source);
/* As `address` shows it: unix:/run/web1.qmp, image:/vm/web1.qcow2; "" if there is none. malloc'ed. */
char *source_address(const struct source *source);
/* What a socket or an image is called that has no name in front: the file's name less its last extension, escaped. malloc'ed. */
char *source_name_of_path(const char *path);

/* Called first thing by main(): a process that was started to keep the command of an exec: source does so, and does not return. */
void source_keep_command(int argc, char **argv);

/*
 * A name that a folder can bear: '/', a leading dot, control characters, backslashes and bytes that are no UTF-8 become \xNN, as
 * udev does; an empty one becomes \x00. At most 255 bytes (longer ones are cut and end in a hash of the whole). malloc'ed.
 */
char *source_escape_name(const char *name);

#endif
