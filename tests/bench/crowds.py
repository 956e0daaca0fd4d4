"""Lines of `make bench` with many scripted QEMUs: memory, idling, a thousand live jobs, hung ones, and how the cost of a read grows."""

import os
import resource
import statistics
import subprocess

import time

from tools import (blockdev, connected, cpu_percent, crowd, floor, images, memory_mib, mounted, on_processors, placements, record,
                   stopwatch, storage_daemon, wait_for)
from watch import toucher_of

THOUSAND = 1000
HUNG = 100


def attach(folder, where, count):
    """
    Mounts a crowd: (mount, seconds until all are connected), as a context manager. It comes back when those who watch have been told of all
    the new folders, which is in no other figure.
    """
    began = time.monotonic()
    manager = mounted(folder, [f"dir:{where}"])
    mount = manager.__enter__()
    try:
        wait_for(lambda: connected(mount) == count, 60 + count / 50, "the crowd")
        seconds = time.monotonic() - began
        wait_for(lambda: cpu_percent([mount.pid, toucher_of(mount)], 0.5) < 2, 60 + count / 50, "quiet")
    except BaseException:
        manager.__exit__(None, None, None)
        raise
    return manager, mount, seconds


def idle(folder, table):
    with crowd(folder, "c", record(folder), THOUSAND) as (_, where):
        manager, mount, seconds = attach(folder, where, THOUSAND)
        with manager_of(manager):
            table.add("attaching 1,000 domains, real answers", seconds, "s", 3)
            table.add("    most memory on the way", memory_mib(mount.pid, "VmHWM") + memory_mib(mount.process.pid), "MiB", 24)
            table.add("1,000 idle domains: resident memory", memory_mib(mount.pid) + memory_mib(mount.process.pid), "MiB", 24)
            table.add("    CPU over 30 s", cpu_percent([mount.pid], 30), "% of a core", 0.1)


class manager_of:
    """A context that was entered already."""

    def __init__(self, manager):
        self.manager = manager

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.manager.__exit__(*error)


def live(folder, table):
    with crowd(folder, "c", record(folder), THOUSAND) as (_, where):
        manager, mount, _ = attach(folder, where, THOUSAND)
        with manager_of(manager):
            for name in mount.domains():
                with open(f"{mount.path}/domains/{name}/disks/disk0/pull", "w") as file:
                    file.write("\n")
            time.sleep(1)
            table.add("1,000 live jobs, progress notices on: daemon and helper",
                      cpu_percent([mount.pid, toucher_of(mount)], 10), "% of a core", 15)
            if os.path.exists(mount / "jobs"):
                with crowd(folder, "raw", f"{folder}/answers", THOUSAND) as (_, raw):
                    table.ratio("`cat jobs` with 1,000 live jobs / 1,000 pipelined raw queries",
                                stopwatch(50, a=["read", mount / "jobs"], b=["askall", f"{raw}/vm", '{"execute": "query-block-jobs", "id": 1}']),
                                1.5)


def hung(folder, table):
    overlay = images.create(f"{folder}/healthy.qcow2", images.create(f"{folder}/base.qcow2"))
    with crowd(folder, "c", record(folder), HUNG) as ([process], where), \
            storage_daemon(folder, "healthy", blockdev("disk0", overlay)) as qemu, floor(folder) as lowest, \
            mounted(folder, [qemu.socket, f"dir:{where}"]) as mount:
        wait_for(lambda: connected(mount) == HUNG + 1, 20, "the crowd")
        disks = [mount.disk(f"vm{number:04}", "disk0") for number in range(HUNG)]
        for disk in disks:
            disk.pull()
        status = mount.disk("healthy", "disk0") / "status"
        slow, quick = [], []
        for _ in range(5):
            quick.append(stopwatch(2000, a=["read", status], b=["read", lowest])["a99"])
            process.send_signal(19)
            # Somebody waits for each of them.
            waiting = [subprocess.Popen(["cat", disk / "progress"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for disk in disks]
            slow.append(stopwatch(2000, a=["read", status], b=["read", lowest])["a99"])
            process.send_signal(18)
            for one in waiting:
                one.wait()
        table.add("`status` p99 while 100 other domains hang / without", statistics.median(slow) / statistics.median(quick), "", 1.2)


def scale(folder, table):
    """The cost of one read must not grow with the number of domains. On one processor: see placements()."""
    answers, floors = record(folder), {}
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    _, _, processors, _ = placements()[0]
    for count in (10, 100, 1000, 10000):
        if count + 100 > most:
            table.add(f"{count:,} domains: the limit of open files here is {most:,}", None)
            continue
        with on_processors(processors), crowd(folder, f"c{count}", answers, count) as (_, where), floor(f"{folder}/f{count}") as lowest:
            manager, mount, seconds = attach(folder, where, count)
            with manager_of(manager):
                name = mount.domains()[count // 2]
                disk = mount.disk(name, "disk0")
                result = stopwatch(2000, a=["read", disk / "status"], b=["read", lowest])
                floors[count] = result["ratio"]
                table.ratio(f"{count:,} domains: open+read+close of `status` / floor", result, None if count == 10 else floors[10] * 1.15)
                table.add(f"    attached, each domain", seconds / count * 1000, "ms")
                if count > 10:
                    table.add(f"    memory, each domain", memory_mib(mount.pid) * 1024 / count, "KiB")
