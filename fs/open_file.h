/*
 * Open files and folders, by number. An open file is what a program has from open(2) to close(2):
 * who opened it, the snapshot that it reads, the answer to its last command, its place in a log.
 *
 * The number is what the kernel keeps (fi->fh). It is a counter with the daemon's life in its upper
 * half, never a pointer: one that an earlier life gave out is known from what that has kept (fs/kept.h); if it could not, it is
 * recognised, and adopted for reading.
 * Used by fs/ops.c and fs/io.c; knows neither FUSE nor the model's contents.
 */
#ifndef FS_OPEN_FILE_H
#define FS_OPEN_FILE_H

#include <uthash.h>
#include "fs/files.h"

struct kept;
struct kept_file;

/* One entry of a folder as it was when it was read from its beginning. */
struct listed {
	char *name;
	uint64_t node;
	mode_t mode;
};

struct open_file {
	uint64_t number;
	uint64_t node;
	uint64_t request; /* the OPEN that it was made for; 0: not known */
	struct who who; /* at open(2) */
	int flags; /* of open(2) */
	bool touch; /* opened by our toucher: what it writes means nothing */
	bool adopted; /* opened in an earlier life: by whom is not known */
	bool gone; /* its folder was removed: it is not what the next one of that name has */
	unsigned writes;

	struct text *snapshot; /* NULL: not read yet, or read whole in an earlier life */
	uint64_t end; /* where that ended; 0: there was none */
	uint64_t seen; /* version of the topic at the last read from the beginning; OPEN_UNSEEN */

	struct text *answer; /* to the last command; NULL: none, or it has been refreshed away */
	bool answer_begun; /* answer_base is fixed */
	uint64_t answer_end; /* where the write ended: its reader may go on from there */
	uint64_t answer_base; /* the reader's offset of its first byte */

	struct event_place place; /* in a log */

	struct listed *list; /* of a folder */
	size_t listed;

	uint64_t poll; /* the kernel's handle of those who are to be told once; 0: none */
	uint64_t polled; /* version when it was taken */
	struct open_file *prev, *next; /* those with a poll handle */
	struct kept_file *kept; /* for the next life; NULL: that will not know it */
	struct open_files *files; /* that it is one of */
	size_t text_bytes; /* of the snapshot, as far as it is kept for the next life */
	UT_hash_handle hh;
};

#define OPEN_UNSEEN UINT64_MAX

struct open_files {
	struct kept *kept; /* NULL: there is no next life */
	struct journal *texts; /* what is too long for that, under text/NUMBER and answer/NUMBER */
	size_t texts_bytes; /* of snapshots there */
	struct open_file *table;
	struct open_file *pollers;
	uint64_t last; /* number given out; its upper half tells this life from others */
};

void open_files_init(struct open_files *files);
/* What is opened from now on is kept in @kept and @texts (borrowed; may be NULL), and what earlier lives have kept there is open again. */
void open_files_keep(struct open_files *files, struct kept *kept, struct journal *texts);
/* Nothing more is kept, and what was kept is forgotten: nobody comes after us. */
void open_files_clear(struct open_files *files);

struct open_file *open_file_new(struct open_files *files, const struct place *place,
				const struct who *who, int flags);
/* The one that was made for this OPEN, which the kernel sends again since nobody has answered it; NULL: none was. */
struct open_file *open_file_of_request(const struct open_files *files, uint64_t request);
/* Something of it has changed that the next life must know. */
void open_file_keep(struct open_file *file);
struct open_file *open_file_find(const struct open_files *files, uint64_t number);
/*
 * The open file of that number, made on the fly if an earlier life gave the number out; NULL if it was
 * given out by this life and is closed, or never was, or if the folder has gone meanwhile.
 */
struct open_file *open_file_adopt(struct open_files *files, uint64_t number,
				  const struct place *place);
/* The folder of this node is being removed: whoever has something in it open has nothing any more. */
void open_files_leave(struct open_files *files, uint64_t folder);
void open_file_free(struct open_files *files, struct open_file *file);

/* Takes @text as the file's snapshot, before the first @size bytes of it are given to the reader. */
void open_file_take_snapshot(struct open_file *file, struct text *text, uint64_t version,
			     size_t size);
/* True if a read at @offset goes on in a snapshot; *@text is that, or NULL: its end was reached in an earlier life. */
bool open_file_goes_on(const struct open_file *file, uint64_t offset, const struct text **text);
/* Copies @text as the answer to a command whose write ended at @end. */
void open_file_set_answer(struct open_file *file, const struct text *text, uint64_t end);
/* The answer as seen by a read at @offset; false if that read is not about the answer. */
bool open_file_answers(struct open_file *file, uint64_t offset, const char **bytes, size_t *left);
/* Lists the folder anew. */
void open_file_list(struct open_file *file, const struct place *folder);

/* Replaces the poll handle; 0: there is none any more. */
void open_file_set_poll(struct open_files *files, struct open_file *file, uint64_t poll,
			uint64_t version);

#endif
