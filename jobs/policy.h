/*
 * What callers other than the mount's owner may do: in which folders they may have images made and deleted (`-o image_dir=`), and which
 * verbs they have (`-o allow=`, a domain's `allow`). The mount's owner, and root, may do all.
 *
 * One policy a model (model->policy), set up before the first request; its folders do not change after that, so what looks at files may
 * be called in the work pool, and only there.
 */
#ifndef JOBS_POLICY_H
#define JOBS_POLICY_H

#include <stdbool.h>
#include <stdint.h>
#include "jobs/op.h"

struct policy {
	struct image_folder *folders; /* jobs/policy_images.c */
	char *verbs; /* `-o allow=`; NULL: all */
};

struct policy *policy_new(void);
void policy_free(struct policy *policy);

/* True for the mount's owner and for root. */
bool policy_is_owner(const struct who *by);

/* --- images (jobs/policy_images.c) --- */

/* `-o image_dir=`. Returns 0, or -errno and *@reason (malloc'ed) if that is no folder. */
int policy_add_folder(struct policy *policy, const char *path, char **reason);
void policy_clear_folders(struct policy *policy);

/* A file, whatever its name is. */
struct policy_file {
	uint64_t device, inode;
};

/*
 * In the pool: may @by have an image made as @path, which is absolute? @reuse: the format in which what is there is to be opened and
 * overwritten; NULL: nothing may be there. Returns 0 and *@canonical (malloc'ed): the path to be handed to QEMU. Or -EPERM if not,
 * -EEXIST, -EINVAL, -ENOENT, ..., and *@reason (malloc'ed).
 *
 * But for the owner: *@canonical lies below an image folder, no part of it below that is a link, "." or "..", and none of the folders
 * between can be changed by @by, so that what was looked at here is what QEMU opens. What is there to be overwritten is a regular file
 * with no other name, and raw: the header of any other format may name files elsewhere, which QEMU would open.
 */
int policy_check_new(const struct policy *policy, const struct who *by, const char *path,
		     const char *reuse, char **canonical, char **reason);

/*
 * In the pool, when a command with `delete` is taken: may @by have the image @path unlinked? Returns 0 and @file, which is what
 * policy_unlink() is to be given; or -errno and *@reason (malloc'ed): as above, or that it is no regular file.
 */
int policy_check_unlink(const struct policy *policy, const struct who *by, const char *path,
			struct policy_file *file, char **reason);

/*
 * In the pool: unlinks @path if it is still the regular file @file, and @by (who wrote the command) may still have it unlinked. Returns 0,
 * or -errno and *@reason (malloc'ed): -ENOENT if nothing is there, which may be taken for done; -ESTALE if it is another file by now.
 * No link is followed below an image folder; for the owner not as the last part of the path.
 */
int policy_unlink(const struct policy *policy, const struct who *by, const char *path,
		  const struct policy_file *file, char **reason);

/* --- verbs (jobs/policy.c) --- */

/*
 * The verbs are the names of the disks' control files. @verbs: names with commas between, checked by fs/ (they are the rows' names);
 * "" for none; "all", or NULL where nothing was said, for all. `-o allow=` is for every domain that has no list of its own.
 */
void policy_set_verbs(struct policy *policy, const char *verbs);
/* A new domain: takes its list from the journal. */
void policy_read_domain(struct domain *domain);
/* The list of a domain; NULL: that of the mount again. Kept in the journal. */
void policy_set_domain_verbs(struct domain *domain, const char *verbs);
/* The list in force for a domain: as above, borrowed. */
const char *policy_verbs(const struct domain *domain);
/* True if who wrote the op's command has this verb. Else refuses @op with EPERM. */
bool policy_may(struct op *op, const char *verb);
/* The domain is removed for good (not merely disconnected): its list is forgotten. */
void policy_forget_domain(struct domain *domain);

#endif
