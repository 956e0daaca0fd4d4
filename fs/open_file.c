/*
 * Open files and folders, by number; see fs/open_file.h.
 */
#include "fs/open_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <utlist.h>
#include "fs/kept.h"
#include "fs/node.h"

enum {
	LIFE_SHIFT =
		32, /* more files than 2^32 in one life carry over into the next number: harmless */
};

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

static void open_again(void *data, struct kept_file *kept)
{
	struct open_files *files = data;
	struct open_file *file = calloc(1, sizeof(*file));

	if (!file)
		abort();
	file->kept = kept;
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
	HASH_ADD(hh, files->table, number, sizeof(file->number), file);
	/* Whether what it has seen is still so nobody knows: whoever polls looks again. */
	if (kept->poll)
		open_file_set_poll(files, file, kept->poll, OPEN_UNSEEN);
}

void open_files_keep(struct open_files *files, struct kept *kept)
{
	files->kept = kept;
	kept_each_file(kept, open_again, files);
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
	kept_file_free(files->kept, file->kept);
	file->kept = NULL;
	open_file_set_poll(files, file, 0, 0);
	HASH_DEL(files->table, file);
	text_free(file->snapshot);
	text_free(file->answer);
	free_list(file);
	free(file);
}

void open_file_take_snapshot(struct open_file *file, struct text *text, uint64_t version)
{
	text_free(file->snapshot);
	file->snapshot = text;
	file->seen = version;
}

void open_file_set_answer(struct open_file *file, const struct text *text, uint64_t end)
{
	if (!file->answer)
		file->answer = text_new();
	text_clear(file->answer);
	text_append(file->answer, text_bytes(text), text_length(text));
	file->answer_begun = false;
	file->answer_end = end;
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
