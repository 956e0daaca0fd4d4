/*
 * The first words on a monitor: what QEMU's greeting offers, and what we take of it. Part of link.c.
 */
#ifndef QMP_GREETING_H
#define QMP_GREETING_H

#include <stdbool.h>

struct qmp_value;

/* False: this is no message with which a QMP monitor greets. */
bool greeting_is_one(const struct qmp_value *message);
/*
 * True if it offers out-of-band execution: with it QEMU reads the next commands while it carries out one, in a thread of its own; without, it reads
 * none until it has answered. No command of ours goes out of band: they are carried out, and answered, in their order (docs/interop/qmp-spec.rst of QEMU).
 */
bool greeting_offers_oob(const struct qmp_value *message);
/* The arguments of qmp_capabilities, the caller's; NULL: none. */
struct qmp_value *greeting_answer(bool oob);

#endif
