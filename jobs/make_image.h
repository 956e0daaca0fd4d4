/*
 * Having an image made: for the target of a backup and for an overlay. QEMU makes the file, and not we, so that it is the one who owns it
 * and may open it; in steps of its own, and not inside drive-backup or blockdev-snapshot-sync, so that we know what was made by whom
 * when it is to be taken away again, and how its header names its backing image. Private to jobs/.
 */
#ifndef JOBS_MAKE_IMAGE_H
#define JOBS_MAKE_IMAGE_H

#include "jobs/model.h"
#include "qmp/create.h"

struct qmp_event;

/* Called once, later, from the loop. With an error nothing is left of the image, as far as that is in our hands. */
typedef void (*make_image_fn)(void *data, const struct qmp_error *error);

/* @image->job does not matter. Nothing may be there under the path: look before (jobs/new_file.h). */
void make_image(struct domain *domain, const struct qmp_create *image, make_image_fn made,
		void *data);
/* True if the event was about the making of an image. */
bool make_image_event(struct domain *domain, const struct qmp_event *event);
/* True while a storage daemon must not be asked for its nodes: domain_pump() follows. */
bool make_image_forbids_listing(const struct domain *domain);
/* There is a new link: dismisses what the last one has left. */
void make_image_connected(struct domain *domain);
/* The link is gone. */
void make_image_link_lost(struct domain *domain);

/*
 * Takes away an image that was made for a command which then was refused, and calls @removed (may be NULL). Only a plain file that has
 * changed since @since_s (wall clock) is removed, and nothing on another host.
 */
void make_image_undo(struct domain *domain, const char *path, time_t since_s,
		     void (*removed)(void *data), void *data);

/* The same for one that an earlier life of the server has begun to make: it stays if anybody has it open, by QEMU's own locks. */
void make_image_take_away(struct domain *domain, const char *path, time_t since_s,
			  void (*removed)(void *data), void *data);

#endif
