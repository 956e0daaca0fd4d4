/*
 * Being told of a socket's file, whatever becomes of its folders.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "jobs/socket_watch.h"
#include "tests/fake/peer.h"

struct place {
	uv_loop_t loop;
	struct socket_watch *watch;
	char folder[64], path[128];
	int told, descriptors;
	bool closed;
};

static void on_changed(void *data)
{
	((struct place *)data)->told++;
}

static void on_closed(void *data)
{
	((struct place *)data)->closed = true;
}

/* Watches for @name in a fresh folder. */
static void begin(struct place *place, const char *name)
{
	*place = (struct place){ .descriptors = peer_open_descriptors() };
	strcpy(place->folder, "/tmp/watch-XXXXXX");
	cr_assert_not_null(mkdtemp(place->folder));
	snprintf(place->path, sizeof(place->path), "%s/%s", place->folder, name);
	uv_loop_init(&place->loop);
	place->watch = socket_watch_new(&place->loop, place->path, on_changed, place);
}

static void end(struct place *place)
{
	char command[100];

	socket_watch_close(place->watch, on_closed);
	cr_assert(!place->closed, "a callback inside socket_watch_close()");
	cr_assert(peer_run_empty(&place->loop, 1000));
	cr_assert(place->closed);
	cr_assert_eq(uv_loop_close(&place->loop), 0);
	cr_assert_eq(peer_open_descriptors(), place->descriptors);
	snprintf(command, sizeof(command), "rm -rf %s", place->folder);
	cr_assert_eq(system(command), 0);
}

static const char *at(const struct place *place, const char *name)
{
	static char paths[2][200];
	static int turn;

	turn = !turn;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", place->folder, name);
	return paths[turn];
}

static void make(const char *path)
{
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

/* How often it was told within a moment, since the last time that this was asked. */
static int told(struct place *place)
{
	int count;

	peer_run_for(&place->loop, 30);
	count = place->told;
	place->told = 0;
	return count;
}

Test(jobs_socket_watch, file)
{
	/* Catches a change that is missed, and one of another file that is told. */
	struct place place;

	begin(&place, "x");
	make(at(&place, "x"));
	cr_assert_eq(told(&place), 0, "before it was started");
	unlink(at(&place, "x"));
	socket_watch_start(place.watch);
	socket_watch_start(place.watch);
	make(at(&place, "xx"));
	make(at(&place, "y"));
	mkdir(at(&place, "z"), 0700);
	cr_assert_eq(told(&place), 0, "of another name");
	make(at(&place, "x"));
	cr_assert(told(&place));
	chmod(at(&place, "x"), 0644);
	cr_assert(told(&place));
	unlink(at(&place, "x"));
	cr_assert(told(&place));
	rename(at(&place, "y"), at(&place, "x"));
	cr_assert(told(&place));
	rename(at(&place, "xx"), at(&place, "x"));
	cr_assert(told(&place));
	socket_watch_stop(place.watch);
	socket_watch_stop(place.watch);
	unlink(at(&place, "x"));
	cr_assert_eq(told(&place), 0, "after it was stopped");
	socket_watch_start(place.watch);
	make(at(&place, "x"));
	cr_assert(told(&place));
	end(&place);
}

Test(jobs_socket_watch, folders)
{
	/* Catches a file that is made in a folder which was not there when the watch began, or was there before and is another one now. */
	struct place place;

	begin(&place, "a//b/c");
	socket_watch_start(place.watch);
	mkdir(at(&place, "b"), 0700);
	cr_assert_eq(told(&place), 0, "of another folder");
	mkdir(at(&place, "a"), 0700);
	mkdir(at(&place, "a/b"), 0700);
	make(at(&place, "a/b/c"));
	cr_assert(told(&place), "made with its folders, before anybody could look");
	unlink(at(&place, "a/b/c"));
	cr_assert(told(&place));
	rename(at(&place, "a/b"), at(&place, "old"));
	told(&place);
	make(at(&place, "old/c"));
	cr_assert_eq(told(&place), 0, "in a folder that is another one's now");
	rename(at(&place, "old"), at(&place, "a/b"));
	cr_assert(told(&place));
	rename(at(&place, "a"), at(&place, "gone"));
	told(&place);
	mkdir(at(&place, "a"), 0700);
	cr_assert_eq(told(&place), 0);
	rename(at(&place, "gone/b"), at(&place, "a/b"));
	cr_assert(told(&place));
	end(&place);
}

Test(jobs_socket_watch, removed_folder)
{
	/* Catches a watch that goes with its folder. */
	struct place place;

	begin(&place, "a/c");
	mkdir(at(&place, "a"), 0700);
	socket_watch_start(place.watch);
	for (int i = 0; i < 3; i++) {
		rmdir(at(&place, "a"));
		if (i == 1)
			told(&place);
		mkdir(at(&place, "a"), 0700);
		if (i == 2)
			cr_assert_eq(told(&place), 0);
		make(at(&place, "a/c"));
		cr_assert(told(&place), "round %d", i);
		unlink(at(&place, "a/c"));
		told(&place);
	}
	end(&place);
}

Test(jobs_socket_watch, cannot)
{
	/* Catches a path that makes it go round for ever, or fall over. */
	static const char *const paths[] = { "/", "/nobody-makes-this", "/proc/self/fd/9/x",
					     "/dev/null/x", "//x//y//" };
	struct place place;

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		struct socket_watch *other;

		begin(&place, "x");
		other = socket_watch_new(&place.loop, paths[i], on_changed, &place);
		socket_watch_start(other);
		cr_assert_eq(told(&place), 0);
		socket_watch_close(other, on_closed);
		peer_run_for(&place.loop, 5);
		place.closed = false;
		end(&place);
	}
}

Test(jobs_socket_watch, many_on_one_folder)
{
	/* Catches watches of one folder that take each other away. */
	struct place place;
	struct socket_watch *others[20];

	begin(&place, "x");
	for (int i = 0; i < 20; i++) {
		others[i] = socket_watch_new(&place.loop, place.path, on_changed, &place);
		socket_watch_start(others[i]);
	}
	socket_watch_start(place.watch);
	make(place.path);
	cr_assert_geq(told(&place), 21);
	for (int i = 0; i < 20; i++)
		socket_watch_stop(others[i]);
	unlink(place.path);
	cr_assert_geq(told(&place), 1);
	for (int i = 0; i < 20; i++)
		socket_watch_close(others[i], on_closed);
	peer_run_for(&place.loop, 5);
	place.closed = false;
	end(&place);
}
