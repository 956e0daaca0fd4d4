/*
 * What all starting commands have in common. Private to jobs/.
 */
#ifndef JOBS_START_H
#define JOBS_START_H

#include "jobs/op.h"
#include "qmp/command.h"
#include "qmp/schema.h"

struct command;
struct word;
struct job;

/* Refuses @op, and returns false, if no job can be started on its disk now, or if QEMU does not know one of the @count features. */
bool start_may(struct op *op, const enum qmp_feature *needed, size_t count);
/* Refuses @op, and returns false, if @wanted, the word `generation=` or NULL, says another one than the chain's. */
bool start_is_generation(struct op *op, const struct word *wanted);
/* The same at the beginning of a command: also looks at `generation=`. */
bool start_may_command(struct op *op, const struct command *command, const enum qmp_feature *needed,
		       size_t count);

/* The same for a command that goes on with the disk's live job. */
bool start_may_continue(struct op *op, const struct command *command,
			const enum qmp_feature *needed, size_t count);

/*
 * Makes the job and registers it with the op's disk. When the caller has filled in the rest it calls start_write_down(),
 * sends the start command, with the job's id, to be answered to start_answered() with a struct call for the op, and calls start_sent(). The op is completed by the
 * first evidence that QEMU has the job, which comes before that answer.
 */
struct job *start_register(struct op *op, const char *type, int64_t speed);
/* For the next life: nothing is sent that it does not know of. */
void start_write_down(const struct disk *disk);
/* Tells those who watch the disk: while QEMU reads, since whoever has written the command waits for that. */
void start_sent(struct disk *disk);
/* A qmp_done_fn; @data is a struct call, which it frees. */
void start_answered(void *data, const struct qmp_error *error);

#endif
