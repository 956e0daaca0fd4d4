/*
 * The files of a domain's folder. The handlers see the model only.
 */
#include "fs/files.h"
#include "jobs/attach.h"

static const struct key address_keys[] = {
	{
		.name = "address",
		.kind = KEY_LINE,
		.positional = true,
		.required = true,
		.shown = "ADDRESS",
		.help = "unix:PATH, or tcp:HOST:PORT",
	},
	{ 0 },
};

#include <errno.h>
#include <stdlib.h>
#include "fs/verbs.h"
#include "jobs/policy.h"

static void show_address(const struct place *place, struct text *out)
{
	if (!*place->domain->address)
		return;
	show_line(out, place->domain->address);
	text_puts(out, "\n");
}

static void show_state(const struct place *place, struct text *out)
{
	const struct domain *domain = place->domain;

	text_puts(out, domain_state_words[domain_shown_state(domain)]);
	if (domain_shown_state(domain) == DOMAIN_CONNECTED && domain->run_state) {
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

/* --- allow --- */

static void show_allow(const struct place *place, struct text *out)
{
	verbs_show(policy_verbs(place->domain), out);
	text_puts(out, "\n");
}

static void refuse_verb(struct op *op, const struct word *word, size_t bad, size_t length)
{
	struct text *all = text_new();

	verbs_show(NULL, all);
	op_refuse_at(op, -EINVAL, word->offset, word->length,
		     "%.*s%sis no verb: those are %s, with commas between; or all, or none",
		     length > 64 ? 64 : (int)length, word->text + bad, length ? " " : "it ",
		     text_bytes(all));
	text_free(all);
}

static void write_allow(struct op *op, const struct command *command)
{
	const struct word *word = command_word(command, "verbs");
	size_t bad, bad_length;
	char *verbs = NULL;

	if (!policy_is_owner(&op->by)) {
		op_refuse(op, -EPERM, "only the mount's owner says what the others may do");
		return;
	}
	if (word && !verbs_read(word->text, &verbs, &bad, &bad_length)) {
		refuse_verb(op, word, bad, bad_length);
		return;
	}
	policy_set_domain_verbs(op->target.domain, verbs);
	free(verbs);
	op_complete(op, 0);
}

static const struct key allow_keys[] = {
	{
		.name = "verbs",
		.kind = KEY_TEXT,
		.positional = true,
		.shown = "VERB[,VERB...]|all|none",
		.help = "names of the disks' control files; without it: as -o allow= says",
	},
	{ 0 },
};

static const struct key group_keys[] = {
	{
		.name = "disks",
		.kind = KEY_LIST,
		.positional = true,
		.required = true,
		.shown = "DISK...:",
		.help = "names of disks of this domain and a colon: vda vdb: pivot",
	},
	{
		.name = "do",
		.kind = KEY_CHOICE,
		.positional = true,
		.required = true,
		.choices = "pivot finish abort",
		.shown = "pivot|finish|abort",
		.help = "what is done to all of them",
	},
	{ 0 },
};

const struct file domain_files[] = {
	{
		.name = "address",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_ADDRESS,
		.show = show_address,
		.write = attach_write,
		.keys = address_keys,
		.help = "where its monitor is; of a domain made by mkdir the mount's owner may "
			"write it: unix:PATH or tcp:HOST:PORT",
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
		.name = "allow",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_POLICY,
		.show = show_allow,
		.write = write_allow,
		.keys = allow_keys,
		.help = "The commands that users to whom this domain was delegated may give: names "
			"of the disks' control files. Only the mount's owner changes it.",
	},
	{
		.name = "group",
		.mode = S_IFREG | 0644,
		.topic = TOPIC_FIXED,
		.write = domain_group,
		.keys = group_keys,
		.help = "Waits until the jobs of all the disks are ready and does it to all of "
			"them "
			"(abort: at once), or to none if one ends first; returns when all are "
			"over.",
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
	{
		.name = "by-source",
		.mode = S_IFDIR | 0755,
		.flags = FILE_LINKS,
		.topic = TOPIC_SOURCES,
		.help = "a symbolic link to each disk, named after its active image's path",
	},
	{ 0 },
};
