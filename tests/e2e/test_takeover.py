"""The server is killed and another one goes on: those who use the tree read, write and wait as if nothing had happened."""

import contextlib
import ctypes
import json
import os
import select
import signal
import stat
import struct
import subprocess

import pytest

from kinds import PULL, Chain, start_qemu
from mount import Background
from qemu import blockdev
from system import Took, has_ended, needs_root, stays, wait_for
from takeover import crash, family, no_server
from test_watch_poll import CHANGED, changed, opened
from users import USER, give, needs_users
from watch import CLOSE_WRITE, Inotify, flip, needs, program, refuse, toucher_of  # noqa: F401

libc = ctypes.CDLL(None, use_errno=True)
FRESH = {"progress", "job", "speed", "jobs", "metrics.prom", "events"}


def looks(mount):
    """{path: what must be the same in every life}."""
    return {path: (info.st_ino, info.st_dev, info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_rdev)
            for path, info in mount.files()}


def times(mount):
    return {path: info.st_mtime_ns for path, info in mount.files()}


def contents(mount):
    return {path: mount.read(path) for path in mount.readable() if os.path.basename(path) not in FRESH}


# --- what is there ---


@pytest.mark.quick
def test_all_looks_and_reads_as_before(one):
    one.disk.hold()
    refuse(one.disk, 3)
    before, read, events = looks(one.mount), contents(one.mount), one.mount.events()
    for _ in range(3):
        crash(one.mount)
        assert looks(one.mount) == before
        assert contents(one.mount) == read
        assert one.mount.events() == events
        assert one.disk.status == "running"
    assert one.disk.job["id"] == list(one.qemu.monitor.jobs())[0]
    one.disk.release()
    assert one.disk.wait() == "completed"
    assert one.disk.events("job-started")[0]["job"] == one.disk.job["id"]
    assert len(one.disk.events("job-started")) == len(one.disk.events("job-completed")) == 1


@pytest.mark.quick
def test_metadata_waits_for_the_next_server(one):
    """Nobody sees ENOTCONN: who asks while no server runs gets the answer of the next one."""
    before = one.mount.list("domains/vm/disks/disk0")
    with no_server(one.mount):
        asked = [Background(os.listdir, one.disk.path), Background(os.stat, one.disk / "status"), Background(os.statvfs, one.mount.path),
                 Background(one.disk.read, "status"), Background(os.path.exists, one.mount / "nothing")]
        ls = subprocess.Popen(["ls", "-lR", one.mount.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert stays(lambda: not asked[0].done and not asked[3].done and ls.poll() is None)
    answers = [call.result() for call in asked]
    assert sorted(answers[0]) == before
    assert stat.S_ISREG(answers[1].st_mode)
    assert answers[3:] == ["idle\n", False]
    out, said = ls.communicate(timeout=10)
    assert ls.returncode == 0 and not said and b"pull" in out


def test_times_rise_and_never_fall(one):
    one.disk.hold()
    before = times(one.mount)
    for _ in range(3):
        crash(one.mount)
        after = times(one.mount)
        assert not [path for path in before if after[path] < before[path]]
        flip(one.disk)
        for name in ("status", "job", "events"):
            assert os.stat(one.disk / name).st_mtime_ns > after[one.disk / name], name
        before = times(one.mount)


@pytest.mark.quick
def test_sizes_are_true(one):
    """A file's size in stat is what can be read of it, in the first moments too."""
    one.disk.hold()
    refuse(one.disk, 20)
    for _ in range(3):
        crash(one.mount)
        for name in ("events", "error", "history", "chain", "status"):
            assert os.stat(one.disk / name).st_size == len(one.disk.read(name)), name


# --- open files ---


@pytest.mark.quick
def test_open_files_go_on(one):
    one.disk.hold()
    fds = {path: os.open(path, os.O_RDONLY) for path in one.mount.readable()}
    half = {path: os.open(path, os.O_RDONLY) for path in fds}
    for path, fd in half.items():
        os.read(fd, 1 << 16)
    for _ in range(2):
        crash(one.mount)
        for path, fd in [*fds.items(), *half.items()]:
            text = os.pread(fd, 1 << 20, 0).decode()
            if os.path.basename(path) not in FRESH:
                assert text == one.mount.read(path), path
            assert os.fstat(fd).st_ino == os.stat(path).st_ino
    for fd in [*fds.values(), *half.values()]:
        os.close(fd)


@pytest.mark.parametrize("name, piece", [("status", 4), ("job", 100), ("history", 50), ("error", 10)])
def test_what_is_read_in_pieces_is_not_torn(one, name, piece):
    """A server dies in the middle of a file, and the file changes: what is read is the old text or the new one, never some of both."""
    one.disk.hold()
    refuse(one.disk)
    fd = os.open(one.disk / name, os.O_RDONLY)
    old = one.disk.read(name)
    first = os.read(fd, piece)
    crash(one.mount)
    one.disk.write("abort", "\n")
    refuse(one.disk, name="pause")
    rest = b""
    while part := os.read(fd, piece):
        rest += part
    text = (first + rest).decode()
    os.close(fd)
    assert text in (old, one.disk.read(name)) or name == "job" and text.startswith(old[:200]), text


@pytest.mark.quick
def test_an_answer_is_read_after_the_death(one):
    """The command was accepted, or refused; its writer reads why on the same open file, from the next server."""
    fd = os.open(one.disk / "pull", os.O_RDWR)
    os.write(fd, b"bandwidth=1\n")
    crash(one.mount)
    assert os.pread(fd, 1000, 0).decode() == f"started {one.disk.job['id']}\n"
    with pytest.raises(OSError):
        os.pwrite(fd, b"bogus\n", 0)
    crash(one.mount)
    assert "bogus" in os.pread(fd, 1000, 0).decode()
    os.close(fd)
    one.disk.write("abort", "\n")


def entries(fd, size=600):
    """The names of one getdents64(2) with so small a buffer."""
    buffer = ctypes.create_string_buffer(size)
    got = libc.syscall(217, fd, buffer, size)
    assert got >= 0, os.strerror(ctypes.get_errno())
    names, at = [], 0
    while at < got:
        length, = struct.unpack_from("H", buffer.raw, at + 16)
        names.append(buffer.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return names


@pytest.mark.parametrize("deaths", [1, 4])
def test_a_listing_in_the_middle(one, deaths):
    """Nothing missed, nothing twice."""
    if os.uname().machine != "x86_64":
        pytest.skip("the number of getdents64")
    for number in range(120):
        os.mkdir(f"{one.mount.path}/domains/domain-number-{number}")
    fd = os.open(one.mount / "domains", os.O_RDONLY)
    names, rounds = [], 0
    while part := entries(fd):
        names += part
        rounds += 1
        if rounds <= deaths:
            crash(one.mount)
    os.close(fd)
    assert rounds > deaths
    assert sorted(names) == sorted([".", "..", *one.mount.domains()])


def test_many_open_files(one):
    fds = [os.open(one.disk / "status", os.O_RDONLY) for _ in range(800)]
    crash(one.mount)
    assert all(os.pread(fd, 100, 0) == b"idle\n" for fd in fds)
    for fd in fds[::2]:
        os.close(fd)
    crash(one.mount)
    assert all(os.pread(fd, 100, 0) == b"idle\n" for fd in fds[1::2])
    for fd in fds[1::2]:
        os.close(fd)
    with contextlib.closing(select.epoll()):
        assert one.disk.status == "idle"


def test_files_closed_while_no_server_runs(one):
    """The kernel's RELEASE comes to the next server, which must know that nobody has them any more; and new ones get other numbers."""
    fds = [os.open(one.disk / "events", os.O_RDONLY) for _ in range(50)]
    with no_server(one.mount):
        for fd in fds:
            os.close(fd)
    fds = [os.open(one.disk / "events", os.O_RDONLY) for _ in range(50)]
    crash(one.mount)
    refuse(one.disk)
    assert len({os.read(fd, 1 << 16) for fd in fds}) == 1
    for fd in fds:
        os.close(fd)


# --- the opener ---


@needs_users
@pytest.mark.quick
def test_the_openers_rights_still_decide(one, folder):
    """He who opened it before the death counts after it, whoever writes."""
    give(one.mount.domain("vm").path, USER)
    os.setegid(USER)
    os.seteuid(USER)
    try:
        his = {name: os.open(one.disk / name, os.O_WRONLY) for name in ("pull", "copy", "abort")}
    finally:
        os.seteuid(0)
        os.setegid(0)
    ours = os.open(one.disk / "copy", os.O_WRONLY)
    crash(one.mount)
    with pytest.raises(PermissionError):
        os.write(his["copy"], f"dest={folder}/stolen.qcow2\n".encode())
    assert "image_dir" in one.disk.read("error")
    os.write(his["pull"], b"bandwidth=1\n")
    assert one.disk.job["by"].startswith(f"uid={USER} ")
    crash(one.mount)
    assert one.disk.job["by"].startswith(f"uid={USER} ")
    os.write(his["abort"], b"\n")
    os.setegid(USER)
    os.seteuid(USER)
    try:
        os.write(ours, f"dest={folder}/given.qcow2 bandwidth=1\n".encode())
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert one.disk.job["by"].startswith("uid=0 ")
    one.disk.write("abort", "\n")
    for fd in [*his.values(), ours]:
        os.close(fd)


@needs_users
@pytest.mark.quick
def test_what_was_given_stays_given(one):
    domain = one.mount.domain("vm")
    give(domain.path, USER)
    os.chmod(one.disk / "speed", 0o620)
    os.chown(one.disk / "pause", 4242, 4243)
    domain.write("allow", "pull,speed\n")
    before, allow = looks(one.mount), domain.read("allow")
    for _ in range(2):
        crash(one.mount)
        assert looks(one.mount) == before
        assert domain.read("allow") == allow
    os.chmod(one.disk / "speed", 0o600)
    crash(one.mount)
    assert os.stat(one.disk / "speed").st_mode & 0o777 == 0o600


# --- waiting ---


@pytest.mark.quick
def test_a_parked_wait_goes_on(one):
    one.disk.hold()
    cat = subprocess.Popen(["cat", one.disk / "wait"], stdout=subprocess.PIPE)
    readers = [one.disk.park() for _ in range(3)]
    for _ in range(3):
        assert stays(lambda: not any(reader.done for reader in readers) and cat.poll() is None, 0.1)
        crash(one.mount)
        assert one.disk.status == "running"
    assert stays(lambda: not any(reader.done for reader in readers))
    one.disk.release()
    assert [reader.result() for reader in readers] == ["completed"] * 3
    assert cat.communicate(timeout=5)[0] == b"completed\n"


def test_a_parked_wait_when_the_job_ends_while_no_server_runs(one):
    one.disk.hold()
    reader = one.disk.park()
    assert stays(lambda: not reader.done, 0.1)
    with no_server(one.mount):
        one.qemu.monitor("block-job-set-speed", device=list(one.qemu.monitor.jobs())[0], speed=0)
        one.qemu.monitor.wait_event("BLOCK_JOB_PENDING")
    assert reader.result() == "completed"
    assert one.disk.chain == [one.image]


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.quick
def test_a_parked_wait_can_be_interrupted_afterwards(one, sig):
    """Its request is known to the next server by another number than to the kernel's INTERRUPT."""
    one.disk.hold()
    cats = [subprocess.Popen(["cat", one.disk / "wait"], stdout=subprocess.PIPE) for _ in range(2)]
    assert stays(lambda: not any(cat.poll() for cat in cats), 0.2)
    crash(one.mount)
    assert one.disk.status == "running"
    cats[0].send_signal(sig)
    with Took() as took:
        cats[0].wait(5)
    assert took.seconds < 1
    with no_server(one.mount):
        cats[1].send_signal(sig)
    cats[1].wait(5)
    one.disk.write("abort", "\n")


@pytest.mark.quick
@pytest.mark.parametrize("how", ["poll", "epoll", "epoll edge"])
@pytest.mark.parametrize("moment", ["after", "between"])
def test_pollers_wake(one, how, moment):
    """They sleep from before the death until the next change, which may come while no server runs."""
    one.disk.hold()
    fd = opened(one.disk / "status")

    def sleep():
        while True:
            if how == "poll":
                woken = changed(fd, 10)
            else:
                with contextlib.closing(select.epoll()) as epoll:
                    epoll.register(fd, select.EPOLLPRI | (select.EPOLLET if "edge" in how else 0))
                    woken = epoll.poll(10)
            assert woken, "nobody woke it"
            word = os.pread(fd, 100, 0)
            if word != b"running\n":
                return word
    sleeper = Background(sleep)
    assert stays(lambda: not sleeper.done, 0.1)
    job, = one.qemu.monitor.jobs()
    if moment == "after":
        crash(one.mount)
        one.disk.write("pause", "1\n")
    else:
        with no_server(one.mount):
            one.qemu.monitor("job-pause", id=job)
            wait_for(lambda: one.qemu.monitor("query-jobs")[0]["status"] == "paused")
    assert sleeper.result() == b"paused\n"
    os.close(fd)
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_one_epoll_over_many_lives(one):
    """An edge-triggered waiter that was registered once hears of every change in every life."""
    one.disk.hold()
    fd = opened(one.disk / "status")
    with contextlib.closing(select.epoll()) as epoll:
        epoll.register(fd, select.EPOLLPRI | select.EPOLLET)
        for _ in range(4):
            crash(one.mount)
            word = flip(one.disk)

            def told(word=word):
                return epoll.poll(5) and os.pread(fd, 100, 0).decode().strip() == word
            wait_for(told, why="the edge")
    os.close(fd)
    one.disk.write("abort", "\n")
    assert CHANGED


@pytest.mark.quick
@needs("inotifywait")
@pytest.mark.parametrize("command", [["tail", "-f", "-s", "0.05"], ["tail", "-F", "-s", "0.05"]])
def test_tail_misses_nothing(one, program, command):  # noqa: F811
    tails = [program(*command, "-n", "+1", where / "events") for where in (one.disk, one.mount)]
    refuse(one.disk)
    for tail in tails:
        tail.says("command-refused")
    for number in range(5):
        refuse(one.disk, 2)
        crash(one.mount)
        refuse(one.disk, 2)
        last = one.mount.events()[-1]["seq"]
        for tail in tails:
            tail.says(f'"seq":{last},')
    for tail, where in zip(tails, (one.disk, one.mount)):
        seen = [json.loads(line)["seq"] for line in tail.lines if line.startswith("{")]
        assert set(seen) >= {event["seq"] for event in where.events()}
        assert seen == sorted(set(seen)), "twice, or out of order"
        assert not [line for line in tail.lines if not line.startswith("{")]


@pytest.mark.quick
def test_inotify_goes_on(one):
    """Watches of file and folder fire in the next life, for what happened while no server ran, too."""
    one.disk.hold()
    with Inotify(one.disk / "status", one.disk.path) as inotify:
        for _ in range(3):
            crash(one.mount)
            flip(one.disk)
            left = {(one.disk / "status", ""), (one.disk.path, "status")}
            while left:
                told = inotify.read(5)
                assert told, f"not told: {left}"
                left -= {(notice.watch, notice.name) for notice in told if notice.mask & CLOSE_WRITE}
        if one.disk.status == "paused":
            flip(one.disk)
        inotify.drain(0.2)
        job, = one.qemu.monitor.jobs()
        with no_server(one.mount):
            one.qemu.monitor("job-pause", id=job)
        inotify.wait(lambda notice: notice.mask & CLOSE_WRITE and notice.watch == one.disk / "status")
        assert one.disk.status == "paused"
    one.disk.write("abort", "\n")


@needs_root
@needs("inotifywait", "unshare")
@pytest.mark.quick
def test_a_bind_mount_in_another_namespace(folder, one, program):  # noqa: F811
    """As a container sees it: what is bound goes on, its watches fire, its open files read."""
    os.mkdir(f"{folder}/container")
    script = ('mount --bind "$1" "$2" && exec 3<"$2/disks/disk0/status" && '
              'inotifywait -q -m -e close_write --format "%e %f" "$2/disks/disk0/status" "$2/disks/disk0" | '
              'while IFS= read -r line; do echo "$line"; echo "reads $(cat "$2/disks/disk0/status") $(wc -c <"$2/disks/disk0/chain")"; done')
    watcher = program("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
                      one.mount.domain("vm").path, f"{folder}/container", start_new_session=True)
    try:
        one.disk.hold()
        length = os.stat(one.disk / "chain").st_size

        def hears():
            flip(one.disk)
            return any("CLOSE_WRITE" in line for line in watcher.lines)
        wait_for(hears, 10, "it to watch")
        for _ in range(4):
            crash(one.mount)
            wait_for(lambda: toucher_of(one.mount), why="the next toucher")
            watcher.forget()
            word = flip(one.disk)
            watcher.says("^CLOSE_WRITE.* (status)?$")
            watcher.says("^CLOSE_WRITE.* (status)?$")
            watcher.says(f"^reads {word} {length}$")
    finally:
        os.killpg(watcher.pid, signal.SIGKILL)
    one.disk.write("abort", "\n")


# --- fresh figures, and what is kept ---


@pytest.mark.quick
def test_figures_are_fresh(one):
    """The first read after the death has QEMU's figures, not those of before."""
    one.disk.pull("bandwidth=4M")
    for _ in range(4):
        os.kill(one.mount.pid, signal.SIGKILL)
        asked = one.qemu.monitor.job()["offset"]
        cur, end = one.disk.progress
        assert cur >= asked and end > cur
        assert one.disk.job["state"] == "running"
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_error_and_history_stay(one):
    one.disk.hold()
    one.disk.write("abort", "\n")
    refuse(one.disk, name="pull")
    error, history = one.disk.read("error"), one.disk.read("history")
    assert "bogus" in error and history.count("\n") == 1
    crash(one.mount)
    assert (one.disk.read("error"), one.disk.read("history")) == (error, history)
    one.disk.pull()
    assert one.disk.wait() == "completed"
    crash(one.mount)
    assert one.disk.read("error") == ""
    assert one.disk.read("history").count("\n") == 2
    assert one.disk.status == "completed"


def test_a_job_keeps_all_that_was_known_of_it(machine, mount, folder):
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    tree = mount(qemu.socket)
    disk = tree.disk("vm", name)
    PULL.start(disk, chain, "bandwidth=1")
    before = disk.job
    crash(tree)
    after = disk.job
    for key in ("id", "type", "started", "by", "bandwidth", "generation", "end", "error", "state"):
        assert before[key] == after[key], key
    disk.release()
    PULL.complete(disk, True)
    PULL.check_completed(disk, chain, True)


@pytest.mark.parametrize("kills", [12])
def test_killed_again_and_again(one, kills):
    """Some of them before they serve. Whoever kills is to blame, not the mount: it stays, and who waits is answered."""
    one.disk.hold()
    waiting = one.disk.park()
    assert stays(lambda: not waiting.done, 0.1)
    for _ in range(kills):
        crash(one.mount)
    with Took() as took:
        assert one.disk.status == "running"
    assert took.seconds < 2
    assert not waiting.done
    one.disk.release()
    assert waiting.result() == "completed"


def test_processes_and_descriptors_are_not_more(one):
    """Whatever the dead one had started has gone with it."""
    wait_for(lambda: toucher_of(one.mount), why="a toucher")
    before = len(family(one.mount))
    for _ in range(5):
        old = set(family(one.mount)) - {one.mount.process.pid}
        crash(one.mount)
        wait_for(lambda: all(map(has_ended, old)), why="server and toucher to go")
        wait_for(lambda: len(family(one.mount)) == before, why="the next toucher")
    one.mount.settle()


def test_disks_of_several_machines(storage_daemon, mount, overlay):
    """Each goes on with its own."""
    qemus = [storage_daemon(f"vm{number}", blockdev("disk0", overlay(f"i{number}"))) for number in range(4)]
    tree = mount(*(qemu.socket for qemu in qemus))
    disks = [tree.disk(f"vm{number}", "disk0") for number in range(4)]
    for disk in disks[:3]:
        disk.hold()
    crash(tree)
    assert [disk.status for disk in disks] == ["running"] * 3 + ["idle"]
    for disk in disks[:3]:
        disk.release()
    assert [disk.wait() for disk in disks] == ["completed"] * 3 + ["idle"]
