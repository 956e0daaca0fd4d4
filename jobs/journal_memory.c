/*
 * A journal in shared memory; see journal_memory.h. Its bytes are those of jobs/journal_format.h.
 */
#include "jobs/journal_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/journal_format.h"
#include "jobs/text.h"

enum {
	HEAD = 4096,
	HALF = 256 << 20, /* of addresses: memory is taken as it is written to */
	SLACK = 256 << 10, /* so much may be outdated, and a quarter of what is not */
};

#define MAGIC "bjfsmem1"

struct head {
	char magic[8];
	_Atomic uint32_t active; /* 0 or 1: the half that counts */
	_Atomic uint64_t used[2]; /* bytes */
};

struct journal_memory {
	struct head *head;
	struct journal_table table;
	int fd;
};

static const size_t whole = HEAD + 2 * (size_t)HALF;

static char *half(const struct journal_memory *memory, unsigned number)
{
	return (char *)memory->head + HEAD + number * (size_t)HALF;
}

int journal_memory_new(void)
{
	int fd = memfd_create("blockjobfs-model", MFD_CLOEXEC), error;

	if (fd >= 0 && ftruncate(fd, (off_t)whole) == 0 &&
	    pwrite(fd, MAGIC, sizeof(MAGIC) - 1, 0) == sizeof(MAGIC) - 1)
		return fd;
	error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

struct journal_memory *journal_memory_open(int fd, const struct journal_table *table)
{
	struct journal_memory *memory;
	struct journal_scan scan = { .each = table->found, .data = table->data };
	struct stat status;
	unsigned active;
	uint64_t used;
	void *at;

	if (fstat(fd, &status) || status.st_size != (off_t)whole)
		return NULL;
	at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (at == MAP_FAILED)
		return NULL;
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		abort();
	memory->head = at;
	memory->table = *table;
	memory->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	active = atomic_load(&memory->head->active);
	used = active < 2 ? atomic_load(&memory->head->used[active]) : HALF + 1;
	if (memcmp(memory->head->magic, MAGIC, sizeof(memory->head->magic)) || used > HALF) {
		journal_memory_free(memory);
		return NULL;
	}
	journal_format_scan(&scan, half(memory, active), used);
	return memory;
}

/* Where records are being put. */
struct place {
	char *at;
	size_t left;
};

static void put(void *to, const char *key, const char *value)
{
	struct place *place = to;
	struct text *record = text_new();
	size_t length;

	journal_format_record(record, key, value);
	length = text_length(record);
	if (length <= place->left) {
		memcpy(place->at, text_bytes(record), length);
		place->at += length;
		place->left -= length;
	}
	text_free(record);
}

/* Only what is in the table, in the other half. */
static void write_anew(struct journal_memory *memory)
{
	unsigned active = atomic_load(&memory->head->active), other = !active;
	struct place place = { half(memory, other), HALF };

	memory->table.each(memory->table.data, put, &place);
	atomic_store(&memory->head->used[other], HALF - place.left);
	atomic_store(&memory->head->active, other);
	/* The memory of the half that counted is given back. */
	fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		  HEAD + active * (off_t)HALF, HALF);
}

void journal_memory_append(struct journal_memory *memory, const char *key, const char *value,
			   size_t live)
{
	unsigned active = atomic_load(&memory->head->active);
	uint64_t used = atomic_load(&memory->head->used[active]);
	struct place place = { half(memory, active) + used, HALF - used };

	if (journal_format_length(key, value) > place.left && live > HALF / 4 * 3)
		return; /* writing it all anew, again and again, makes no room */
	if (journal_format_length(key, value) > place.left || used > live + live / 4 + SLACK) {
		write_anew(memory); /* with this one in it */
		return;
	}
	put(&place, key, value);
	atomic_store(&memory->head->used[active], HALF - place.left);
}

void journal_memory_free(struct journal_memory *memory)
{
	munmap(memory->head, whole);
	if (memory->fd >= 0)
		close(memory->fd);
	free(memory);
}
