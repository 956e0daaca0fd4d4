/*
 * The private qemu-storage-daemon of an `image:` source: its folder, how it is brought up, adopted and ended. Used by its domain alone;
 * what it runs as programs is in jobs/program.c.
 */
#include "jobs/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/engine_folder.h"
#include "jobs/program.h"

enum engine_phase {
	ENGINE_DOWN,
	ENGINE_ADOPTING, /* a socket was left: whoever listens on it is the engine */
	ENGINE_PROBING, /* qemu-img info */
	ENGINE_STARTING, /* qemu-storage-daemon --daemonize: it is up when its parent has ended */
	ENGINE_UP,
	ENGINE_STOPPING,
	ENGINE_STOPPED,
};

enum {
	STOP_MS = 5000, /* an engine that has not gone by itself by then is killed */
	RESTART_MS = 1000, /* after an engine has died */
};

struct engine {
	struct domain *domain;
	char *image;
	char *format; /* of the image that it has gone over to; NULL: it has not */
	struct engine_folder folder;
	enum engine_phase phase;
	struct program *program; /* that runs now, or NULL */
	bool stop_wanted; /* as soon as the program has ended */
	uv_timer_t timer;
	uv_poll_t exit; /* of the engine's pidfd, while it is being ended */
	int pidfd; /* -1: none */
	unsigned handles; /* open ones */
};

struct engine *engine_new(struct domain *domain, const char *image)
{
	struct engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		abort();
	engine->domain = domain;
	engine->image = strdup(image);
	engine->pidfd = -1;
	engine->folder.lock = -1;
	uv_timer_init(domain->model->loop, &engine->timer);
	engine->timer.data = engine;
	engine->handles++;
	return engine;
}

void engine_free(struct engine *engine)
{
	engine_folder_close(&engine->folder);
	free(engine->image);
	free(engine->format);
	free(engine);
}

__attribute__((format(printf, 2, 3))) static void fail(struct engine *engine, const char *format,
						       ...)
{
	struct text *reason = text_new();
	va_list arguments;

	va_start(arguments, format);
	text_vprintf(reason, format, arguments);
	va_end(arguments);
	engine->phase = ENGINE_DOWN;
	domain_engine_failed(engine->domain, text_bytes(reason));
	text_free(reason);
}

/* --- bringing it up --- */

/* QEMU says the argument that it does not like before it says why. */
static const char *why(const char *complaint)
{
	const char *end = strstr(complaint, "}: ");

	return end ? end + 3 : complaint;
}

static void engine_started(void *data, const struct program_end *end)
{
	struct engine *engine = data;

	engine->program = NULL;
	if (engine->stop_wanted) {
		engine_stop(engine);
	} else if (end->error) {
		fail(engine,
		     "qemu-storage-daemon cannot be run: %s (it comes with the QEMU packages)",
		     strerror(-end->error));
	} else if (end->status) {
		fail(engine, "%s: qemu-storage-daemon does not take it: %s", engine->image,
		     why(end->complaint));
	} else {
		engine->phase = ENGINE_UP;
		domain_connect(engine->domain);
	}
}

/* The --blockdev argument, in JSON: a path may have commas. malloc'ed. */
static char *blockdev_argument(const char *image, const char *format)
{
	struct qmp_value *file = qmp_object(), *node = qmp_object();
	struct stat status;
	bool device = stat(image, &status) == 0 && S_ISBLK(status.st_mode);
	char *argument;

	qmp_add_text(file, "driver", device ? "host_device" : "file");
	qmp_add_text(file, "filename", image);
	qmp_add_text(node, "driver", format);
	qmp_add_text(node, "node-name", ENGINE_NODE);
	qmp_add_value(node, "file", file);
	argument = strdup(qmp_value_print(node));
	qmp_value_free(node);
	return argument;
}

static void start_daemon(struct engine *engine, const char *format)
{
	const char *daemon = engine->domain->model->settings.storage_daemon;
	char *blockdev = blockdev_argument(engine->image, format), *chardev;
	char *arguments[] = { (char *)(daemon ? daemon : "qemu-storage-daemon"),
			      "--daemonize",
			      "--pidfile",
			      engine->folder.pidfile,
			      "--blockdev",
			      blockdev,
			      "--chardev",
			      NULL,
			      "--monitor",
			      "chardev=monitor",
			      NULL };

	if (asprintf(&chardev, "socket,id=monitor,path=%s,server=on,wait=off",
		     engine->folder.socket) < 0)
		abort();
	arguments[7] = chardev;
	engine->phase = ENGINE_STARTING;
	engine->program =
		program_run(engine->domain->model->loop, arguments, engine_started, engine);
	free(chardev);
	free(blockdev);
}

static void image_probed(void *data, const struct program_end *end)
{
	struct engine *engine = data;
	struct qmp_value *info;
	const char *format;
	size_t at;

	engine->program = NULL;
	if (engine->stop_wanted) {
		engine_stop(engine);
		return;
	}
	if (end->error) {
		fail(engine, "qemu-img cannot be run: %s (install qemu-utils)",
		     strerror(-end->error));
		return;
	}
	if (end->status) {
		fail(engine, "%s: qemu-img does not take it: %s", engine->image, end->complaint);
		return;
	}
	info = qmp_value_parse(end->output, end->output_length, &at);
	format = qmp_value_text(info, "format", NULL);
	if (!format)
		fail(engine, "%s: qemu-img does not tell its format", engine->image);
	else if (!strcmp(format, "raw"))
		/* Every file can be read as raw: that is a guess, and a guest can make a raw disk look like another format. */
		fail(engine,
		     "%s: no format can be found in it; if it is a raw disk, say so: -o format=raw",
		     engine->image);
	else
		start_daemon(engine, format);
	qmp_value_free(info);
}

static void probe(struct engine *engine)
{
	const struct model_settings *settings = &engine->domain->model->settings;
	char *arguments[] = { (char *)(settings->qemu_img ? settings->qemu_img : "qemu-img"),
			      "info", "--output=json", engine->image, NULL };

	engine_folder_sweep(&engine->folder);
	if (engine->format) {
		start_daemon(engine, engine->format);
		return;
	}
	if (settings->image_format) {
		start_daemon(engine, settings->image_format);
		return;
	}
	engine->phase = ENGINE_PROBING;
	engine->program = program_run(engine->domain->model->loop, arguments, image_probed, engine);
}

void engine_start(struct engine *engine)
{
	char *error = NULL;

	if (engine_folder_open(&engine->folder, engine->domain->model->settings.runtime_dir,
			       engine->image, &error)) {
		fail(engine, "%s", error);
		free(error);
		return;
	}
	free(engine->domain->socket);
	engine->domain->socket = strdup(engine->folder.socket);
	if (access(engine->folder.socket, F_OK) == 0) {
		engine->phase = ENGINE_ADOPTING;
		domain_connect(engine->domain);
	} else {
		probe(engine);
	}
}

void engine_follow(struct engine *engine, const char *image, const char *format)
{
	if (*image != '/' || !strcmp(engine->image, image))
		return;
	free(engine->image);
	free(engine->format);
	engine->image = strdup(image);
	engine->format = strdup(format);
}

static void restart(uv_timer_t *timer)
{
	struct engine *engine = timer->data;

	if (engine->phase == ENGINE_DOWN)
		probe(engine);
}

/* --- ending it --- */

static void handle_closed(uv_handle_t *handle)
{
	struct engine *engine = handle->data;

	engine->handles--;
	model_stop_step(engine->domain->model);
}

/* It is gone, or was never there. */
static void stopped(struct engine *engine)
{
	if (engine->phase == ENGINE_STOPPED)
		return;
	engine->phase = ENGINE_STOPPED;
	if (engine->pidfd >= 0) {
		uv_poll_stop(&engine->exit);
		uv_close((uv_handle_t *)&engine->exit, handle_closed);
		close(engine->pidfd);
		engine->pidfd = -1;
	}
	uv_close((uv_handle_t *)&engine->timer, handle_closed);
	engine_folder_remove(&engine->folder);
}

static void process_ended(uv_poll_t *poll, int status, int events)
{
	stopped(poll->data);
}

static void kill_it(uv_timer_t *timer)
{
	struct engine *engine = timer->data;

	if (engine->pidfd < 0) {
		stopped(engine);
		return;
	}
	domain_log(engine->domain,
		   "the engine of %s does not end and is killed, with any job that is live on it",
		   engine->image);
	pidfd_send_signal(engine->pidfd, SIGKILL, NULL, 0);
}

static void ask_to_quit(struct engine *engine)
{
	struct domain_link *link = engine->domain->link;

	if (link->ready)
		qmp_quit(link->qmp, NULL, NULL);
	else if (engine->pidfd >= 0)
		pidfd_send_signal(engine->pidfd, SIGTERM, NULL, 0);
	else
		stopped(engine);
}

static void job_given_up(struct op *op, int status, void *data)
{
	struct engine *engine = data;
	const struct job *job = op->target.disk->job;
	int64_t cur, end;

	job_progress(job, &cur, &end);
	if (job->state == JOB_CANCELLED)
		domain_log(
			engine->domain,
			"the %s of %s was given up at %lld of %lld bytes; start it again to go on",
			job->type, engine->image, (long long)cur, (long long)end);
	ask_to_quit(engine);
}

static void wait_over(struct op *op)
{
	op_complete(op, 0);
}

/* True if there is a live job: it is being given up, and the engine goes when it is over. */
static bool give_up_job(struct engine *engine)
{
	struct domain *domain = engine->domain;
	struct target target = { .model = domain->model, .domain = domain };
	struct who nobody = { 0 };
	struct disk *disk;

	if (!domain->link->ready)
		return false;
	DL_FOREACH(domain->disks, disk) {
		if (!disk_is_busy(disk))
			continue;
		target.domain = NULL;
		target.disk = disk;
		op_new(&target, &nobody, job_given_up, engine)->job_ended = wait_over;
		qmp_job_cancel(domain->link->qmp, disk->job->id, NULL, NULL);
		return true; /* an engine has one disk */
	}
	return false;
}

static void watch_exit(struct engine *engine)
{
	pid_t pid = engine_folder_pid(&engine->folder);

	if (pid > 0)
		engine->pidfd = pidfd_open(pid, 0);
	if (engine->pidfd < 0)
		return;
	uv_poll_init(engine->domain->model->loop, &engine->exit, engine->pidfd);
	engine->exit.data = engine;
	engine->handles++;
	uv_poll_start(&engine->exit, UV_READABLE, process_ended);
}

void engine_stop(struct engine *engine)
{
	if (engine->phase >= ENGINE_STOPPING)
		return;
	engine->stop_wanted = true;
	if (engine->program)
		return; /* an engine that is just coming up can only be ended when it is there */
	engine->phase = ENGINE_STOPPING;
	watch_exit(engine);
	uv_timer_start(&engine->timer, kill_it, STOP_MS, 0);
	if (!give_up_job(engine))
		ask_to_quit(engine);
}

bool engine_link_closed(struct engine *engine, int code)
{
	bool gone = code == -ECONNREFUSED || code == -ENOENT;

	if (engine->phase >= ENGINE_STOPPING) {
		if (engine->pidfd < 0)
			stopped(engine);
		return true;
	}
	if (!gone)
		return false;
	if (engine->phase == ENGINE_ADOPTING && !engine->domain->link->settled) {
		probe(engine);
		return true;
	}
	domain_log(engine->domain, "the engine of %s has died; it is started again", engine->image);
	engine->phase = ENGINE_DOWN;
	uv_timer_start(&engine->timer, restart, RESTART_MS, 0);
	return true;
}

bool engine_is_stopped(const struct engine *engine)
{
	return engine->phase == ENGINE_STOPPED && engine->handles == 0;
}
