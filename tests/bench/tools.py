"""What the lines of `make bench` share: the programs beside this file, scripted crowds of QEMUs, figures of processes."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import images  # noqa: E402
from monitor import Monitor, QmpError  # noqa: E402, F401
from mount import Mount  # noqa: E402
from qemu import Machine, StorageDaemon, blockdev, die_with_parent  # noqa: E402, F401
from system import detach, end, wait_for  # noqa: E402

PROGRAMS = os.environ.get("BENCH_PROGRAMS", os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "bench"))


def program(name):
    return os.path.join(PROGRAMS, name)


def stopwatch(rounds, **lists):
    """stopwatch(rounds, a=[...], b=[...], after_a=[...]): see stopwatch.c."""
    words = [word for name, steps in lists.items() for word in (name.replace("_", "-"), *steps)]
    done = subprocess.run([program("stopwatch"), str(rounds), *words], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def on_processors(numbers):
    """What is started meanwhile runs on these only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def placements():
    """
    (words, processors of QEMU, of those who serve, of those who ask). Left alone, the scheduler settles each pair of processes on one processor
    or on two, by chance and for long, and a wake-up on another, sleeping processor costs ten times as much as one beside its caller: a ratio of
    two pairs would be one of their luck.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    other = {others[0]} if others else None
    return [("one processor", {first}, {first}, {first}), ("two, who asks alone", {first}, {first}, other),
            ("two, QEMU alone", {first}, other, other)]


def cpu_ns(pid):
    """CPU time of a process, ever."""
    total = 0
    for number in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{number}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def cpu_percent(pids, seconds):
    """Percent of a core that these processes take in the next @seconds."""
    before, began = sum(map(cpu_ns, pids)), time.monotonic()
    time.sleep(seconds)
    return (sum(map(cpu_ns, pids)) - before) / (time.monotonic() - began) / 1e7


def memory_mib(pid, which="VmRSS"):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(rf"{which}:\s+(\d+) kB", file.read())[1]) / 1024


@contextlib.contextmanager
def mounted(folder, sources, **options):
    mount = Mount(folder, sources, **options)
    try:
        yield mount
    finally:
        try:
            mount.terminate()
        finally:
            detach(mount.path)


@contextlib.contextmanager
def floor(folder):
    """The path of the one file of the smallest file system (floor_fs.c)."""
    where = os.path.join(folder, "floor")
    os.makedirs(where)
    process = subprocess.Popen([program("floor_fs"), "-f", where], preexec_fn=die_with_parent)
    try:
        wait_for(lambda: os.path.ismount(where), why="the floor file system")
        yield os.path.join(where, "file")
    finally:
        process.terminate()
        process.wait()
        detach(where)


@contextlib.contextmanager
def storage_daemon(folder, name, *nodes):
    qemu = StorageDaemon(folder, name, [word for node in nodes for word in ("--blockdev", node)])
    try:
        yield qemu
    finally:
        qemu.close()


JOB = {"auto-finalize": False, "io-status": "ok", "device": "@ID@", "auto-dismiss": False, "busy": False,
       "len": 1 << 40, "offset": "@OFFSET@", "status": "running", "paused": False, "speed": 1000000, "ready": False, "type": "stream"}


def ask_nodes(monitor):
    """query-named-block-nodes, which Monitor forbids for what it does to a QEMU with a stream; this one has none."""
    monitor.send("query-named-block-nodes", flat=True)
    return monitor._message(time.monotonic() + 10)["return"]


def record(folder):
    """A folder with what a real storage daemon with one overlay answers, for crowds."""
    answers = os.path.join(folder, "answers")
    os.makedirs(answers)
    base = images.create(f"{folder}/record-base.qcow2")
    overlay = images.create(f"{folder}/record.qcow2", base)
    with storage_daemon(folder, "record", blockdev("disk0", overlay)) as qemu:
        said = {"query-qmp-schema": qemu.monitor("query-qmp-schema"),
                "query-named-block-nodes": ask_nodes(qemu.monitor),
                "x-debug-query-block-graph": qemu.monitor("x-debug-query-block-graph"),
                "greeting": qemu.monitor.greeting, "job": JOB}
    for name, value in said.items():
        with open(f"{answers}/{name}.json", "w") as file:
            file.write(json.dumps(value).replace('"@OFFSET@"', "@OFFSET@") + "\n")
    return answers


@contextlib.contextmanager
def crowd(folder, name, answers, count):
    """@count scripted QEMUs in one process, or in as many as the limit of open files asks for: (processes, folder of their sockets vm0000.qmp, ...)."""
    where = os.path.join(folder, name)
    os.makedirs(where)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 50  # each has a listening socket and a client
    processes = []
    try:
        for first in range(0, count, most):
            processes.append(subprocess.Popen([program("crowd"), answers, where, str(first), str(min(most, count - first))],
                                              stdout=subprocess.PIPE, preexec_fn=die_with_parent))
            assert processes[-1].stdout.readline() == b"ready\n"
        yield processes, where
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            end(process)
            process.stdout.close()


def sockets(where):
    return [os.path.join(where, name) for name in sorted(os.listdir(where)) if name.endswith(".qmp")]


def connected(mount):
    """How many domains are connected."""
    return int(re.search(r'domains\{state="connected"\} (\d+)', mount.read("metrics.prom"))[1])


def commands_sent(mount, command):
    found = re.search(rf'qmp_commands_total\{{command="{command}"\}} (\d+)', mount.read("metrics.prom"))
    return int(found[1]) if found else 0
