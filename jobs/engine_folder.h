/*
 * The folder of an engine: lock, socket and pid file, below a folder that only we can enter. Its name comes from the image's path, so that
 * the next start on the same image finds what the last one has left.
 */
#ifndef JOBS_ENGINE_FOLDER_H
#define JOBS_ENGINE_FOLDER_H

#include <sys/types.h>

struct engine_folder {
	char *path, *socket, *pidfile, *lockfile;
	char *parent; /* to be removed with the last folder in it; NULL: it was named by the user */
	int lock; /* held as long as we are responsible for the engine; -1: not */
};

/*
 * Makes the folder for @image below @runtime_dir (NULL: the default place) and locks it. Returns 0, or -errno and *@error (malloc'ed, one
 * line). May be called again on an open folder.
 */
int engine_folder_open(struct engine_folder *folder, const char *runtime_dir, const char *image,
		       char **error);
/* Removes what a dead engine has left. */
void engine_folder_sweep(struct engine_folder *folder);
/* The process that holds the pid file, or 0: it is dead. */
pid_t engine_folder_pid(const struct engine_folder *folder);
/* Removes the folder with all that we know in it, and lets go of the lock. */
void engine_folder_remove(struct engine_folder *folder);
/* Lets go; what is in it stays. */
void engine_folder_close(struct engine_folder *folder);

#endif
