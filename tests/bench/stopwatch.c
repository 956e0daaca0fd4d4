/*
 * Measures two ways of doing something in turn, so that whatever else the machine does falls on both. Used by `make bench`:
 *
 *	stopwatch ROUNDS a STEP... b STEP... [before-a STEP...] [after-a STEP...] [before-b STEP...] [after-b STEP...]
 *
 * A STEP is one of
 *
 *	read PATH		open, read, close
 *	pread PATH		read at offset 0 of a file that stays open
 *	write PATH TEXT		open, write, close
 *	ask SOCKET JSON		send a raw QMP command and read up to its answer
 *	askall PREFIX JSON	send it to all sockets PREFIX0000.qmp, PREFIX0001.qmp and so on, then read all answers
 *	event SOCKET TEXT	read up to an event with TEXT in it, if none has come since the last such step
 *
 * %d in any of these is the number of the round. Only `a` and `b` are timed. Each socket has one connection, made before any clock runs, for
 * the whole run: this is the smallest possible QMP client. Prints one line of JSON: medians in microseconds, their ratio, the 10th and
 * 90th percentile of the rounds' own ratios, and the 99th percentiles.
 */
#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	STEPS_MAX = 16,
	MONITORS_MAX = 20000,
	TEXT_MAX = 4096,
	ANSWER_MAX = 32 << 10,
	WARM_UP = 3, /* rounds that do not count, unless each round has its own %d */
};

struct monitor {
	char *path;
	int fd;
	char *bytes; /* read and not looked at yet */
	size_t filled;
	char events[ANSWER_MAX]; /* that came before an answer, one after the other */
};

struct step {
	const char *verb, *path, *text;
	int fd; /* of pread */
	struct monitor **monitors; /* one; one a round; or all that there are */
	size_t count;
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

static struct monitor *monitors[MONITORS_MAX];
static size_t monitor_count;

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* @text with its first %d replaced. */
static void number(char out[TEXT_MAX], const char *text, int round)
{
	const char *at = strstr(text, "%d");

	if (at)
		snprintf(out, TEXT_MAX, "%.*s%d%s", (int)(at - text), text, round, at + 2);
	else
		snprintf(out, TEXT_MAX, "%s", text);
}

/* --- a raw QMP client --- */

static void send_line(struct monitor *monitor, const char *text)
{
	char line[TEXT_MAX + 2];
	int length = snprintf(line, sizeof(line), "%s\n", text);

	if (write(monitor->fd, line, (size_t)length) != length)
		err(1, "%s", monitor->path);
}

/* Reads one more line into @line, without its end. */
static void read_line(struct monitor *monitor, char line[ANSWER_MAX])
{
	for (;;) {
		char *end = memchr(monitor->bytes, '\n', monitor->filled);
		ssize_t length;

		if (end) {
			*end = '\0';
			strcpy(line, monitor->bytes);
			monitor->filled -= (size_t)(end + 1 - monitor->bytes);
			memmove(monitor->bytes, end + 1, monitor->filled);
			return;
		}
		length = read(monitor->fd, monitor->bytes + monitor->filled,
			      ANSWER_MAX - monitor->filled);
		if (length <= 0)
			errx(1, "%s: the monitor hung up", monitor->path);
		monitor->filled += (size_t)length;
	}
}

static void read_until(struct monitor *monitor, const char *text)
{
	char line[ANSWER_MAX];

	do
		read_line(monitor, line);
	while (!strstr(line, text));
}

/* The answer is the first line that is no event. */
static void read_answer(struct monitor *monitor)
{
	char line[ANSWER_MAX];

	read_line(monitor, line);
	while (strstr(line, "\"event\":")) {
		if (strlen(monitor->events) + strlen(line) < sizeof(monitor->events))
			strcat(monitor->events, line);
		read_line(monitor, line);
	}
	if (strstr(line, "\"error\": {\"class\""))
		errx(1, "%s: %s", monitor->path, line);
}

static struct monitor *monitor_open(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct monitor *monitor;

	for (size_t i = 0; i < monitor_count; i++)
		if (!strcmp(monitors[i]->path, path))
			return monitors[i];
	monitor = calloc(1, sizeof(*monitor));
	if (!monitor || monitor_count == MONITORS_MAX)
		errx(1, "too many monitors");
	monitors[monitor_count++] = monitor;
	monitor->path = strdup(path);
	monitor->bytes = malloc(ANSWER_MAX);
	monitor->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (!monitor->path || !monitor->bytes ||
	    connect(monitor->fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "%s", path);
	read_until(monitor, "\"QMP\"");
	/* Without it QEMU has something left to do after each answer, which on one processor would fall into the time of what comes next. */
	send_line(monitor, "{\"execute\": \"qmp_capabilities\", "
			   "\"arguments\": {\"enable\": [\"oob\"]}}");
	read_answer(monitor);
	return monitor;
}

/* --- steps --- */

static void add_monitor(struct step *step, const char *path)
{
	step->monitors = realloc(step->monitors, (step->count + 1) * sizeof(struct monitor *));
	if (!step->monitors)
		err(1, "memory");
	step->monitors[step->count++] = monitor_open(path);
}

/* Opens all connections that the step will need. */
static void step_prepare(struct step *step, int rounds)
{
	char path[TEXT_MAX];

	if (!strcmp(step->verb, "askall")) {
		for (;;) {
			snprintf(path, sizeof(path), "%s%04zu.qmp", step->path, step->count);
			if (access(path, F_OK))
				break;
			add_monitor(step, path);
		}
	} else if (!strcmp(step->verb, "ask") || !strcmp(step->verb, "event")) {
		int count = strstr(step->path, "%d") ? rounds : 1;

		for (int i = 0; i < count; i++) {
			number(path, step->path, i);
			add_monitor(step, path);
		}
	} else if (!strcmp(step->verb, "pread")) {
		step->fd = open(step->path, O_RDONLY | O_CLOEXEC);
		if (step->fd < 0)
			err(1, "%s", step->path);
	}
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
	struct monitor *monitor = step->count ? step->monitors[step->count > 1 ? round : 0] : NULL;
	char path[TEXT_MAX], text[TEXT_MAX] = "";

	number(path, step->path, round);
	if (step->text)
		number(text, step->text, round);
	if (!strcmp(step->verb, "read")) {
		read_file(path);
	} else if (!strcmp(step->verb, "write")) {
		write_file(path, text);
	} else if (!strcmp(step->verb, "ask")) {
		send_line(monitor, text);
		read_answer(monitor);
	} else if (!strcmp(step->verb, "event")) {
		if (!strstr(monitor->events, text))
			read_until(monitor, text);
		*monitor->events = '\0';
	} else if (!strcmp(step->verb, "askall")) {
		for (size_t i = 0; i < step->count; i++)
			send_line(step->monitors[i], text);
		for (size_t i = 0; i < step->count; i++)
			read_answer(step->monitors[i]);
	} else if (pread(step->fd, text, sizeof(text), 0) < 0) {
		err(1, "%s", path);
	}
}

/* Reads one step from @words; the number of words it took. */
static int step_read(struct step *step, char **words, int count)
{
	static const char *const verbs[] = { "read", "pread", "write", "ask", "askall", "event" };
	bool two = *words[0] == 'w' || *words[0] == 'a' || *words[0] == 'e';
	bool known = false;

	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		known |= !strcmp(verbs[i], words[0]);
	if (!known || count < 2 + two)
		errx(2, "%s: no such step, or words are missing", words[0]);
	*step = (struct step){ .verb = words[0], .path = words[1], .text = two ? words[2] : NULL };
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

static void read_words(char **words, int count)
{
	struct list *list = NULL;

	for (int i = 0; i < count;) {
		struct list *next = list_of(words[i]);

		if (next) {
			list = next;
			i++;
		} else if (!list || list->count == STEPS_MAX) {
			errx(2, "%s: unexpected", words[i]);
		} else {
			i += step_read(&list->steps[list->count++], words + i, count - i);
		}
	}
}

/* --- figures --- */

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

/* Sorts. */
static double part(double *values, int count, double share)
{
	qsort(values, (size_t)count, sizeof(*values), compare);
	return values[(int)((count - 1) * share + 0.5)];
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 0;
	double *a, *b, *ratio;
	struct rlimit limit;

	if (rounds < 1)
		errx(2, "usage: stopwatch ROUNDS a STEP... b STEP...");
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	read_words(argv + 2, argc - 2);
	for (size_t i = 0; i < LISTS; i++)
		for (size_t j = 0; j < lists[i].count; j++)
			step_prepare(&lists[i].steps[j], rounds + WARM_UP);
	a = calloc((size_t)rounds * 3, sizeof(*a));
	if (!a)
		err(1, "memory");
	b = a + rounds;
	ratio = b + rounds;
	for (int i = 0; i < rounds + WARM_UP; i++) {
		double took_a, took_b;

		list_run("before-a", i);
		took_a = list_run("a", i);
		list_run("after-a", i);
		list_run("before-b", i);
		took_b = list_run("b", i);
		list_run("after-b", i);
		if (i < WARM_UP)
			continue;
		a[i - WARM_UP] = took_a;
		b[i - WARM_UP] = took_b;
		ratio[i - WARM_UP] = took_a / took_b;
	}
	printf("{\"a\": %.2f, \"b\": %.2f, \"ratio\": %.4f, \"low\": %.4f, \"high\": %.4f, "
	       "\"a99\": %.2f, \"b99\": %.2f}\n",
	       part(a, rounds, 0.5), part(b, rounds, 0.5),
	       part(a, rounds, 0.5) / part(b, rounds, 0.5), part(ratio, rounds, 0.1),
	       part(ratio, rounds, 0.9), part(a, rounds, 0.99), part(b, rounds, 0.99));
	return 0;
}
