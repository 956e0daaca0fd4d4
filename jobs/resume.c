/*
 * What the next life of a mount takes over; see resume.h. A new property of a domain or a disk that it must know is a line in put and one in take.
 */
#include "jobs/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>
#include "jobs/domain_link.h"
#include "jobs/event_store.h"
#include "jobs/folder.h"
#include "jobs/history.h"
#include "jobs/job_record.h"
#include "jobs/journal.h"
#include "jobs/json.h"
#include "qmp/value.h"

#define DOMAIN "domain/"
#define STATE  "state/"
#define DISK   "shown/" /* not disk/, which is a key of jobs/identity.c: both may be in one journal */
#define ERROR  "error/"

/* malloc'ed. @disk may be NULL. */
static char *key_of(const char *prefix, const char *domain, const char *disk)
{
	char *key;

	if (asprintf(&key, "%s%s%s%s", prefix, domain, disk ? "/" : "", disk ? disk : "") < 0)
		abort();
	return key;
}

static void keep(struct model *model, char *key, struct text *value)
{
	json_close(value, '}');
	journal_put(model->handover, key, text_bytes(value));
	text_free(value);
	free(key);
}

static void drop(struct model *model, char *key)
{
	journal_drop(model->handover, key);
	free(key);
}

static struct qmp_value *look_up(struct model *model, char *key)
{
	const char *text = journal_get(model->handover, key);
	struct qmp_value *value = text ? qmp_value_parse(text, strlen(text), NULL) : NULL;

	free(key);
	return value;
}

static char *copy_text(const struct qmp_value *value, const char *key)
{
	const char *text = qmp_value_text(value, key, NULL);

	return text ? strdup(text) : NULL;
}

/* --- keeping --- */

void resume_keep_domain(const struct domain *domain)
{
	resume_keep_address(domain, domain->address);
}

void resume_keep_address(const struct domain *domain, const char *address)
{
	struct text *value = json_new();

	json_text(value, "address", address);
	json_flag(value, "by-hand", domain->by_hand);
	json_text(value, "folder", domain->folder ? folder_path(domain->folder) : NULL);
	keep(domain->model, key_of(DOMAIN, domain->name, NULL), value);
}

void resume_keep_state(const struct domain *domain)
{
	struct text *value = json_new();

	json_flag(value, "connected", domain_shown_state(domain) == DOMAIN_CONNECTED);
	json_text(value, "run-state", domain->run_state);
	keep(domain->model, key_of(STATE, domain->name, NULL), value);
}

void resume_drop_domain(const struct domain *domain)
{
	drop(domain->model, key_of(DOMAIN, domain->name, NULL));
	drop(domain->model, key_of(STATE, domain->name, NULL));
	drop(domain->model, key_of(ERROR, domain->name, NULL));
	event_store_end(domain->model, domain, NULL);
}

static void put_image(struct text *value, const struct qmp_image *image)
{
	json_open(value, NULL, '{');
	json_text(value, "node", image->node);
	json_text(value, "filename", image->filename);
	json_text(value, "path", image->path);
	json_text(value, "backing", image->backing);
	json_text(value, "format", image->format);
	json_number(value, "size", image->size);
	json_close(value, '}');
}

void resume_keep_disk(const struct disk *disk)
{
	struct text *value = json_new();

	json_text(value, "identity", disk->identity);
	json_text(value, "file-node", disk->file_node);
	json_open(value, "chain", '[');
	for (size_t i = 0; i < disk->depth; i++)
		put_image(value, &disk->chain[i]);
	json_close(value, ']');
	keep(disk->domain->model, key_of(DISK, disk->domain->name, disk->name), value);
}

void resume_drop_disk(const struct disk *disk)
{
	struct domain *domain = disk->domain;

	drop(domain->model, key_of(DISK, domain->name, disk->name));
	drop(domain->model, key_of(ERROR, domain->name, disk->name));
	job_record_lay_down(disk);
	event_store_end(domain->model, domain, disk);
}

void resume_keep_error(const struct target *target)
{
	const struct domain *domain = target->disk ? target->disk->domain : target->domain;
	const char *error = target->disk ? target->disk->error : domain->error;
	char *key = key_of(ERROR, domain->name, target->disk ? target->disk->name : NULL);
	struct text *value;

	if (!error) {
		drop(domain->model, key);
		return;
	}
	value = json_new();
	json_text(value, "text", error);
	json_flag(value, "link", !target->disk && domain->link->link_error);
	keep(domain->model, key, value);
}

/* --- taking over --- */

static void take_chain(struct disk *disk, const struct qmp_value *chain)
{
	disk->depth = qmp_value_count(chain);
	disk->chain = calloc(disk->depth + 1, sizeof(*disk->chain));
	if (!disk->chain)
		abort();
	for (size_t i = 0; i < disk->depth; i++) {
		const struct qmp_value *value = qmp_value_item(chain, i);

		disk->chain[i] = (struct qmp_image){
			.node = copy_text(value, "node"),
			.filename = strdup(qmp_value_text(value, "filename", "")),
			.path = strdup(qmp_value_text(value, "path", "")),
			.backing = copy_text(value, "backing"),
			.format = strdup(qmp_value_text(value, "format", "raw")),
			.size = qmp_value_number(value, "size", 0),
		};
	}
}

static void take_error(struct model *model, struct domain *domain, struct disk *disk)
{
	struct qmp_value *value =
		look_up(model, key_of(ERROR, domain->name, disk ? disk->name : NULL));

	if (value && disk) {
		disk->error = copy_text(value, "text");
	} else if (value) {
		domain->error = copy_text(value, "text");
		domain->link->link_error = qmp_value_flag(value, "link", false);
	}
	qmp_value_free(value);
}

static void take_disk(void *data, const char *key, const char *text)
{
	struct model *model = data;
	const char *name = strchr(key + strlen(DISK), '/');
	struct qmp_value *value = qmp_value_parse(text, strlen(text), NULL);
	char *domain_name =
		strndup(key + strlen(DISK), name ? (size_t)(name - key) - strlen(DISK) : 0);
	struct domain *domain = model_find_domain(model, domain_name);
	struct disk *disk;

	free(domain_name);
	if (domain && name && value) {
		disk = calloc(1, sizeof(*disk));
		if (!disk)
			abort();
		disk->domain = domain;
		disk->name = strdup(name + 1);
		disk->identity = strdup(qmp_value_text(value, "identity", ""));
		disk->file_node = copy_text(value, "file-node");
		take_chain(disk, qmp_value_get(value, "chain"));
		take_error(model, domain, disk);
		inventory_take_over(disk);
	}
	qmp_value_free(value);
}

static struct folder *find_folder(struct model *model, const char *path)
{
	char *error = NULL;

	if (!path)
		return NULL;
	if (!folder_find(model, path) && folder_add(model, path, &error) < 0)
		free(error);
	return folder_find(model, path);
}

static void take_domain(void *data, const char *key, const char *text)
{
	struct model *model = data;
	struct qmp_value *value = qmp_value_parse(text, strlen(text), NULL), *state;
	const char *address = qmp_value_text(value, "address", "");
	struct source source = { .kind = SOURCE_NONE };
	struct domain *domain;
	char *error = NULL;

	if (*address && source_parse(&source, address, &error) < 0) {
		free(error);
		source_clear(&source);
		source = (struct source){ .kind = SOURCE_NONE };
	}
	free(source.name);
	source.name = strdup(key + strlen(DOMAIN));
	source.folder = find_folder(model, qmp_value_text(value, "folder", NULL));
	state = look_up(model, key_of(STATE, source.name, NULL));
	domain = model_take_over(model, &source);
	domain->by_hand = qmp_value_flag(value, "by-hand", false);
	domain->link->resuming = qmp_value_flag(state, "connected", false);
	domain->run_state = copy_text(state, "run-state");
	take_error(model, domain, NULL);
	if (source.folder)
		folder_take_over(source.folder, domain);
	qmp_value_free(state);
	qmp_value_free(value);
	source_clear(&source);
}

static void take_folder(void *data, const char *key, const char *text)
{
	find_folder(data, text);
}

void model_resume(struct model *model)
{
	struct domain *domain;
	struct disk *disk;

	model->resuming = true;
	journal_each(model->handover, FOLDER_KEY, take_folder, model);
	journal_each(model->handover, DOMAIN, take_domain, model);
	journal_each(model->handover, DISK, take_disk, model);
	model->resuming = false;
	event_store_load(model);
	DL_FOREACH(model->domains, domain) {
		DL_FOREACH(domain->disks, disk) {
			job_record_pick_up(disk);
			disk_is_told(disk);
		}
		domain_start(domain);
		/* Its engine has its folder by now, which is named after the first image. */
		DL_FOREACH(domain->disks, disk)
			disk_follow_engine(disk);
	}
}

/* --- until a domain is reached again --- */

enum domain_state domain_shown_state(const struct domain *domain)
{
	return domain->link->resuming ? DOMAIN_CONNECTED : domain->state;
}

bool domain_is_resuming(const struct domain *domain)
{
	return domain->link->resuming;
}

static void resume_ops(struct op *ops)
{
	struct op *op, *next;

	DL_FOREACH_SAFE(ops, op, next) {
		void (*resumed)(struct op * op) = op->resumed;

		op->resumed = NULL;
		if (resumed)
			resumed(op);
	}
}

void resume_over(struct domain *domain)
{
	struct disk *disk, *next;

	if (!domain->link->resuming)
		return;
	domain->link->resuming = false;
	resume_ops(domain->ops);
	DL_FOREACH_SAFE(domain->disks, disk, next)
		resume_ops(disk->ops);
}
