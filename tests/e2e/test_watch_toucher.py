"""The process that touches: what it may, how it comes and goes, and that nobody hangs whatever happens to it or to the daemon."""

import errno
import os
import signal
import subprocess
import time

import pytest

import storms
from qemu import blockdev
from system import IS_ROOT, children_of, descriptors, memory_kib, needs_root, wait_for
from watch import CLOSE_WRITE, Inotify, asleep_for_good, flip, refuse, state_of, toucher_of


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file)


@pytest.mark.quick
def test_what_it_has_and_may(one):
    """No /dev/fuse: it would keep the connection alive.  No capability but to open files whoever owns them, and no way to get more."""
    pid = wait_for(lambda: toucher_of(one.mount))
    wait_for(lambda: status_of(pid)["NoNewPrivs"] == "1", why="it to have begun")
    # Its orders, nowhere to write to, and the root of the tree by a mount that is in nobody's list (fs/toucher_main.c).
    wait_for(lambda: {what.split("[")[0] for what in descriptors(pid).values()} <= {"socket:", "/dev/null", "/"}, why="nothing but what it needs")
    assert [descriptors(pid)[number].split("[")[0] for number in range(3)] == ["socket:", "/dev/null", "/dev/null"]
    assert len(descriptors(pid)) <= 4
    status = status_of(pid)
    override = 1 << 1 if IS_ROOT else 0
    for name, most in (("CapInh", 0), ("CapPrm", override), ("CapEff", override), ("CapAmb", 0)):
        assert int(status[name], 16) | most == most, name
    assert not any("fuse" in what for what in descriptors(pid).values())


@pytest.mark.quick
def test_its_touches_have_no_effect(one):
    """Not on what is told, not on the answer of anybody, not as an event."""
    one.disk.hold()
    with Inotify(one.disk / "speed", one.disk / "error") as inotify:
        before = len(one.disk.events())
        for _ in range(5):
            flip(one.disk)
            inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
        assert not one.disk.events("command-refused")
        assert one.disk.read("error") == ""
        assert len(one.disk.events()) == before + 5
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_killed_it_comes_back_and_tells_what_was_missed(one):
    one.disk.hold()
    with Inotify(one.disk / "status") as inotify:
        for _ in range(3):
            pid = toucher_of(one.mount)
            inotify.drain(0.03)
            os.kill(pid, signal.SIGKILL)
            word = flip(one.disk)
            inotify.wait(lambda notice: notice.mask == CLOSE_WRITE, 5)
            assert one.disk.status == word
            assert wait_for(lambda: toucher_of(one.mount)) != pid
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_stopped_it_is_replaced(one):
    """A toucher that does not answer, for whatever reason, is given up: notices go on, the daemon never waits."""
    one.disk.hold()
    pid = toucher_of(one.mount)
    with Inotify(one.disk / "status") as inotify:
        os.kill(pid, signal.SIGSTOP)
        flip(one.disk)
        began = time.monotonic()
        one.mount.read("README")
        assert time.monotonic() - began < 0.5
        inotify.wait(lambda notice: notice.mask == CLOSE_WRITE, 6)
        wait_for(lambda: state_of(pid) is None, why="the old one to be gone")
        assert toucher_of(one.mount) not in (None, pid)
        flip(one.disk)
        inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_the_daemon_takes_it_along(one):
    pid = toucher_of(one.mount)
    one.mount.terminate()
    assert state_of(pid) is None


@needs_root
def test_a_killed_daemon_leaves_nobody_behind(one):
    one.disk.hold()
    pid = toucher_of(one.mount)
    one.mount.kill()
    wait_for(lambda: state_of(pid) in (None, "Z"), why="the toucher to go")
    with pytest.raises(OSError) as error:
        os.stat(one.mount / "README")
    assert error.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    subprocess.run(["umount", "-l", one.mount.path], check=True)


@needs_root
@pytest.mark.timeout(60)
def test_storms_on_the_toucher(one):
    storms.on_the_toucher(one, rounds=6)


@needs_root
@pytest.mark.timeout(60)
def test_storms_on_the_daemon(one):
    storms.on_the_daemon(one, rounds=4)


@pytest.mark.timeout(60)
def test_a_hung_qemu_holds_up_no_notices_of_others(storage_daemon, mount, overlay):
    """Readers and writers sit on its files, of all kinds; a notice of such a file waits for them, those of others do not."""
    hung = storage_daemon("hung", blockdev("disk0", overlay("a")))
    fine = storage_daemon("fine", blockdev("disk0", overlay("b")))
    tree = mount(hung.socket, fine.socket)
    sick, well = tree.disk("hung", "disk0"), tree.disk("fine", "disk0")
    sick.hold()
    well.hold()
    wait_for(lambda: toucher_of(tree))
    with Inotify(*(sick / name for name in ("progress", "job", "speed", "pause", "status")), sick.path) as everything, \
            Inotify(well / "status") as inotify:
        hung.freeze()
        parked = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
                  for command in (["cat", sick / "progress"], ["cat", sick / "job"], ["busybox", "cat", sick / "speed"],
                                  ["sh", "-c", f"echo 7 >'{sick.path}/speed'"], ["sh", "-c", f"echo 1 >'{sick.path}/pause'"])]
        try:
            refuse(sick, name="abort")
            slowest = 0
            for _ in range(40):
                inotify.drain(0)
                began = time.monotonic()
                flip(well)
                inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
                slowest = max(slowest, time.monotonic() - began)
                everything.read(0)
            assert slowest < 1
            assert not asleep_for_good([toucher_of(tree)])
        finally:
            hung.thaw()
            for process in parked:
                process.wait(20)
    for disk in (sick, well):
        disk.write("pause", "0")
        disk.write("abort", "\n")


@pytest.mark.quick
def test_notices_cost_no_memory(one):
    with Inotify(one.disk.path) as inotify:
        def storm():
            for _ in range(20):
                refuse(one.disk, 100)
                inotify.drain(0.02)
        def memory():
            storm()
            return memory_kib(one.mount.pid)
        # The log of events has its full size then, and what is kept of it for the next server was written anew at least once.
        before, fds = max(memory() for _ in range(10)), len(descriptors(one.mount.pid))
        assert max(memory() for _ in range(6)) - before < 700
        assert len(descriptors(one.mount.pid)) <= fds
        assert len(children_of(one.mount.pid)) == 1
