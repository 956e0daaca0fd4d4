/*
 * Our own program, started again: where it lies, and its command line with other words in front. Used by fs/keeper.c and fs/keeper_watch.c.
 */
#ifndef FS_COMMAND_LINE_H
#define FS_COMMAND_LINE_H

/* What runs now, whatever lies under its path by now. */
#define OWN_PROGRAM "/proc/self/exe"

/* The path that it was started from, where another one may lie by now. malloc'ed; NULL: not known. */
char *own_path(void);
/* The command line @argv with @first, @second (NULL: none) and @folder in front of its words. malloc'ed; the strings are not. */
char **command_line_new(char **argv, const char *first, const char *second, const char *folder);

#endif
