"""poll, select, epoll and stat: kernfs's rule, one wake-up a change and poller, nothing leaked; how often who is told what."""

import os
import resource
import select
import threading
import time

import pytest

from qemu import blockdev
from system import SLOW, descriptors, memory_kib, stays, wait_for
from watch import CLOSE_WRITE, Inotify, flip, refuse

CHANGED = select.POLLPRI | select.POLLERR


def opened(path, read=True):
    fd = os.open(path, os.O_RDONLY)
    if read:
        os.read(fd, 1 << 16)
    return fd


def changed(fd, timeout=0):
    """True if poll(2) says that the file has changed since it was read from its beginning."""
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    return bool(poll.poll(timeout * 1000))


@pytest.mark.quick
@pytest.mark.parametrize("how", ["poll", "select", "epoll", "epoll edge"])
def test_each_kind_of_waiting_wakes_for_each_change(one, how):
    one.disk.hold()
    fd = opened(one.disk / "status")
    epoll = select.epoll()
    if how.startswith("epoll"):
        epoll.register(fd, select.EPOLLPRI | (select.EPOLLET if "edge" in how else 0))

    def wait(timeout):
        if how == "poll":
            return changed(fd, timeout)
        if how == "select":
            return bool(select.select([], [], [fd], timeout)[2])
        return bool(epoll.poll(timeout))

    for _ in range(4):
        assert not wait(0)
        word = flip(one.disk)
        assert wait(5)
        assert os.pread(fd, 100, 0).decode().strip() == word
    one.disk.write("abort", "\n")
    assert wait(5)
    epoll.close()
    os.close(fd)


@pytest.mark.quick
def test_the_rule_of_kernfs(one):
    """Not read yet: changed. Read from the beginning: not. Readable and writable always. Each open file for itself."""
    first, second = opened(one.disk / "status", read=False), opened(one.disk / "status")
    poll = select.poll()
    poll.register(first, select.POLLIN | select.POLLPRI)
    assert poll.poll(0) == [(first, select.POLLIN | CHANGED)]
    os.read(first, 100)
    assert poll.poll(0) == [(first, select.POLLIN)]
    one.disk.hold()
    assert changed(first, 5) and changed(second, 5)
    assert changed(first) and changed(second)  # still: nobody has read
    os.pread(first, 100, 3)  # not from the beginning: no news of what is there now
    assert changed(first)
    os.pread(first, 100, 0)
    assert not changed(first) and changed(second)
    one.disk.write("abort", "\n")
    os.close(first)
    os.close(second)


@pytest.mark.quick
@pytest.mark.parametrize("name", ["status", "job", "chain", "error", "events", "progress", "history"])
def test_every_file_of_a_disk_wakes(one, name):
    refuse(one.disk)
    fd = opened(one.disk / name)
    while os.read(fd, 1 << 16):
        pass
    assert not changed(fd)
    waiting = threading.Thread(target=changed, args=(fd, 10))
    waiting.start()
    one.disk.pull()
    waiting.join(10 * SLOW)
    assert not waiting.is_alive() and changed(fd)
    assert one.disk.wait() == "completed"
    os.close(fd)


def test_listings_and_states_wake(one, overlay):
    domain = one.mount.domain("vm")
    state = opened(domain / "state")
    folder = os.open(domain / "disks", os.O_RDONLY | os.O_DIRECTORY)
    os.listdir(folder)
    assert not changed(state)
    one.qemu.monitor("blockdev-add", driver="qcow2", **{"node-name": "disk1"}, file={"driver": "file", "filename": overlay("other")})
    wait_for(lambda: "disk1" in domain.disks(), why="the new disk")
    one.qemu.kill()
    assert changed(state, 5)
    os.close(state)
    os.close(folder)


def limit_of_descriptors(wanted):
    """As many descriptors as are wanted or allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.timeout(60)
def test_a_thousand_pollers_are_woken_once_a_change(one):
    """And cost nothing when they are gone."""
    limit_of_descriptors(4096)
    one.disk.hold()
    before = descriptors(one.mount.pid)

    def life():
        fds = [opened(one.disk / "status") for _ in range(1000)]
        epoll = select.epoll(1001)
        for fd in fds:
            epoll.register(fd, select.EPOLLPRI | select.EPOLLET)
        for _ in range(3):
            assert epoll.poll(0) == []
            word = flip(one.disk)
            woken = []
            wait_for(lambda: woken.extend(epoll.poll(0.2, 1000)) or len(woken) >= 1000, 10, "a thousand wake-ups")
            assert sorted(fd for fd, _ in woken) == sorted(fds)
            assert epoll.poll(0.02) == []
            assert {os.pread(fd, 100, 0) for fd in fds} == {word.encode() + b"\n"}
        epoll.close()
        for fd in fds:
            os.close(fd)

    life()
    memory = memory_kib(one.mount.pid)
    for _ in range(3):
        life()
    assert memory_kib(one.mount.pid) - memory < 1000
    assert len(descriptors(one.mount.pid)) <= len(before)
    one.disk.write("abort", "\n")


def test_pollers_that_go_are_forgotten(one):
    """Poll handles of files that are closed, and of disks that are gone, are neither kept nor used."""
    one.disk.hold()
    memory = None
    for turn in range(4):
        for _ in range(500):
            fd = opened(one.disk / "status")
            changed(fd, 0)
            epoll = select.epoll()
            epoll.register(fd, select.EPOLLPRI)
            os.close(fd)
            epoll.close()
        flip(one.disk)
        if turn == 0:
            memory = memory_kib(one.mount.pid)
    assert memory_kib(one.mount.pid) - memory < 500
    fds = [opened(one.disk / "status") for _ in range(100)]
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLPRI)
    threads = [threading.Thread(target=poll.poll, args=(10000,))]
    threads[0].start()
    one.qemu.kill()
    threads[0].join(10)
    assert not threads[0].is_alive()
    for fd in fds:
        os.close(fd)


@pytest.mark.quick
def test_the_last_state_is_never_left_untold(one):
    """A storm of changes: whoever reads at each notice, and only then, has seen the last of them."""
    with Inotify(one.disk / "error") as inotify:
        for storm in range(20):
            for number in range(10):
                with pytest.raises(OSError):
                    one.disk.write("speed", f"bogus-{storm}-{number}.")
            seen = ""
            while f"bogus-{storm}-9." not in seen:
                inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
                seen = one.disk.read("error")
    one.disk.hold()
    one.disk.write("abort", "\n")


def test_two_changes_within_10_ms_may_be_one_notice(one):
    began = time.monotonic()
    with Inotify(one.disk / "error") as inotify:
        refuse(one.disk, 2000)
        took = time.monotonic() - began
        told = [notice for notice in inotify.drain(0.1) if notice.mask == CLOSE_WRITE]
    assert 1 <= len(told) <= took / 0.010 + 2


def test_progress_tells_once_a_second_while_the_job_is_live(one):
    one.disk.pull("bandwidth=2M")
    moves = []
    with Inotify(one.disk / "progress") as inotify:
        deadline = time.monotonic() + 3.4
        while time.monotonic() < deadline:
            for notice in inotify.read(0.1):
                if notice.mask == CLOSE_WRITE:
                    moves.append((time.monotonic(), one.disk.progress[0]))
            one.disk.progress  # fresh figures are asked for all the time, and are no reason to tell more often
        assert 3 <= len(moves) <= 4, moves
        assert all(later[0] - former[0] > 0.9 for former, later in zip(moves, moves[1:]))
        assert all(later[1] > former[1] for former, later in zip(moves, moves[1:]))
        one.disk.write("abort", "\n")
        inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
        inotify.drain(0.05)
        assert stays(lambda: not inotify.read(0), 1.2)


def test_many_live_jobs_are_told_of_in_turn(storage_daemon, mount, overlay):
    """No more than some 20 notices of progress a second in all; each job gets its share, and its end is told at once."""
    qemu = storage_daemon("vm", *(blockdev(f"disk{number}", overlay(f"disk{number}")) for number in range(40)))
    tree = mount(qemu.socket)
    disks = [tree.disk("vm", f"disk{number}") for number in range(40)]
    with Inotify(*(disk / "progress" for disk in disks)) as inotify:
        for disk in disks:
            disk.pull("bandwidth=2M")
        inotify.drain(0.3)
        told, deadline = [], time.monotonic() + 4
        while time.monotonic() < deadline:
            told += [notice.watch for notice in inotify.read(0.1) if notice.mask == CLOSE_WRITE]
        assert len(set(told)) == 40
        assert len(told) <= 4 * 20 * 1.5
        inotify.drain(0)
        disks[7].write("abort", "\n")
        began = time.monotonic()
        inotify.wait(lambda notice: notice.watch == disks[7] / "progress" and notice.mask == CLOSE_WRITE)
        assert time.monotonic() - began < 0.5
        for disk in disks[:7] + disks[8:]:
            disk.write("abort", "async")


def test_figures_move_without_a_reader(one):
    """stat alone shows that they do: it reads nothing."""
    one.disk.pull("bandwidth=2M")
    first = os.stat(one.disk / "progress").st_mtime_ns
    second = wait_for(lambda: max(os.stat(one.disk / "progress").st_mtime_ns - first, 0), 3)
    assert second > 0
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_a_stat_poller(one):
    """Each change moves mtime, strictly upwards; the other times with it; what must not change does not."""
    infos = [os.stat(one.disk / "status")]
    one.disk.hold()
    infos.append(os.stat(one.disk / "status"))
    for _ in range(10):
        flip(one.disk)
        infos.append(os.stat(one.disk / "status"))
    one.disk.write("abort", "\n")
    infos.append(os.stat(one.disk / "status"))
    times = [info.st_mtime_ns for info in infos]
    assert times == sorted(set(times)) and times[0] > 0
    assert times[-1] <= time.time_ns()
    for info in infos:
        assert info.st_mtime_ns == info.st_ctime_ns == info.st_atime_ns
    assert len({(info.st_ino, info.st_dev, info.st_mode, info.st_uid, info.st_nlink) for info in infos}) == 1
    assert os.stat(one.disk / "status").st_size == len(one.disk.read("status"))
    quiet = os.stat(one.disk / "status")
    one.disk.read("status")
    assert os.stat(one.disk / "status") == quiet
