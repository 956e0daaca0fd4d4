"""
Those who use a mount while its server is killed: readers, a listing, waiters, pollers, watchers, followers of `events`, a writer. Each is a process
of its own that goes on until it is told to stop, and reports every error and every call that took too long on its standard output.

	clients.py ROLE NUMBER SLOTS FOLDER...
"""

import collections
import ctypes
import errno
import json
import mmap
import os
import random
import select
import stat
import struct
import subprocess
import sys
import threading
import time

SLOT = struct.Struct("=QQdd64s")  # calls, changes seen, the longest in seconds, since when the present one is on, the last word
SLOTS = 64
SIZE = (SLOT.size + 1) * SLOTS  # slots, and a byte for each that is to stop
PATIENCE = 2  # seconds that no call may take

Slot = collections.namedtuple("Slot", "calls seen longest since word")


class Table:
    """What all clients are at, in memory that they share with the test."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), SIZE)

    def get(self, number):
        calls, seen, longest, since, word = SLOT.unpack_from(self.memory, number * SLOT.size)
        return Slot(calls, seen, longest, since, word.rstrip(b"\0").decode())

    def put(self, number, slot):
        at = number * SLOT.size
        SLOT.pack_into(self.memory, at, slot.calls, slot.seen, slot.longest, slot.since, slot.word.encode()[:64])

    def is_stopped(self, number):
        return self.memory[SLOT.size * SLOTS + number] != 0

    def stop(self, number):
        """Not by a signal: that would interrupt its command."""
        self.memory[SLOT.size * SLOTS + number] = 1


# --- the client's side ---


class Client:
    def __init__(self, number, slots):
        self.number, self.table = number, Table(slots)
        self.slot = Slot(0, 0, 0.0, 0.0, "")

    @property
    def going(self):
        return not self.table.is_stopped(self.number)

    def change(self, **what):
        self.slot = self.slot._replace(**what)
        self.table.put(self.number, self.slot)

    def tell(self, kind, **what):
        print(json.dumps({"kind": kind, "at": round(time.time(), 4), **what}), flush=True)

    def call(self, function, *words, patient=True):
        """Calls @function and keeps the time. None, and a report, if it fails."""
        began = time.monotonic()
        self.change(since=began if patient else 0.0)
        value = None
        try:
            value = function(*words)
        except InterruptedError:
            pass
        except (OSError, ValueError, AssertionError) as error:
            name = errno.errorcode.get(error.errno) if isinstance(error, OSError) else None
            self.tell("error", error=repr(error), errno=name, call=function.__name__, words=[str(word) for word in words][:2])
        took = time.monotonic() - began
        if patient and took > PATIENCE:
            self.tell("slow", seconds=round(took, 3), call=function.__name__, words=[str(word) for word in words][:2])
        self.change(since=0.0, calls=self.slot.calls + 1, longest=max(self.slot.longest, took if patient else 0.0))
        return value


def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16).decode()
    finally:
        os.close(fd)


WORDS = {"idle", "running", "paused", "ready", "aborting", "completed", "failed", "cancelled"}


def look(disk):
    status = read(f"{disk}/status")
    assert status.endswith("\n") and status[:-1] in WORDS, f"status is {status!r}"
    cur, end = map(int, read(f"{disk}/progress").split())
    assert 0 <= cur <= end, f"progress is {cur} {end}"
    return status[:-1]


def reader(client, *disks):
    while client.going:
        for disk in disks:
            client.call(look, disk)
        time.sleep(0.002)


def ls_lr(path):
    done = subprocess.run(["ls", "-lR", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr or f"status {done.returncode}"
    return done.stdout.count("\n")


def lister(client, path):
    """ls -lR, which must always show the same number of lines; in between the same by hand, with an eye on the time of each call."""
    lines = None
    while client.going:
        now = client.call(ls_lr, path, patient=False)
        if now is not None and lines not in (None, now):
            client.tell("error", error=f"{now} lines of ls -lR, not {lines}")
        lines = now if now is not None else lines
        folders = [path]
        while folders and client.going:
            folder = folders.pop()
            for name in client.call(os.listdir, folder) or []:
                info = client.call(os.lstat, f"{folder}/{name}")
                if info and stat.S_ISDIR(info.st_mode):
                    folders.append(f"{folder}/{name}")


def waiter(client, disk):
    """Its word is final whenever it comes; that of a job that is live, it is not."""
    while client.going:
        word = client.call(read, f"{disk}/wait", patient=False)
        if word is not None and word[:-1] not in ("idle", "completed", "failed", "cancelled"):
            client.tell("error", error=f"wait gave {word!r}")
        client.change(word=(word or "").strip())
        time.sleep(0.01)


def poller(client, path, how):
    """Holds one file open, sleeps until it changes, and reads it from its beginning. Never looks unless it was woken."""
    fd = os.open(path, os.O_RDONLY)
    poll = select.epoll() if how == "epoll" else select.poll()
    poll.register(fd, select.EPOLLPRI | select.EPOLLET if how == "epoll" else select.POLLPRI)
    client.change(word=client.call(os.pread, fd, 100, 0).decode().strip())
    while client.going:
        if not poll.poll(0.2 if how == "epoll" else 200):
            continue
        word = client.call(os.pread, fd, 100, 0)
        if word is not None:
            client.change(word=word.decode().strip(), seen=client.slot.seen + 1)


def watcher(client, folder, name):
    """inotify on a file and on its folder; reads the file whenever it is told that it was written."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(0)
    watches = {libc.inotify_add_watch(fd, os.fsencode(path), 8): path for path in (folder, f"{folder}/{name}")}
    assert -1 not in watches, os.strerror(ctypes.get_errno())
    client.change(word="watches")
    while client.going:
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        data, told = os.read(fd, 1 << 16), False
        while data:
            _, _, _, length = struct.unpack("iIII", data[:16])
            told |= length == 0 or data[16:16 + length].rstrip(b"\0").decode() == name
            data = data[16 + length:]
        if told:
            word = client.call(read, f"{folder}/{name}")
            if word is not None:
                client.change(seen=client.slot.seen + 1, word=word.strip())


def follower(client, path, out, how):
    """Keeps every line of `events`: by one open file (@how: open), or by reading it anew all the time."""
    fd, rest = os.open(path, os.O_RDONLY), b""
    with open(out, "w") as lines:
        while client.going:
            if how == "open":
                rest += client.call(os.read, fd, 1 << 16) or b""
            else:
                data = client.call(open_and_read, path)
                rest = data if data is not None else b""
            *whole, rest = rest.split(b"\n")
            if how != "open" and rest:
                client.tell("error", error=f"a torn line: {rest!r}")
            for line in whole:
                lines.write(line.decode() + "\n")
            lines.flush()
            client.change(word=str(json.loads(whole[-1])["seq"]) if whole else client.slot.word)
            time.sleep(0.01 if how == "open" else 0.05)


def open_and_read(path):
    fd, data = os.open(path, os.O_RDONLY), b""
    try:
        while part := os.read(fd, 1 << 16):
            data += part
        return data
    finally:
        os.close(fd)


def command(path, text):
    """One write(2), and the answer on the same open file."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.write(fd, text.encode())
        return os.pread(fd, 1000, 0).decode()
    finally:
        os.close(fd)


def writer(client, disk, out):
    """Starts, pauses, goes on and aborts copies; their ids go to @out. What it is told after each command must be what it has done."""
    dice = random.Random(client.number)
    number = 0

    def expect(*words):
        status = client.call(read, f"{disk}/status")
        if status is not None and status.strip() not in words:
            client.tell("error", error=f"status is {status.strip()} and not {words}")

    with open(out, "w") as ids:
        while client.going:
            number += 1
            answer = client.call(command, f"{disk}/copy", f"dest={out}.{number} bandwidth=1 granularity=64K buf-size=64K\n")
            if answer is None or not answer.startswith("started "):
                client.tell("error", error=f"a start was answered with {answer!r}")
            else:
                ids.write(answer.split()[1] + "\n")
                ids.flush()
            expect("running")
            for _ in range(dice.randrange(4)):
                client.call(command, f"{disk}/pause", "1\n")
                expect("paused")
                client.call(command, f"{disk}/pause", "0\n")
                expect("running")
                client.call(command, f"{disk}/speed", f"{dice.randrange(1, 5)}\n")
            client.call(command, f"{disk}/abort", "\n")
            expect("cancelled")
            client.call(os.unlink, f"{out}.{number}")
            time.sleep(dice.uniform(0, 0.02))


# --- the test's side ---


class Clients:
    """The processes, and what they have to say."""

    def __init__(self, folder):
        self.folder, self.path = folder, f"{folder}/slots"
        with open(self.path, "wb") as file:
            file.truncate(SIZE)
        self.table = Table(self.path)
        self.processes, self.names, self.reports, self.threads = [], [], [], []

    def start(self, role, *words, before=()):
        """@before: a program that enters somewhere else first."""
        number = len(self.processes)
        process = subprocess.Popen([*before, "/usr/bin/python3", os.path.abspath(__file__), role, str(number), self.path, *words],
                                   stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        self.names.append(f"{role} {number}")
        self.threads.append(threading.Thread(target=self.listen, args=(number,), daemon=True))
        self.threads[-1].start()
        return number

    def listen(self, number):
        for line in self.processes[number].stdout:
            self.reports.append({"who": self.names[number], **json.loads(line)})

    def slot(self, number):
        return self.table.get(number)

    def stuck(self):
        """Those whose call is on for too long."""
        now = time.monotonic()
        slots = [self.slot(number) for number in range(len(self.processes))]
        return [f"{self.names[number]}: {now - slot.since:.1f} s" for number, slot in enumerate(slots) if slot.since and now - slot.since > PATIENCE]

    def ended(self):
        return [name for name, process in zip(self.names, self.processes) if process.poll() is not None]

    def longest(self):
        return max(self.slot(number).longest for number in range(len(self.processes)))

    def calls(self):
        return sum(self.slot(number).calls for number in range(len(self.processes)))

    def stop(self, numbers=None):
        """Lets them end after what they are at, but for those who wait."""
        chosen = range(len(self.processes)) if numbers is None else numbers
        for number in chosen:
            self.table.stop(number)
        for number in chosen:
            if not self.names[number].startswith("waiter"):
                self.processes[number].wait(10)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        for thread in self.threads:
            thread.join(5)


if __name__ == "__main__":
    ROLES = {call.__name__: call for call in (reader, lister, waiter, poller, watcher, follower, writer)}
    ROLES[sys.argv[1]](Client(int(sys.argv[2]), sys.argv[3]), *sys.argv[4:])
