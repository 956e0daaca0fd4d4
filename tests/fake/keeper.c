/*
 * Makes every program of unit tests one that can be started as the keeper of a command, as blockjobfs can (qmp/keeper.h): before
 * Criterion's main() sees the arguments.
 */
#include "qmp/keeper.h"

__attribute__((constructor)) static void keep_if_asked(int argc, char **argv)
{
	keeper_run_if_asked(argc, argv);
}
