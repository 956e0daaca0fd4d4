/*
 * Node ids: hash47(domain, disk) << 16 | hash16(file name), a pure function of names. The same file
 * has the same id in the daemon's next life, and no id ever names another file; so nothing needs to
 * be remembered about what the kernel has looked up. The id is the inode number too.
 *
 * The only table is of folders: it is fed by the model's watcher, and finds the domain and disk that
 * an id means. Fed by fs/face.c, asked by fs/ops.c and fs/io.c; knows no FUSE.
 */
#ifndef FS_NODE_H
#define FS_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include "fs/by_source.h"
#include "fs/files.h"

enum {
	NODE_ROOT = 1, /* FUSE_ROOT_ID; every other id is above 65535 and below 2^63 */
};

struct folder; /* node.c */

struct nodes {
	struct model *model;
	struct folder *folders;
	uint64_t removed; /* folders so far */
	struct source_links sources;
};

/* The id of names: @domain NULL: the root; @disk NULL: the domain; @file NULL: the folder itself. */
uint64_t node_id_of(const char *domain, const char *disk, const char *file);
uint64_t node_id(const struct place *place);
/* The part of an id that a folder and all files in it have in common. */
static inline uint64_t node_folder(uint64_t id)
{
	return id >> 16;
}
/* Of the link @name in by-source. */
uint64_t node_link_id(const char *domain, const char *name);
/* The part of an id that a file's name makes: never 0. */
uint16_t node_name_hash(const char *name);

/* The root is there from the beginning. */
void nodes_init(struct nodes *nodes, struct model *model);
void nodes_clear(struct nodes *nodes);
/* False if the folder's id is another folder's. @disk NULL: the domain's folder. */
bool nodes_may_add(const struct nodes *nodes, const struct domain *domain, const struct disk *disk);
void nodes_add(struct nodes *nodes, struct domain *domain, struct disk *disk);
/*
 * The generation of a folder: another one each time it comes back, since the kernel remembers that a folder was removed for as long as
 * anybody has it or something in it open. Files have none: 0.
 */
uint64_t node_generation(const struct nodes *nodes, const struct place *place);
void nodes_remove(struct nodes *nodes, const struct domain *domain, const struct disk *disk);

/* What @id means now. False if it means nothing (any more). */
bool node_find(const struct nodes *nodes, uint64_t id, struct place *place);
/* True for a folder of links: by-source. */
bool node_has_links(const struct nodes *nodes, uint64_t folder);
/* The entry of the folder @parent that is called @name. False if there is none. */
bool node_child(const struct place *parent, const char *name, struct place *child);
/* The folder that @place lies in; the root lies in itself. */
struct place node_parent(const struct place *place);

/* Calls @each for every entry of the folder, without "." and "..". */
typedef void (*node_each_fn)(void *data, const char *name, const struct place *child);
void node_children(const struct place *folder, node_each_fn each, void *data);

#endif
