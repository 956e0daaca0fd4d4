"""The program is replaced while it serves, by one that is as good or by one that is not; nobody who uses the tree notices."""

import os
import signal
import threading
import time

import pytest

import mount as mounts
from builds import Installed, build_with_other_memory, wait_upgraded
from qemu import blockdev
from system import Took, has_ended, mount_lines, stays, wait_for
from takeover import crash, kill_keeper, orphans_are_ours
from watch import flip

HANG_MS = 10000  # what a new program has for its rehearsal (fs/keeper.c)


@pytest.fixture
def installed(folder, monkeypatch):
    program = Installed(folder)
    monkeypatch.setattr(mounts, "BLOCKJOBFS", program.path)
    return program


@pytest.fixture
def one(installed, storage_daemon, mount, overlay):
    class One:
        qemu = storage_daemon("vm", blockdev("disk0", overlay()))
        mount = None
        disk = None

    One.mount = mount(One.qemu.socket)
    One.disk = One.mount.disk("vm", "disk0")
    return One


class Readers:
    """Those who would notice: they read and list without end."""

    def __init__(self, one):
        self.one, self.going, self.errors, self.longest, self.reads = one, True, [], 0, 0
        self.threads = [threading.Thread(target=self.run, args=(call,), daemon=True) for call in (
            lambda: one.disk.status, lambda: one.disk.progress, lambda: one.mount.list("domains/vm/disks"), lambda: one.mount.read("version"))]
        for thread in self.threads:
            thread.start()

    def run(self, call):
        while self.going:
            began = time.monotonic()
            try:
                call()
                self.reads += 1
            except (OSError, AssertionError) as error:
                self.errors.append(repr(error))
            self.longest = max(self.longest, time.monotonic() - began)

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join(10)
        print(f"{self.reads} reads, the longest {self.longest * 1000:.0f} ms")
        assert not any(thread.is_alive() for thread in self.threads)
        assert not self.errors, self.errors[:5]
        assert self.longest < 2


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGUSR1, signal.SIGHUP])
def test_an_upgrade(one, installed, sig):
    one.disk.hold()
    waiting = one.disk.park()
    fd = os.open(one.disk / "status", os.O_RDONLY)
    readers = Readers(one)
    try:
        for _ in range(4):
            server, keeper = one.mount.pid, one.mount.process.pid
            version = installed.swap()
            one.mount.process.send_signal(sig)
            wait_upgraded(installed, one.mount)
            assert one.mount.process.pid == keeper and one.mount.pid != server
            assert has_ended(server)
            assert version in one.mount.read("version")
            assert flip(one.disk) == os.pread(fd, 100, 0).decode().strip()
    finally:
        readers.stop()
    os.close(fd)
    assert not waiting.done
    crash(one.mount)
    assert version in one.mount.read("version")
    if one.disk.status == "paused":
        flip(one.disk)
    one.disk.release()
    assert waiting.result() == "completed"
    assert len(one.disk.events("job-started")) == 1


@pytest.mark.quick
def test_a_crash_before_the_signal(one, installed):
    """A new program that lies there is not taken before it is asked for: the keeper knows only itself."""
    old = one.mount.read("version")
    installed.swap()
    crash(one.mount)
    assert one.mount.read("version") == old
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_upgraded(installed, one.mount)
    assert one.mount.read("version") != old


def test_the_same_program(one, installed):
    """Asked for without a new one: a restart that nobody notices."""
    server = one.mount.pid
    readers = Readers(one)
    one.mount.process.send_signal(signal.SIGHUP)
    wait_for(lambda: has_ended(server), why="the old server to go")
    wait_upgraded(installed, one.mount)
    readers.stop()


def test_two_signals_at_once(one, installed):
    readers = Readers(one)
    installed.swap()
    for sig in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
        one.mount.process.send_signal(sig)
    wait_upgraded(installed, one.mount)
    server = one.mount.pid
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: has_ended(server), 15, "one more upgrade")
    wait_upgraded(installed, one.mount)
    readers.stop()
    crash(one.mount)
    assert one.disk.status == "idle"


@pytest.mark.parametrize("sig", [signal.SIGUSR1, signal.SIGTERM])
def test_signals_while_the_keeper_becomes_the_new_one(one, installed, sig):
    """They come when the old program does not listen any more and the new one not yet: none is its death, and none is lost."""
    installed.swap()
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: installed.runs(one.mount.pid), why="the new server")
    deadline = time.monotonic() + 0.3
    while one.mount.alive and time.monotonic() < deadline:
        was_new = installed.runs(one.mount.process.pid)
        one.mount.process.send_signal(sig)
        if was_new and sig == signal.SIGTERM:
            break
    if sig == signal.SIGUSR1:
        wait_upgraded(installed, one.mount)
        assert one.disk.status == "idle"
    else:
        assert one.mount.process.wait(10) == 0
        mounts.Mount.running.discard(one.mount)
        assert not mount_lines(one.mount.path)


def test_a_keeper_that_was_started_by_the_server(installed, one):
    """It is upgraded like the first one."""
    with orphans_are_ours():
        kill_keeper(one.mount)
        readers = Readers(one)
        version = installed.swap()
        one.mount.process.send_signal(signal.SIGUSR1)
        wait_upgraded(installed, one.mount)
        readers.stop()
        assert version in one.mount.read("version")
        one.mount.terminate()


BROKEN = [
    ("a text", "This is no program.\n", 5),
    ("exits with 1", "#!/bin/sh\nexit 1\n", 5),
    ("hangs", "#!/bin/sh\nexec sleep 1000\n", HANG_MS / 1000 + 5),
    ("kills itself", "#!/bin/sh\nkill -9 $$\n", 5),
    ("missing", None, 5),
    ("fails when it counts", "#!/bin/sh\n[ -n \"$BLOCKJOBFS_REHEARSE\" ] || exit 1\n", 5),
    ("dies when it counts", "#!/bin/sh\n[ -n \"$BLOCKJOBFS_REHEARSE\" ] || kill -SEGV $$\n", 5),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name, text, seconds", BROKEN, ids=[row[0] for row in BROKEN])
@pytest.mark.quick
def test_a_broken_one(one, installed, name, text, seconds):
    """The old one goes on, nobody notices, and the log says so; a good one can follow."""
    one.disk.hold()
    waiting = one.disk.park()
    assert stays(lambda: not waiting.done, 0.1)
    server, version = one.mount.pid, one.mount.read("version")
    said = len(one.mount.said())
    readers = Readers(one)
    if text is None:
        os.unlink(installed.path)
    else:
        installed.script(text)
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: any(words in one.mount.said()[said:] for words in ("does not come up", "come to nothing")), seconds, "the log to say so")
    assert installed.path in one.mount.said()[said:]
    assert one.mount.read("version") == version
    if "when it counts" not in name:
        assert one.mount.pid == server, "the old one was killed for nothing"
    crash(one.mount)
    assert one.mount.read("version") == version
    readers.stop()
    assert not waiting.done
    version = installed.swap()
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_upgraded(installed, one.mount)
    assert version in one.mount.read("version")
    one.disk.write("abort", "\n")
    assert waiting.result() == "cancelled"


@pytest.mark.quick
def test_one_that_does_not_understand_what_is_there(one, installed, folder):
    """Another version, with another layout of what servers leave each other: it finds that out in its rehearsal. By a start anew it gets its way."""
    one.disk.hold()
    server, version = one.mount.pid, one.mount.read("version")
    build_with_other_memory(f"{folder}/other")
    installed.install(f"{folder}/other")
    readers = Readers(one)
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: "does not come up" in one.mount.said(), why="the log to say so")
    readers.stop()
    assert "another version" in one.mount.said()
    assert one.mount.pid == server and one.mount.read("version") == version
    crash(one.mount)
    assert one.disk.status == "running"
    one.mount.terminate()
    one.mount.start()
    assert one.disk.status == "running"
    crash(one.mount)
    assert one.disk.status == "running"
    one.disk.write("abort", "\n")


@pytest.mark.timeout(60)
def test_one_that_hangs_when_it_counts(one, installed):
    """Its rehearsal was good. Whoever uses the tree waits until it is given up, and gets the answer of the old one."""
    version = one.mount.read("version")
    installed.script("#!/bin/sh\n[ -n \"$BLOCKJOBFS_REHEARSE\" ] || exec sleep 1000\n")
    server = one.mount.pid
    one.mount.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: has_ended(server), why="the old server to go")
    with Took() as took:
        assert one.mount.read("version") == version
    assert took.seconds < HANG_MS / 1000 + 2
    assert "come to nothing" in one.mount.said()


def test_told_to_end_in_the_midst_of_a_rehearsal(one, installed):
    installed.script("#!/bin/sh\nexec sleep 1000\n")
    one.mount.process.send_signal(signal.SIGUSR1)
    assert stays(lambda: one.disk.status == "idle", 0.3)
    with Took() as took:
        one.mount.terminate()
    assert took.seconds < 5
