/*
 * The engine of an `image:` source: a qemu-storage-daemon of our own that holds the image, so that a disk without a machine takes the
 * same jobs. Its socket is in a folder that only we can enter. It outlives a killed daemon, and the next start on the same image
 * adopts it; a clean end ends it.
 */
#ifndef JOBS_ENGINE_H
#define JOBS_ENGINE_H

#include <stdbool.h>

struct domain;
struct engine;

#define ENGINE_NODE "disk" /* node name of the image, and so the name of the disk's folder */

struct engine *engine_new(struct domain *domain, const char *image);
/*
 * Brings the engine up: adopts one that was left, else looks at the image (qemu-img info) and starts one. Ends in domain_connect() or
 * in domain_engine_failed().
 */
void engine_start(struct engine *engine);
/* The disk stands on another image now: it is what a next engine is to open. */
void engine_follow(struct engine *engine, const char *image, const char *format);
/* The link is closed. True if the engine goes on by itself: there was nobody to adopt, so one is started. */
bool engine_link_closed(struct engine *engine, int code);
/* Ends it: gives up live jobs and says so, asks it to quit, kills it if it does not. Tells by model_stop_step(). */
void engine_stop(struct engine *engine);
bool engine_is_stopped(const struct engine *engine);
void engine_free(struct engine *engine);

#endif
