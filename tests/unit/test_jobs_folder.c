/*
 * Folders of sockets: the odd orders that a test with real machines would have to wait for.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "jobs/folder.h"
#include "jobs/folder_scan.h"
#include "tests/fake/world.h"

static char *folder_of(const struct world *world)
{
	const char *path = peer_path(world->peer);

	return strndup(path, (size_t)(strrchr(path, '/') - path));
}

/* The name that the peer's socket gives. */
static char *name_of(const struct world *world)
{
	return source_name_of_path(peer_path(world->peer));
}

/* A model at the folder that the peer's socket is in. */
static void start(struct world *world)
{
	struct source source = { .kind = SOURCE_DIR, .path = folder_of(world) };
	char *error = NULL, *name = name_of(world);

	world_start(world);
	model_remove(world->domain, "the test wants another one");
	world->domain = NULL;
	cr_assert_eq(model_add(world->model, &source, &error), 0, "%s", error);
	free(source.path);
	free(name);
}

static struct domain *domain_of(const struct world *world)
{
	char *name = name_of(world);
	struct domain *domain = model_find_domain(world->model, name);

	free(name);
	return domain;
}

/* A socket that nobody listens on. */
static void put_socket(const char *folder, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder, name);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
}

static void take_socket(const char *folder, const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	unlink(path);
}

static size_t count_domains(const struct world *world)
{
	size_t count = 0;

	for (struct domain *domain = world->model->domains; domain; domain = domain->next)
		count++;
	return count;
}

static bool settled;

static void on_settled(void *data, const char *error)
{
	cr_assert_null(error);
	settled = true;
}

Test(jobs_folder, settles_with_what_it_found)
{
	/* Catches a mount that is ready before the machines that were there are. */
	struct world world;

	settled = false;
	world_new(&world, 2);
	start(&world);
	model_settle(world.model, on_settled, NULL);
	WORLD_UNTIL(&world, settled);
	cr_assert_not_null(domain_of(&world));
	cr_assert_eq(domain_of(&world)->state, DOMAIN_CONNECTED);
	cr_assert_not_null(domain_of(&world)->disks);
	world_free(&world);
}

Test(jobs_folder, an_end_at_every_turn)
{
	/* Catches a look, a watch or a timer that outlives the model, and an end that waits for ever. */
	struct world world;

	for (int turns = 0; turns < 40; turns++) {
		char *folder;

		world_new(&world, 1);
		folder = folder_of(&world);
		for (int i = 0; i < 20; i++) {
			char name[20];

			snprintf(name, sizeof(name), "x%d.qmp", i);
			put_socket(folder, name);
		}
		start(&world);
		for (int i = 0; i < turns; i++)
			world_turn(&world);
		if (turns % 2)
			folder_look(world.model->folders);
		world_stop(&world);
		for (int i = 0; i < 20; i++) {
			char name[20];

			snprintf(name, sizeof(name), "x%d.qmp", i);
			take_socket(folder, name);
		}
		free(folder);
		world_free(&world);
	}
}

Test(jobs_folder, a_few_in_each_turn)
{
	/* Catches a turn of the loop in which hundreds of connections are begun, and one that is forgotten. */
	enum { MANY = 300 };
	struct world world;
	size_t before = 0, most = 0;
	char *folder, name[20];

	world_new(&world, 1);
	folder = folder_of(&world);
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "x%d.qmp", i);
		put_socket(folder, name);
	}
	start(&world);
	while (count_domains(&world) < MANY + 1) {
		world_turn(&world);
		if (count_domains(&world) - before > most)
			most = count_domains(&world) - before;
		before = count_domains(&world);
	}
	cr_assert_leq(most, 16, "%zu in one turn", most);
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "x%d.qmp", i);
		take_socket(folder, name);
	}
	WORLD_UNTIL(&world, count_domains(&world) == 1 && !world.model->leaving);
	cr_assert_eq(world_events(&world, "domain-removed"), MANY + 1);
	free(folder);
	world_free(&world);
}

static void see(struct scan *scan)
{
	*(bool *)scan->data = true;
}

Test(jobs_folder, the_way_to_it)
{
	/* Catches a link, a "..", or a missing part of the path whose folder is not watched; and an endless one. */
	static const struct {
		const char *link, *target, *path, *real;
		int error;
		size_t passed;
	} cases[] = {
		{ NULL, NULL, "a//b/./c/", "a/b/c", 0, 4 },
		{ NULL, NULL, "a/b/../b/c", "a/b/c", 0, 6 },
		{ NULL, NULL, "a/nothing/c", NULL, -ENOENT, 2 },
		{ "l", "a/b", "l/c", "a/b/c", 0, 5 },
		{ "a/up", "../a/b", "a/up/c", "a/b/c", 0, 7 },
		{ "loop", "loop", "loop/x", NULL, -ELOOP, 41 },
	};
	char top[] = "/tmp/folder-XXXXXX", path[300], real[300], *depth;
	size_t above = 1;

	cr_assert_not_null(mkdtemp(top));
	for (depth = top + 1; (depth = strchr(depth, '/')); depth++)
		above++;
	cr_assert_eq(chdir(top), 0);
	mkdir("a", 0755);
	mkdir("a/b", 0755);
	mkdir("a/b/c", 0755);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct world world;
		struct scan *scan;
		bool done = false;
		if (cases[i].link)
			cr_assert_eq(symlink(cases[i].target, cases[i].link), 0);
		world_new(&world, 1);
		snprintf(path, sizeof(path), "%s/%s", top, cases[i].path);
		scan = scan_start(&world.loop, path, see, &done);
		WORLD_UNTIL(&world, done);
		cr_assert_eq(scan->error, cases[i].error, "%s: %d", path, scan->error);
		snprintf(real, sizeof(real), "%s/%s", top, cases[i].real ? cases[i].real : "");
		if (cases[i].real)
			cr_assert_str_eq(scan->real, real);
		else
			cr_assert_null(scan->real);
		cr_assert_eq(scan->way_length, above + cases[i].passed, "%s: %zu of %zu", path,
			     scan->way_length - above, cases[i].passed);
		scan_free(scan);
		world_free(&world);
	}
	cr_assert_eq(chdir("/"), 0);
	snprintf(path, sizeof(path), "rm -r %s", top);
	cr_assert_eq(system(path), 0);
}
