/*
 * The files of a domain's folder. The handlers see the model only.
 */
#include "fs/files.h"

static void show_address(const struct place *place, struct text *out)
{
	show_line(out, place->domain->address);
	text_puts(out, "\n");
}

static void show_state(const struct place *place, struct text *out)
{
	const struct domain *domain = place->domain;

	text_puts(out, domain_state_words[domain->state]);
	if (domain->state == DOMAIN_CONNECTED && domain->run_state) {
		text_puts(out, " ");
		show_line(out, domain->run_state);
	}
	text_puts(out, "\n");
}

static void show_error(const struct place *place, struct text *out)
{
	if (place->domain->error)
		text_puts(out, place->domain->error);
}

const struct file domain_files[] = {
	{
		.name = "address",
		.mode = S_IFREG | 0444,
		.show = show_address,
		.help = "where its monitor is: unix:PATH or image:PATH",
	},
	{
		.name = "state",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_STATE,
		.show = show_state,
		.help = "connected, connecting, busy (another client holds the monitor) or "
			"disconnected; "
			"and the machine's run state as a second word where QEMU has one",
	},
	{
		.name = "error",
		.mode = S_IFREG | 0444,
		.topic = TOPIC_ERROR,
		.show = show_error,
		.help = "why the last thing asked of it failed, or why the link is down; empty if "
			"all is well",
	},
	{
		.name = "events",
		.mode = S_IFREG | 0444,
		.flags = FILE_LOG,
		.topic = TOPIC_EVENTS,
		.help = "this domain's events, a JSON object a line",
	},
	{
		.name = "disks",
		.mode = S_IFDIR | 0755,
		.topic = TOPIC_LISTING,
		.help = "a folder for each disk",
	},
	{ 0 },
};
