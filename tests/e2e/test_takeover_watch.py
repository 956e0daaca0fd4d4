"""The server is killed when something has changed, and those who watch have not been told of it yet: the next server tells them."""

import contextlib
import json
import os
import random
import signal
import time

import pytest

from mount import Mount
from qemu import blockdev
from system import NOBODY, fusermount_works, needs_root, wait_for
from takeover import crash
from watch import CLOSE_WRITE, CREATE, DELETE, IS_FOLDER, Inotify, flip, refuse, toucher_of

ROUNDS = 25


class Stopped:
    """No toucher works until the end of the with statement: what changes waits to be told."""

    def __init__(self, mount):
        self.mount = mount

    def __enter__(self):
        self.pid = wait_for(lambda: toucher_of(self.mount), why="a toucher")
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):  # it went with its server
            os.kill(self.pid, signal.SIGKILL)


@pytest.mark.quick
def test_a_change_that_was_not_told(one):
    one.disk.hold()
    with Inotify(one.disk / "status", one.disk / "error") as inotify, Stopped(one.mount):
        inotify.drain(0.2)
        word = flip(one.disk)
        refuse(one.disk)
        assert not [notice for notice in inotify.read(0.1) if notice.mask & CLOSE_WRITE and notice.watch.endswith("status")]
        crash(one.mount)
        left = {"status", "error"}
        while left:
            told = inotify.read(5)
            assert told, f"not told of {left}"
            left -= {os.path.basename(notice.watch) for notice in told if notice.mask & CLOSE_WRITE}
        assert one.disk.status == word
    one.disk.write("abort", "\n")


@pytest.mark.quick
@pytest.mark.parametrize("deaths", [1, 3])
def test_a_disk_that_was_not_told(one, overlay, deaths):
    """IN_CREATE and IN_DELETE come once each, however many servers die before they have come."""
    disks = one.mount.domain("vm") / "disks"
    image = overlay("second")
    with Inotify(disks, mask=CREATE | DELETE) as inotify:
        for mask, change in ((CREATE, lambda: one.qemu.monitor("blockdev-add", **json.loads(blockdev("disk1", image)))),
                             (DELETE, lambda: one.qemu.monitor("blockdev-del", **{"node-name": "disk1"}))):
            with Stopped(one.mount):
                there = mask == CREATE
                change()
                wait_for(lambda there=there: ("disk1" in one.mount.domain("vm").disks()) == there, why="the disk to come or go")
                assert not inotify.read(0.1)
                for _ in range(deaths):
                    crash(one.mount)
                told = inotify.wait(lambda notice, mask=mask: notice.mask & mask)
            told += inotify.drain(0.2)
            assert [(notice.mask, notice.name) for notice in told] == [(mask | IS_FOLDER, "disk1")]


@pytest.mark.timeout(90)
def test_killed_right_after_a_change(one):
    """Wherever the notice is by then: whoever reads when he is told, and only then, ends up with the last word."""
    dice = random.Random(1)
    one.disk.hold()
    with Inotify(one.disk / "status") as inotify:
        for _ in range(ROUNDS):
            word = flip(one.disk)
            time.sleep(dice.uniform(0, 0.02))
            os.kill(one.mount.pid, signal.SIGKILL)
            inotify.wait(lambda notice, word=word: notice.mask & CLOSE_WRITE and one.disk.status == word)
            inotify.drain(0.05)
    one.disk.write("abort", "\n")


def test_killed_in_the_midst_of_many_changes(one):
    """The storm goes on over some deaths; when it is over, all that has changed was told."""
    names = ("error", "events")
    with Inotify(*(one.disk / name for name in names)) as inotify:
        for _ in range(6):
            refuse(one.disk, 30)
            os.kill(one.mount.pid, signal.SIGKILL)
            refuse(one.disk, 30)
            last = one.disk.read("error")
            seen = set()
            while seen != set(names):
                told = inotify.read(5)
                assert told, f"only {seen} told"
                seen |= {os.path.basename(notice.watch) for notice in told if notice.mask & CLOSE_WRITE}
            assert one.disk.read("error") == last
            inotify.drain(0.1)


@needs_root
@pytest.mark.skipif(not fusermount_works(), reason="fusermount3 does not work here")
def test_a_mount_of_a_user(storage_daemon, folder, overlay, cleanup):
    """Mounted by fusermount3, which has /dev/fuse for its user; the next server gets it from the keeper."""
    os.chown(folder, NOBODY, NOBODY)
    image = overlay()
    os.chown(image, NOBODY, NOBODY)
    qemu = storage_daemon("vm", blockdev("disk0", image), user=NOBODY)
    tree = Mount(folder, [qemu.socket], user=NOBODY)
    cleanup(tree.kill)

    def read(name):
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                with open(f"{tree.path}/domains/vm/disks/disk0/{name}", "w" if name == "pull" else "r") as file:
                    if name == "pull":
                        file.write("bandwidth=1\n")
                        file.flush()
                    else:
                        os._exit(file.read() != "running\n")
                os._exit(0)
            finally:
                os._exit(9)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert read("pull") == 0
    for _ in range(4):
        assert read("status") == 0
        crash(tree)
    assert read("status") == 0
    tree.unmount()
