/*
 * Modes, owners, chown and chmod; see fs/access.h. What was changed is kept by jobs/delegation.c.
 */
#include "fs/access.h"

#include <errno.h>
#include "jobs/policy.h"

enum {
	ACCESS_BITS = 0777, /* set-uid, set-gid and sticky mean nothing here */
};

/* A link comes and goes with the image it is named after: it belongs to whom its folder does. */
static const char *const links_folder = "by-source";

static struct delegated names_of(const struct place *place)
{
	if (place->link)
		return (struct delegated){ .domain = place->domain, .file = links_folder };
	return (struct delegated){
		.domain = place->domain,
		.disk = place->disk,
		.file = place->file ? place->file->name : NULL,
	};
}

static struct access access_of(const struct face *face, const struct place *place, mode_t mode)
{
	struct access access = { .mode = mode & ACCESS_BITS, .uid = face->uid, .gid = face->gid };
	struct delegated names = names_of(place);

	if (place->domain)
		delegation_get(&names, &access);
	if (place->link)
		access.mode = ACCESS_BITS; /* nothing looks at a link's mode */
	return access;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

void access_stat(const struct face *face, const struct place *place, struct stat *stat)
{
	struct access access = access_of(face, place, stat->st_mode);

	stat->st_mode = (stat->st_mode & S_IFMT) | access.mode;
	stat->st_uid = access.uid;
	stat->st_gid = access.gid;
	if (is_later(&access.changed, &stat->st_ctim))
		stat->st_ctim = access.changed;
}

/*
 * The kernel has checked by its own rules, in which the root of a user namespace may give away what belongs to its users. Here only the
 * mount's owner and root may.
 */
static bool may_set(const struct face *face, const struct who *who, unsigned what,
		    const struct access *now, const struct access *wanted)
{
	if (what & DELEGATE_UID && wanted->uid != now->uid) {
		if (!policy_is_owner(who))
			return false;
		/* Our toucher opens the files as their owner if it cannot as anybody. */
		if (!face->overrides && wanted->uid != face->uid)
			return false;
	}
	return policy_is_owner(who) || who->uid == now->uid;
}

int access_set(const struct face *face, const struct place *place, const struct who *who,
	       unsigned what, const struct access *wanted)
{
	mode_t mode = place->file ? place->file->mode : S_IFDIR | 0755;
	struct access now = access_of(face, place, mode);
	struct delegated names = names_of(place);

	if (face->read_only)
		return -EROFS;
	if (!place->domain || !may_set(face, who, what, &now, wanted))
		return -EPERM;
	if (place->link)
		return 0; /* chown -R means its folder, too */
	return delegation_set(&names, what, wanted);
}
