/*
 * What all rows of the file tables have in common: content, size, time. Called by fs/ops.c,
 * fs/io.c and fs/node.c; knows the rows only through struct file.
 */
#include "fs/files.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "fs/by_source.h"

const struct file *place_table(const struct place *place)
{
	if (place->disk)
		return disk_files;
	return place->domain ? domain_files : root_files;
}

const struct file *file_find(const struct file *table, const char *name)
{
	for (; table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

bool place_is_folder(const struct place *place)
{
	return !place->file || S_ISDIR(place->file->mode);
}

const struct stamp *place_stamp(const struct place *place)
{
	/* The entries of a domain's or disk's own folder are the rows: they never change. */
	enum topic topic = place->file ? place->file->topic : TOPIC_FIXED;

	if (place->disk)
		return &place->disk->stamps[topic];
	return place->domain ? &place->domain->stamps[topic] : &place->model->stamps[topic];
}

struct event_log *place_log(const struct place *place)
{
	if (place->disk)
		return &place->disk->log;
	return place->domain ? &place->domain->log : &place->model->log;
}

struct target place_target(const struct place *place)
{
	return (struct target){
		.model = place->model,
		.domain = place->disk ? NULL : place->domain,
		.disk = place->disk,
	};
}

void place_show(const struct place *place, struct text *out)
{
	const struct file *file = place->file;

	if (file->flags & FILE_LOG) {
		const struct event_log *log = place_log(place);

		text_append(out, log->bytes, event_log_size(log));
	} else if (file->show) {
		file->show(place, out);
	} else {
		grammar_usage(out, file->name, file->keys, file->help);
	}
}

/* What `wait` will read as is not known yet; a size that is too short would cut it off in sendfile(2), one too long does no harm. */
static size_t size_of_what_blocks(const struct place *place)
{
	return strlen(disk_is_busy(place->disk) ? "completed" : disk_status(place->disk)) + 1;
}

static size_t size_of_link(const struct place *link)
{
	char *target = source_link_target(link);
	size_t size = target ? strlen(target) : 0;

	free(target);
	return size;
}

static size_t size_of(const struct place *place, struct text **content)
{
	if (*content)
		return text_length(*content);
	if (place_is_folder(place))
		return 0;
	if (place->link)
		return size_of_link(place);
	if (place->file->flags & FILE_LOG)
		return event_log_size(place_log(place));
	if (place->file->flags & FILE_WAITS)
		return size_of_what_blocks(place);
	*content = text_new();
	place_show(place, *content);
	return text_length(*content);
}

static nlink_t count_links(const struct place *place)
{
	nlink_t links = 2; /* its name and its own "." */

	if (!place_is_folder(place))
		return 1;
	if (!place->file) {
		for (const struct file *file = place_table(place); file->name; file++)
			links += S_ISDIR(file->mode);
	} else if (place->file->flags & FILE_LINKS) {
		return links;
	} else if (place->domain) {
		for (struct disk *disk = place->domain->disks; disk; disk = disk->next)
			links++;
	} else {
		links += HASH_CNT(by_name, place->model->by_name);
	}
	return links;
}

void place_stat(const struct place *place, struct stat *stat, struct text **content)
{
	struct timespec time = place_stamp(place)->time;

	*stat = (struct stat){
		.st_mode = place->file ? place->file->mode : S_IFDIR | 0755,
		.st_nlink = count_links(place),
		.st_size = (off_t)size_of(place, content),
		.st_blksize = 4096,
		.st_atim = time,
		.st_mtim = time,
		.st_ctim = time,
	};
	stat->st_blocks = (stat->st_size + 511) / 512;
}

void show_line(struct text *out, const char *string)
{
	for (const char *at = string; *at; at++) {
		unsigned char byte = (unsigned char)*at;

		if (byte == '\\')
			text_puts(out, "\\\\");
		else if (byte == '\n')
			text_puts(out, "\\n");
		else if (byte == '\t')
			text_puts(out, "\\t");
		else if (byte < ' ' || byte == 127)
			text_printf(out, "\\%03o", byte);
		else
			text_append(out, at, 1);
	}
}
