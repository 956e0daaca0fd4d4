/*
 * The owners and modes that were changed, a table for each domain; see jobs/delegation.h.
 */
#include "jobs/delegation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "jobs/domain.h"
#include "jobs/journal.h"
#include "jobs/model.h"
#include "qmp/value.h"

enum {
	UNSET = -1, /* as it is by itself */
	ALL_BITS = 0777,
	SHARED_BITS = 0022, /* what a disk's files take of the mode of the domain's folder */
};

/* Whom something was given to. */
struct grant {
	int64_t mode, uid, gid;
};

struct record {
	char *name; /* what follows mode/DOMAIN in the key */
	struct grant own;
	struct grant born; /* of a disk: what the domain's folder was when the disk came */
	bool has_born; /* UNSET in it is: by itself */
	struct timespec changed;
	UT_hash_handle hh;
};

struct delegation {
	struct record *records;
};

static const struct grant nothing = { UNSET, UNSET, UNSET };

/* --- records and the journal --- */

/* malloc'ed */
static char *name_of(const char *disk, const char *file)
{
	char *name;

	if (asprintf(&name, "%s%s%s%s", disk || file ? "/" : "", disk ? disk : "", file ? "/" : "",
		     file ? file : "") < 0)
		abort();
	return name;
}

static struct record *find(const struct domain *domain, const char *disk, const char *file)
{
	struct record *record = NULL;
	char *name;

	if (!domain->delegation)
		return NULL;
	name = name_of(disk, file);
	HASH_FIND_STR(domain->delegation->records, name, record);
	free(name);
	return record;
}

static struct record *add(struct domain *domain, const char *name)
{
	struct record *record = calloc(1, sizeof(*record));

	if (!domain->delegation)
		domain->delegation = calloc(1, sizeof(*domain->delegation));
	if (!record || !domain->delegation || !(record->name = strdup(name)))
		abort();
	record->own = record->born = nothing;
	HASH_ADD_KEYPTR(hh, domain->delegation->records, record->name, strlen(record->name),
			record);
	return record;
}

static struct record *find_or_add(struct domain *domain, const char *disk, const char *file)
{
	struct record *record = find(domain, disk, file);
	char *name;

	if (record)
		return record;
	name = name_of(disk, file);
	record = add(domain, name);
	free(name);
	return record;
}

static char *key_of(const struct domain *domain, const char *name)
{
	char *key;

	if (asprintf(&key, "mode/%s%s", domain->name, name) < 0)
		abort();
	return key;
}

static void put_grant(struct qmp_value *object, const struct grant *grant)
{
	if (grant->mode != UNSET)
		qmp_add_number(object, "mode", grant->mode);
	if (grant->uid != UNSET)
		qmp_add_number(object, "uid", grant->uid);
	if (grant->gid != UNSET)
		qmp_add_number(object, "gid", grant->gid);
}

/* Nothing but what chown and chmod can have set: the journal's file is a file. */
static int64_t number(const struct qmp_value *object, const char *key, int64_t max)
{
	int64_t found = qmp_value_number(object, key, UNSET);

	return found < 0 || found > max ? UNSET : found;
}

static struct grant take_grant(const struct qmp_value *object)
{
	return (struct grant){
		.mode = number(object, "mode", ALL_BITS),
		.uid = number(object, "uid", UINT32_MAX - 1),
		.gid = number(object, "gid", UINT32_MAX - 1),
	};
}

static void keep(const struct domain *domain, const struct record *record)
{
	struct qmp_value *object = qmp_object();
	char *key = key_of(domain, record->name);

	put_grant(object, &record->own);
	if (record->has_born) {
		struct qmp_value *born = qmp_object();

		put_grant(born, &record->born);
		qmp_add_value(object, "born", born);
	}
	journal_put(domain->model->journal, key, qmp_value_print(object));
	qmp_value_free(object);
	free(key);
}

static void take(struct domain *domain, const char *name, const char *value)
{
	struct qmp_value *object = qmp_value_parse(value, strlen(value), NULL);
	const struct qmp_value *born = qmp_value_get(object, "born");
	struct record *record;

	if (qmp_value_is_object(object)) {
		record = add(domain, name);
		record->own = take_grant(object);
		record->born = take_grant(born);
		record->has_born = born != NULL;
	}
	qmp_value_free(object);
}

static void take_one(void *data, const char *key, const char *value)
{
	struct domain *domain = data;

	take(domain, key + strlen("mode/") + strlen(domain->name), value);
}

void delegation_read(struct domain *domain)
{
	char *folder = key_of(domain, ""), *rest = key_of(domain, "/");
	const char *value = journal_get(domain->model->journal, folder);

	if (value)
		take(domain, "", value);
	journal_each(domain->model->journal, rest, take_one, domain);
	free(folder);
	free(rest);
}

void delegation_free(struct domain *domain)
{
	struct record *record, *next;

	if (!domain->delegation)
		return;
	HASH_ITER(hh, domain->delegation->records, record, next) {
		HASH_DEL(domain->delegation->records, record);
		free(record->name);
		free(record);
	}
	free(domain->delegation);
	domain->delegation = NULL;
}

void delegation_forget(struct domain *domain)
{
	struct record *record, *next;

	if (domain->delegation) {
		HASH_ITER(hh, domain->delegation->records, record, next) {
			char *key = key_of(domain, record->name);

			journal_drop(domain->model->journal, key);
			free(key);
		}
	}
	delegation_free(domain);
}

/* --- what holds --- */

static void apply_owner(const struct grant *grant, struct access *access)
{
	if (grant->uid != UNSET)
		access->uid = (uid_t)grant->uid;
	if (grant->gid != UNSET)
		access->gid = (gid_t)grant->gid;
}

/* What the disk has from the domain's folder. */
static void inherit(const struct domain *domain, const char *disk, struct access *access)
{
	const struct record *record = find(domain, disk, NULL);
	const struct grant *born = record && record->has_born ? &record->born : NULL;

	if (!born) {
		record = find(domain, NULL, NULL);
		born = record ? &record->own : &nothing;
	}
	apply_owner(born, access);
	if (born->mode != UNSET && access->mode & S_IWUSR)
		access->mode |= (mode_t)born->mode & SHARED_BITS;
}

void delegation_get(const struct delegated *file, struct access *access)
{
	const char *disk = file->disk ? file->disk->name : NULL;
	const struct record *record;

	if (!file->domain->delegation)
		return;
	if (disk)
		inherit(file->domain, disk, access);
	record = find(file->domain, disk, file->file);
	if (!record)
		return;
	apply_owner(&record->own, access);
	if (record->own.mode != UNSET)
		access->mode = (mode_t)record->own.mode;
	access->changed = record->changed;
}

/* --- changes --- */

static unsigned count(const struct domain *domain)
{
	return domain->delegation ? HASH_COUNT(domain->delegation->records) : 0;
}

/* The domain's folder is about to change: the disks that are there stay as they are. */
static int settle_disks(struct domain *domain)
{
	const struct record *folder = find(domain, NULL, NULL);
	struct grant born = folder ? folder->own : nothing;
	struct disk *disk;
	unsigned more = 0;

	for (disk = domain->disks; disk; disk = disk->next)
		more += !find(domain, disk->name, NULL);
	if (count(domain) + more > DELEGATION_RECORDS_MAX)
		return -ENOSPC;
	for (disk = domain->disks; disk; disk = disk->next) {
		struct record *record = find_or_add(domain, disk->name, NULL);

		if (record->has_born)
			continue;
		record->born = born;
		record->has_born = true;
		keep(domain, record);
	}
	return 0;
}

int delegation_set(const struct delegated *file, unsigned what, const struct access *access)
{
	struct domain *domain = file->domain;
	const char *disk = file->disk ? file->disk->name : NULL;
	struct record *record;
	int error = 0;

	if (!disk && !file->file)
		error = settle_disks(domain);
	if (!error && !find(domain, disk, file->file) && count(domain) >= DELEGATION_RECORDS_MAX)
		error = -ENOSPC;
	if (error)
		return error;
	record = find_or_add(domain, disk, file->file);
	if (what & DELEGATE_MODE)
		record->own.mode = access->mode & ALL_BITS;
	if (what & DELEGATE_UID)
		record->own.uid = access->uid;
	if (what & DELEGATE_GID)
		record->own.gid = access->gid;
	clock_gettime(CLOCK_REALTIME, &record->changed);
	keep(domain, record);
	return 0;
}
