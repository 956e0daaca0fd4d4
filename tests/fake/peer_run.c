/*
 * Owns what tests need around a peer: running the loop until something is so, counting descriptors, recorded answers.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fake/peer.h"

struct limit {
	uv_timer_t timer;
	bool passed;
};

static void limit_passed(uv_timer_t *timer)
{
	struct limit *limit = timer->data;

	limit->passed = true;
}

static void limit_gone(uv_handle_t *handle)
{
	free(handle->data);
}

static struct limit *limit_new(uv_loop_t *loop, unsigned ms, bool keeps_loop_alive)
{
	struct limit *limit = calloc(1, sizeof(*limit));

	if (!limit)
		abort();
	uv_timer_init(loop, &limit->timer);
	limit->timer.data = limit;
	uv_update_time(loop);
	uv_timer_start(&limit->timer, limit_passed, ms, 0);
	if (!keeps_loop_alive)
		uv_unref((uv_handle_t *)&limit->timer);
	return limit;
}

static void limit_free(struct limit *limit)
{
	uv_loop_t *loop = limit->timer.loop;

	uv_close((uv_handle_t *)&limit->timer, limit_gone);
	/* Nothing of it stays behind, and nothing else is waited for. */
	uv_run(loop, UV_RUN_NOWAIT);
}

bool peer_run_until(uv_loop_t *loop, bool (*done)(void *data), void *data, unsigned timeout_ms)
{
	struct limit *limit = limit_new(loop, timeout_ms, true);
	bool is_done;

	while (!(is_done = done(data)) && !limit->passed)
		uv_run(loop, UV_RUN_ONCE);
	limit_free(limit);
	return is_done;
}

struct command_wish {
	struct peer *peer;
	const char *command;
	size_t count;
};

static bool has_commands(void *data)
{
	struct command_wish *wish = data;

	return peer_count_of(wish->peer, wish->command) >= wish->count;
}

bool peer_run_until_command(struct peer *peer, const char *command, size_t count,
			    unsigned timeout_ms)
{
	struct command_wish wish = { peer, command, count };

	return peer_run_until(peer_loop(peer), has_commands, &wish, timeout_ms);
}

static bool never(void *data)
{
	return false;
}

void peer_run_for(uv_loop_t *loop, unsigned ms)
{
	peer_run_until(loop, never, NULL, ms);
}

bool peer_run_empty(uv_loop_t *loop, unsigned timeout_ms)
{
	struct limit *limit = limit_new(loop, timeout_ms, false);
	bool alive;

	do {
		alive = uv_run(loop, UV_RUN_ONCE);
	} while (alive && !limit->passed);
	limit_free(limit);
	return !alive;
}

int peer_open_descriptors(void)
{
	uv_loop_t loop;
	DIR *folder;
	int count = 0;

	/* The first loop of a process opens libuv's pipe for signals, which stays: so that it does not count. */
	uv_loop_init(&loop);
	uv_loop_close(&loop);
	folder = opendir("/proc/self/fd");
	if (!folder)
		return -1;
	while (readdir(folder))
		count++;
	closedir(folder);
	return count - 3; /* ".", ".." and the folder itself */
}

struct qmp_value *peer_load(const char *name)
{
	char path[200], *text = NULL;
	size_t length = 0, read;
	struct qmp_value *value;
	FILE *file;

	snprintf(path, sizeof(path), "tests/unit/data/%s", name);
	file = fopen(path, "r");
	if (!file) {
		perror(path);
		abort();
	}
	do {
		text = realloc(text, length + 4096);
		if (!text)
			abort();
		read = fread(text + length, 1, 4096, file);
		length += read;
	} while (read);
	fclose(file);
	value = qmp_value_parse(text, length, NULL);
	free(text);
	return value;
}
