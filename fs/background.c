/*
 * Going to the background; see fs/background.h.
 */
#include "fs/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fs/log.h"

static const char ready_word[] = "ready\n"; /* no error line is that short */

/* Waits for the child's word: _exit(), as everything else is the child's. */
static void wait_for_word(int fd, pid_t child)
{
	char word[1024];
	size_t length = 0;
	ssize_t got;
	int status;

	while (length < sizeof(word) - 1) {
		got = read(fd, word + length, sizeof(word) - 1 - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	word[length] = 0;
	if (!strcmp(word, ready_word))
		_exit(0);
	if (length)
		fprintf(stderr, "blockjobfs: %s\n", word);
	else if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		fprintf(stderr, "blockjobfs: the daemon ended before it was ready\n");
	_exit(1);
}

int background_begin(void)
{
	int fds[2];
	pid_t child;

	fflush(NULL);
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (child > 0) {
		close(fds[1]);
		wait_for_word(fds[0], child);
	}
	close(fds[0]);
	setsid();
	umask(022);
	return fds[1];
}

static int tell(int fd, const char *word)
{
	ssize_t length = (ssize_t)strlen(word);
	ssize_t written = write(fd, word, (size_t)length);

	close(fd);
	return written == length ? 0 : -1;
}

void background_detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_to_syslog();
	if (chdir("/"))
		log_line("the folder / cannot be entered: %s", strerror(errno));
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

int background_ready(int fd)
{
	background_detach();
	return tell(fd, ready_word);
}

void background_failed(int fd, const char *error)
{
	tell(fd, error);
}
