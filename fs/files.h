/*
 * The file tables: one row a file. Names, modes, usage, sizes, times, docs/files.md and the node ids
 * all come from the rows; a file is named nowhere else. To add a control file, add a row and its
 * function (fs/files_root.c, fs/files_domain.c, fs/files_disk.c).
 *
 * Handlers know the model only: neither FUSE nor open files nor QMP.
 */
#ifndef FS_FILES_H
#define FS_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include "jobs/grammar.h"
#include "jobs/model.h"

struct file;

/* What a node id stands for. Valid within one turn of the loop only: never kept. */
struct place {
	struct model *model;
	struct domain *domain; /* NULL: the root */
	struct disk *disk; /* NULL: the root or a domain's folder */
	const struct file *file; /* NULL: the folder itself */
	const char *
		link; /* the name of a link in by-source, whose row is source_link_row; NULL: none */
};

enum {
	FILE_FRESH = 1 << 0, /* a read at offset 0 first waits for fresh figures of a live job */
	FILE_WAITS = 1 << 1, /* a read at offset 0 first waits until no job is live */
	FILE_LOG = 1 << 2, /* the content is the event log; show is NULL */
	FILE_LINKS = 1 << 3, /* a folder of links: by-source */
	FILE_STEADY =
		1
		<< 4, /* its length hangs on its topic alone: whatever figures it shows have room */
};

struct file {
	const char *name; /* NULL ends a table */
	mode_t mode; /* with the type: S_IFREG, or S_IFDIR of a folder of folders */
	unsigned flags;
	enum topic topic; /* what its content hangs on: mtime and poll */
	/* Appends the content. NULL: the usage, or the log. Must not change the model. */
	void (*show)(const struct place *place, struct text *out);
	/* Carries out a command: completes @op, now or later, exactly once. NULL: not writable. */
	void (*write)(struct op *op, const struct command *command);
	const struct key *keys; /* of the commands; NULL: a command has no words */
	const char *help; /* what it is or does, for docs/files.md and the usage */
};

extern const struct file root_files[], domain_files[], disk_files[];

/* The table of the folder that @place is, or lies in. */
const struct file *place_table(const struct place *place);
/* The row of that name; NULL if there is none. */
const struct file *file_find(const struct file *table, const char *name);

/* True for a folder: the root, a domain's, a disk's, `domains` and `disks`. */
bool place_is_folder(const struct place *place);
/* When and how often what the place shows has changed. Borrowed, never NULL. */
const struct stamp *place_stamp(const struct place *place);
struct event_log *place_log(const struct place *place);
/* What an op on the place is about. */
struct target place_target(const struct place *place);
/* Appends the content of a file as of now. */
void place_show(const struct place *place, struct text *out);
/*
 * All of stat but owner and inode number. *@content is what the file shows at this moment, to be freed; NULL: a folder, a log, or what
 * blocks. If it is not NULL before, that is what the file shows.
 */
void place_stat(const struct place *place, struct stat *stat, struct text **content);

/* Appends @string on one line: backslash, newline, tab and other control characters as \\ \n \t \ooo. */
void show_line(struct text *out, const char *string);

/* Writes docs/files.md. */
void files_reference(FILE *out);

#endif
