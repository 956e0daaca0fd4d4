"""Lines of `make bench` with real QEMUs: a file, a command, being told, bandwidth, and two hundred of them."""

import contextlib
import os
import select
import shutil
import signal
import statistics
import subprocess
import threading
import time

from tools import (Machine, Monitor, QmpError, StorageDaemon, ask_nodes, blockdev, commands_sent, floor, images, mounted, on_processors, placements, program, stopwatch,
                   storage_daemon)
from watch import Inotify

QUERY = '{"execute": "query-block-jobs"}'
PULLS = 20
COPIES = 16
KILLS = 20
PIECE = 4096
PIECES = 512  # more than all rounds of start() copy: a pull that has nothing left to copy is over before it is aborted
HERD = 200


def stream(job, speed):
    return ('{"execute": "block-stream", "arguments": {"device": "disk0", "job-id": "%s", "speed": %d, "auto-finalize": false, '
            '"auto-dismiss": false}}' % (job, speed))


def cancel(job):
    return '{"execute": "job-cancel", "arguments": {"id": "%s"}}' % job


def dismiss(job):
    return '{"execute": "job-dismiss", "arguments": {"id": "%s"}}' % job


def each_placement(measure, folder, table, *lines):
    """measure(*what pair() gives), a result for each of @lines, (what, target), in each placement."""
    for number, (words, qemus, servers, clients) in enumerate(placements()):
        where = os.path.join(folder, str(number))
        os.makedirs(where)
        results = [None] * len(lines)
        if clients:
            with pair(where, qemus, servers) as pairs, on_processors(clients):
                results = measure(*pairs)
        for (what, target), result in zip(lines, results):
            if result:
                table.ratio(f"{what}, {words}", result, target)
            else:
                table.add(f"{what}, {words}", None, "", target)


@contextlib.contextmanager
def pair(folder, qemus=None, servers=None):
    """Two storage daemons with the same disk, the first one mounted; and the floor. On these processors, if any are named."""
    # A stream goes over all that earlier ones have pulled, 512 KiB a step: so that the last rounds of start() are as long as the first ones, each copies little.
    base = images.interleave(folder, PIECE, PIECES)
    overlays = [images.create(f"{folder}/{name}.qcow2", base, size=1 << 34, cluster_size=PIECE) for name in ("ours", "raw")]
    everywhere = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        with on_processors(qemus or everywhere):
            ours, raw = (stack.enter_context(storage_daemon(folder, name, blockdev("disk0", overlay)))
                         for name, overlay in zip(("ours", "raw"), overlays))
        with on_processors(servers or everywhere):
            mount = stack.enter_context(mounted(folder, [ours.socket]))
            lowest = stack.enter_context(floor(folder))
        yield mount.disk("ours", "disk0"), raw, lowest, mount


def files_of(disk, raw, lowest, _):
    status = stopwatch(5000, a=["read", disk / "status"], b=["read", lowest])
    disk.hold()
    raw.monitor("block-stream", device="disk0", job_id="raw", speed=1)
    progress = stopwatch(3000, a=["read", disk / "progress"], b=["read", lowest, "ask", raw.socket, QUERY])
    raw.monitor("job-cancel", id="raw")
    disk.write("abort", "\n")
    return status, progress


def files(folder, table):
    each_placement(files_of, folder, table, ("open+read+close of `status` / floor", 1.15),
                   ("open+read+close of `progress` / floor + raw query-block-jobs", 1.10))


def readers(folder, table):
    with pair(folder) as (disk, _, _, mount):
        disk.hold()
        before = commands_sent(mount, "query-block-jobs")
        reads = int(subprocess.run([program("readers"), disk / "progress", "64", "3"], stdout=subprocess.PIPE, check=True).stdout)
        table.add("64 readers of one `progress`: queries sent / reads answered",
                  (commands_sent(mount, "query-block-jobs") - before) / reads, "", 0.1)
        disk.write("abort", "\n")


def start_of(disk, raw, lowest, _):
    return [stopwatch(300, a=["write", disk / "pull", "bandwidth=1\n"], after_a=["write", disk / "abort", "\n"],
                      b=["write", lowest, "x\n", "ask", raw.socket, stream("raw%d", 1)],
                      after_b=["ask", raw.socket, cancel("raw%d"), "event", raw.socket, '"concluded"',
                               "ask", raw.socket, dismiss("raw%d")])]


def start(folder, table):
    each_placement(start_of, folder, table, ("write to `pull` until accepted / floor + raw block-stream", 1.25))


@contextlib.contextmanager
def in_memory(folder):
    """A folder whose files lie in memory, if there is room: no disk of this machine is in the figure."""
    where = folder
    if shutil.disk_usage("/dev/shm").free > 3 << 30:
        where = os.path.join("/dev/shm", os.path.basename(folder))
        os.makedirs(where)
    try:
        yield where
    finally:
        if where != folder:
            shutil.rmtree(where, ignore_errors=True)


# --- being told ---

def one_pull(qemu, disk):
    """Seconds from BLOCK_JOB_COMPLETED, as a raw monitor sees it, to each of the three."""
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


def raw_pull(qemu, path):
    """
    Seconds that QEMU itself takes for what must be known before a job is called completed: from BLOCK_JOB_COMPLETED to the last answer, by a client
    that sends the bytes that blockjobfs sends, all at once, and does nothing else.
    """
    job = "blockjobfs-disk0-0.12345-01234567"
    with contextlib.closing(Monitor(qemu.socket, enable=["oob"])) as monitor:
        nodes = ask_nodes(monitor)
        file, = [node["node-name"] for node in nodes if node["drv"] == "file" and node["file"] == path]
        flush, disks = {
            StorageDaemon: ('blockdev-snapshot","arguments":{"node":"disk0","overlay":"%s"}' % file, "query-named-block-nodes"),
            Machine: ('human-monitor-command","arguments":{"command-line":"qemu-io disk0 flush"}', "query-block"),
        }[type(qemu)]
        monitor("block-stream", device="disk0", job_id=job, speed=1, auto_finalize=False, auto_dismiss=False)
        monitor("block-job-set-speed", device=job, speed=0)
        monitor.wait_event("JOB_STATUS_CHANGE", status="pending")
        monitor.send("job-finalize", id=job)
        monitor.wait_event("BLOCK_JOB_COMPLETED")
        began = time.monotonic()
        monitor.answer()
        monitor.socket.sendall(b'{"execute":"job-dismiss","arguments":{"id":"%s"},"id":4}\n{"execute":"%s,"id":5}\n'
                               b'{"execute":"%s","id":6}\n{"execute":"x-debug-query-block-graph","id":7}\n'
                               % tuple(word.encode() for word in (job, flush, disks)))
        for _ in range(4):
            with contextlib.suppress(QmpError):  # of the snapshot, as it should be
                monitor.answer()
        return time.monotonic() - began


@contextlib.contextmanager
def machine(folder, name, node):
    qemu = Machine(folder, name, ["-blockdev", node, "-device", "virtio-blk-pci,drive=disk0,id=disk0"])
    try:
        yield qemu
    finally:
        qemu.close()


def told_by(qemu_of, words, folder, where, base, table):
    results, raw = [], []
    for number in range(PULLS):
        path = images.create(f"{where}/l{number}.qcow2", base)
        with qemu_of(folder, f"l{number}", blockdev("disk0", path)) as qemu, mounted(folder, [qemu.socket]) as mount:
            results.append(one_pull(qemu, mount.disk(f"l{number}", "disk0")))
        path = images.create(f"{where}/r{number}.qcow2", base)
        with qemu_of(folder, f"r{number}", blockdev("disk0", path)) as qemu:
            raw.append(raw_pull(qemu, path) * 1000)
    for name, what, target in (("wait", "`wait` returns", 2), ("poll", "poll(2) wakes", 2), ("inotify", "inotify fires", 15)):
        values = sorted(result[name] * 1000 for result in results)
        table.add(f"BLOCK_JOB_COMPLETED of {words} to: {what}", statistics.median(values), "ms", target, (values[2], values[-3]))
    raw.sort()
    table.add("    the same commands by a bare client, which tells nobody", statistics.median(raw), "ms", None, (raw[2], raw[-3]))


def told(folder, table):
    with in_memory(folder) as where:
        base = images.fill(images.create(f"{where}/small.qcow2"), (0, 1), (8, 1))
        told_by(machine, "a machine", folder, where, base, table)
        told_by(storage_daemon, "a storage daemon", folder, where, base, table)


# --- bandwidth ---

def copying(monitor):
    """Seconds that QEMU copies for, by its own clock. How long it takes to begin and to end a job is told by start() and told()."""
    began, over = ((time["seconds"] + time["microseconds"] / 1e6)
                   for time in (monitor.wait_event("JOB_STATUS_CHANGE", 60, status=status)["timestamp"] for status in ("running", "waiting")))
    return over - began


def bandwidth(folder, table):
    ours, raw = [], []
    with in_memory(folder) as where:
        base = images.fill(images.create(f"{where}/base.qcow2", size=1 << 30), *((first, 64) for first in range(0, 512, 64)))
        for number in range(2 * COPIES):
            path = images.create(f"{where}/overlay.qcow2", base, size=1 << 30)
            with open(path, "r+b") as file:  # the memory is there: to find some takes now this long, now that
                os.posix_fallocate(file.fileno(), 0, 600 << 20)
            with storage_daemon(folder, "vm", blockdev("disk0", path)) as qemu, \
                    mounted(folder, [qemu.socket]) if number % 2 else contextlib.nullcontext() as mount:
                # What blockjobfs asks, too, and makes QEMU fast: see docs/performance.md.
                qemu.monitor("query-qmp-schema")
                time.sleep(0.3)  # what has just begun is still at it, and QEMU copies with both processors
                if mount:
                    disk = mount.disk("vm", "disk0")
                    disk.pull()
                    ours.append(copying(qemu.monitor))
                    assert disk.wait() == "completed"
                else:
                    qemu.monitor("block-stream", device="disk0", job_id="raw")
                    raw.append(copying(qemu.monitor))
                    qemu.monitor.wait_event("BLOCK_JOB_COMPLETED")
    table.add("bytes a second of an unlimited pull / by raw QMP", statistics.median(raw) / statistics.median(ours), "", 0.98, at_least=True)


# --- the server dies ---

def takeover(folder, table):
    times = []
    with pair(folder) as (disk, _, _, mount):
        disk.hold()
        for _ in range(KILLS):
            os.kill(mount.pid, signal.SIGKILL)
            began = time.monotonic()
            assert disk.status == "running"
            times.append((time.monotonic() - began) * 1000)
            disk.progress  # QEMU is reached again: the next death is not in the middle of this one
        disk.write("abort", "\n")
    times.sort()
    what = f"SIGKILL of the server to the next answered read of `status`, {KILLS} times"
    table.add(f"{what}: median", statistics.median(times), "ms", 100)
    table.add(f"{what}: worst", times[-1], "ms", 100)


# --- two hundred QEMUs ---

def herd(folder, name, base, stack):
    """Storage daemons NAME0, NAME1, ..., each with an overlay of its own on @base: their sockets."""
    sockets = []
    for number in range(HERD + 3):  # stopwatch warms up with three
        path = images.create(f"{folder}/{name}{number}.qcow2", base, size=1 << 34)
        qemu = stack.enter_context(storage_daemon(folder, f"{name}{number}", blockdev("disk0", path)))
        qemu.monitor.close()  # it would be told of everything, too
        qemu.monitor = None
        sockets.append(qemu.socket)
    return sockets


def many(folder, table):
    """The raw side has storage daemons of its own: a daemon that hears of a stranger's job looks at it, and would be in both figures."""
    base = images.fill(images.create(f"{folder}/base.qcow2", size=1 << 34), (0, 16))
    with contextlib.ExitStack() as stack:
        herd(folder, "raw", base, stack)
        mount = stack.enter_context(mounted(folder, herd(folder, "vm", base, stack)))
        disk = f"{mount.path}/domains/vm%d/disks/disk0"
        raw = f"{folder}/raw%d.test"
        table.ratio(f"{HERD} storage daemons: start, limit, abort by the tree / by raw QMP",
                    stopwatch(HERD, a=["write", f"{disk}/pull", "bandwidth=1\n", "write", f"{disk}/speed", "1M\n", "write", f"{disk}/abort", "\n"],
                              b=["ask", raw, stream("raw%d", 1),
                                 "ask", raw, '{"execute": "block-job-set-speed", "arguments": {"device": "raw%d", "speed": 1048576}}',
                                 "ask", raw, cancel("raw%d"), "event", raw, '"concluded", "id": "raw', "ask", raw, dismiss("raw%d")]), 1.3)
