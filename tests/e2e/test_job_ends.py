"""
Every final word of every kind of job, reached on purpose, on a machine and on a storage daemon; after each of them the images are
looked at with qemu-img, and the disk takes its next job.
"""

import errno
import os
import subprocess

import pytest

import images
from kinds import BACKUP, COPY, KINDS, SMALL, Chain, SmallFolder, failing, start_qemu
from system import needs_root, stays, wait_for

every_kind = pytest.mark.parametrize("kind", KINDS, ids=repr)
MOMENTS = [(kind, when) for kind in KINDS for when in ("running", "paused", "ready") if when != "ready" or kind.becomes_ready]
every_moment = pytest.mark.parametrize("kind, when", MOMENTS)
# What fails, and where: the base is read by all but those that write to it, and QEMU makes the files of a copy and a backup itself.
BROKEN = [(kind, "mid" if kind.writes == "base" else "base", "read_aio") for kind in KINDS]
BROKEN += [(kind, kind.writes, "write_aio") for kind in KINDS if kind not in (COPY, BACKUP)]


@pytest.fixture(params=["machine", "daemon"])
def place(request):
    return request.param


@pytest.fixture
def set_up(place, machine, storage_daemon, mount, folder):
    """set_up(chain, files of images...): a QEMU and its disk, mounted. Gives (qemu, disk)."""
    def start(chain, **files):
        qemu, name = start_qemu(place, machine if place == "machine" else storage_daemon, chain, **files)
        return qemu, mount(qemu.socket).disk("vm", name)
    return start


def sound(path):
    """No corruption. A QEMU that was killed or had no room may have left clusters that nobody uses: 3 says that."""
    done = subprocess.run([images.IMG, "check", "-q", "-U", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 3), done.stdout


def unharmed(chain):
    """The guest's disk reads as before; QEMU has ended."""
    for path in chain.all:
        sound(path)
    assert images.same(chain.top, chain.expected)


def not_completed(disk, chain, word):
    assert disk.status == disk.job["state"] == disk.job["result"] == word
    assert disk.chain == chain.all
    cur, end = disk.progress
    assert 0 <= cur < end
    told, = disk.events(f"job-{word}")
    assert told["released"] == [] and (told["cur"], told["end"]) == (cur, end)
    return told


def next_job(qemu, disk, chain, place, kind):
    """The disk is as good as before: the same once more, and to its end."""
    assert qemu.monitor("query-jobs") == []
    if kind is BACKUP and os.path.exists(chain.dest):
        os.unlink(chain.dest)
    kind.start(disk, chain, "reuse" if kind is COPY else "")
    kind.complete(disk, place == "machine")
    kind.check_completed(disk, chain, place == "machine")
    qemu.quit()
    kind.check_content(chain, place == "machine")


@pytest.mark.quick
@every_kind
def test_completed(set_up, place, kind, folder):
    chain = Chain(folder)
    qemu, disk = set_up(chain)
    kind.start(disk, chain)
    kind.complete(disk, place == "machine")
    kind.check_completed(disk, chain, place == "machine")
    assert disk.job["type"] == kind.name
    assert qemu.monitor("query-jobs") == []
    qemu.quit()
    kind.check_content(chain, place == "machine")


@pytest.mark.quick
@needs_root
@every_kind
def test_failed_for_want_of_space(set_up, place, kind, folder, cleanup):
    """A real full file system below the image that the job writes to."""
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder, **{kind.writes: small.path})
    small.resize(SMALL)
    qemu, disk = set_up(chain)
    kind.start(disk, chain)
    assert disk.wait() == "failed"
    told = not_completed(disk, chain, "failed")
    assert "No space left on device" in told["error"] and "No space left on device" in disk.job["error"]
    small.resize(100)
    next_job(qemu, disk, chain, place, kind)


@needs_root
@every_kind
def test_failed_for_want_of_space_leaves_the_disk_as_it_was(set_up, kind, folder, cleanup):
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder, **{kind.writes: small.path})
    small.resize(SMALL)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "on-error=report")
    assert disk.wait() == "failed"
    qemu.quit()
    unharmed(chain)


@needs_root
@every_kind
def test_stopped_for_want_of_space_and_going_on(set_up, place, kind, folder, cleanup):
    """on-error=stop parks the job; when there is room, `pause` 0 goes on to the same content."""
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder, **{kind.writes: small.path})
    small.resize(SMALL)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "on-error=stop")
    wait_for(lambda: disk.status != "running", why="the job to be stopped")
    assert disk.status == "paused" and disk.line("pause") == "1"
    assert disk.job["io-status"] == "nospace"
    wait_for(lambda: disk.events("job-error"), why="the event of the error")
    # Nothing was cured: it stops again.
    disk.write("pause", "0\n")
    wait_for(lambda: disk.status == "paused" and disk.job["io-status"] == "nospace", why="the job to be stopped again")
    small.resize(100)
    disk.write("pause", "0\n")
    kind.complete(disk, place == "machine")
    kind.check_completed(disk, chain, place == "machine")
    qemu.quit()
    kind.check_content(chain, place == "machine")


@pytest.mark.parametrize("kind, broken, event", BROKEN)
def test_failed_for_a_broken_disk(set_up, kind, broken, event, folder):
    """EIO when it reads, and when it writes."""
    chain = Chain(folder)
    qemu, disk = set_up(chain, **{broken: failing(getattr(chain, broken), event, errno.EIO, False)})
    kind.start(disk, chain)
    assert disk.wait() == "failed"
    told = not_completed(disk, chain, "failed")
    assert "Input/output error" in told["error"]
    assert qemu.monitor("query-jobs") == []
    qemu.quit()
    unharmed(chain)


@every_kind
def test_failed_once_and_completed_then(set_up, place, kind, folder):
    chain = Chain(folder)
    qemu, disk = set_up(chain, mid=failing(chain.mid, "read_aio", errno.EIO, True))
    kind.start(disk, chain)
    assert disk.wait() == "failed"
    next_job(qemu, disk, chain, place, kind)


@every_moment
def test_cancelled(set_up, place, kind, when, folder):
    chain = Chain(folder)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "" if when == "ready" else "bandwidth=1M")
    wait_for(lambda: disk.progress[0] > 0, why="the first figures")
    if when == "paused":
        disk.write("pause", "1\n")
    wait_for(lambda: disk.status == when, why=when)
    disk.write("abort", "\n")
    not_completed(disk, chain, "cancelled")
    next_job(qemu, disk, chain, place, kind)


@every_kind
def test_cancelled_leaves_the_disk_as_it_was(set_up, kind, folder):
    chain = Chain(folder)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "bandwidth=1M")
    wait_for(lambda: disk.progress[0] > 0, why="the first figures")
    disk.write("abort", "\n")
    qemu.quit()
    unharmed(chain)


@every_moment
def test_lost(set_up, place, kind, when, folder):
    chain = Chain(folder)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "" if when == "ready" else "bandwidth=1M")
    wait_for(lambda: disk.progress[0] > 0, why="the first figures")
    if when == "paused":
        disk.write("pause", "1\n")
    wait_for(lambda: disk.status == when, why=when)
    waiter = disk.park()
    assert stays(lambda: not waiter.done, 0.05)
    qemu.kill()
    assert waiter.result() == "lost"
    told = not_completed(disk, chain, "lost")
    assert "lost" in told["error"]
    unharmed(chain)
    # It comes back on the same images, and the same job goes to its end.
    qemu.monitor.close()
    qemu.start()
    wait_for(lambda: disk.read("../../state").startswith("connected"), 10, "the link to come back")
    assert disk.status == "lost"
    next_job(qemu, disk, chain, place, kind)


@every_kind
def test_lost_for_one_that_quits(set_up, kind, folder):
    """What QEMU says on its way out is believed: it cancels its jobs. If it had no time to say it, the job is lost."""
    chain = Chain(folder)
    qemu, disk = set_up(chain)
    kind.start(disk, chain, "bandwidth=1M")
    wait_for(lambda: disk.progress[0] > 0, why="the first figures")
    qemu.quit()
    assert disk.wait() in ("cancelled", "lost")
    not_completed(disk, chain, disk.status)
    unharmed(chain)
