/*
 * `delete` of a commit: the list of images that become useless is fixed when the commit is accepted, and carried out after it has
 * completed and the chain has been read anew, before the final word is shown. A failure is told and does not make the commit fail.
 */
#ifndef JOBS_DELETE_H
#define JOBS_DELETE_H

#include <stddef.h>
#include "jobs/op.h"

struct deletion;
struct model;
struct word;

/* Called once, with the list, which it takes; NULL: the op has been refused, or has ended meanwhile (@op is NULL then). */
typedef void (*delete_listed_fn)(struct op *op, struct deletion *deletion, void *data);

/* Makes the list of the images [@first] to [@end - 1] of the op's disk. @word is the flag, for the caret. */
void delete_list(struct op *op, const struct word *word, size_t first, size_t end,
		 delete_listed_fn listed, void *data);

/*
 * The job of the disk is over and its chain is known: true if images are being deleted. finish_publish() is called again then, when
 * that is done.
 */
bool delete_images(struct disk *disk);
/* The job is over, and its chain will not be known: nothing is deleted, and it is told. */
void delete_give_up(struct disk *disk, const char *reason);
/* A domain has been heard of for the first time: what had to wait for that goes on. */
void delete_step(struct model *model);

#endif
