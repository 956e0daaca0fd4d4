"""
What it costs to be told, and how soon one is: run by `make bench`. Real storage daemons with throttled pulls. A table with the target
beside each figure; the exit status is 1 if one is missed.

    CPU     of the daemon and its toucher, and of the QEMUs' main threads more than with the daemon stopped, in percent of a core, over
            some seconds of 100 live jobs: with nobody watching, with every `progress` watched (inotify).
    latency from the end of a job, as a raw monitor beside ours is told it (BLOCK_JOB_COMPLETED), to: `wait` returns, poll(2) wakes,
            inotify tells. Medians of 20 pulls.
"""

import contextlib
import os
import select
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import images  # noqa: E402
from mount import Mount  # noqa: E402
from qemu import StorageDaemon, blockdev  # noqa: E402
from system import detach, wait_for  # noqa: E402
from watch import Inotify, toucher_of  # noqa: E402

QEMUS, DISKS = 10, 10
SECONDS = float(os.environ.get("BENCH_SECONDS", 10))
PULLS = 20


def nanoseconds(pid, thread=None):
    """CPU time of a process, or of one of its threads, ever."""
    if thread:
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            return int(file.read().split()[0])
    total = 0
    for number in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            total += nanoseconds(pid, number)
    return total


class Rows:
    def __init__(self):
        self.bad = False
        print(f"{'':58} {'measured':>10}  {'target':>10}")

    def add(self, what, value, unit, target=None):
        bad = target is not None and value > target
        self.bad |= bad
        aim = f"< {target:g} {unit}" if target is not None else ""
        print(f"{what:58} {value:8.2f} {unit:2} {aim:>10}{'  MISSED' if bad else ''}", flush=True)


def measure(processes, seconds=SECONDS):
    """{name: percent of a core} of these {name: function that gives nanoseconds}."""
    before = {name: read() for name, read in processes.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = (time.monotonic() - began) * 1e9
    return {name: (read() - before[name]) / took * 100 for name, read in processes.items()}


def start(folder, overlays=QEMUS * DISKS):
    base = images.fill(images.create(f"{folder}/base.qcow2", size=1 << 34), (0, 64))
    qemus = []
    for number in range(overlays // DISKS):
        nodes = []
        for disk in range(DISKS):
            path = images.create(f"{folder}/o{number}-{disk}.qcow2", base, size=1 << 34)
            nodes += ["--blockdev", blockdev(f"disk{disk}", path)]
        qemus.append(StorageDaemon(folder, f"vm{number}", nodes))
    return qemus


def bench_cpu(folder, rows):
    qemus = start(folder)
    mount = Mount(folder, [qemu.socket for qemu in qemus])
    try:
        disks = [mount.disk(f"vm{number}", f"disk{disk}") for number in range(QEMUS) for disk in range(DISKS)]
        for disk in disks:
            disk.pull("bandwidth=512K")  # one step a second and job
        time.sleep(2)
        assert all(disk.status == "running" for disk in disks)
        who = {"daemon": lambda: nanoseconds(mount.pid), "toucher": lambda: nanoseconds(toucher_of(mount)),
               "qemu": lambda: sum(nanoseconds(qemu.pid, qemu.pid) for qemu in qemus)}
        quiet = measure(who)
        with Inotify(*(disk / "progress" for disk in disks)) as inotify:
            notices, going = [0], [True]

            def listen():
                while going[0]:
                    notices[0] += sum(notice.mask == 8 for notice in inotify.read(0.2))
            thread = threading.Thread(target=listen)
            thread.start()
            watched = measure(who)
            going[0] = False
            thread.join()
        mount.process.send_signal(signal.SIGSTOP)
        alone = measure({"qemu": who["qemu"]})
        mount.process.send_signal(signal.SIGCONT)
        rows.add("100 live jobs, nobody watches: daemon + toucher", quiet["daemon"] + quiet["toucher"], "%", 1)
        rows.add("100 live jobs, nobody watches: what we cost the 10 QEMUs", quiet["qemu"] - alone["qemu"], "%", 1)
        rows.add("100 live jobs, each `progress` watched: daemon", watched["daemon"], "%")
        rows.add("100 live jobs, each `progress` watched: toucher", watched["toucher"], "%")
        rows.add("100 live jobs, each `progress` watched: both", watched["daemon"] + watched["toucher"], "%", 1)
        rows.add("    notices a second", notices[0] / SECONDS, "")
        assert all(disk.status == "running" for disk in disks), "a job has ended too early for the figures to be true"
    finally:
        for qemu in qemus:
            qemu.kill()
        end(mount)
        for qemu in qemus:
            qemu.close()


def end(mount):
    try:
        mount.terminate()
    finally:
        detach(mount.path)


def one_pull(qemu, disk):
    """Seconds from BLOCK_JOB_COMPLETED to each of the three."""
    times = {}

    def wait():
        assert disk.wait() == "completed"
        times["wait"] = time.monotonic()

    def poll():
        fd = os.open(disk / "status", os.O_RDONLY)
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while os.pread(fd, 100, 0) != b"completed\n":
            poller.poll(5000)
            times["poll"] = time.monotonic()
        os.close(fd)

    def inotify():
        with Inotify(disk / "status") as watch:
            while disk.status != "completed":
                watch.read()
                times["inotify"] = time.monotonic()

    disk.hold()
    threads = [threading.Thread(target=call) for call in (wait, poll, inotify)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    disk.release()
    qemu.monitor.wait_event("BLOCK_JOB_COMPLETED")
    told = time.monotonic()
    for thread in threads:
        thread.join()
    return {name: at - told for name, at in times.items()}


def bench_latency(folder, rows):
    base = images.fill(images.create(f"{folder}/small.qcow2"), (0, 1), (8, 1))
    results = []
    for number in range(PULLS):
        path = images.create(f"{folder}/l{number}.qcow2", base)
        qemu = StorageDaemon(folder, f"l{number}", ["--blockdev", blockdev("disk0", path)])
        mount = Mount(folder, [qemu.socket])
        try:
            results.append(one_pull(qemu, mount.disk(f"l{number}", "disk0")))
        finally:
            qemu.kill()
            end(mount)
            qemu.close()
    for name, what in (("wait", "`wait` returns"), ("poll", "poll(2) wakes"), ("inotify", "inotify tells")):
        rows.add(f"job completed in QEMU -> {what}", statistics.median(result[name] for result in results) * 1000, "ms", 20)


def main():
    folder = tempfile.mkdtemp(prefix="bjfs-bench-")
    try:
        rows = Rows()
        bench_latency(folder, rows)
        bench_cpu(folder, rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows.bad


if __name__ == "__main__":
    sys.exit(main())
