/*
 * How long virDomainGetBlockJobInfo() takes: what a program that uses libvirt has in place of reading `progress`. Made only where libvirt
 * is (pkg-config libvirt).
 *
 *	libvirt_info URI DOMAIN DISK ROUNDS
 *
 * Prints the median in microseconds.
 */
#include <err.h>
#include <libvirt/libvirt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

int main(int argc, char **argv)
{
	int rounds = argc > 4 ? atoi(argv[4]) : 0;
	double *took = calloc((size_t)rounds + 1, sizeof(*took));
	virConnectPtr connection;
	virDomainPtr domain;

	if (rounds < 1 || !took)
		errx(2, "usage: libvirt_info URI DOMAIN DISK ROUNDS");
	connection = virConnectOpen(argv[1]);
	domain = connection ? virDomainLookupByName(connection, argv[2]) : NULL;
	if (!domain)
		errx(1, "no such domain");
	for (int i = 0; i < rounds; i++) {
		virDomainBlockJobInfo info;
		double began = now_us();

		if (virDomainGetBlockJobInfo(domain, argv[3], &info, 0) != 1)
			errx(1, "no job");
		took[i] = now_us() - began;
	}
	qsort(took, (size_t)rounds, sizeof(*took), compare);
	printf("%.2f\n", took[rounds / 2]);
	virDomainFree(domain);
	virConnectClose(connection);
	return 0;
}
