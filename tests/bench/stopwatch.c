/*
 * Measures two ways of doing something in turn, so that whatever else the machine does falls on both. Used by `make bench`:
 *
 *	stopwatch ROUNDS a STEP... b STEP... [after-a STEP...] [after-b STEP...] [before-a ...] [before-b ...]
 *
 * A STEP is one of
 *
 *	read PATH		open, read to the end, close
 *	pread PATH		read at offset 0 of a file that stays open
 *	write PATH TEXT		open, write, close; %d in TEXT and PATH is the number of the round
 *	ask SOCKET JSON		send a raw QMP command and read up to its answer; %d as above
 *	event SOCKET TEXT	read up to a line with TEXT in it
 *
 * Only `a` and `b` are timed. Each SOCKET has one connection for the whole run: this is the smallest possible QMP client. Prints
 * one line of JSON: medians in microseconds, the median of the rounds' ratios a/b, and its spread (10th and 90th percentile).
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	STEPS_MAX = 16,
	SOCKETS_MAX = 8,
	LINE_MAX_ = 1 << 20,
	WARM_UP = 3, /* rounds that do not count */
};

struct monitor {
	const char *path;
	int fd;
	char *line; /* bytes that were read and not looked at yet */
	size_t filled;
};

struct step {
	const char *verb, *path, *text;
	int fd; /* of pread */
	struct monitor *monitor;
};

struct list {
	const char *name;
	struct step steps[STEPS_MAX];
	size_t count;
};

static struct list lists[] = {
	{ .name = "before-a" }, { .name = "a" }, { .name = "after-a" },
	{ .name = "before-b" }, { .name = "b" }, { .name = "after-b" },
};

#define LISTS (sizeof(lists) / sizeof(*lists))

static struct monitor monitors[SOCKETS_MAX];

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* --- a raw QMP client --- */

static void send_all(int fd, const char *bytes, size_t length)
{
	if (write(fd, bytes, length) != (ssize_t)length)
		err(1, "monitor");
}

/* Reads lines until one has @text in it. */
static void read_until(struct monitor *monitor, const char *text)
{
	for (;;) {
		char *end = memchr(monitor->line, '\n', monitor->filled);
		ssize_t length;

		if (end) {
			bool found;

			*end = '\0';
			found = strstr(monitor->line, text) != NULL;
			monitor->filled -= (size_t)(end + 1 - monitor->line);
			memmove(monitor->line, end + 1, monitor->filled);
			if (found)
				return;
			continue;
		}
		length = read(monitor->fd, monitor->line + monitor->filled,
			      LINE_MAX_ - monitor->filled);
		if (length <= 0)
			errx(1, "%s: the monitor hung up while waiting for %s", monitor->path,
			     text);
		monitor->filled += (size_t)length;
	}
}

static struct monitor *monitor_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct monitor *monitor = monitors;

	while (monitor->path && strcmp(monitor->path, path))
		monitor++;
	if (monitor->path)
		return monitor;
	monitor->path = path;
	monitor->line = malloc(LINE_MAX_);
	monitor->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (!monitor->line || connect(monitor->fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "%s", path);
	read_until(monitor, "\"QMP\"");
	send_all(monitor->fd, "{\"execute\":\"qmp_capabilities\"}\n", 31);
	read_until(monitor, "\"return\"");
	return monitor;
}

static void ask(struct step *step, const char *text)
{
	char command[4096];
	int length = snprintf(command, sizeof(command), "%s\n", text);

	send_all(step->monitor->fd, command, (size_t)length);
	/* An answer is the first line that is no event. */
	for (;;) {
		struct monitor *monitor = step->monitor;
		char *end;
		bool answer;
		ssize_t got;

		end = memchr(monitor->line, '\n', monitor->filled);
		if (!end) {
			got = read(monitor->fd, monitor->line + monitor->filled,
				   LINE_MAX_ - monitor->filled);
			if (got <= 0)
				errx(1, "%s: the monitor hung up", monitor->path);
			monitor->filled += (size_t)got;
			continue;
		}
		*end = '\0';
		if (strstr(monitor->line, "\"error\": {\"class\""))
			errx(1, "%s: %s: %s", monitor->path, text, monitor->line);
		answer = !strstr(monitor->line, "\"event\"");
		monitor->filled -= (size_t)(end + 1 - monitor->line);
		memmove(monitor->line, end + 1, monitor->filled);
		if (answer)
			return;
	}
}

/* --- steps --- */

/* @text with the first %d replaced by the number of the round. */
static void number(char *out, size_t size, const char *text, int round)
{
	const char *at = strstr(text, "%d");

	if (at)
		snprintf(out, size, "%.*s%d%s", (int)(at - text), text, round, at + 2);
	else
		snprintf(out, size, "%s", text);
}

static void read_file(const char *path)
{
	char bytes[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, bytes, sizeof(bytes)) < 0)
		err(1, "%s", path);
	close(fd);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		err(1, "%s: %s", path, text);
	close(fd);
}

static void step_run(struct step *step, int round)
{
	char path[4096], text[4096] = "";

	number(path, sizeof(path), step->path, round);
	if (step->text)
		number(text, sizeof(text), step->text, round);
	if (!strcmp(step->verb, "read"))
		read_file(path);
	else if (!strcmp(step->verb, "write"))
		write_file(path, text);
	else if (!strcmp(step->verb, "ask"))
		ask(step, text);
	else if (!strcmp(step->verb, "event"))
		read_until(step->monitor, text);
	else if (pread(step->fd, text, sizeof(text), 0) < 0)
		err(1, "%s", path);
}

/* Reads one step from @words; the number of words it took. */
static int step_read(struct step *step, char **words, int count)
{
	bool two = !strcmp(words[0], "write") || !strcmp(words[0], "ask") ||
		   !strcmp(words[0], "event");

	if (count < 2 + two)
		errx(2, "%s: words are missing", words[0]);
	*step = (struct step){ .verb = words[0], .path = words[1], .text = two ? words[2] : NULL };
	if (!strcmp(step->verb, "ask") || !strcmp(step->verb, "event"))
		step->monitor = monitor_of(step->path);
	else if (!strcmp(step->verb, "pread") && (step->fd = open(step->path, O_RDONLY)) < 0)
		err(1, "%s", step->path);
	else if (strcmp(step->verb, "pread") && strcmp(step->verb, "read") &&
		 strcmp(step->verb, "write"))
		errx(2, "%s: no such step", step->verb);
	return 2 + two;
}

static struct list *list_of(const char *name)
{
	for (size_t i = 0; i < LISTS; i++)
		if (!strcmp(lists[i].name, name))
			return &lists[i];
	return NULL;
}

static double list_run(const char *name, int round)
{
	struct list *list = list_of(name);
	double began = now_us();

	for (size_t i = 0; i < list->count; i++)
		step_run(&list->steps[i], round);
	return now_us() - began;
}

/* --- figures --- */

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

static double part(const double *sorted, int count, double share)
{
	return sorted[(int)((count - 1) * share + 0.5)];
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 0;
	double *a, *b, *ratio;
	struct list *list = NULL;

	if (rounds < 1)
		errx(2, "usage: stopwatch ROUNDS a STEP... b STEP...");
	for (int i = 2; i < argc;) {
		struct list *next = list_of(argv[i]);

		if (next) {
			list = next;
			i++;
			continue;
		}
		if (!list || list->count == STEPS_MAX)
			errx(2, "%s: unexpected", argv[i]);
		i += step_read(&list->steps[list->count++], argv + i, argc - i);
	}
	a = calloc((size_t)rounds * 3, sizeof(*a));
	if (!a)
		err(1, "memory");
	b = a + rounds;
	ratio = b + rounds;
	for (int i = -WARM_UP; i < rounds; i++) {
		double took[2];

		list_run("before-a", i + WARM_UP);
		took[0] = list_run("a", i + WARM_UP);
		list_run("after-a", i + WARM_UP);
		list_run("before-b", i + WARM_UP);
		took[1] = list_run("b", i + WARM_UP);
		list_run("after-b", i + WARM_UP);
		if (i < 0)
			continue;
		a[i] = took[0];
		b[i] = took[1];
		ratio[i] = took[0] / took[1];
	}
	qsort(a, (size_t)rounds, sizeof(*a), compare);
	qsort(b, (size_t)rounds, sizeof(*b), compare);
	qsort(ratio, (size_t)rounds, sizeof(*ratio), compare);
	printf("{\"a\": %.2f, \"b\": %.2f, \"ratio\": %.4f, \"low\": %.4f, \"high\": %.4f, "
	       "\"a99\": %.2f, \"b99\": %.2f}\n",
	       part(a, rounds, 0.5), part(b, rounds, 0.5),
	       part(a, rounds, 0.5) / part(b, rounds, 0.5), part(ratio, rounds, 0.1),
	       part(ratio, rounds, 0.9), part(a, rounds, 0.99), part(b, rounds, 0.99));
	return 0;
}
