"""deadline=: a job that is neither ready nor done by then is given up, and says so."""

import contextlib
import errno
import os
import signal
import time

import pytest

import images
from kinds import ACTIVE_COMMIT, COMMIT, COPY, Chain, start_qemu
from mount import Refused
from system import stays, wait_for

REASON = "deadline: neither ready nor done within {} s"


@pytest.fixture(params=["daemon", "machine"])
def place(request):
    return request.param


@pytest.fixture
def chain(folder):
    return Chain(folder)


@pytest.fixture
def start(storage_daemon, machine, mount, chain):
    """start(place): (qemu, disk, mount)"""
    def begin(place):
        qemu, name = start_qemu(place, storage_daemon if place == "daemon" else machine, chain)
        mounted = mount(qemu.socket)
        return qemu, mounted.disk("vm", name), mounted
    return begin


def was_given_up(disk, chain, seconds):
    assert disk.wait() == "failed"
    job = disk.job
    assert job["error"] == REASON.format(seconds)
    assert job["result"] == "failed"
    failed, = disk.events("job-failed")
    assert failed["error"] == REASON.format(seconds) and failed["released"] == []
    assert disk.chain == chain.all
    assert disk.events("job-cancelled") == []


@pytest.mark.quick
@pytest.mark.parametrize("kind", [COMMIT, ACTIVE_COMMIT, COPY], ids=repr)
def test_a_job_that_takes_too_long_is_given_up(start, chain, place, kind):
    qemu, disk, _ = start(place)
    began = time.monotonic()
    kind.start(disk, chain, "bandwidth=1 deadline=1")
    assert disk.status == "running"
    assert disk.job["deadline"] != "-"
    was_given_up(disk, chain, 1)
    assert 1 <= time.monotonic() - began < 5
    assert qemu.monitor("query-jobs") == []
    # The disk is as it was, and takes its next job, which comes to its end.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(chain.dest)
    kind.start(disk, chain, "deadline=30")
    kind.complete(disk, place == "machine")
    assert disk.job["deadline"] == "-"
    kind.check_completed(disk, chain, place == "machine")
    qemu.quit()
    kind.check_content(chain, place == "machine")


@pytest.mark.parametrize("kind", [ACTIVE_COMMIT, COPY], ids=repr)
def test_what_is_ready_in_time_may_wait(start, chain, place, kind):
    qemu, disk, _ = start(place)
    kind.start(disk, chain, "deadline=1")
    wait_for(lambda: disk.status == "ready")
    assert disk.job["deadline"] == "-"
    assert stays(lambda: disk.status == "ready", 1.5)
    kind.complete(disk, place == "machine")
    qemu.quit()
    kind.check_content(chain, place == "machine")


def test_a_paused_job_is_given_up_too(start, chain, place):
    _, disk, _ = start(place)
    COPY.start(disk, chain, "bandwidth=1 deadline=1")
    disk.write("pause", "1")
    assert disk.status == "paused"
    was_given_up(disk, chain, 1)


def test_who_aborts_first_has_cancelled_it(start, chain, place):
    _, disk, _ = start(place)
    COPY.start(disk, chain, "bandwidth=1 deadline=30")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert disk.job["error"] == "-"


@pytest.mark.parametrize("words", ["deadline=0", "deadline=", "deadline=-1", "deadline=1s", "deadline=1.5", "deadline=99999999999999999999",
                                   "deadline=1000000001", "deadline", "deadline=5 deadline=5"])
def test_what_is_no_deadline_is_refused(start, chain, words):
    qemu, disk, _ = start("machine")
    for file, more in (("commit", ""), ("copy", f"dest={chain.dest}"), ("backup", f"dest={chain.dest}")):
        with pytest.raises(Refused) as refusal:
            disk.ask(file, f"{more} {words}\n")
        assert refusal.value.errno == errno.EINVAL, file
        assert "^" in refusal.value.error
    assert qemu.monitor("query-jobs") == [] and not os.path.exists(chain.dest)


def test_pull_and_snapshot_take_none(start, chain, folder):
    _, disk, _ = start("machine")
    for file, words in (("pull", "deadline=5"), ("snapshot", f"file={folder}/new.qcow2 deadline=5")):
        if not os.path.exists(disk / file):
            continue
        with pytest.raises(Refused) as refusal:
            disk.ask(file, words)
        assert refusal.value.errno == errno.EINVAL
    assert disk.chain == chain.all


def test_a_hung_qemu_is_told_when_it_is_back(start, chain, place):
    """The deadline passes while QEMU is frozen; nothing is lost of it."""
    qemu, disk, _ = start(place)
    COPY.start(disk, chain, "bandwidth=1 deadline=1")
    qemu.freeze()
    time.sleep(1.5)
    qemu.thaw()
    was_given_up(disk, chain, 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_deadline_outlives_the_daemon(storage_daemon, machine, mount, folder, chain, place, when):
    """Killed before its deadline and started again before it or after: it still strikes."""
    qemu, name = start_qemu(place, storage_daemon if place == "daemon" else machine, chain)
    mounted = mount(qemu.socket)
    COPY.start(mounted.disk("vm", name), chain, "bandwidth=1 deadline=2")
    mounted.kill()
    began = time.monotonic()
    if when == "after":
        time.sleep(2.5)
    mounted.start()
    disk = mounted.disk("vm", name)
    was_given_up(disk, chain, 2)
    if when == "before":
        assert time.monotonic() - began > 0.5
