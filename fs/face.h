/*
 * What all requests share: the model, what node ids mean, the open files, the owner of the mount. Made
 * by fs/main.c (and by tests), fed by the model through face_watcher, handed to fs/session.c. Knows no
 * FUSE: who polls is only marked here and told by fs/session.c when no request is being served.
 */
#ifndef FS_FACE_H
#define FS_FACE_H

#include "fs/node.h"
#include "fs/open_file.h"

struct face {
	struct model *model;
	struct nodes nodes;
	struct open_files files;
	uid_t uid; /* of every file */
	gid_t gid;
	bool started; /* the kernel's INIT has been answered */
	bool changed; /* something did since pollers were last told */
};

/* To be handed to model_new() with the face as its data. */
extern const struct model_watcher face_watcher;

/* Before model_new(), whose watcher the face is: domains may be added inside it. */
void face_init(struct face *face);
/* After model_new(), before anything is added. */
void face_set_model(struct face *face, struct model *model);
/* After the session's end. */
void face_clear(struct face *face);

#endif
