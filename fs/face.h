/*
 * What all requests share: the model, what node ids mean, the open files, the owner of the mount. Made
 * by fs/main.c (and by tests), fed by the model through face_watcher, handed to fs/session.c. Knows no
 * FUSE: who polls is only marked here and told by fs/session.c when no request is being served.
 */
#ifndef FS_FACE_H
#define FS_FACE_H

#include "fs/known.h"
#include "fs/node.h"
#include "fs/open_file.h"

/* The request that is being served, as far as libfuse does not tell of it. */
struct request {
	uint64_t unique; /* what it is answered by */
	uint64_t number; /* the same in all lives; 0: not known (tests) */
	bool again; /* the kernel has sent it before, to a life that died with it */
	uint64_t poll; /* of a POLL: the handle of those who wait */
};

struct face {
	struct model *model;
	struct nodes nodes;
	struct open_files files;
	struct known known;
	struct request request;
	uid_t uid; /* of every file */
	gid_t gid;
	struct notify *notify; /* tells those who watch; NULL: nobody is told (tests) */
	struct busy_node *busy; /* files with a read or a write that waits */
	bool overrides; /* our toucher opens files whatever their modes are */
	bool read_only; /* -o ro: nobody may write */
	struct reply *waits; /* reads parked until a job ends, oldest first */
	unsigned wait_limit_ms; /* one may be parked so long; 0: for ever */
	uint64_t *stale; /* folders whose attributes the kernel may remember and should not */
	size_t stale_count, stale_room;
	bool started; /* the kernel's INIT has been answered */
	bool replaying; /* ... in an earlier life, and libfuse is being told of it: nothing is written */
	bool changed; /* something did since pollers were last told */
	bool by_kernel; /* a domain comes or goes by a user's own mkdir or rmdir, which the kernel itself tells of */
};

/* To be handed to model_new() with the face as its data. */
extern const struct model_watcher face_watcher;

/* Before model_new(), whose watcher the face is: domains may be added inside it. */
void face_init(struct face *face);
/* After model_new(), before anything is added. */
void face_set_model(struct face *face, struct model *model);
/* The kernel is told to forget what it remembers of the folder itself and of the folders in it: their listing or their owner is another. */
void face_forget_folder(struct face *face, struct domain *domain, struct disk *disk);
/* The same for a domain's or a disk's folder and what is below, which takes its owner and mode from there. */
void face_forget_heirs(struct face *face, const struct place *place);
/*
 * A read or a write of this node begins, or ceases, to wait. The kernel holds locks of the file meanwhile, which the toucher would
 * wait for.
 */
void face_node_busy(struct face *face, uint64_t node);
void face_node_free(struct face *face, uint64_t node);
/* True while anybody does. */
bool face_node_is_busy(const struct face *face, uint64_t node);
/* After the session's end. */
void face_clear(struct face *face);

#endif
