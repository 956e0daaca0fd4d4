/*
 * The keeper: a small process that holds the mount while the server, which does all the work, may die at any moment. It starts the
 * server, keeps the descriptors that the server gives it (fs/store.h: /dev/fuse, two memories, the journal's lock), and starts the next server with them
 * when one dies. So it is a service manager for one service, and speaks systemd's protocol; under systemd with -o nokeeper there is none, and systemd does the same.
 *
 *	blockjobfs SOURCE... MOUNTPOINT
 *	└── blockjobfs --serve FOLDER SOURCE... MOUNTPOINT	the server
 *	    └── blockjobfs --toucher MOUNTPOINT			(fs/toucher.h)
 *
 * It never touches the mount, since nobody might be there to serve it, and knows neither QMP nor the model.
 *
 * SIGTERM and SIGINT are passed on. The server says STOPPING=1 before it ends by itself, or because somebody has unmounted; then the keeper ends, too. At
 * SIGHUP and SIGUSR1 the server is replaced by what is now installed under the keeper's own path. If the keeper dies the server starts another one, with
 * what it holds itself.
 */
#ifndef FS_KEEPER_H
#define FS_KEEPER_H

#include <sys/types.h>

#define KEEPER_SERVE "--serve" /* FOLDER and the command line, which is relative to it */
#define KEEPER_ADOPT "--keeper" /* PID of the server, FOLDER and the command line */
#define KEEPER_MOUNTED \
	"X_MOUNTPOINT=" /* what the server says of the mount point, an absolute path */
/* In the environment of the server: 0: what was under way gets EIO; 1: be sure that you could take over, and exit with 0. */
#define KEEPER_RESEND	"BLOCKJOBFS_RESEND"
#define KEEPER_REHEARSE "BLOCKJOBFS_REHEARSE"
#define KEEPER_PID	"BLOCKJOBFS_KEEPER" /* who the keeper is */
/* In the environment of a keeper that was started for a server: where that has mounted. */
#define KEEPER_MOUNTPOINT "BLOCKJOBFS_MOUNTPOINT"
/* Descriptors that are kept: of the mount, what fs/kept.h has, the model's memory, the lock of the journal. */
#define KEEPER_FUSE    "fuse"
#define KEEPER_SESSION "session"
#define KEEPER_MODEL   "model"
#define KEEPER_LOCK    "lock"
#define KEEPER_EAR     "ear" /* for a keeper that takes over: where the server says things */

/*
 * The keeper's life, from the first server to the last. @argv: the command line; @folder: the one that it is relative to. @parent: where to
 * say that the tree can be read, as of background_begin(); -1: in the foreground. Returns the exit status.
 */
int keeper_main(char **argv, const char *folder, int parent);
/* The life of one that was started for a server that is there already. @argv: the folder, and the words of the command line. */
int keeper_adopt_main(char **argv, pid_t server);

#endif
