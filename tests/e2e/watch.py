"""What the tests of watchers share: programs that tell of what they see, and inotify and poll as plain as they come."""

import collections
import contextlib
import ctypes
import os
import re
import select
import shutil
import struct
import subprocess
import threading
import time

import pytest

from system import wait_for

libc = ctypes.CDLL(None, use_errno=True)

MODIFY, CLOSE_WRITE, CREATE, DELETE, IS_FOLDER = 2, 8, 0x100, 0x200, 0x40000000

Notice = collections.namedtuple("Notice", "watch mask name")


def needs(*programs):
    """Marks a test that wants programs which may be missing (.ci/deps installs them)."""
    missing = [program for program in programs if not find_program(program)]
    return pytest.mark.skipif(bool(missing), reason="not installed: " + ", ".join(missing))


def find_program(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


class Inotify:
    """An inotify descriptor."""

    def __init__(self, *paths, mask=MODIFY | CLOSE_WRITE | CREATE | DELETE):
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.names = {}
        for path in paths:
            self.add(path, mask)

    def add(self, path, mask=MODIFY | CLOSE_WRITE | CREATE | DELETE):
        number = libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        assert number >= 0, os.strerror(ctypes.get_errno())
        self.names[number] = path
        return number

    def read(self, timeout=5.0):
        """What has been told, or is within @timeout: the notices of one read(2); an empty list if none."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return []
        data, notices = os.read(self.fd, 1 << 16), []
        while data:
            watch, mask, _, length = struct.unpack("iIII", data[:16])
            notices.append(Notice(self.names.get(watch), mask, data[16:16 + length].rstrip(b"\0").decode()))
            data = data[16 + length:]
        return notices

    def wait(self, condition, timeout=5.0):
        """Reads until a notice fulfils @condition; all that were read."""
        deadline, told = time.monotonic() + timeout, []
        while not any(map(condition, told)):
            left = deadline - time.monotonic()
            assert left > 0, f"not told: {told}"
            told += self.read(left)
        return told

    def drain(self, quiet=0.05):
        """Until nothing was told for a moment."""
        told = []
        while True:
            more = self.read(quiet)
            if not more:
                return told
            told += more

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def watches(pid):
    """How many inotify watches a process has."""
    count = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/fdinfo/{name}") as file:
                count += file.read().count("inotify wd:")
    return count


class Program:
    """A program that goes on running and writes lines. Made by the fixture `program`, which a test file has to import."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.at = 0  # lines that have been waited for
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self):
        return self.process.pid

    def watching(self, count=1):
        """Until it has that many inotify watches."""
        wait_for(lambda: watches(self.pid) >= count, why=f"{count} watches of {self.process.args}")
        return self

    def says(self, pattern="", timeout=5):
        """Waits for a line that matches, among those not waited for yet; they are done with then. Returns it."""
        found = []

        def look():
            over = self.process.poll() is not None and not self.thread.is_alive()  # asked first: then all it says is there
            for number in range(self.at, len(self.lines)):
                if re.search(pattern, self.lines[number]):
                    found.append(self.lines[number])
                    self.at = number + 1
                    return True
            assert not over, f"ended: {self.lines}"
            return False

        try:
            wait_for(look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}: nothing like {pattern!r} from {self.process.args}; it said "
                                 f"{self.lines[-20:]}, of which {self.at} in all were waited for") from None
        return found[0]

    def forget(self):
        """What it has said so far does not count."""
        self.at = len(self.lines)


@pytest.fixture
def program(run_in_background):
    """program(command...): a Program, which does not outlive the test; its standard error is listened to as well."""
    def start(*command, **options):
        return Program(run_in_background(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options))
    return start


def flip(disk):
    """One change of a live job: paused, or running again. Returns the word that is true now."""
    word = "running" if disk.status == "paused" else "paused"
    disk.write("pause", "1" if word == "paused" else "0")
    wait_for(lambda: disk.status == word, why=word)
    return word


def refuse(disk, times=1, name="speed"):
    """The cheapest event there is: a command that is refused."""
    fd = os.open(disk / name, os.O_WRONLY)
    try:
        for _ in range(times):
            with contextlib.suppress(OSError):
                os.pwrite(fd, b"bogus", 0)
    finally:
        os.close(fd)


def state_of(pid):
    """The letter of a process's state; None if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
    return None


def toucher_of(mount):
    """The pid of the process that touches for @mount; None if there is none at the moment."""
    from system import children_of
    for pid in children_of(mount.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"--toucher" in file.read().split(b"\0"):
                return pid
    return None


def asleep_for_good(pids):
    """Those of @pids that are in D state at each of a few looks."""
    stuck = set(pids)
    for _ in range(10):
        stuck = {pid for pid in stuck if state_of(pid) == "D"}
        if not stuck:
            break
        time.sleep(0.1)
    return stuck
