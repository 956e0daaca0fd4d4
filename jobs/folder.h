/*
 * A `dir:` source: every socket in a folder, now and later, is a domain. Owns the watch of the folder and of those above it, and the
 * table of the sockets found. Made by the model; told by domain.c when a link ends, and by the model when a domain goes.
 *
 * Sockets are those that have a name which is not for the moment only: no dot in front, no '~' or ".tmp" at the end, no '#' in front. A
 * domain that has lost its socket goes when its link is down. Of two sockets of one name the first keeps it, of those found at once the
 * first by name; the other one is told, and has its turn when the first has gone.
 */
#ifndef JOBS_FOLDER_H
#define JOBS_FOLDER_H

#include <stdbool.h>

struct model;
struct domain;
struct folder;

/* Returns 0, or -EEXIST and *@error (malloc'ed). The folder need not be there yet. */
int folder_add(struct model *model, const char *path, char **error);
/* What model->handover has of it is under this and its path. */
#define FOLDER_KEY "folder/"
/* The folder of that path as it was given; NULL: none. */
struct folder *folder_find(struct model *model, const char *path);
/* As it was given. Borrowed. */
const char *folder_path(const struct folder *folder);
/* An earlier life has shown the socket that the domain's address is as this domain. */
void folder_take_over(struct folder *folder, struct domain *domain);
/* Something about its sockets may be different: looks, in the background. */
void folder_look(struct folder *folder);
/* The link of one of its domains has ended, or could not be made, for this reason. */
void folder_link_ended(struct folder *folder, int code);
/* True when what each folder had at the start is in the model. */
bool folders_settled(const struct model *model);
/* @domain is about to go, for whatever reason: its name is free. */
void folders_domain_removed(const struct domain *domain);
/* Ends the watches for good. True when the loop has run their closing callbacks. */
bool folders_stop(struct model *model);
/* After that. */
void folders_free(struct model *model);

#endif
