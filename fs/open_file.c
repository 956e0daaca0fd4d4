/*
 * Open files and folders, by number; see fs/open_file.h.
 */
#include "fs/open_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <utlist.h>
#include "fs/kept.h"
#include "fs/node.h"
#include "jobs/journal.h"

enum {
	LIFE_SHIFT =
		32, /* more files than 2^32 in one life carry over into the next number: harmless */
	TEXT_KEY_BYTES = 32,
	TEXTS_BYTES_MAX =
		8
		<< 20, /* of all that readers have read in part: who opens many files is not to fill the memory of all */
};

#define TEXT   "text/"
#define ANSWER "answer/"

void open_files_init(struct open_files *files)
{
	uint32_t life = 0;

	if (getrandom(&life, sizeof(life), 0) != sizeof(life))
		life = (uint32_t)time(NULL);
	*files = (struct open_files){ .last = (uint64_t)(life | 1) << LIFE_SHIFT };
}

void open_file_keep(struct open_file *file)
{
	struct kept_file *kept = file->kept;
	unsigned other;

	if (!kept)
		return;
	other = !kept->place;
	kept->places[other] = file->place;
	kept->place = (uint8_t)other;
	kept->node = file->node;
	kept->request = file->request;
	kept->poll = file->poll;
	kept->uid = file->who.uid;
	kept->gid = file->who.gid;
	kept->pid = file->who.pid;
	kept->flags = file->flags;
	kept->writes = file->writes;
	kept->touch = file->touch;
	kept->adopted = file->adopted;
	kept->gone = file->gone;
	kept->number = file->number; /* from here on it counts */
}

/* --- what is read in pieces, across a death --- */

static const char *key_of(const struct open_file *file, const char *prefix,
			  char key[TEXT_KEY_BYTES])
{
	snprintf(key, TEXT_KEY_BYTES, "%s%" PRIx64, prefix, file->number);
	return key;
}

/* The length of @text if the reader has got all of it: most do. Else the rest must be there in the next life, too. */
static void keep_snapshot(struct open_file *file, size_t size)
{
	size_t length = text_length(file->snapshot);
	char key[TEXT_KEY_BYTES];

	if (!file->kept)
		return;
	key_of(file, TEXT, key);
	file->files->texts_bytes -= file->text_bytes;
	file->text_bytes = size < length ? length : 0;
	if (file->files->texts_bytes + file->text_bytes > TEXTS_BYTES_MAX)
		file->text_bytes = 0;
	file->files->texts_bytes += file->text_bytes;
	file->kept->end = file->text_bytes ? 0 : length;
	if (file->text_bytes)
		journal_put(file->files->texts, key, text_bytes(file->snapshot));
	else
		journal_drop(file->files->texts, key);
}

/* Nobody can read the answer in a file that was opened for writing only. */
static void keep_answer(struct open_file *file)
{
	char key[TEXT_KEY_BYTES], *value;

	if (!file->kept || (file->flags & O_ACCMODE) != O_RDWR)
		return;
	key_of(file, ANSWER, key);
	if (!file->answer || !text_length(file->answer)) {
		journal_drop(file->files->texts, key);
		return;
	}
	if (asprintf(&value, "%" PRIu64 " %" PRIu64 " %d\n%s", file->answer_end, file->answer_base,
		     file->answer_begun, text_bytes(file->answer)) < 0)
		abort();
	journal_put(file->files->texts, key, value);
	free(value);
}

static void forget_texts(struct open_file *file)
{
	char key[TEXT_KEY_BYTES];

	if (!file->kept)
		return;
	file->files->texts_bytes -= file->text_bytes;
	file->text_bytes = 0;
	journal_drop(file->files->texts, key_of(file, TEXT, key));
	journal_drop(file->files->texts, key_of(file, ANSWER, key));
}

static void take_texts(struct open_file *file)
{
	char key[TEXT_KEY_BYTES];
	const char *text = journal_get(file->files->texts, key_of(file, TEXT, key)),
		   *answer = journal_get(file->files->texts, key_of(file, ANSWER, key)),
		   *line = answer ? strchr(answer, '\n') : NULL;
	int begun = 0;

	file->end = file->kept->end;
	if (text && !file->end) {
		file->text_bytes = strlen(text);
		file->files->texts_bytes += file->text_bytes;
		file->snapshot = text_new();
		text_puts(file->snapshot, text);
	}
	if (line && sscanf(answer, "%" SCNu64 " %" SCNu64 " %d", &file->answer_end,
			   &file->answer_base, &begun) == 3) {
		file->answer_begun = begun;
		file->answer = text_new();
		text_puts(file->answer, line + 1);
	}
}

static void open_again(void *data, struct kept_file *kept)
{
	struct open_files *files = data;
	struct open_file *file = calloc(1, sizeof(*file));

	if (!file)
		abort();
	file->kept = kept;
	file->files = files;
	file->place = kept->places[kept->place & 1];
	file->node = kept->node;
	file->request = kept->request;
	file->who = (struct who){ .uid = kept->uid, .gid = kept->gid, .pid = kept->pid };
	file->flags = kept->flags;
	file->writes = kept->writes;
	file->touch = kept->touch;
	file->adopted = kept->adopted;
	file->gone = kept->gone;
	file->number = kept->number;
	file->seen = OPEN_UNSEEN;
	file->files = files;
	take_texts(file);
	HASH_ADD(hh, files->table, number, sizeof(file->number), file);
	/* Whether what it has seen is still so nobody knows: whoever polls looks again. */
	if (kept->poll)
		open_file_set_poll(files, file, kept->poll, OPEN_UNSEEN);
}

void open_files_keep(struct open_files *files, struct kept *kept, struct journal *texts)
{
	files->kept = texts ? kept : NULL;
	files->texts = texts;
	kept_each_file(files->kept, open_again, files);
}

void open_files_clear(struct open_files *files)
{
	struct open_file *file, *next;

	HASH_ITER(hh, files->table, file, next)
		open_file_free(files, file);
}

static struct open_file *add(struct open_files *files, uint64_t number, const struct place *place)
{
	struct open_file *file = calloc(1, sizeof(*file));

	if (!file)
		abort();
	file->number = number;
	file->node = node_id(place);
	file->seen = OPEN_UNSEEN;
	if (!place_is_folder(place) && place->file->flags & FILE_LOG)
		event_log_open(place_log(place), &file->place);
	HASH_ADD(hh, files->table, number, sizeof(file->number), file);
	file->kept = kept_file_new(files->kept);
	file->files = files;
	if (file->kept)
		file->kept->end = 0;
	return file;
}

struct open_file *open_file_new(struct open_files *files, const struct place *place,
				const struct who *who, int flags)
{
	struct open_file *file = add(files, ++files->last, place);

	file->who = *who;
	file->flags = flags;
	return file;
}

struct open_file *open_file_of_request(const struct open_files *files, uint64_t request)
{
	struct open_file *file;

	for (file = files->table; file; file = file->hh.next)
		if (file->request == request)
			return file;
	return NULL;
}

struct open_file *open_file_find(const struct open_files *files, uint64_t number)
{
	struct open_file *file;

	HASH_FIND(hh, files->table, &number, sizeof(number), file);
	return file;
}

struct open_file *open_file_adopt(struct open_files *files, uint64_t number,
				  const struct place *place)
{
	struct open_file *file = open_file_find(files, number);

	if (file)
		return file->node == node_id(place) && !file->gone ? file : NULL;
	if (number >> LIFE_SHIFT == files->last >> LIFE_SHIFT)
		return NULL;
	file = add(files, number, place);
	file->who = (struct who){ .uid = (uid_t)-1, .gid = (gid_t)-1 };
	file->adopted = true;
	open_file_keep(file);
	return file;
}

void open_files_leave(struct open_files *files, uint64_t folder)
{
	struct open_file *file;

	for (file = files->table; file; file = file->hh.next) {
		if (file->gone || node_folder(file->node) != node_folder(folder))
			continue;
		file->gone = true;
		open_file_keep(file);
	}
}

static void free_list(struct open_file *file)
{
	for (size_t i = 0; i < file->listed; i++)
		free(file->list[i].name);
	free(file->list);
	file->list = NULL;
	file->listed = 0;
}

void open_file_free(struct open_files *files, struct open_file *file)
{
	forget_texts(file);
	kept_file_free(files->kept, file->kept);
	file->kept = NULL;
	open_file_set_poll(files, file, 0, 0);
	HASH_DEL(files->table, file);
	text_free(file->snapshot);
	text_free(file->answer);
	free_list(file);
	free(file);
}

void open_file_take_snapshot(struct open_file *file, struct text *text, uint64_t version,
			     size_t size)
{
	text_free(file->snapshot);
	file->snapshot = text;
	file->seen = version;
	keep_snapshot(file, size);
}

bool open_file_goes_on(const struct open_file *file, uint64_t offset, const struct text **text)
{
	*text = file->snapshot;
	return offset && (file->snapshot || (file->end && offset >= file->end));
}

void open_file_set_answer(struct open_file *file, const struct text *text, uint64_t end)
{
	if (!file->answer)
		file->answer = text_new();
	text_clear(file->answer);
	text_append(file->answer, text_bytes(text), text_length(text));
	file->answer_begun = false;
	file->answer_base = 0;
	file->answer_end = end;
	keep_answer(file);
}

bool open_file_answers(struct open_file *file, uint64_t offset, const char **bytes, size_t *left)
{
	size_t length;

	if (!file->answer)
		return false;
	if (offset == 0 && !text_length(file->answer)) {
		/* Nothing was answered: from the beginning it reads as for everybody. */
		text_free(file->answer);
		file->answer = NULL;
		return false;
	}
	if (!file->answer_begun || offset == 0) {
		file->answer_begun = true;
		file->answer_base = offset == file->answer_end ? offset : 0;
		keep_answer(file);
	}
	length = text_length(file->answer);
	if (offset < file->answer_base || offset - file->answer_base > length)
		offset = file->answer_base + length;
	*bytes = text_bytes(file->answer) + (offset - file->answer_base);
	*left = length - (offset - file->answer_base);
	return true;
}

static void list_one(void *data, const char *name, const struct place *child)
{
	struct open_file *file = data;

	file->list = realloc(file->list, (file->listed + 1) * sizeof(*file->list));
	if (!file->list)
		abort();
	file->list[file->listed++] = (struct listed){
		.name = strdup(name),
		.node = node_id(child),
		.mode = child->file ? child->file->mode : S_IFDIR | 0755,
	};
}

void open_file_list(struct open_file *file, const struct place *folder)
{
	struct place parent = node_parent(folder);

	free_list(file);
	list_one(file, ".", folder);
	list_one(file, "..", &parent);
	node_children(folder, list_one, file);
}

void open_file_set_poll(struct open_files *files, struct open_file *file, uint64_t poll,
			uint64_t version)
{
	uint64_t old = file->poll;

	if (poll && !old)
		DL_APPEND(files->pollers, file);
	else if (!poll && old)
		DL_DELETE(files->pollers, file);
	file->poll = poll;
	file->polled = version;
	if (poll != old)
		open_file_keep(file);
}
