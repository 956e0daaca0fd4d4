/*
 * `group`: pivot, finish or abort for several disks as one. QEMU cannot do that: so it waits until all their jobs are ready, looks once
 * more whether they are, and sends all the commands at once. Until then whatever happens to one of them ends it, and nothing is done.
 * After that each goes its way, and the answer tells how each has ended. Called by fs/ through the row of `group`.
 *
 * On each disk an op watches the job to its end; the commands are the single disks' own, given by ops of the group.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/policy.h"
#include "jobs/request.h"
#include "qmp/value.h"

struct verb {
	const char *name;
	void (*write)(struct op *op, const struct command *command);
	const char *result; /* what the end must have come to; NULL: whatever it is */
};

static const struct verb verbs[] = {
	{ "pivot", disk_pivot, "pivoted" },
	{ "finish", disk_finish, "kept" },
	{ "abort", disk_abort, NULL },
};

enum phase {
	GROUP_WAITING, /* for all to be ready */
	GROUP_LOOKING, /* whether they still are */
	GROUP_SENT, /* to all, or being sent */
	GROUP_OVER,
};

struct member {
	struct group *group;
	char *disk, *job;
	struct disk *at; /* while it is watched: the op ends with the disk */
	uint64_t watch; /* the op; 0: it is over with this one */
	bool sent; /* its command was, by this life of the server */
	bool good; /* it ended as was wanted */
	int error; /* 0: how the job ended is known, and that its command was taken */
	char *end; /* how it ended, or why that is not known */
};

struct group {
	struct model *model;
	const struct verb *verb;
	uint64_t op; /* of the one who has written */
	struct who by;
	enum phase phase;
	unsigned references; /* ops on their way, and whoever is in here */
	size_t count;
	struct member members[];
};

static void group_unref(struct group *group)
{
	if (--group->references)
		return;
	for (size_t i = 0; i < group->count; i++) {
		free(group->members[i].disk);
		free(group->members[i].job);
		free(group->members[i].end);
	}
	free(group);
}

static void keep_end(struct member *member, const char *text)
{
	if (member->end)
		return; /* the first that is heard of it counts */
	member->end = strdup(text);
	if (!member->end)
		abort();
	member->end[strcspn(member->end, "\n")] = 0;
}

/* The group is over; nobody needs to watch any more. */
static void let_go(struct group *group)
{
	group->phase = GROUP_OVER;
	group->references++; /* each op takes one with it */
	for (size_t i = 0; i < group->count; i++) {
		struct op *watch = op_find(group->model, group->members[i].watch);

		if (watch)
			op_complete(watch, 0);
	}
	group_unref(group);
}

/* --- before anything was sent --- */

/* One cannot come along: nothing is done. */
static void give_up(struct group *group, const struct member *member)
{
	struct op *op = op_find(group->model, group->op);
	char *disk = strdup(member->disk), *end = strdup(member->end);

	let_go(group);
	if (op)
		op_refuse(op, member->error ? member->error : -ESRCH,
			  "%s: %s; nothing was done to any of the disks", disk, end);
	free(disk);
	free(end);
}

/* --- after --- */

static void put_ends(struct text *out, const struct group *group, const char *between)
{
	for (size_t i = 0; i < group->count; i++)
		text_printf(out, "%s%s%s %s", i ? between : "", group->members[i].disk,
			    *between == '\n' ? "" : ":", group->members[i].end);
}

/* Every member's end is known, or will not be. */
static void conclude(struct group *group)
{
	struct op *op = op_find(group->model, group->op);
	struct text *ends = text_new();
	bool good = true, known = true;
	int error = 0;

	for (size_t i = 0; i < group->count; i++) {
		good &= group->members[i].good;
		known &= !group->members[i].error || group->members[i].error == -EREMOTEIO ||
			 group->members[i].error == -ESRCH || group->members[i].error == -EAGAIN;
		if (!known && !error)
			error = group->members[i].error;
	}
	let_go(group);
	if (op && good) {
		put_ends(op->answer, group, "\n");
		text_puts(op->answer, "\n");
		op_complete(op, 0);
	} else if (op) {
		put_ends(ends, group, "; ");
		op_refuse(op, known ? -EREMOTEIO : error, "%s", text_bytes(ends));
	}
	text_free(ends);
}

static void member_over(struct member *member)
{
	struct group *group = member->group;

	if (group->phase == GROUP_OVER)
		return;
	if (group->phase < GROUP_SENT) {
		give_up(group, member);
		return;
	}
	for (size_t i = 0; i < group->count; i++)
		if (group->members[i].watch)
			return;
	conclude(group);
}

/* --- watching one --- */

static void watch_done(struct op *op, int status, void *data)
{
	struct member *member = data;
	struct group *group = member->group;

	member->watch = 0;
	member->at = NULL;
	if (status < 0 && group->phase != GROUP_OVER) {
		member->error = status;
		keep_end(member, status == -EHOSTDOWN	? "the connection to QEMU was lost"
				 : status == -ETIMEDOUT ? "QEMU does not answer"
							: text_bytes(op->answer));
	}
	member_over(member);
	group_unref(group);
}

/* How the member's job, which has ended, did; malloc'ed. NULL: @job is another one. */
static char *end_of(struct member *member, const struct job *job)
{
	const char *result, *wanted = member->group->verb->result;
	char *end;

	if (!job || strcmp(job->id, member->job))
		return NULL;
	result = job_result(job);
	member->good = !member->error && (!wanted || !strcmp(result, wanted));
	if (asprintf(&end, "%s%s%s %s", result, job->error ? ", " : "",
		     job->error ? job->error : "", job->id) < 0)
		abort();
	return end;
}

/* The live job of the disk has ended, or was never started. */
static void watch_ended(struct op *op)
{
	struct member *member = op->data;
	const struct job *job = op->target.disk->job;
	char *end = end_of(member, job);

	if (member->group->phase < GROUP_SENT) {
		free(end);
		if (asprintf(&end, "its job has ended first (%s)",
			     job ? job_state_words[job->state] : "it was not started") < 0)
			abort();
	}
	keep_end(member, end ? end : "its job was not started");
	free(end);
	op_complete(op, 0);
}

static void watch_ready(struct op *op);

static void watch(struct member *member, struct disk *disk)
{
	struct target target = { .model = member->group->model, .disk = disk };
	struct op *op = op_new(&target, &member->group->by, watch_done, member);

	member->group->references++;
	member->watch = op->id;
	member->at = disk;
	op->job_ended = watch_ended;
	op->job_ready = watch_ready;
	op->needs_qemu = true;
}

/* --- all at once --- */

static void command_answered(struct op *op, int status, void *data)
{
	struct member *member = data;
	struct group *group = member->group;
	struct op *watched = op_find(group->model, member->watch);

	/* The job goes on, for all that is known: no end to wait for. */
	if (status < 0 && watched) {
		member->error = status;
		keep_end(member, text_bytes(op->answer));
		op_complete(watched, 0);
	}
	group_unref(group);
}

static void send_to(struct member *member)
{
	static const struct command no_words;
	struct group *group = member->group;
	struct target target = { .model = group->model, .disk = member->at };

	member->sent = true;
	group->references++;
	group->verb->write(op_new(&target, &group->by, command_answered, member), &no_words);
}

/* What the next life of the server must know: from here on it cannot be taken back. */
static void note_members(const struct group *group)
{
	const struct op *op = op_find(group->model, group->op);
	struct qmp_value *members = qmp_array();

	if (!op) {
		qmp_value_free(members);
		return;
	}
	for (size_t i = 0; i < group->count; i++) {
		struct qmp_value *member = qmp_object();

		qmp_add_text(member, "disk", group->members[i].disk);
		qmp_add_text(member, "job", group->members[i].job);
		qmp_append_value(members, member);
	}
	request_note(op, qmp_add_value(qmp_object(), "members", members));
}

static void send_all(struct group *group)
{
	group->phase = GROUP_SENT;
	note_members(group);
	for (size_t i = 0; i < group->count; i++)
		if (group->members[i].at)
			send_to(&group->members[i]);
}

static bool all_are_ready(const struct group *group)
{
	for (size_t i = 0; i < group->count; i++) {
		const struct disk *disk = group->members[i].at;

		if (!disk || !job_is_live(disk->job) || disk->job->state != JOB_READY)
			return false;
	}
	return true;
}

static void looked_again(struct op *op, int status, void *data)
{
	struct group *group = data;

	if (group->phase == GROUP_LOOKING) {
		group->phase = GROUP_WAITING;
		if (!op_find(group->model, group->op))
			let_go(group);
		else if (!status && all_are_ready(group))
			send_all(group);
		/* QEMU does not answer: the watching ops are told, too. One is paused: it is looked at again when it is not. */
	}
	group_unref(group);
}

static void step(struct group *group)
{
	struct target target = { .model = group->model };

	if (group->phase != GROUP_WAITING)
		return;
	if (!op_find(group->model, group->op)) {
		let_go(group); /* whoever has written was interrupted: nothing is done. It may be freed now */
		return;
	}
	if (!all_are_ready(group))
		return;
	group->phase = GROUP_LOOKING;
	group->references++;
	target.disk = group->members[0].at;
	disk_refresh(op_new(&target, &group->by, looked_again, group));
}

static void watch_ready(struct op *op)
{
	struct member *member = op->data;

	/* It was paused when the command came a second time. */
	if (member->group->phase == GROUP_SENT && !member->sent && member->group->verb->result)
		send_to(member);
	else
		step(member->group);
}

/* --- the command --- */

static bool never_ready(const struct job *job)
{
	return !strcmp(job->type, "pull") || !strcmp(job->type, "backup") ||
	       (job->ours && !strcmp(job->type, "commit"));
}

/* Refuses @op, and returns false, if the disk has no job that could be ended so. */
static bool may_join(struct op *op, const struct word *word, const struct disk *disk,
		     const struct verb *verb)
{
	const struct job *job = disk->job;

	if (!disk_is_busy(disk) || job->phase >= JOB_CONCLUDED)
		op_refuse_at(op, -ESRCH, word->offset, word->length, "%s has no live job",
			     disk->name);
	else if (verb->result && never_ready(job))
		op_refuse_at(op, -EINVAL, word->offset, word->length,
			     "a %s job never becomes ready: it ends by itself", job->type);
	else if (verb->result && job->pivot_wanted)
		op_refuse_at(op, -EINVAL, word->offset, word->length,
			     "the job was started with pivot, and waits for nobody");
	else
		return true;
	return false;
}

/* Finds the disks that are named, and returns how many; or refuses @op and returns 0. */
static size_t find_members(struct op *op, const struct command *command, const struct verb *verb,
			   struct disk **disks)
{
	const struct word *words[COMMAND_WORDS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < command->count; i++) {
		const struct word *word = &command->words[i];

		if (word->key->kind != KEY_LIST)
			continue;
		words[count] = word;
		disks[count] = domain_find_disk(op->target.domain, word->text);
		if (!disks[count++]) {
			op_refuse_at(op, -ENOENT, word->offset, word->length,
				     "there is no disk of that name: see `disks`");
			return 0;
		}
	}
	for (size_t i = 0; i < count; i++)
		if (!may_join(op, words[i], disks[i], verb))
			return 0;
	return count;
}

static bool may_begin(struct op *op, const struct verb *verb)
{
	struct domain *domain = op->target.domain;

	if (!domain_is_connected(domain))
		op_refuse(op, -EHOSTDOWN, "the domain is not connected: see its `state`");
	else if (verb->write == disk_pivot &&
		 !qmp_has(domain->link->features, QMP_HAS_QUERY_STATUS))
		op_refuse(op, -EOPNOTSUPP,
			  "a storage daemon has no device that could go over to another image: use "
			  "finish");
	else
		return policy_may(op, verb->name);
	return false;
}

static const struct verb *find_verb(const char *name)
{
	size_t i = 0;

	while (strcmp(verbs[i].name, name))
		i++; /* the row has these choices */
	return &verbs[i];
}

static struct group *group_new(struct op *op, const struct verb *verb, size_t count)
{
	struct group *group = calloc(1, sizeof(*group) + count * sizeof(*group->members));

	if (!group)
		abort();
	group->model = op->target.model;
	group->verb = verb;
	group->op = op->id;
	group->by = op->by;
	group->references = 1;
	return group;
}

/* An earlier life of the server has sent the command to all of them, or to some: to those that show no sign of it it is sent again. */
static void go_on(struct group *group, struct op *op, const struct qmp_value *members)
{
	bool waits = false;

	group->phase = GROUP_SENT;
	for (size_t i = 0; i < qmp_value_count(members); i++) {
		const struct qmp_value *noted = qmp_value_item(members, i);
		struct member *member = &group->members[group->count++];
		struct disk *disk;

		member->group = group;
		member->disk = strdup(qmp_value_text(noted, "disk", ""));
		member->job = strdup(qmp_value_text(noted, "job", ""));
		disk = domain_find_disk(op->target.domain, member->disk);
		if (disk && disk_is_busy(disk) && !strcmp(disk->job->id, member->job)) {
			watch(member, disk);
			waits = true;
			continue;
		}
		member->end = end_of(member, disk ? disk->job : NULL);
		if (!member->end) {
			member->error = -ESRCH;
			keep_end(member, "its job is over: `history` tells how it ended");
		}
	}
	for (size_t i = 0; i < group->count; i++) {
		struct disk *disk = group->members[i].at;

		if (disk && (group->verb->result ? disk->job->state == JOB_READY &&
							   !job_has_begun_to_end(disk->job)
						 : disk->job->phase < JOB_CONCLUDED))
			send_to(&group->members[i]);
	}
	if (!waits)
		conclude(group);
}

/* True if it comes for the second time, and had got so far that it cannot begin anew. */
static bool resume(struct op *op, const struct verb *verb)
{
	struct qmp_value *note = request_noted(op);
	const struct qmp_value *members = qmp_value_get(note, "members");
	struct group *group;

	if (!qmp_value_count(members) || !domain_is_connected(op->target.domain)) {
		qmp_value_free(note);
		return false;
	}
	group = group_new(op, verb, qmp_value_count(members));
	domain_be_patient(op->target.domain);
	go_on(group, op, members);
	group_unref(group);
	qmp_value_free(note);
	return true;
}

void domain_group(struct op *op, const struct command *command)
{
	const struct verb *verb = find_verb(command_text(command, "do"));
	struct disk *disks[COMMAND_WORDS_MAX];
	struct group *group;
	size_t count;

	if (resume(op, verb))
		return;
	count = may_begin(op, verb) ? find_members(op, command, verb, disks) : 0;
	if (!count)
		return;
	group = group_new(op, verb, count);
	for (size_t i = 0; i < count; i++) {
		struct member *member = &group->members[group->count++];

		member->group = group;
		member->disk = strdup(disks[i]->name);
		member->job = strdup(disks[i]->job->id);
		watch(member, disks[i]);
	}
	domain_be_patient(op->target.domain);
	if (verb->result)
		step(group);
	else
		send_all(group);
	group_unref(group);
}
