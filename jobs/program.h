/*
 * A program that is run once, for its output and its exit status.
 */
#ifndef JOBS_PROGRAM_H
#define JOBS_PROGRAM_H

#include <stddef.h>
#include <uv.h>

struct program;

struct program_end {
	int error; /* -errno: it could not be run at all */
	int status; /* exit status, or 128 + signal */
	const char *output; /* its standard output, at most 1 MiB; borrowed */
	size_t output_length;
	const char *complaint; /* its standard error on one line; borrowed */
};

typedef void (*program_done_fn)(void *data, const struct program_end *end);

/*
 * Runs @arguments, in a session of its own, so that a terminal's interrupt does not reach it. @done is called once, from the loop; the
 * program frees itself then.
 */
struct program *program_run(uv_loop_t *loop, char **arguments, program_done_fn done, void *data);
/* The same with a file, @fd, that the program has as its descriptor 3. */
struct program *program_run_on(uv_loop_t *loop, char **arguments, int fd, program_done_fn done,
			       void *data);

#endif
