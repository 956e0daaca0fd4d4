"""What the tests need of the machine itself: where the programs are, waiting, processes, mounts."""

import contextlib
import os
import shutil
import signal
import stat
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCKJOBFS = os.environ.get("BLOCKJOBFS", os.path.join(ROOT, "blockjobfs"))
STORAGE_DAEMON = os.environ.get("QEMU_STORAGE_DAEMON", "qemu-storage-daemon")
SYSTEM = os.environ.get("QEMU_SYSTEM", "qemu-system-x86_64")
IMG = os.environ.get("QEMU_IMG", "qemu-img")
IO = os.environ.get("QEMU_IO", shutil.which("qemu-io", path=os.path.dirname(shutil.which(IMG) or "") or None) or "qemu-io")

IS_ROOT = os.geteuid() == 0
# Sanitizers and slow machines: what is allowed to take a while may take longer.
SLOW = float(os.environ.get("TEST_SLOW", "3" if "/san/" in BLOCKJOBFS else "1"))


def wait_for(condition, timeout=5, why="it"):
    """Calls @condition until it gives something true, and returns that. For what no event tells of."""
    deadline = time.monotonic() + timeout * SLOW
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout * SLOW} s in vain for {why}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def stays(condition, seconds=0.3):
    """True if @condition holds, and still does at every look during the next @seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.02)
    return condition()


class Took:
    """How long the body of a with statement took, in seconds."""

    def __enter__(self):
        self.began = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.began


def processes_on(path):
    """{pid: command line} of every process that has @path in its command line, but for us."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            with open(f"/proc/{pid}/stat") as file:
                zombie = file.read().rpartition(")")[2].split()[0] == "Z"
            if path in line and not zombie and int(pid) != os.getpid():
                found[int(pid)] = line
    return found


def has_ended(pid):
    """True if there is no such process, or nothing but its zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def children_of(pid):
    """Pids of the live children of @pid."""
    found = []
    for other in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{other}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(other))
    return found


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def descriptors(pid):
    """{number: what it is} of the open descriptors of @pid."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def memory_kib(pid):
    """Resident memory; 0 with the address sanitizer, which keeps what was freed."""
    if "/san/" in BLOCKJOBFS:
        return 0
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")


def mount_lines(path):
    """The lines of /proc/self/mountinfo whose mount point is @path or under it."""
    with open("/proc/self/mountinfo") as file:
        lines = file.read().splitlines()
    where = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
    return [line for line, point in zip(lines, where) if point == path or point.startswith(path + "/")]


def detach(path):
    """Takes away whatever is mounted at @path, dead or alive."""
    os.system(f"umount -l '{path}' 2>/dev/null || fusermount3 -uz '{path}' 2>/dev/null")


def end(process, sig=signal.SIGKILL):
    """Ends a subprocess.Popen of ours and reaps it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sig)
            process.send_signal(signal.SIGCONT)  # behind it: one that was stopped must not live on for a moment
    process.wait()


NOBODY = 65534


def fusermount_works():
    """Can a user without privileges mount here?"""
    path = shutil.which("fusermount3")
    return path and os.stat(path).st_mode & stat.S_ISUID and os.stat("/dev/fuse").st_mode & 0o006 == 0o006


needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")
