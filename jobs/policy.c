/*
 * Who may do what beyond the modes of files: the mount's owner, and the verbs of everybody else. Set up by main(), asked by fs/ before
 * a command is carried out, and by commands that stand for several.
 */
#include "jobs/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "jobs/journal.h"
#include "jobs/model.h"
#include "qmp/value.h"

struct policy *policy_new(void)
{
	struct policy *policy = calloc(1, sizeof(*policy));

	if (!policy)
		abort();
	return policy;
}

void policy_free(struct policy *policy)
{
	if (!policy)
		return;
	policy_clear_folders(policy);
	free(policy->verbs);
	free(policy);
}

bool policy_is_owner(const struct who *by)
{
	return by->uid == 0 || by->uid == geteuid();
}

/* --- verbs --- */

static char *copy(const char *verbs)
{
	return verbs ? strdup(verbs) : NULL;
}

void policy_set_verbs(struct policy *policy, const char *verbs)
{
	free(policy->verbs);
	policy->verbs = copy(verbs);
}

static char *key_of(const struct domain *domain)
{
	char *key;

	if (asprintf(&key, "allow/%s", domain->name) < 0)
		abort();
	return key;
}

void policy_read_domain(struct domain *domain)
{
	char *key = key_of(domain);
	const char *text = journal_get(domain->model->journal, key);
	struct qmp_value *record = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;
	const char *verbs = qmp_value_text(record, "verbs", NULL);

	free(domain->verbs);
	/* A record that cannot be read must not let anybody do more than was meant. */
	domain->verbs = text && !verbs ? strdup("") : copy(verbs);
	qmp_value_free(record);
	free(key);
}

void policy_set_domain_verbs(struct domain *domain, const char *verbs)
{
	struct qmp_value *record;
	char *key = key_of(domain);

	free(domain->verbs);
	domain->verbs = copy(verbs);
	if (verbs) {
		record = qmp_add_text(qmp_object(), "verbs", verbs);
		journal_put(domain->model->journal, key, qmp_value_print(record));
		qmp_value_free(record);
	} else {
		journal_drop(domain->model->journal, key);
	}
	free(key);
	domain_changed(domain, TOPIC_POLICY);
}

void policy_forget_domain(struct domain *domain)
{
	char *key = key_of(domain);

	journal_drop(domain->model->journal, key);
	free(key);
}

const char *policy_verbs(const struct domain *domain)
{
	return domain->verbs ? domain->verbs : domain->model->policy->verbs;
}

static bool has_word(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (;;) {
		size_t next = strcspn(list, ",");

		if (next == length && !strncmp(list, word, length))
			return true;
		if (!list[next])
			return false;
		list += next + 1;
	}
}

bool policy_may(struct op *op, const char *verb)
{
	const struct domain *domain = op->target.disk ? op->target.disk->domain : op->target.domain;
	const char *verbs = domain ? policy_verbs(domain) : op->target.model->policy->verbs;

	if (!verbs || !strcmp(verbs, "all") || policy_is_owner(&op->by) || has_word(verbs, verb))
		return true;
	op_refuse(op, -EPERM,
		  "%s is for the mount's owner alone in this domain: the others have %s (`allow`)",
		  verb, *verbs ? verbs : "no commands");
	return false;
}
