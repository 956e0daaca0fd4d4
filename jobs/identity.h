/*
 * What a disk is recognised by in a new layout, and what its folder is called. A disk that has nothing but its node's name keeps its
 * folder when it gets an overlay, whose node has another name. Private to jobs/.
 */
#ifndef JOBS_IDENTITY_H
#define JOBS_IDENTITY_H

#include "jobs/domain.h"

/* "device vda", "drive drive0", "node disk0"; malloc'ed. */
char *identity_of_info(const struct qmp_disk_info *info);
/* The disk that is recognised by just that; NULL: none. */
struct disk *identity_find(struct domain *domain, const struct qmp_disk_info *info);
/* The disk whose active image, known by its node only, is below that of @info now; NULL: none. */
struct disk *identity_find_below(struct domain *domain, const struct qmp_disk_info *info);
/* The name of a new disk's folder, which no other of the domain's has if it can be helped; malloc'ed. */
char *identity_folder_name(struct domain *domain, const struct qmp_disk_info *info);
/* The disk's active image is @node by now. If it is known by that, this and the next life of the daemon will know it by the new one. */
void identity_follow(struct disk *disk, const char *node);
/* The disk is gone. */
void identity_forget(struct disk *disk);

#endif
