/*
 * The start and the end of the daemon. Everything it is made of is made, started and freed here, in
 * this order: options, sources, the mount point, the background, the model, the mount; and back.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "fs/background.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/mount_watch.h"
#include "fs/notify.h"
#include "fs/options.h"
#include "fs/session.h"
#include "fs/toucher.h"
#include "fs/verbs.h"
#include "jobs/journal.h"
#include "jobs/policy.h"
#include "jobs/state_folder.h"
#include "jobs/text.h"
#include "jobs/attach.h"

enum {
	EXIT_BAD_USE = 2,
	SIGNALS = 3,
};

struct daemon {
	struct options options;
	struct source *sources;
	char *mountpoint; /* absolute */
	int parent; /* descriptor of background_begin(), -1: foreground, or told */

	uv_loop_t loop;
	uv_signal_t signals[SIGNALS];
	struct face face;
	struct state_folder state;
	struct model *model;
	struct session *session;
	struct notify *notify;
	struct mount_watch *mount_watch;
	bool ending;
	char *failure; /* NULL: none */
};

/* --- the end --- */

static void on_model_stopped(void *data)
{
	struct daemon *daemon = data;

	daemon->face.notify = NULL;
	if (daemon->notify)
		notify_stop(daemon->notify);
	mount_watch_stop(daemon->mount_watch);
	if (daemon->session)
		session_end(daemon->session);
	for (int i = 0; i < SIGNALS; i++)
		uv_close((uv_handle_t *)&daemon->signals[i], NULL);
}

/*
 * The one way to end: first the model, so that whoever waits gets an answer while there is still a mount to
 * give it through; then the mount. The loop ends by itself. @failure is taken; NULL: all is well.
 */
static void daemon_end(struct daemon *daemon, char *failure)
{
	if (daemon->ending) {
		free(failure);
		return;
	}
	daemon->ending = true;
	daemon->failure = failure;
	model_stop(daemon->model, on_model_stopped, daemon);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;

	/* In the background a hang-up is nobody's terminal. */
	if (number == SIGHUP && !daemon->options.foreground)
		return;
	daemon_end(daemon, daemon->parent < 0 ? NULL : text_sentence("ended by signal %d", number));
}

/* --- the start --- */

/* What still holds the file system is our toucher: when that is gone the kernel ends the session. */
static void on_mount_gone(void *data)
{
	struct daemon *daemon = data;

	notify_quiet(daemon->notify);
}

static void on_ready(void *data)
{
	struct daemon *daemon = data;
	int parent = daemon->parent;

	daemon->mount_watch =
		mount_watch_start(&daemon->loop, daemon->mountpoint, on_mount_gone, daemon);
	notify_start(daemon->notify);
	daemon->parent = -1;
	if (parent >= 0 && background_ready(parent) < 0)
		daemon_end(daemon, text_sentence("whoever started it has gone"));
}

static void on_unmounted(void *data)
{
	daemon_end(data, NULL);
}

static const struct session_handlers session_handlers = {
	.ready = on_ready,
	.ended = on_unmounted,
};

static void on_settled(void *data, const char *error)
{
	struct daemon *daemon = data;
	char *failure = NULL;

	if (daemon->ending)
		return;
	if (error)
		daemon_end(daemon, text_sentence("%s", error));
	else if (session_mount(daemon->session, daemon->mountpoint, &failure))
		daemon_end(daemon, failure);
}

/* What callers other than the owner may do. */
static void set_policy(struct daemon *daemon, char **failure)
{
	const struct options *options = &daemon->options;
	struct policy *policy = daemon->model->policy;
	size_t bad, bad_length;
	char *verbs = NULL;

	if (options->allow && verbs_read(options->allow, &verbs, &bad, &bad_length))
		policy_set_verbs(policy, verbs);
	free(verbs);
	for (size_t i = 0; !*failure && i < options->image_dir_count; i++)
		policy_add_folder(policy, options->image_dirs[i], failure);
}

static void start_signals(struct daemon *daemon)
{
	static const int numbers[SIGNALS] = { SIGTERM, SIGINT, SIGHUP };

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < SIGNALS; i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], on_signal, numbers[i]);
	}
}

static void journal_says(void *data, const char *line)
{
	log_line("%s", line);
}

/*
 * A folder that the user has named must do, and no folder may serve two. Where the default one cannot be had the daemon is still of use.
 */
static struct journal *open_journal(struct daemon *daemon, char **failure)
{
	const struct options *options = &daemon->options;
	char *error = NULL;
	int code = state_folder_open(&daemon->state, options->state_dir, options->runtime_dir,
				     daemon->mountpoint, &error);
	const struct journal_settings settings = {
		.path = daemon->state.path,
		.dir = daemon->state.dir,
		.lasting = daemon->state.lasting,
		.loop = &daemon->loop,
		.log = journal_says,
	};

	if (!code)
		return journal_open(&settings);
	if (options->state_dir || code == -EWOULDBLOCK) {
		*failure = error;
		return NULL;
	}
	log_line("%s; history and what else outlives the daemon is in memory only", error);
	free(error);
	return NULL;
}

static void start(struct daemon *daemon)
{
	struct model_settings settings = {
		.timeout_ms = daemon->options.timeout_s * 1000,
		.runtime_dir = daemon->options.runtime_dir,
		.image_format = daemon->options.format,
	};
	char *failure = NULL;

	uv_loop_init(&daemon->loop);
	start_signals(daemon);
	face_init(&daemon->face);
	settings.journal = open_journal(daemon, &failure);
	daemon->model = model_new(&daemon->loop, &settings, &face_watcher, &daemon->face);
	face_set_model(&daemon->face, daemon->model);
	daemon->face.read_only = daemon->options.read_only;
	daemon->face.overrides = toucher_overrides();
	daemon->face.wait_limit_ms = mount_wait_limit();
	daemon->notify = notify_new(&daemon->loop, &daemon->face, daemon->mountpoint);
	daemon->face.notify = daemon->notify;
	if (!failure)
		daemon->session = session_new(&daemon->loop, &daemon->face, &daemon->options.mount,
					      &session_handlers, daemon, &failure);
	if (!failure)
		set_policy(daemon, &failure);
	for (size_t i = 0; !failure && i < daemon->options.source_count; i++)
		model_add(daemon->model, &daemon->sources[i], &failure);
	if (!failure)
		attach_remembered(daemon->model);
	if (failure)
		daemon_end(daemon, failure);
	else
		model_settle(daemon->model, on_settled, daemon);
}

/* From the first handle to the last. Returns the exit status. */
static int serve(struct daemon *daemon)
{
	int status = 0;

	start(daemon);
	uv_run(&daemon->loop, UV_RUN_DEFAULT);
	face_clear(&daemon->face);
	session_free(daemon->session);
	notify_free(daemon->notify);
	model_free(daemon->model);
	state_folder_close(&daemon->state);
	if (uv_loop_close(&daemon->loop))
		log_line("the loop was left with handles in it");
	if (daemon->failure) {
		if (daemon->parent >= 0)
			background_failed(daemon->parent, daemon->failure);
		else
			log_line("%s", daemon->failure);
		status = EXIT_FAILURE;
	}
	free(daemon->failure);
	return status;
}

/* --- before the start --- */

/*
 * A standard descriptor that the caller has closed must not become one of ours: the background replaces these three
 * (fs/background.c).
 */
static void fill_standard(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);
}

/* Monitors, open files, engines: the soft limit of 1024 is for programs that use select(2). */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int read_sources(struct daemon *daemon, char **error)
{
	const struct options *options = &daemon->options;

	daemon->sources = calloc(options->source_count, sizeof(*daemon->sources));
	if (!daemon->sources)
		abort();
	for (size_t i = 0; i < options->source_count; i++)
		if (source_parse(&daemon->sources[i], options->sources[i], error) < 0)
			return -1;
	return 0;
}

static int run(struct daemon *daemon)
{
	char *error = NULL;
	int status;

	if (read_sources(daemon, &error) ||
	    mount_check(daemon->options.mountpoint, &daemon->mountpoint, &error)) {
		log_line("%s", error);
		free(error);
		return EXIT_FAILURE;
	}
	raise_limit();
	if (!daemon->options.foreground) {
		status = background_begin();
		if (status < 0) {
			log_line("cannot go to the background: %s", strerror(-status));
			return EXIT_FAILURE;
		}
		daemon->parent = status;
	}
	return serve(daemon);
}

static int answer(const struct options *options)
{
	if (options->help)
		options_help(stdout);
	else if (options->version)
		puts("blockjobfs " BLOCKJOBFS_VERSION);
	else
		files_reference(stdout);
	return fflush(stdout) ? EXIT_FAILURE : 0;
}

int main(int argc, char **argv)
{
	static struct daemon daemon = { .parent = -1 };
	struct options *options = &daemon.options;
	char *error = NULL;
	int status;

	source_keep_command(argc, argv);
	fill_standard();
	log_open();
	if (argc == 3 && !strcmp(argv[1], "--toucher"))
		return toucher_main(argv[2]);
	if (options_read(options, argc, argv, &error) < 0) {
		log_line("%s", error);
		free(error);
		status = EXIT_BAD_USE;
	} else if (options->help || options->version || options->list_files) {
		status = answer(options);
	} else {
		status = run(&daemon);
	}
	for (size_t i = 0; daemon.sources && i < options->source_count; i++)
		source_clear(&daemon.sources[i]);
	free(daemon.sources);
	free(daemon.mountpoint);
	options_clear(options);
	uv_library_shutdown();
	return status;
}
