/*
 * Folders that only we can enter: where engines have their sockets and the journal is kept. Called by engine_folder.c and state_folder.c.
 */
#ifndef JOBS_PRIVATE_FOLDER_H
#define JOBS_PRIVATE_FOLDER_H

/* Where what does not outlive the machine goes: /run/blockjobfs, or blockjobfs in XDG_RUNTIME_DIR. malloc'ed. */
char *private_folder_default(void);
/*
 * Makes the folder, or takes one that is ours and closed to everybody else. Its parent must be there. @option names the option that
 * gives another one. Returns 0, or -errno and *@error (malloc'ed, one line).
 */
int private_folder_make(const char *path, const char *option, char **error);
/* @folder/@prefix-HASH, of @what, a path without links in it: different ones must not share a folder. malloc'ed. */
char *private_folder_name(const char *folder, const char *prefix, const char *what);
/*
 * Locks the file, which is made if it is missing, and makes sure that it is still the one by that name: the last owner removes it
 * when it ends. Returns a descriptor, which is the lock, or -errno; -EWOULDBLOCK: somebody else has it.
 */
int private_folder_lock(const char *path);
/*
 * *@error is the sentence, with the text of @code behind it unless that is -EINVAL, which says nothing. Returns @code.
 */
int private_folder_fail(char **error, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
