/*
 * The root's `jobs`: a table for people, at most 80 columns wide; see fs/jobs_table.h. Reads the model only.
 *
 * Each cell is one word, so that awk and sort can have it too. Long names are cut in the middle, and told apart.
 */
#include "fs/jobs_table.h"

#include <assert.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include <wchar.h>

enum {
	TABLE_WIDTH = 80, /* columns at most */
	STATE_WIDTH = 9, /* aborting? */
	RATE_WIDTH = 7,
	LEFT_WIDTH = 6,
	BAR_WIDTH = 8, /* without its brackets */
	HASH_DIGITS = 4,
	ROW_BYTES = 4096, /* more than two names can be long, each byte told as \\xNN */
};

/* A name as it is, as one word, and as it is shown: mostly all the same string. */
struct name {
	const char *name, *word, *shown;
	size_t width, bytes; /* of what is shown; its width in columns */
};

struct table {
	const struct disk **disks; /* with a live job: one a line */
	struct name *domains, *names; /* of their domains, and their own */
	size_t count, room;
	size_t domain_width, disk_width, type_width;
};

/* --- names --- */

/* How many columns the character at @at takes, and how long it is. */
static size_t width_of(const char *at, size_t *length)
{
	mbstate_t state = { 0 };
	wchar_t character;
	size_t bytes = mbrtowc(&character, at, strlen(at), &state);
	int width = bytes + 1 > 1 && bytes < (size_t)-2 ? wcwidth(character) : -1;

	*length = bytes + 1 > 1 && bytes < (size_t)-2 ? bytes : 1;
	return width < 0 ? 1 : (size_t)width;
}

/* The length of @text if each byte is a character of one column, from @first on; else 0. */
static size_t ascii_length(const char *text, char first)
{
	const char *at = text;

	while (*at >= first && *at <= '~')
		at++;
	return *at ? 0 : (size_t)(at - text);
}

static size_t text_width(const char *text)
{
	size_t width = ascii_length(text, ' '), length;

	if (width) /* nearly all are, and asking the locale about each character takes its time */
		return width;
	for (; *text; text += length)
		width += width_of(text, &length);
	return width;
}

/* The bytes of @text that fit into so many columns from its beginning on. */
static size_t head_bytes(const char *text, size_t columns)
{
	size_t bytes = 0, length;

	while (text[bytes]) {
		size_t width = width_of(text + bytes, &length);

		if (width > columns)
			break;
		columns -= width;
		bytes += length;
	}
	return bytes;
}

static const char *tail(const char *text, size_t columns)
{
	size_t length;

	while (*text && text_width(text) > columns) {
		width_of(text, &length);
		text += length;
	}
	return text;
}

/* A name as one word that a terminal may show. */
static char *word_of(const char *name)
{
	struct text *safe = text_new(), *word = text_new();
	char *copy;

	text_put_safe(safe, name, strlen(name));
	for (const char *at = text_bytes(safe); *at; at++)
		if (*at == ' ')
			text_puts(word, "\\x20");
		else
			text_append(word, at, 1);
	copy = strdup(text_bytes(word));
	text_free(safe);
	text_free(word);
	return copy;
}

static char *cut(const char *word, const char *end, size_t columns)
{
	size_t left = columns - 1 - text_width(end);
	char *result;

	if (asprintf(&result, "%.*s…%s", (int)head_bytes(word, left), word, end) < 0)
		abort();
	return result;
}

/* FNV-1a, as far as it is shown. */
static char *cut_with_hash(const char *word, size_t columns)
{
	uint32_t hash = 2166136261;
	char digits[HASH_DIGITS + 1];

	for (const char *at = word; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619;
	snprintf(digits, sizeof(digits), "%0*x", HASH_DIGITS, (hash ^ hash >> 16) & 0xffff);
	return cut(word, digits, columns);
}

/* The middle goes: names of a kind differ at the end. */
static char *cut_middle(const char *word, size_t columns)
{
	return cut(word, tail(word, (columns - 1) / 2), columns);
}

static int compare_shown(const void *a, const void *b)
{
	const struct name *const *one = a, *const *other = b;

	return strcmp((*one)->shown, (*other)->shown);
}

static void measure(struct name *name)
{
	name->width = text_width(name->shown);
	name->bytes = strlen(name->shown);
}

static void tell_apart(struct name *name, size_t columns)
{
	char *hashed = cut_with_hash(name->word, columns);

	if (name->shown != name->word)
		free((char *)name->shown);
	name->shown = hashed;
	measure(name);
}

/* Names that are shown alike, though they are not, are cut once more, as no other is. */
static void tell_all_apart(struct name *names, size_t count, size_t columns)
{
	struct name **sorted = calloc(count + 1, sizeof(struct name *));
	size_t same;

	if (!sorted)
		abort();
	for (size_t i = 0; i < count; i++)
		sorted[i] = &names[i];
	qsort(sorted, count, sizeof(struct name *), compare_shown);
	for (size_t i = 0; i < count; i += same) {
		bool alike = false;

		for (same = 1; i + same < count && !compare_shown(&sorted[i], &sorted[i + same]);
		     same++)
			alike |= strcmp(sorted[i]->name, sorted[i + same]->name) != 0;
		for (size_t j = i; alike && j < i + same; j++)
			tell_apart(sorted[j], columns);
	}
	free(sorted);
}

/* Cuts what is wider than so many columns. */
static void cut_names(struct name *names, size_t count, size_t columns)
{
	bool all_as_they_are = true;

	for (size_t i = 0; i < count; i++) {
		if (names[i].width > columns) {
			names[i].shown = cut_middle(names[i].word, columns);
			measure(&names[i]);
		}
		all_as_they_are &= names[i].shown == names[i].name;
	}
	if (!all_as_they_are)
		tell_all_apart(names, count, columns);
}

/* --- rows --- */

static void collect(struct table *table, const struct model *model)
{
	const struct domain *domain;
	const struct disk *disk;

	DL_FOREACH(model->domains, domain) {
		domain_prefetch(domain);
		DL_FOREACH(domain->disks, disk) {
			if (!disk_is_busy(disk))
				continue;
			if (table->count == table->room) {
				table->room = 2 * table->room + 8;
				table->disks =
					realloc(table->disks, table->room * sizeof(*table->disks));
				if (!table->disks)
					abort();
			}
			table->disks[table->count++] = disk;
		}
	}
}

/* What the names may take: all that the other columns leave, and if that is not enough a bit more for the domain than for the disk. */
static void share_width(struct table *table)
{
	size_t others = table->type_width + 1 + STATE_WIDTH + 1 + BAR_WIDTH + 2 + 1 +
			strlen("100%") + 1 + RATE_WIDTH + 1 + LEFT_WIDTH;
	size_t room = TABLE_WIDTH - others - 2, half = room * 6 / 13;

	if (table->domain_width + table->disk_width <= room)
		return;
	if (table->disk_width > half)
		table->disk_width =
			table->domain_width < room - half ? room - table->domain_width : half;
	table->domain_width = room - table->disk_width;
}

static void widen(size_t *width, size_t wanted)
{
	if (wanted > *width)
		*width = wanted;
}

static void name_set(struct name *name, const char *text)
{
	size_t plain = ascii_length(text, '!');

	name->name = text;
	name->word = name->shown = plain ? text : word_of(text);
	name->width = name->bytes = plain;
	if (!plain)
		measure(name);
}

static void name_clear(struct name *name)
{
	if (name->shown != name->word)
		free((char *)name->shown);
	if (name->word != name->name)
		free((char *)name->word);
}

static void name_rows(struct table *table)
{
	table->domains = calloc(table->count + 1, sizeof(*table->domains));
	table->names = calloc(table->count + 1, sizeof(*table->names));
	if (!table->domains || !table->names)
		abort();
	for (size_t i = 0; i < table->count; i++) {
		const struct disk *disk = table->disks[i];

		name_set(&table->domains[i], disk->domain->name);
		name_set(&table->names[i], disk->name);
		widen(&table->domain_width, table->domains[i].width);
		widen(&table->disk_width, table->names[i].width);
		widen(&table->type_width, strlen(disk->job->type));
	}
	share_width(table);
	cut_names(table->domains, table->count, table->domain_width);
	cut_names(table->names, table->count, table->disk_width);
}

static void table_clear(struct table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		name_clear(&table->domains[i]);
		name_clear(&table->names[i]);
	}
	free(table->domains);
	free(table->names);
	free(table->disks);
}

/* --- cells: each is put at @at; returns what is behind it. (printf(3) would be most of the work of a row.) --- */

static char *put_blanks(char *at, size_t count)
{
	memset(at, ' ', count);
	return at + count;
}

static char *put_bytes(char *at, const char *bytes, size_t count)
{
	memcpy(at, bytes, count);
	return at + count;
}

/* What fills the cell behind a word of @used columns, and one blank more. */
static char *put_rest(char *at, size_t used, size_t width)
{
	return put_blanks(at, used <= width ? width + 1 - used : 0);
}

static char *put_right(char *at, const char *word, size_t used, size_t width)
{
	return put_bytes(put_blanks(at, used < width ? width - used : 0), word, used);
}

static char *put_word(char *at, const char *word, size_t width)
{
	size_t used = strlen(word);

	return put_rest(put_bytes(at, word, used), used, width);
}

static char *put_name(char *at, const struct name *name, size_t width)
{
	return put_rest(put_bytes(at, name->shown, name->bytes), name->width, width);
}

/* The mark: QEMU has not answered lately, and these are its last figures. */
static char *put_state(char *at, const struct disk *disk)
{
	const char *status = disk_status(disk);
	size_t used = strlen(status);

	at = put_bytes(at, status, used);
	if (domain_is_late(disk->domain)) {
		*at++ = '?';
		used++;
	}
	return put_rest(at, used, STATE_WIDTH);
}

static int percent(const struct job *job)
{
	int64_t cur, end;

	job_progress(job, &cur, &end);
	return end > 0 ? (int)((double)cur * 100 / (double)end) : 0;
}

/* A number of at least so many digits. */
static char *put_digits(char *at, int64_t number, int least)
{
	char reversed[20];
	int count = 0;

	for (; number || count < least; number /= 10)
		reversed[count++] = (char)('0' + number % 10);
	while (count)
		*at++ = reversed[--count];
	return at;
}

/* "[####....]  50% " */
static char *put_bar(char *at, int done)
{
	size_t full = (size_t)done * BAR_WIDTH / 100;
	char number[8], *end = put_digits(number, done, 1);

	*end++ = '%';
	*at++ = '[';
	memset(at, '#', full);
	memset(at + full, '.', BAR_WIDTH - full);
	at += BAR_WIDTH;
	*at++ = ']';
	*at++ = ' ';
	at = put_right(at, number, (size_t)(end - number), strlen("100%"));
	*at++ = ' ';
	return at;
}

/* At most RATE_WIDTH columns: "9.8M/s", "1023M/s". */
static char *put_rate(char *at, const struct job *job)
{
	static const char units[] = "BKMGTP";
	int64_t rate = job->rate;
	char word[32] = "-", *end = word;
	size_t unit = 0;

	while (rate >= 10240 && units[unit + 1]) {
		rate /= 1024;
		unit++;
	}
	if (rate >= 1024 && units[unit + 1]) {
		end = put_digits(end, rate / 1024, 1);
		*end++ = '.';
		end = put_digits(end, rate % 1024 * 10 / 1024, 1);
		unit++;
	} else if (rate > 0) {
		end = put_digits(end, rate, 1);
	} else {
		end++;
	}
	if (rate > 0) {
		*end++ = units[unit];
		end = put_bytes(end, "/s", 2);
	}
	at = put_right(at, word, (size_t)(end - word), RATE_WIDTH);
	*at++ = ' ';
	return at;
}

/* At most LEFT_WIDTH columns: "59m59s", "23h59m", "99d23h". */
static char *put_left_time(char *at, int64_t seconds)
{
	enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };
	static const struct {
		int64_t large, small;
		char units[2];
	} scales[] = { { DAY, HOUR, "dh" }, { HOUR, MINUTE, "hm" }, { MINUTE, 1, "ms" } };
	char word[32], *end = word;

	for (size_t i = 0; i < sizeof(scales) / sizeof(*scales) && end == word; i++) {
		if (seconds < scales[i].large)
			continue;
		end = put_digits(end, seconds / scales[i].large, 1);
		*end++ = scales[i].units[0];
		end = put_digits(end, seconds % scales[i].large / scales[i].small, 2);
		*end++ = scales[i].units[1];
	}
	if (seconds >= 100 * DAY) {
		end = put_bytes(word, ">99d", 4);
	} else if (seconds < 0) {
		end = put_bytes(word, "-", 1);
	} else if (end == word) {
		end = put_digits(end, seconds, 1);
		*end++ = 's';
	}
	at = put_right(at, word, (size_t)(end - word), LEFT_WIDTH);
	*at++ = '\n';
	return at;
}

/* --- lines --- */

static void put_row(struct text *out, const struct table *table, size_t row)
{
	const struct name *domain = &table->domains[row], *name = &table->names[row];
	const struct disk *disk = table->disks[row];
	char line[ROW_BYTES], *at = line;

	assert(domain->bytes + name->bytes < ROW_BYTES / 2);
	at = put_name(at, domain, table->domain_width);
	at = put_name(at, name, table->disk_width);
	at = put_word(at, disk->job->type, table->type_width);
	at = put_state(at, disk);
	at = put_bar(at, percent(disk->job));
	at = put_rate(at, disk->job);
	at = put_left_time(at, job_eta(disk->job));
	text_append(out, line, (size_t)(at - line));
}

static void put_header(struct text *out, const struct table *table)
{
	char line[ROW_BYTES], *at = line;

	at = put_word(at, "DOMAIN", table->domain_width);
	at = put_word(at, "DISK", table->disk_width);
	at = put_word(at, "TYPE", table->type_width);
	at = put_word(at, "STATE", STATE_WIDTH);
	at = put_word(at, "PROGRESS", BAR_WIDTH + 2 + strlen(" 100%"));
	at = put_right(at, "RATE", strlen("RATE"), RATE_WIDTH);
	*at++ = ' ';
	at = put_right(at, "LEFT", strlen("LEFT"), LEFT_WIDTH);
	*at++ = '\n';
	text_append(out, line, (size_t)(at - line));
}

static void put_table(struct text *out, const struct model *model)
{
	struct table table = {
		.domain_width = strlen("DOMAIN"),
		.disk_width = strlen("DISK"),
		.type_width = strlen("TYPE"),
	};

	collect(&table, model);
	name_rows(&table);
	put_header(out, &table);
	for (size_t i = 0; i < table.count; i++)
		put_row(out, &table, i);
	table_clear(&table);
}

void show_jobs(const struct place *place, struct text *out)
{
	/* How wide a character is only a locale knows; the daemon's own may be none of UTF-8. To have one takes files. */
	static locale_t locale;
	locale_t before = NULL;

	if (!locale)
		locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
	if (locale)
		before = uselocale(locale);
	put_table(out, place->model);
	if (locale)
		uselocale(before);
}
