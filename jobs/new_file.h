/*
 * A file that a command wants to have made: `dest` of a copy and of a backup, `file` of a snapshot. QEMU makes it; here is checked
 * whether it may.
 */
#ifndef JOBS_NEW_FILE_H
#define JOBS_NEW_FILE_H

#include <stdbool.h>
#include <time.h>
#include "jobs/op.h"

struct word;

/*
 * Refuses @op, and returns false, if @format (may be NULL: none was named) is no format of disk images that can be made: QEMU would take
 * the name of a protocol, too, and go over to a bare file.
 */
bool new_file_may_format(struct op *op, const struct word *format);

/*
 * Called once, now or later: with the path to be handed to QEMU (borrowed; maybe another way to write it); with a NULL op and path when
 * the op has been refused, or has ended meanwhile. The disk may have a job by now: look again.
 */
typedef void (*new_file_fn)(struct op *op, const char *path, void *data);

/*
 * @reuse: the format in which QEMU will open, and overwrite, what is there; NULL: nothing may be there. Refuses @op, a caret under @word,
 * with EINVAL if the path is not absolute; EPERM if who asks may not have files made, or overwritten, there (jobs/policy.h); EEXIST;
 * ESTALE if the disk's chain changes meanwhile.
 */
void new_file_check(struct op *op, const struct word *word, const char *reuse, new_file_fn checked,
		    void *data);

/*
 * The file is about to be made, by QEMU, from @since_s (wall clock) on. Should this life of the server end before the command does, and come to nothing, the next one takes
 * it away before it begins again. @node: the name that QEMU is to know the image by; NULL: none.
 */
void new_file_note(const struct op *op, const char *path, time_t since_s, const char *node);

#endif
