/*
 * The command line: libfuse's fuse_opt with our own options, and those of mount(8) and fstab that mean nothing
 * to us. Called by fs/main.c.
 */
#include "fs/options.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/verbs.h"

enum {
	TIMEOUT_S_DEFAULT = 10,
	TIMEOUT_S_MAX = 86400,
};

enum {
	KEY_FOREGROUND,
	KEY_DEBUG,
	KEY_HELP,
	KEY_VERSION,
	KEY_LIST_FILES,
	KEY_IMAGE_DIR,
	KEY_ALLOW,
	KEY_NOKEEPER,
};

#define TEXT(template, member)                                \
	{                                                     \
		template, offsetof(struct options, member), 0 \
	}

static const struct fuse_opt templates[] = {
	TEXT("timeout=%s", timeout),
	TEXT("runtime_dir=%s", runtime_dir),
	TEXT("state_dir=%s", state_dir),
	TEXT("format=%s", format),
	TEXT("fsname=%s", fsname),
	FUSE_OPT_KEY("-s", FUSE_OPT_KEY_DISCARD), /* one thread: always */
	FUSE_OPT_KEY("-f", KEY_FOREGROUND),
	FUSE_OPT_KEY("-d", KEY_DEBUG),
	FUSE_OPT_KEY("debug", KEY_DEBUG),
	FUSE_OPT_KEY("-h", KEY_HELP),
	FUSE_OPT_KEY("--help", KEY_HELP),
	FUSE_OPT_KEY("-V", KEY_VERSION),
	FUSE_OPT_KEY("--version", KEY_VERSION),
	FUSE_OPT_KEY("--list-files", KEY_LIST_FILES),
	FUSE_OPT_KEY("image_dir=", KEY_IMAGE_DIR),
	FUSE_OPT_KEY("allow=", KEY_ALLOW),
	FUSE_OPT_KEY("nokeeper", KEY_NOKEEPER),
	FUSE_OPT_END,
};

/*
 * Taken and dropped: what mount(8) and mount.fuse3 pass on, what is always so (nodev, nosuid, noexec,
 * default_permissions, the subtype that mounts are recognised by), and what could undo that.
 */
static const char *const dropped[] = {
	"rw",	       "auto",	     "noauto",	 "nofail",   "_netdev",
	"defaults",    "user",	     "nouser",	 "users",    "owner",
	"group",       "dev",	     "nodev",	 "suid",     "nosuid",
	"exec",	       "noexec",     "async",	 "relatime", "norelatime",
	"strictatime", "nodiratime", "lazytime", "silent",   "default_permissions",
	NULL,
};
static const char *const dropped_prefixes[] = { "x-", "X-", "comment=", "subtype=", NULL };

static bool is_dropped(const char *option)
{
	for (size_t i = 0; dropped[i]; i++)
		if (!strcmp(option, dropped[i]))
			return true;
	for (size_t i = 0; dropped_prefixes[i]; i++)
		if (!strncmp(option, dropped_prefixes[i], strlen(dropped_prefixes[i])))
			return true;
	return false;
}

static void add_word(char ***words, size_t *count, const char *word)
{
	*words = realloc(*words, (*count + 1) * sizeof(**words));
	if (!*words || !((*words)[(*count)++] = strdup(word)))
		abort();
}

/* The commas of the list are those between options: what follows it comes as options of their own, if they are verbs. */
static void add_allowed(struct options *options, const char *verbs)
{
	char *list;

	if (asprintf(&list, "%s%s%s", options->allow ? options->allow : "",
		     options->allow ? "," : "", verbs) < 0)
		abort();
	free(options->allow);
	options->allow = list;
}

/* 1: libfuse shall see it, 0: taken. */
static int on_option(void *data, const char *word, int key, struct fuse_args *args)
{
	struct options *options = data;

	switch (key) {
	case FUSE_OPT_KEY_NONOPT:
		add_word(&options->sources, &options->source_count, word);
		return 0;
	case KEY_IMAGE_DIR:
		add_word(&options->image_dirs, &options->image_dir_count, strchr(word, '=') + 1);
		return 0;
	case KEY_ALLOW:
		add_allowed(options, strchr(word, '=') + 1);
		return 0;
	case KEY_NOKEEPER:
		options->nokeeper = true;
		return 0;
	case KEY_DEBUG:
		options->debug = true;
		/* fall through */
	case KEY_FOREGROUND:
		options->foreground = true;
		return 0;
	case KEY_HELP:
		options->help = true;
		return 0;
	case KEY_VERSION:
		options->version = true;
		return 0;
	case KEY_LIST_FILES:
		options->list_files = true;
		return 0;
	}
	if (!strcmp(word, "allow_other"))
		options->allow_other = true;
	else if (!strcmp(word, "ro"))
		options->read_only = true;
	else if (options->allow && verb_is_known(word, strlen(word)))
		add_allowed(options, word);
	else if (!is_dropped(word))
		return 1;
	return 0;
}

__attribute__((format(printf, 2, 3))) static int fail(char **error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	if (vasprintf(error, format, arguments) < 0)
		abort();
	va_end(arguments);
	return -1;
}

static int read_timeout(struct options *options, char **error)
{
	char *end;
	unsigned long seconds;

	options->timeout_s = TIMEOUT_S_DEFAULT;
	if (!options->timeout)
		return 0;
	errno = 0;
	seconds = strtoul(options->timeout, &end, 10);
	if (*options->timeout < '0' || *options->timeout > '9' || *end || errno || !seconds ||
	    seconds > TIMEOUT_S_MAX)
		return fail(error, "timeout=%s: want whole seconds, 1 to %d", options->timeout,
			    TIMEOUT_S_MAX);
	options->timeout_s = (unsigned)seconds;
	return 0;
}

/* The daemon changes to "/": what it keeps must not hang on the folder it was started in. */
static void make_absolute(char **path, const char *folder)
{
	char *whole;

	if (!*path || **path == '/')
		return;
	if (asprintf(&whole, "%s/%s", folder, *path) < 0)
		abort();
	free(*path);
	*path = whole;
}

static int read_policy(struct options *options, const char *folder, char **error)
{
	size_t bad, length;
	char *verbs = NULL;
	bool known = !options->allow || verbs_read(options->allow, &verbs, &bad, &length);

	free(verbs);
	if (!known && length)
		return fail(error, "allow=%s: %.*s is no verb, such as pull or speed",
			    options->allow, (int)length, options->allow + bad);
	if (!known)
		return fail(error, "allow=: want verbs such as pull or speed, or all, or none");
	for (size_t i = 0; i < options->image_dir_count; i++) {
		if (!*options->image_dirs[i])
			return fail(error, "image_dir=: want a folder");
		make_absolute(&options->image_dirs[i], folder);
	}
	return 0;
}

/* The last word is the mount point. */
static int take_mountpoint(struct options *options, char **error)
{
	if (options->source_count < 2)
		return fail(error,
			    "no %s given: blockjobfs [options] SOURCE... MOUNTPOINT (-h for help)",
			    options->source_count ? "MOUNTPOINT" : "SOURCE and MOUNTPOINT");
	options->mountpoint = options->sources[--options->source_count];
	if (!*options->mountpoint)
		return fail(error, "the MOUNTPOINT is empty");
	return 0;
}

/* What mount(8) shows as the source. */
static void words_add_fsname(char **words, const char *fsname)
{
	char *word;

	if (asprintf(&word, "fsname=%s", fsname ? fsname : MOUNT_SUBTYPE) < 0)
		abort();
	fuse_opt_add_opt_escaped(words, word);
	free(word);
}

static void add_mount_options(struct options *options)
{
	char *words = NULL;

	fuse_opt_add_opt(&words, "default_permissions");
	fuse_opt_add_opt(&words, "nodev");
	fuse_opt_add_opt(&words, "nosuid");
	fuse_opt_add_opt(&words, "noexec");
	fuse_opt_add_opt(&words, "subtype=" MOUNT_SUBTYPE);
	/* As another user it takes user_allow_other in /etc/fuse.conf: only if asked for. */
	if (options->allow_other || geteuid() == 0)
		fuse_opt_add_opt(&words, "allow_other");
	words_add_fsname(&words, options->fsname);
	fuse_opt_add_arg(&options->mount, "-o");
	fuse_opt_add_arg(&options->mount, words);
	free(words);
	if (options->debug)
		fuse_opt_add_arg(&options->mount, "-d");
}

int options_read(struct options *options, int argc, char **argv, const char *folder, char **error)
{
	const char *why;
	int status;

	*options = (struct options){ .mount = FUSE_ARGS_INIT(0, NULL) };
	for (int i = 0; i < argc; i++)
		fuse_opt_add_arg(&options->mount, argv[i]);
	log_hold();
	status = fuse_opt_parse(&options->mount, options, templates, on_option);
	why = log_held();
	if (status < 0)
		return fail(error, "%s", why ? why : "the options make no sense");
	if (options->help || options->version || options->list_files)
		return 0;
	make_absolute(&options->runtime_dir, folder);
	make_absolute(&options->state_dir, folder);
	if (read_timeout(options, error) || read_policy(options, folder, error) ||
	    take_mountpoint(options, error))
		return -1;
	add_mount_options(options);
	return 0;
}

void options_clear(struct options *options)
{
	for (size_t i = 0; i < options->source_count; i++)
		free(options->sources[i]);
	free(options->sources);
	for (size_t i = 0; i < options->image_dir_count; i++)
		free(options->image_dirs[i]);
	free(options->image_dirs);
	free(options->allow);
	free(options->mountpoint);
	free(options->runtime_dir);
	free(options->state_dir);
	free(options->format);
	free(options->timeout);
	free(options->fsname);
	fuse_opt_free_args(&options->mount);
}

void options_help(FILE *out)
{
	static const char help[] =
		"usage: blockjobfs [options] SOURCE... MOUNTPOINT\n"
		"\n"
		"Shows the disks of QEMU as files: start, steer and watch block jobs with echo and "
		"cat.\n"
		"\n"
		"SOURCE, with an optional name in front (web1=/run/vm/web1.qmp):\n"
		"    unix:PATH, or a path to a socket    a QMP monitor\n"
		"    tcp:HOST:PORT                       a QMP monitor on TCP\n"
		"    exec:COMMAND                        a command that carries QMP, such as ssh\n"
		"    image:PATH, or a path to an image   no virtual machine: an offline disk\n"
		"    dir:PATH, or a path to a folder     every QMP socket in it, now and later\n"
		"\n"
		"options:\n"
		"    -f                     stay in the foreground, log to standard error\n"
		"    -d                     the same, and show every request\n"
		"    -h, --help             this\n"
		"    -V, --version          name and version\n"
		"    --list-files           every file of the tree, as markdown\n"
		"    -o timeout=SECONDS     how long QEMU may take to answer a command (10)\n"
		"    -o runtime_dir=DIR     where private sockets are kept (/run/blockjobfs, or "
		"blockjobfs\n"
		"                           in $XDG_RUNTIME_DIR)\n"
		"    -o state_dir=DIR       where the journal is kept, a folder for this mount "
		"alone "
		"(one below\n"
		"                           the runtime folder)\n"
		"    -o format=FMT          format of image sources, instead of what qemu-img "
		"says\n"
		"    -o image_dir=DIR       others than the mount's owner may have images made "
		"and\n"
		"                           deleted below it, and nowhere else (may be "
		"repeated)\n"
		"    -o allow=VERB,...      the commands that others have: pull, speed, ... (all)\n"
		"    -o ro                  watch only\n"
		"    -o nokeeper            no second process that holds the mount: it dies with "
		"the first\n"
		"    -o allow_other         let other users in (always as root)\n"
		"    -o OPTION              mount options as in fuse(8)\n"
		"\n"
		"It returns when the tree can be read. umount, fusermount3 -u or SIGTERM ends it; "
		"jobs of\n"
		"virtual machines run on.\n";

	fputs(help, out);
}
