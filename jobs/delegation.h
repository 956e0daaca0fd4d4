/*
 * Who owns the folders and files of a domain, and their modes, where chown and chmod have changed them. Kept in the journal as long as
 * the domain is not removed for good:
 *
 *	mode/DOMAIN			the domain's folder
 *	mode/DOMAIN//FILE		what is in it
 *	mode/DOMAIN/DISK		a disk's folder
 *	mode/DOMAIN/DISK/FILE		what is in that
 *
 * A disk that comes later belongs, with all that is in it, to whom the domain's folder belonged when the disk came, and its control
 * files may be written by the group and by others as far as the domain's folder could be. So as not to have a record for every disk,
 * that is what a disk without a record goes by; and before the domain's folder changes, the disks that are there get one.
 *
 * Called by fs/access.c, which knows the modes that files have by themselves; made and freed with the domain.
 */
#ifndef JOBS_DELEGATION_H
#define JOBS_DELEGATION_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

struct domain;
struct disk;

enum {
	DELEGATION_RECORDS_MAX = 16384, /* of one domain */
};

struct access {
	mode_t mode; /* 0777 at most */
	uid_t uid;
	gid_t gid;
	struct timespec changed; /* by chown or chmod; 0: not in this life */
};

/* A folder or file of a domain. */
struct delegated {
	struct domain *domain;
	const struct disk *disk; /* NULL: the domain's */
	const char *file; /* NULL: the folder itself */
};

/* A new domain: takes what the journal has of it. */
void delegation_read(struct domain *domain);
void delegation_free(struct domain *domain);
/* The domain is removed for good: nobody has been delegated anything. */
void delegation_forget(struct domain *domain);

/* @access comes in as the file is by itself, and goes out as it is. */
void delegation_get(const struct delegated *file, struct access *access);

enum {
	DELEGATE_MODE = 1 << 0,
	DELEGATE_UID = 1 << 1,
	DELEGATE_GID = 1 << 2,
};

/* Sets those of @access that @what names. Returns 0, or -ENOSPC if the domain has too many records. */
int delegation_set(const struct delegated *file, unsigned what, const struct access *access);

#endif
