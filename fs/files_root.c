/*
 * The files of the root. The handlers see the model only.
 */
#include "fs/files.h"

#include "fs/jobs_table.h"

static const char readme[] =
	"blockjobfs: block jobs of QEMU as files.\n"
	"\n"
	"domains/<domain>/                 one machine, or one image that is not in use\n"
	"    address  state                where its monitor is; how the link and the machine are\n"
	"    group                         one command for several disks: vda vdb: pivot\n"
	"    allow                         the commands that other users have, once it is theirs:\n"
	"                                  chown -R USER domains/<domain>\n"
	"    error                         why the last thing asked of it failed\n"
	"    disks/<disk>/\n"
	"        pull                      start: populate the disk from its backing chain\n"
	"        speed  pause  abort       steer the job\n"
	"        progress  status  job     watch it\n"
	"        wait                      blocks until no job is live, then says how it ended\n"
	"        chain  source  format  size   the disk itself, chain: active image first\n"
	"        events  error  history    what happened\n"
	"    by-source/                    links to the disks, by the paths of their images\n"
	"    mkdir and rmdir here: attach a machine (write unix:PATH to its address), detach one\n"
	"jobs                              every live job, a line each: watch -n1 cat jobs\n"
	"events                            every event, a JSON object a line\n"
	"metrics.prom                      figures for Prometheus\n"
	"\n"
	"Read a control file for its usage, write one line to it to give a command:\n"
	"\n"
	"    cd domains/web1/disks/disk0\n"
	"    cat pull                      keys and flags\n"
	"    cat chain                     what the disk stands on\n"
	"    echo bandwidth=64M > pull     success means started\n"
	"    cat progress                  bytes done, bytes in all\n"
	"    echo 128M > speed             faster\n"
	"    cat wait                      completed\n"
	"\n"
	"A command that is refused changes nothing; the reason is in `error` next to it.\n";

static void show_readme(const struct place *place, struct text *out)
{
	text_append(out, readme, sizeof(readme) - 1);
}

static void show_version(const struct place *place, struct text *out)
{
	text_puts(out, "blockjobfs " BLOCKJOBFS_VERSION "\n");
}

static void show_metrics(const struct place *place, struct text *out)
{
	metrics_show(place->model, out);
}

const struct file root_files[] = {
	{
		.name = "README",
		.mode = S_IFREG | 0444,
		.show = show_readme,
		.help = "what this is, in one screen",
	},
	{
		.name = "version",
		.mode = S_IFREG | 0444,
		.show = show_version,
		.help = "name and version, one line",
	},
	{
		.name = "jobs",
		.mode = S_IFREG | 0444,
		.flags = FILE_FRESH | FILE_STEADY,
		.topic = TOPIC_STATUS,
		.show = show_jobs,
		.help = "a table for people: one line a live job; state? is of a QEMU that does "
			"not "
			"answer",
	},
	{
		.name = "events",
		.mode = S_IFREG | 0444,
		.flags = FILE_LOG,
		.topic = TOPIC_EVENTS,
		.help = "every event of every domain, a JSON object a line",
	},
	{
		.name = "metrics.prom",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_EVENTS,
		.show = show_metrics,
		.help = "counters and figures in the text form of Prometheus and OpenMetrics",
	},
	{
		.name = "domains",
		.mode = S_IFDIR | 0755,
		.topic = TOPIC_LISTING,
		.help = "a folder for each domain",
	},
	{ 0 },
};
