/*
 * The command line. Read by fs/main.c once; what is libfuse's goes on to it as it is.
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include <fuse_opt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct options {
	bool nokeeper; /* one process, as under a debugger */
	bool foreground, debug, help, version, list_files;
	bool read_only; /* we see to that, not the kernel: our toucher writes (fs/notify.h) */
	unsigned timeout_s;
	char *runtime_dir; /* absolute; NULL: the default */
	char *state_dir; /* absolute; NULL: below the runtime folder */
	char **image_dirs; /* absolute */
	size_t image_dir_count;
	char *allow; /* -o allow=, its verbs with commas between; NULL: not given */
	char *format; /* of image sources; NULL: as probed */
	char **sources; /* as given */
	size_t source_count;
	char *mountpoint; /* as given */
	struct fuse_args mount; /* for session_new() */
	/* Used while reading. */
	char *timeout, *fsname;
	bool allow_other;
};

/*
 * @folder: the one that paths are relative to. Returns 0, or -1 and *@error, one line (malloc'ed). With help, version or list_files set nothing else is
 * checked. options_clear() frees in either case.
 */
int options_read(struct options *options, int argc, char **argv, const char *folder, char **error);
void options_clear(struct options *options);
void options_help(FILE *out);

#endif
