/*
 * SOURCE words, and names that a folder can bear.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "jobs/source.h"

static void expect_name(const char *name, const char *wanted)
{
	char *exact = strdup(name), *escaped = source_escape_name(exact);

	cr_assert_str_eq(escaped, wanted, "%s", escaped);
	free(escaped);
	free(exact);
}

Test(jobs_source, names)
{
	/* Catches a name that leads elsewhere, cannot be typed, or is another's. */
	expect_name("vda", "vda");
	expect_name("", "\\x00");
	expect_name(".", "\\x2e");
	expect_name("..", "\\x2e.");
	expect_name(".a.b", "\\x2ea.b");
	expect_name("a/b", "a\\x2fb");
	expect_name("../../etc", "\\x2e.\\x2f..\\x2fetc");
	expect_name("a\\b", "a\\x5cb");
	expect_name("\\x2e", "\\x5cx2e");
	expect_name("a\nb\tc\x7f\x1b", "a\\x0ab\\x09c\\x7f\\x1b");
	expect_name("a b\"'$*", "a b\"'$*");
	expect_name("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	expect_name("\xff", "\\xff");
	expect_name("a\xc3", "a\\xc3");
	expect_name("\xc0\xaf", "\\xc0\\xaf");
	expect_name("\xe0\x80\xaf", "\\xe0\\x80\\xaf");
	expect_name("\xed\xa0\x80", "\\xed\\xa0\\x80");
	expect_name("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
	expect_name("\xe2\x82", "\\xe2\\x82");
	expect_name("\xc2\x9b", "\\xc2\\x9b");
}

Test(jobs_source, long_names)
{
	/* Catches a name that no file system takes, and two long ones that become the same. */
	char one[600], other[600];
	char *a, *b;

	for (size_t length = 250; length < 400; length++) {
		for (int kind = 0; kind < 3; kind++) {
			size_t at = 0;

			while (at + 3 < length)
				at += (size_t)sprintf(one + at, "%s",
						      kind == 0	  ? "x"
						      : kind == 1 ? "\xe2\x82\xac"
								  : "/");
			strcpy(other, one);
			strcat(one, "1");
			strcat(other, "2");
			a = source_escape_name(one);
			b = source_escape_name(other);
			cr_assert_leq(strlen(a), 255);
			cr_assert_str_neq(a, b);
			cr_assert_null(strchr(a, '/'));
			free(a);
			free(b);
		}
	}
}

static void expect_source(const char *word, enum source_kind kind, const char *name,
			  const char *path)
{
	struct source source;
	char *error = NULL, *address;

	cr_assert_eq(source_parse(&source, word, &error), 0, "%s: %s", word, error);
	cr_assert_eq(source.kind, kind);
	cr_assert(name ? !strcmp(source.name, name) : !source.name, "%s: %s", word, source.name);
	cr_assert_str_eq(source.path, path, "%s: %s", word, source.path);
	address = source_address(&source);
	cr_assert(strstr(address, path) > address);
	free(address);
	source_clear(&source);
}

static void refuse(const char *word, int wanted, const char *reason)
{
	struct source source;
	char *error = NULL;
	int status = source_parse(&source, word, &error);

	cr_assert_eq(status, wanted, "%s: %d", word, status);
	cr_assert(strstr(error, reason), "%s: %s", word, error);
	cr_assert_null(strchr(error, '\n'));
	source_clear(&source);
	free(error);
}

Test(jobs_source, tcp)
{
	/* Catches a host and a port taken for something else, and words that only fail later, when nobody looks any more. */
	expect_source("tcp:localhost:4444", SOURCE_TCP, "localhost-4444", "localhost:4444");
	expect_source("tcp:10.0.0.1:1", SOURCE_TCP, "10.0.0.1-1", "10.0.0.1:1");
	expect_source("tcp:[::1]:65535", SOURCE_TCP, "::1-65535", "[::1]:65535");
	expect_source("tcp:[fe80::1%eth0]:7", SOURCE_TCP, "fe80::1%eth0-7", "[fe80::1%eth0]:7");
	expect_source("web1=tcp:vm.example.org:4444", SOURCE_TCP, "web1", "vm.example.org:4444");
	refuse("tcp:", -EINVAL, "HOST:PORT");
	refuse("tcp:host", -EINVAL, "HOST:PORT");
	refuse("tcp:[::1]", -EINVAL, "HOST:PORT");
	refuse("tcp:[::1", -EINVAL, "HOST:PORT");
	refuse("tcp::4444", -EINVAL, "a host is missing");
	refuse("tcp:[]:4444", -EINVAL, "a host is missing");
	refuse("tcp:::1:4444", -EINVAL, "in brackets");
	refuse("tcp:host:", -EINVAL, "1 to 65535");
	refuse("tcp:host:0", -EINVAL, "1 to 65535");
	refuse("tcp:host:65536", -EINVAL, "1 to 65535");
	refuse("tcp:host:123456", -EINVAL, "1 to 65535");
	refuse("tcp:host:-1", -EINVAL, "1 to 65535");
	refuse("tcp:host:qmp", -EINVAL, "1 to 65535");
	refuse("tcp:host: 4", -EINVAL, "1 to 65535");
	refuse("tcp:a b:4", -EINVAL, "no name of a host");
	refuse("tcp:/run/x:4", -EINVAL, "no name of a host");
	refuse("a=tcp:[::1]x:4", -EINVAL, "HOST:PORT");
}

Test(jobs_source, commands)
{
	/* Catches a command that loses a part of itself. */
	expect_source("exec:ssh host socat - UNIX:/run/a=b.qmp", SOURCE_EXEC, "ssh",
		      "ssh host socat - UNIX:/run/a=b.qmp");
	expect_source("exec:/opt/bin/relay.py --to x", SOURCE_EXEC, "relay",
		      "/opt/bin/relay.py --to x");
	expect_source("web1=exec:  A=b relay\n", SOURCE_EXEC, "web1", "A=b relay\n");
	expect_source("exec:/opt/./.relay", SOURCE_EXEC, "\\x2erelay", "/opt/./.relay");
	refuse("exec:", -EINVAL, "a command is missing");
	refuse("exec: \t", -EINVAL, "a command is missing");
	refuse("web1=exec:", -EINVAL, "a command is missing");
}

Test(jobs_source, words)
{
	/* Catches a source taken for another kind, or under another name. */
	char folder[] = "/tmp/source-XXXXXX", path[100], *cwd = getcwd(NULL, 0), wanted[4200];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *file;

	expect_source("unix:/run/vm/web1.qmp", SOURCE_UNIX, "web1", "/run/vm/web1.qmp");
	expect_source("web=unix:/run/x", SOURCE_UNIX, "web", "/run/x");
	expect_source("image:/vm/a.b.qcow2", SOURCE_IMAGE, "a.b", "/vm/a.b.qcow2");
	expect_source("x=image:/vm/a=b.qcow2", SOURCE_IMAGE, "x", "/vm/a=b.qcow2");
	expect_source("unix:/run/a=b", SOURCE_UNIX, "a=b", "/run/a=b");
	expect_source(".=unix:/x", SOURCE_UNIX, "\\x2e", "/x");
	expect_source("unix:/run/.hidden", SOURCE_UNIX, "\\x2ehidden", "/run/.hidden");
	snprintf(wanted, sizeof(wanted), "%s/rel/x.sock", cwd);
	expect_source("unix:rel/x.sock", SOURCE_UNIX, "x", wanted);
	cr_assert_not_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/disk.qcow2", folder);
	file = fopen(path, "w");
	fclose(file);
	expect_source(path, SOURCE_IMAGE, "disk", path);
	unlink(path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/q.sock", folder);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	expect_source(address.sun_path, SOURCE_UNIX, "q", address.sun_path);
	unlink(address.sun_path);
	close(fd);
	expect_source(folder, SOURCE_DIR, NULL, folder);
	snprintf(path, sizeof(path), "web1=%s", folder);
	refuse(path, -EINVAL, "leave out \"web1=\"");
	rmdir(folder);
	expect_source("dir:/not/there/yet", SOURCE_DIR, NULL, "/not/there/yet");
	refuse("web1=dir:/x", -EINVAL, "leave out \"web1=\"");
	refuse("dir:", -EINVAL, "a path is missing");
	free(cwd);
	refuse("", -EINVAL, "a path is missing");
	refuse("unix:", -EINVAL, "a path is missing");
	refuse("a=", -EINVAL, "a path is missing");
	refuse("=unix:/x", -EINVAL, "no name");
	refuse("/nowhere/at/all", -ENOENT, "No such file");
	refuse("/dev/null", -EINVAL, "neither");
	memset(wanted, 'x', 200);
	memcpy(wanted, "unix:/", 6);
	wanted[200] = 0;
	refuse(wanted, -ENAMETOOLONG, "too long");
}
