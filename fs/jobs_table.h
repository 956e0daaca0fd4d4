/*
 * The root's `jobs`: a table for people, one line a live job. Named by a row of fs/files_root.c.
 */
#ifndef FS_JOBS_TABLE_H
#define FS_JOBS_TABLE_H

#include "fs/files.h"

void show_jobs(const struct place *place, struct text *out);

#endif
