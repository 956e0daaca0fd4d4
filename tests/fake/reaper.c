/*
 * Makes every program of unit tests one that can be started as the reaper of a command, as blockjobfs can (qmp/reaper.h): before
 * Criterion's main() sees the arguments.
 */
#include "qmp/reaper.h"

__attribute__((constructor)) static void keep_if_asked(int argc, char **argv)
{
	reaper_run_if_asked(argc, argv);
}
