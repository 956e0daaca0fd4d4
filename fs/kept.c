/*
 * What is kept of a session; see fs/kept.h.
 */
#include "fs/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	INIT_MAX = 4096,
	WAITING_MAX = 8192,
	FILES_MAX = 256 << 10,
	MESSAGE_MAX = 2 << 20, /* libfuse reads 1 MiB and a page */
};

struct memory {
	char magic[8];
	uint32_t size; /* of all this: another version has another one */
	_Atomic uint32_t init_length;
	_Atomic uint32_t files_used; /* places that have ever been */
	char init[INIT_MAX];
	struct {
		_Atomic uint64_t unique; /* 0: none */
		uint64_t since;
	} waiting[WAITING_MAX];
	struct kept_file files[FILES_MAX];
	char message[MESSAGE_MAX] __attribute__((aligned(4096)));
};

#define MAGIC "bjfskep2"

struct kept {
	struct memory *memory;
	uint32_t *free_files; /* places that are free again, a stack */
	size_t free_count, free_room;
	size_t waits_from; /* where the next free place for a request is looked for */
};

int kept_new(void)
{
	const uint32_t size = sizeof(struct memory);
	int fd = memfd_create("blockjobfs-session", MFD_CLOEXEC), error;

	if (fd >= 0 && ftruncate(fd, sizeof(struct memory)) == 0 &&
	    pwrite(fd, &size, sizeof(size), offsetof(struct memory, size)) == sizeof(size) &&
	    pwrite(fd, MAGIC, 8, 0) == 8)
		return fd;
	error = -errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static void free_place(struct kept *kept, uint32_t place)
{
	if (kept->free_count == kept->free_room) {
		kept->free_room = kept->free_room ? 2 * kept->free_room : 64;
		kept->free_files =
			realloc(kept->free_files, kept->free_room * sizeof(*kept->free_files));
		if (!kept->free_files)
			abort();
	}
	kept->free_files[kept->free_count++] = place;
}

struct kept *kept_open(int fd)
{
	struct kept *kept;
	struct stat status;
	struct memory *memory;

	if (fstat(fd, &status) || status.st_size != (off_t)sizeof(struct memory))
		return NULL;
	memory = mmap(NULL, sizeof(struct memory), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (memory == MAP_FAILED)
		return NULL;
	if (memcmp(memory->magic, MAGIC, 8) || memory->size != sizeof(struct memory) ||
	    memory->init_length > INIT_MAX || memory->files_used > FILES_MAX) {
		munmap(memory, sizeof(struct memory));
		return NULL;
	}
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		abort();
	kept->memory = memory;
	for (uint32_t place = memory->files_used; place-- > 0;)
		if (!memory->files[place].number)
			free_place(kept, place);
	return kept;
}

void kept_close(struct kept *kept)
{
	if (!kept)
		return;
	munmap(kept->memory, sizeof(struct memory));
	free(kept->free_files);
	free(kept);
}

/* --- INIT --- */

void kept_set_init(struct kept *kept, const void *bytes, size_t length)
{
	if (!kept || length > INIT_MAX)
		return;
	memcpy(kept->memory->init, bytes, length);
	kept->memory->init_length = (uint32_t)length;
}

const void *kept_init(const struct kept *kept, size_t *length)
{
	*length = kept ? kept->memory->init_length : 0;
	return *length ? kept->memory->init : NULL;
}

/* --- requests --- */

void *kept_message(struct kept *kept, size_t size)
{
	return kept && size <= MESSAGE_MAX ? kept->memory->message : NULL;
}

/* The place of a request, however often it was sent; WAITING_MAX: it has none. */
static size_t find_waiting(const struct kept *kept, uint64_t number)
{
	const uint64_t mask = ~(UINT64_C(1) << 63); /* the kernel's mark of what is sent again */
	size_t place = 0;

	while (place < WAITING_MAX && (kept->memory->waiting[place].unique & mask) != number)
		place++;
	return place;
}

uint64_t kept_waits(struct kept *kept, uint64_t unique, uint64_t number, uint64_t now)
{
	size_t place = WAITING_MAX;

	if (!kept)
		return now;
	if (unique != number)
		place = find_waiting(kept, number);
	if (place < WAITING_MAX) {
		kept->memory->waiting[place].unique = unique;
		return kept->memory->waiting[place].since;
	}
	for (size_t i = 0; i < WAITING_MAX; i++) {
		place = (kept->waits_from + i) % WAITING_MAX;
		if (kept->memory->waiting[place].unique)
			continue;
		kept->memory->waiting[place].since = now;
		kept->memory->waiting[place].unique = unique;
		kept->waits_from = place + 1;
		break;
	}
	return now;
}

void kept_answered(struct kept *kept, uint64_t unique)
{
	/* The one that came last is most often the one that goes first. */
	for (size_t i = 0; kept && i < WAITING_MAX; i++) {
		size_t place = (kept->waits_from + WAITING_MAX - 1 - i) % WAITING_MAX;

		if (kept->memory->waiting[place].unique != unique)
			continue;
		kept->memory->waiting[place].unique = 0;
		kept->waits_from = place;
		return;
	}
}

void kept_each_waiting(struct kept *kept, void (*each)(void *data, uint64_t unique), void *data)
{
	/* length, opcode, unique: fuse_in_header of linux/fuse.h. */
	uint64_t last;

	if (!kept)
		return;
	memcpy(&last, kept->memory->message + 8, sizeof(last));
	if (last)
		each(data, last);
	for (size_t i = 0; i < WAITING_MAX; i++) {
		uint64_t unique = kept->memory->waiting[i].unique;

		if (unique && unique != last)
			each(data, unique);
		kept->memory->waiting[i].unique = 0;
	}
}

/* --- open files --- */

struct kept_file *kept_file_new(struct kept *kept)
{
	uint32_t place;

	if (!kept)
		return NULL;
	if (kept->free_count)
		place = kept->free_files[--kept->free_count];
	else if (kept->memory->files_used < FILES_MAX)
		place = kept->memory->files_used++;
	else
		return NULL;
	return &kept->memory->files[place];
}

void kept_file_free(struct kept *kept, struct kept_file *file)
{
	if (!kept || !file)
		return;
	file->number = 0;
	free_place(kept, (uint32_t)(file - kept->memory->files));
}

void kept_each_file(struct kept *kept, void (*each)(void *data, struct kept_file *file), void *data)
{
	for (uint32_t place = 0; kept && place < kept->memory->files_used; place++)
		if (kept->memory->files[place].number)
			each(data, &kept->memory->files[place]);
}
