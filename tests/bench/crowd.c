/*
 * A thousand QEMUs that are none: one process that listens on many sockets and answers each client with what a real QEMU has answered
 * (recorded by the benchmark just before). So the figures of `make bench` for many domains are those of blockjobfs, and not of
 * as many QEMUs on a small machine. Run by tests/bench:
 *
 *	crowd ANSWERS SOCKETS FIRST COUNT [live]
 *
 * ANSWERS is a folder with greeting.json and a COMMAND.json for each command; job.json is one entry of query-block-jobs, with @ID@ and
 * @OFFSET@ in it. Sockets are SOCKETS/vm0000.qmp and so on, COUNT of them from number FIRST on. A job begins with block-stream (with `live`, one is there from the beginning),
 * moves on by itself, and ends with block-job-cancel. Says "ready" when all sockets listen.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	INPUT_MAX = 4096,
	ANSWERS_MAX = 32,
	NAME_MAX_ = 64,
};

struct answer {
	char command[NAME_MAX_];
	char *text;
	size_t length;
};

struct member {
	int listener, client; /* -1: none */
	size_t number;
	char input[INPUT_MAX];
	size_t filled;
	char *output; /* what the socket did not take at once */
	size_t waiting;
	char job[200]; /* "": none */
	double began;
};

static struct answer answers[ANSWERS_MAX];
static size_t answer_count;
static int epoll;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- answers --- */

static void read_answer(const char *folder, const char *name)
{
	struct answer *answer = &answers[answer_count++];
	char path[4096];
	FILE *file;

	if (answer_count > ANSWERS_MAX)
		errx(1, "too many answers");
	snprintf(answer->command, sizeof(answer->command), "%.*s",
		 (int)(strlen(name) - strlen(".json")), name);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "r");
	if (!file)
		err(1, "%s", path);
	answer->text = NULL;
	if (getdelim(&answer->text, &(size_t){ 0 }, 0, file) < 0)
		err(1, "%s", path);
	answer->length = strcspn(answer->text, "\n");
	fclose(file);
}

static void read_answers(const char *folder)
{
	DIR *directory = opendir(folder);
	struct dirent *entry;

	if (!directory)
		err(1, "%s", folder);
	while ((entry = readdir(directory)))
		if (strstr(entry->d_name, ".json"))
			read_answer(folder, entry->d_name);
	closedir(directory);
}

static const struct answer *find_answer(const char *command)
{
	static const struct answer empty = { "", "{}", 2 };

	for (size_t i = 0; i < answer_count; i++)
		if (!strcmp(answers[i].command, command))
			return &answers[i];
	return &empty;
}

/* --- sending --- */

static void watch(struct member *member, unsigned events)
{
	struct epoll_event event = { .events = events, .data.ptr = member };

	epoll_ctl(epoll, EPOLL_CTL_MOD, member->client, &event);
}

static void push(struct member *member, const char *bytes, size_t length)
{
	ssize_t sent = 0;

	if (!member->waiting)
		sent = write(member->client, bytes, length);
	if (sent < 0)
		sent = 0;
	if ((size_t)sent == length)
		return;
	member->output = realloc(member->output, member->waiting + length - (size_t)sent);
	if (!member->output)
		err(1, "memory");
	memcpy(member->output + member->waiting, bytes + sent, length - (size_t)sent);
	member->waiting += length - (size_t)sent;
	watch(member, EPOLLIN | EPOLLOUT);
}

static void drain(struct member *member)
{
	ssize_t sent = write(member->client, member->output, member->waiting);

	if (sent > 0) {
		member->waiting -= (size_t)sent;
		memmove(member->output, member->output + sent, member->waiting);
	}
	if (member->waiting)
		return;
	free(member->output);
	member->output = NULL;
	watch(member, EPOLLIN);
}

__attribute__((format(printf, 2, 3))) static void say(struct member *member, const char *format,
						      ...)
{
	va_list arguments;
	char *text;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		err(1, "memory");
	push(member, text, (size_t)length);
	free(text);
}

/* --- the QEMU --- */

/* Copies the string or number that stands behind `"key":`; "" if there is none. */
static void find_value(const char *line, const char *key, char *value, size_t size)
{
	char quoted[NAME_MAX_];
	const char *at;

	*value = '\0';
	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(line, quoted);
	if (!at)
		return;
	at += strlen(quoted);
	at += strspn(at, " \"");
	snprintf(value, size, "%.*s", (int)strcspn(at, "\",} "), at);
}

static void put_job(struct member *member, char *out, size_t size)
{
	const char *text = find_answer("job")->text, *at;
	size_t used = 0;

	for (at = text; *at && *at != '\n' && used < size - 1; at++) {
		if (!strncmp(at, "@ID@", 4)) {
			used += (size_t)snprintf(out + used, size - used, "%s", member->job);
			at += 3;
		} else if (!strncmp(at, "@OFFSET@", 8)) {
			used += (size_t)snprintf(out + used, size - used, "%lld",
						 (long long)((now() - member->began) * 1e6));
			at += 7;
		} else {
			out[used++] = *at;
		}
	}
	out[used] = '\0';
}

static void tell_status(struct member *member, const char *status)
{
	say(member,
	    "{\"timestamp\": {\"seconds\": %lld, \"microseconds\": 0}, \"event\": "
	    "\"JOB_STATUS_CHANGE\", "
	    "\"data\": {\"status\": \"%s\", \"id\": \"%s\"}}\r\n",
	    (long long)time(NULL), status, member->job);
}

static void cancel(struct member *member)
{
	if (!*member->job)
		return;
	tell_status(member, "aborting");
	say(member,
	    "{\"timestamp\": {\"seconds\": %lld, \"microseconds\": 0}, \"event\": "
	    "\"BLOCK_JOB_CANCELLED\", "
	    "\"data\": {\"device\": \"%s\", \"len\": 1, \"offset\": 0, \"speed\": 0, \"type\": "
	    "\"stream\"}}\r\n",
	    (long long)time(NULL), member->job);
	tell_status(member, "concluded");
}

static void carry_out(struct member *member, const char *line)
{
	char command[NAME_MAX_], id[NAME_MAX_], end[NAME_MAX_ + 16], job[2048] = "";
	const struct answer *answer;

	find_value(line, "execute", command, sizeof(command));
	find_value(line, "id", id, sizeof(id));
	snprintf(end, sizeof(end), "%s%s}\r\n", *id ? ", \"id\": " : "", id);
	answer = find_answer(command);
	if (!strcmp(command, "block-stream")) {
		find_value(line, "job-id", member->job, sizeof(member->job));
		member->began = now();
		tell_status(member, "created");
		tell_status(member, "running");
	} else if (!strcmp(command, "query-block-jobs")) {
		if (*member->job)
			put_job(member, job, sizeof(job));
		say(member, "{\"return\": [%s]%s", job, end);
		return;
	}
	push(member, "{\"return\": ", 11);
	push(member, answer->text, answer->length);
	say(member, "%s", end);
	if (!strcmp(command, "block-job-cancel") || !strcmp(command, "job-cancel")) {
		cancel(member);
	} else if (!strcmp(command, "job-dismiss")) {
		tell_status(member, "null");
		*member->job = '\0';
	}
}

/* --- sockets --- */

static void hang_up(struct member *member)
{
	close(member->client);
	member->client = -1;
	free(member->output);
	member->output = NULL;
	member->waiting = member->filled = 0;
}

static void hear(struct member *member)
{
	ssize_t length = read(member->client, member->input + member->filled,
			      INPUT_MAX - 1 - member->filled);
	char *end;

	if (length <= 0) {
		if (length == 0 || errno != EAGAIN)
			hang_up(member);
		return;
	}
	member->filled += (size_t)length;
	member->input[member->filled] = '\0';
	while (member->client >= 0 && (end = strchr(member->input, '\n'))) {
		*end = '\0';
		carry_out(member, member->input);
		member->filled -= (size_t)(end + 1 - member->input);
		memmove(member->input, end + 1, member->filled + 1);
	}
}

static void greet(struct member *member)
{
	const struct answer *greeting = find_answer("greeting");
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = member };
	int client = accept4(member->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (client < 0)
		return;
	if (member->client >= 0)
		hang_up(member);
	member->client = client;
	epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event);
	push(member, greeting->text, greeting->length);
	push(member, "\r\n", 2);
}

static void listen_on(struct member *member, const char *folder)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	/* A listener is told from its client by the lowest bit. */
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = (char *)member + 1 };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/vm%04zu.qmp", folder,
		 member->number);
	member->client = -1;
	member->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (member->listener < 0 ||
	    bind(member->listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(member->listener, 4) ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, member->listener, &event))
		err(1, "%s", address.sun_path);
}

static void serve(void)
{
	struct epoll_event events[256];
	int count = epoll_wait(epoll, events, 256, -1);

	for (int i = 0; i < count; i++) {
		uintptr_t what = (uintptr_t)events[i].data.ptr;
		struct member *member = (struct member *)(what & ~(uintptr_t)1);

		if (what & 1)
			greet(member);
		else if (member->client >= 0 && events[i].events & EPOLLOUT)
			drain(member);
		else if (member->client >= 0)
			hear(member);
	}
}

int main(int argc, char **argv)
{
	size_t first = argc > 4 ? strtoul(argv[3], NULL, 10) : 0;
	size_t count = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
	struct member *members = calloc(count, sizeof(*members));
	struct rlimit limit;

	if (!count || !members)
		errx(2, "usage: crowd ANSWERS SOCKETS FIRST COUNT [live]");
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	signal(SIGPIPE, SIG_IGN);
	read_answers(argv[1]);
	epoll = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < count; i++) {
		members[i].number = first + i;
		if (argc > 5) {
			snprintf(members[i].job, sizeof(members[i].job), "job%zu", first + i);
			members[i].began = now();
		}
		listen_on(&members[i], argv[2]);
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		serve();
}
