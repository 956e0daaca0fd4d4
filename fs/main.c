/*
 * The start and the end of the daemon. Everything it is made of is made, started and freed here, in
 * this order: options, sources, the mount point, the background, the model, the mount; and back. A server that takes over the mount of an
 * earlier life finds the first three where that has kept them.
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
#include "fs/keeper.h"
#include "fs/keeper_watch.h"
#include "fs/kept.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/mount_watch.h"
#include "fs/notify.h"
#include "fs/options.h"
#include "fs/session.h"
#include "fs/store.h"
#include "fs/toucher.h"
#include "fs/verbs.h"
#include "jobs/journal.h"
#include "jobs/journal_memory.h"
#include "jobs/policy.h"
#include "jobs/resume.h"
#include "jobs/state_folder.h"
#include "jobs/text.h"
#include "jobs/attach.h"

enum {
	EXIT_BAD_USE = 2,
	SIGNALS = 3,
};

static const int signal_numbers[SIGNALS] = { SIGTERM, SIGINT, SIGHUP };

struct daemon {
	struct options options;
	char **argv; /* the command line */
	char *folder; /* that it is relative to */
	bool taken_over; /* and we serve it */
	bool served; /* we are a server that was started by our keeper */
	int fuse; /* the mount of an earlier life, which we take over; -1 */
	int session_memory,
		model_memory; /* what it has left of the session and the model, or we leave; -1 */
	int lock; /* of the journal, if it has left that; -1 */
	struct kept *kept; /* in session_memory; NULL */
	struct journal *
		handover; /* in model_memory, or the like in ours; the model's, once there is one */
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
	struct keeper_watch *keeper_watch;
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
	keeper_watch_stop(daemon->keeper_watch);
	if (daemon->session)
		session_end(daemon->session);
	/* It ends: whoever says so once more must not make a failure of it. */
	for (int i = 0; i < SIGNALS; i++) {
		uv_close((uv_handle_t *)&daemon->signals[i], NULL);
		signal(signal_numbers[i], SIG_IGN);
	}
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
	/* A takeover that fails is not the end of the mount: whoever keeps that tries again, or takes it down. */
	if (daemon->fuse < 0 || daemon->taken_over)
		store_say("STOPPING=1");
	model_stop(daemon->model, on_model_stopped, daemon);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct daemon *daemon = handle->data;

	/* In the background a hang-up is nobody's terminal, and where there is a keeper it is for that to act on. */
	if (number == SIGHUP && (daemon->served || !daemon->options.foreground))
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

static void watch_keeper(struct daemon *daemon)
{
	const struct keeper_watch_settings settings = {
		.argv = daemon->argv,
		.folder = daemon->folder,
		.mountpoint = daemon->mountpoint,
		.held = { { KEEPER_FUSE, session_fd(daemon->session) },
			  { KEEPER_SESSION, daemon->session_memory },
			  { KEEPER_MODEL, daemon->model_memory },
			  { KEEPER_LOCK, daemon->state.lock } },
	};

	if (daemon->served)
		daemon->keeper_watch = keeper_watch_start(&daemon->loop, &settings);
}

static void on_ready(void *data)
{
	struct daemon *daemon = data;
	int parent = daemon->parent;

	watch_keeper(daemon);
	store_say("READY=1");
	if (daemon->served && !daemon->options.foreground)
		background_detach();
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

/* So that it can be taken down if there is nobody who serves it. */
static void tell_mountpoint(const struct daemon *daemon)
{
	char *line = text_sentence(KEEPER_MOUNTED "%s", daemon->mountpoint);

	store_say(line);
	free(line);
}

static void on_settled(void *data, const char *error)
{
	struct daemon *daemon = data;
	char *failure = NULL;

	if (daemon->ending)
		return;
	if (error) {
		daemon_end(daemon, text_sentence("%s", error));
	} else if (session_mount(daemon->session, daemon->mountpoint, &failure)) {
		daemon_end(daemon, failure);
	} else {
		store_keep(KEEPER_FUSE, session_fd(daemon->session));
		tell_mountpoint(daemon);
	}
}

/* The mount is there, and whoever uses it waits for us. */
static void take_over(struct daemon *daemon)
{
	const char *resend = getenv(KEEPER_RESEND);
	int status = session_take_over(daemon->session, daemon->fuse, daemon->mountpoint,
				       !resend || strcmp(resend, "0"));

	unsetenv(KEEPER_RESEND);
	if (status)
		daemon_end(daemon,
			   text_sentence("the mount cannot be taken over: %s", strerror(-status)));
	else {
		daemon->taken_over = true;
		if (daemon->face.started)
			on_ready(daemon);
	}
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
	for (size_t i = 0; !*failure && i < options->image_dir_count; i++) {
		policy_add_folder(policy, options->image_dirs[i], failure);
		/* Nobody is there to mend the command line: nothing may be made there. */
		if (*failure && daemon->fuse >= 0) {
			log_line("%s", *failure);
			free(*failure);
			*failure = NULL;
		}
	}
}

static void start_signals(struct daemon *daemon)
{
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < SIGNALS; i++) {
		uv_signal_init(&daemon->loop, &daemon->signals[i]);
		daemon->signals[i].data = daemon;
		uv_signal_start(&daemon->signals[i], on_signal, signal_numbers[i]);
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
				     daemon->mountpoint, daemon->lock, &error);
	const struct journal_settings settings = {
		.path = daemon->state.path,
		.dir = daemon->state.dir,
		.lasting = daemon->state.lasting,
		.loop = &daemon->loop,
		.log = journal_says,
	};

	if (!code) {
		if (daemon->lock < 0)
			store_keep(KEEPER_LOCK, daemon->state.lock);
		return journal_open(&settings);
	}
	if (daemon->fuse < 0 && (options->state_dir || code == -EWOULDBLOCK)) {
		*failure = error;
		return NULL;
	}
	log_line("%s; history and what else outlives the daemon is in memory only", error);
	free(error);
	return NULL;
}

static void start(struct daemon *daemon)
{
	bool resume = daemon->fuse >= 0;
	struct model_settings settings = {
		.handover = daemon->handover,
		.timeout_ms = daemon->options.timeout_s * 1000,
		.runtime_dir = daemon->options.runtime_dir,
		.image_format = daemon->options.format,
	};
	char *failure = NULL;

	uv_loop_init(&daemon->loop);
	start_signals(daemon);
	face_init(&daemon->face);
	open_files_keep(&daemon->face.files, daemon->kept, daemon->handover);
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
	if (!failure && resume)
		model_resume(daemon->model);
	for (size_t i = 0; !failure && !resume && i < daemon->options.source_count; i++)
		model_add(daemon->model, &daemon->sources[i], &failure);
	if (!failure && !resume)
		attach_remembered(daemon->model);
	if (failure)
		daemon_end(daemon, failure);
	else if (resume)
		take_over(daemon);
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
	kept_close(daemon->kept);
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

/* --- what lives have in common --- */

/* A memory of the store's, if it is that of the mount there; else a new one that is given to it. -1: there is no store. */
static int memory_of_store(const char *name, bool is_new, int (*make)(void))
{
	int fd = store_take(name);

	if (fd >= 0 && is_new) {
		close(fd);
		fd = -1;
	}
	if (fd >= 0 || !store_is_there())
		return fd;
	fd = make();
	if (fd >= 0)
		store_keep(name, fd);
	return fd < 0 ? -1 : fd;
}

static int open_memories(struct daemon *daemon, char **error)
{
	const char *mountpoint;

	daemon->fuse = store_take(KEEPER_FUSE);
	daemon->lock = store_take(KEEPER_LOCK);
	daemon->session_memory = memory_of_store(KEEPER_SESSION, daemon->fuse < 0, kept_new);
	daemon->model_memory = memory_of_store(KEEPER_MODEL, daemon->fuse < 0, journal_memory_new);
	if (daemon->session_memory >= 0)
		daemon->kept = kept_open(daemon->session_memory);
	if (daemon->model_memory >= 0)
		daemon->handover = journal_share(daemon->model_memory);
	if (daemon->fuse < 0) {
		if (!daemon->handover)
			daemon->handover = journal_new();
		return 0;
	}
	mountpoint = daemon->handover ? journal_get(daemon->handover, "mountpoint") : NULL;
	if (!mountpoint || !daemon->kept) {
		*error = strdup(
			"the mount cannot be taken over: what there is of it was left by another "
			"version of blockjobfs");
		return -1;
	}
	daemon->mountpoint = strdup(mountpoint);
	return 0;
}

/* The first life. */
static int find_all(struct daemon *daemon, char **error)
{
	if (daemon->fuse >= 0)
		return 0;
	if (daemon->served && *daemon->folder && chdir(daemon->folder)) {
		*error = text_sentence("%s: %s", daemon->folder, strerror(errno));
		return -1;
	}
	if (read_sources(daemon, error) ||
	    mount_check(daemon->options.mountpoint, &daemon->mountpoint, error))
		return -1;
	journal_put(daemon->handover, "mountpoint", daemon->mountpoint);
	return 0;
}

static int run(struct daemon *daemon)
{
	char *error = NULL;
	int status;

	if (open_memories(daemon, &error) || find_all(daemon, &error)) {
		log_line("%s", error);
		free(error);
		return EXIT_FAILURE;
	}
	if (getenv(KEEPER_REHEARSE))
		return 0;
	raise_limit();
	if (!daemon->served && !daemon->options.foreground) {
		status = background_begin();
		if (status < 0) {
			log_line("cannot go to the background: %s", strerror(-status));
			return EXIT_FAILURE;
		}
		daemon->parent = status;
	} else if (daemon->served && !daemon->options.foreground && daemon->fuse >= 0) {
		background_detach();
	}
	return serve(daemon);
}

/* The default: a keeper, and a server below it. */
static int keep(struct daemon *daemon)
{
	int parent = -1;

	if (!daemon->options.foreground) {
		parent = background_begin();
		if (parent < 0) {
			log_line("cannot go to the background: %s", strerror(-parent));
			return EXIT_FAILURE;
		}
	}
	return keeper_main(daemon->argv, daemon->folder, parent);
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

static int do_as_told(struct daemon *daemon, int argc)
{
	struct options *options = &daemon->options;
	char *error = NULL;
	int status;

	if (options_read(options, argc, daemon->argv, daemon->folder, &error) < 0) {
		log_line("%s", error);
		free(error);
		status = EXIT_BAD_USE;
	} else if (options->help || options->version || options->list_files) {
		status = answer(options);
	} else if (daemon->served || options->nokeeper) {
		status = run(daemon);
	} else {
		status = keep(daemon);
	}
	for (size_t i = 0; daemon->sources && i < options->source_count; i++)
		source_clear(&daemon->sources[i]);
	free(daemon->sources);
	free(daemon->mountpoint);
	options_clear(options);
	return status;
}

int main(int argc, char **argv)
{
	static struct daemon daemon = {
		.parent = -1, .fuse = -1, .lock = -1, .session_memory = -1, .model_memory = -1
	};
	bool adopts = argc >= 4 && !strcmp(argv[1], KEEPER_ADOPT);
	int status;

	source_keep_command(argc, argv);
	daemon.served = argc >= 3 && !strcmp(argv[1], KEEPER_SERVE);
	store_begin(daemon.served || adopts);
	if (daemon.served)
		store_is_behind(store_take(STORE_VOICE));
	fill_standard();
	log_open();
	if (argc == 3 && !strcmp(argv[1], "--toucher"))
		return toucher_main(argv[2]);
	if (adopts)
		return keeper_adopt_main(argv + 3, (pid_t)atol(argv[2]));
	if (daemon.served) {
		daemon.folder = strdup(argv[2]);
		argv[2] = argv[0];
		argv += 2;
		argc -= 2;
	} else {
		daemon.folder = getcwd(NULL, 0);
	}
	if (!daemon.folder)
		daemon.folder = strdup("");
	daemon.argv = argv;
	status = do_as_told(&daemon, argc);
	free(daemon.folder);
	uv_library_shutdown();
	return status;
}
