/*
 * `by-source`: in each domain, a symbolic link to each disk, named after the path of its active image. A link is there as long as a
 * disk with that image is; if two disks have it, it leads to the one whose name comes first.
 *
 * The table here says which link a node id means, and what has come or gone. Part of struct nodes (fs/node.h); fed by fs/face.c.
 */
#ifndef FS_BY_SOURCE_H
#define FS_BY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include "fs/files.h"

struct source_link {
	uint64_t id;
	struct domain *domain;
	char *name;
	size_t users; /* disks with this image */
	UT_hash_handle hh;
};

struct source_user; /* by_source.c */

struct source_links {
	struct source_link *links; /* by id */
	struct source_user *users; /* by disk */
};

/* The row that stands for every link; it is in no table. */
extern const struct file source_link_row;

/* A link has come or is about to go. */
typedef void (*source_told_fn)(void *data, const struct domain *domain, const char *name,
			       bool added);

/* The disk may have another active image than before; @removed: it is about to go. */
void source_links_update(struct source_links *links, struct disk *disk, bool removed,
			 source_told_fn told, void *data);
void source_links_clear(struct source_links *links);
/* NULL: no link has this id. */
const struct source_link *source_links_find(const struct source_links *links, uint64_t id);

/* The disk that the link @name of the domain leads to; NULL: there is no such link. */
const struct disk *source_link_disk(const struct domain *domain, const char *name);
/* What readlink(2) says, malloc'ed; NULL: the link is gone. */
char *source_link_target(const struct place *link);
/* Calls @each for every link of the domain. */
void source_links_each(const struct place *folder,
		       void (*each)(void *data, const char *name, const struct place *child),
		       void *data);

#endif
