/*
 * The folder that the journal is in: found, made, locked. Called by fs/main.c, before the model is made and after it is freed.
 */
#ifndef JOBS_STATE_FOLDER_H
#define JOBS_STATE_FOLDER_H

#include <stdbool.h>

struct state_folder {
	char *path; /* NULL: there is none */
	char *lockfile;
	char *parent; /* to be removed with the last folder in it; NULL: it was named by the user */
	int dir; /* the folder */
	int lock; /* held as long as we live */
	bool named; /* by the user: it stays when it is empty */
	bool lasting; /* it is not in memory */
};

/*
 * Opens and locks @state_dir, or, if that is NULL, the folder below @runtime_dir (NULL: the default) that belongs to @mountpoint. Waits
 * a few seconds for an earlier life that is just ending. @lock: of an earlier life, which has handed it over; -1: none. Returns 0, or -errno and *@error (malloc'ed, one line). May block: not for
 * the loop.
 */
int state_folder_open(struct state_folder *folder, const char *state_dir, const char *runtime_dir,
		      const char *mountpoint, int lock, char **error);
/* Lets go. What is in it stays; an empty one that the user has not named goes. */
void state_folder_close(struct state_folder *folder);

#endif
