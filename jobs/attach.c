/*
 * Domains made in the tree; see jobs/attach.h. What they are is in domain.c, how they begin and end in model.c.
 */
#include "jobs/attach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "jobs/domain_link.h"
#include "jobs/grammar.h"
#include "jobs/history.h"
#include "jobs/job_record.h"
#include "jobs/journal.h"
#include "jobs/policy.h"
#include "jobs/resume.h"
#include "qmp/value.h"

enum {
	NAME_BYTES_MAX = 255,
};

static const char prefix[] = "attached/";

/* --- the journal --- */

static char *key_of(const struct domain *domain)
{
	char *key;

	if (asprintf(&key, "%s%s", prefix, domain->name) < 0)
		abort();
	return key;
}

static void remember(const struct domain *domain, const char *address)
{
	struct qmp_value *record = qmp_add_text(qmp_object(), "address", address);
	char *key = key_of(domain);

	journal_put(domain->model->journal, key, qmp_value_print(record));
	free(key);
	qmp_value_free(record);
}

static void forget(const struct domain *domain)
{
	char *key = key_of(domain);

	journal_drop(domain->model->journal, key);
	free(key);
}

/* --- checks --- */

static bool may_attach(struct op *op)
{
	if (policy_is_owner(&op->by))
		return true;
	op_refuse(op, -EPERM, "only the mount's owner may attach and detach domains");
	return false;
}

static bool begins(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

static bool is_utf8(const char *text)
{
	size_t length = 1;

	for (; *text && length; text += length)
		length = text_utf8_length(text, strlen(text));
	return length;
}

/*
 * Reads an address as it may be written in the tree. Returns 0, or -errno and *@error (malloc'ed). A path alone is taken for a
 * socket's without a look: the loop must not wait for a file system.
 */
static int read_address(struct source *source, const char *address, char **error)
{
	char *word = NULL;
	int status;

	*source = (struct source){ .kind = SOURCE_NONE };
	if (begins(address, "exec:") || begins(address, "image:") || begins(address, "dir:")) {
		*error = strdup("exec:, image: and dir: are for the command line and fstab only");
		return -EPERM;
	}
	if (!is_utf8(address)) { /* the journal is JSON */
		*error = strdup("an address is UTF-8");
		return -EINVAL;
	}
	if (*address != '/' && !begins(address, "unix:/") && !begins(address, "tcp:")) {
		*error = strdup("an address is unix:PATH, with an absolute path, or "
				"tcp:HOST:PORT");
		return -EINVAL;
	}
	if (asprintf(&word, "%s%s", *address == '/' ? "unix:" : "", address) < 0)
		abort();
	status = source_parse(source, word, error);
	free(word);
	return status;
}

/* --- mkdir, rmdir --- */

static bool is_fit(const char *name)
{
	char *escaped = source_escape_name(name);
	bool fit = strlen(name) <= NAME_BYTES_MAX && !strcmp(escaped, name);

	free(escaped);
	return fit;
}

void attach_make(struct op *op, const char *name)
{
	struct model *model = op->target.model;
	struct source source = { .kind = SOURCE_NONE, .name = (char *)name };
	struct domain *domain;
	char *error = NULL;

	if (!may_attach(op))
		return;
	domain = model_find_domain(model, name);
	if (domain && op->again && (domain->by_hand || !*domain->address)) {
		/* The kernel looks before it asks: an earlier life has made it, and could not say so. */
		domain->by_hand = true;
		remember(domain, domain->address);
		resume_keep_domain(domain);
		op_complete(op, 0);
	} else if (domain) {
		op_refuse(op, -EEXIST, "there is a domain of this name");
	} else if (!is_fit(name)) {
		op_refuse(op, -EINVAL,
			  "a domain's name has at most %d bytes, all of them UTF-8, no control "
			  "characters, no backslash, and no dot at the beginning",
			  NAME_BYTES_MAX);
	} else if (model_add(model, &source, &error) < 0) {
		op_refuse(op, -EEXIST, "%s", error);
		free(error);
	} else {
		domain = model_find_domain(model, name);
		domain->by_hand = true;
		remember(domain, domain->address);
		resume_keep_domain(domain);
		op_complete(op, 0);
	}
}

void attach_remove(struct op *op)
{
	struct domain *domain = op->target.domain;
	struct model *model = op->target.model;
	char *name;

	if (!may_attach(op))
		return;
	if (domain_is_busy(domain)) {
		op_refuse(op, -EBUSY,
			  "one of its disks has a live job: wait for its end, or abort it");
		return;
	}
	forget(domain);
	op_complete(op, 0);
	name = strdup(domain->name);
	model_remove(domain, "detached");
	job_record_forget(model, name);
	history_forget(model, name); /* the next one of that name is another machine */
	free(name);
}

/* --- the address --- */

static bool may_write(struct op *op)
{
	const struct domain *domain = op->target.domain;

	if (!may_attach(op))
		return false;
	if (!domain->by_hand)
		op_refuse(op, -EPERM,
			  "its address comes from the command line: make a domain of your own "
			  "with mkdir");
	else if (domain_is_busy(domain))
		op_refuse(op, -EBUSY,
			  "one of its disks has a live job: wait for its end, or abort it");
	else
		return true;
	return false;
}

static void keep_address(struct domain *domain, const struct source *source)
{
	char *address = source_address(source);

	remember(domain, address);
	resume_keep_address(domain, address);
	free(address);
}

static void go_to(struct domain *domain, const struct source *source)
{
	char *address = source_address(source);

	if (strcmp(address, domain->address)) {
		domain_set_source(domain, source);
		domain_start(domain);
	} else {
		reconnect_now(domain);
	}
	free(address);
}

/* An earlier life of the server has done it: there may be live jobs by now, which would have it refused. */
static bool is_there_already(const struct op *op, const char *text)
{
	const char *address = op->target.domain->address;

	return policy_is_owner(&op->by) && op->target.domain->by_hand &&
	       (!strcmp(address, text) || (begins(address, "unix:") && !strcmp(address + 5, text)));
}

void attach_write(struct op *op, const struct command *command)
{
	const struct word *word = command_word(command, "address");
	struct domain *domain = op->target.domain;
	struct source source;
	char *error = NULL, *taken;
	int status;

	if (op->again && is_there_already(op, word->text)) {
		op_complete(op, 0);
		return;
	}
	if (!may_write(op))
		return;
	status = read_address(&source, word->text, &error);
	if (status < 0) {
		op_refuse_at(op, status, word->offset, word->length, "%s", error);
		source_clear(&source);
		free(error);
		return;
	}
	free(source.name);
	source.name = strdup(domain->name);
	taken = model_may_add(domain->model, &source, domain);
	if (taken) {
		op_refuse_at(op, -EEXIST, word->offset, word->length, "%s", taken);
	} else {
		keep_address(domain, &source); /* it is done, whenever the server is killed */
		op_complete(op, 0); /* before its disks go, which would end it */
		go_to(domain, &source);
	}
	free(taken);
	source_clear(&source);
}

/* --- the next life --- */

static void attach_again(void *data, const char *key, const char *value)
{
	struct model *model = data;
	struct qmp_value *record = qmp_value_parse(value, strlen(value), NULL);
	const char *address = qmp_value_text(record, "address", "");
	struct source source = { .kind = SOURCE_NONE };
	char *error = NULL, *line;
	int status = *address ? read_address(&source, address, &error) : 0;

	free(source.name);
	source.name = strdup(key + strlen(prefix));
	if (!status && !is_fit(source.name))
		status = -EINVAL;
	if (!status)
		status = model_add(model, &source, &error);
	if (!status) {
		model_find_domain(model, source.name)->by_hand = true;
	} else {
		if (asprintf(&line, "%s, which was made in the tree, is given up: %s", source.name,
			     error ? error : "its name is unfit") < 0)
			abort();
		model->watcher->log(model->watcher_data, line);
		free(line);
		free(error);
		journal_drop(model->journal, key);
	}
	source_clear(&source);
	qmp_value_free(record);
}

void attach_remembered(struct model *model)
{
	journal_each(model->journal, prefix, attach_again, model);
}
