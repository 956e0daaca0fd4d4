/*
 * The daemon's own log: standard error until the daemon has gone to the background, syslog from then
 * on. One line a message. libfuse's messages come here too; while it mounts they are only kept, so
 * that one failure is told in one line.
 */
#ifndef FS_LOG_H
#define FS_LOG_H

#include <stdbool.h>

/* Takes over libfuse's messages. */
void log_open(void);
void log_to_syslog(void);
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on libfuse's messages are kept, not logged; forgets the ones kept. */
void log_hold(void);
/* From now on libfuse's messages are logged again. Returns the first one kept, or NULL. Borrowed. */
const char *log_held(void);

#endif
