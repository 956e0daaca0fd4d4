/*
 * Many who read the same file at once, over and over: `make bench` looks how many questions that costs QEMU.
 *
 *	readers PATH THREADS SECONDS
 *
 * Prints the number of reads that were answered.
 */
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *path;
static atomic_bool over;
static atomic_ulong reads;

static void *read_on(void *data)
{
	char bytes[4096];

	while (!over) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || read(fd, bytes, sizeof(bytes)) <= 0)
			err(1, "%s", path);
		close(fd);
		reads++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc > 3 ? atoi(argv[2]) : 0;
	pthread_t *ids = calloc((size_t)threads, sizeof(*ids));

	if (threads < 1 || !ids)
		errx(2, "usage: readers PATH THREADS SECONDS");
	path = argv[1];
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, read_on, NULL))
			errx(1, "pthread_create");
	sleep((unsigned)atoi(argv[3]));
	over = true;
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	printf("%lu\n", (unsigned long)reads);
	return 0;
}
