"""Full disks and broken ones, through blkdebug and a real small file system."""

import json
import subprocess

import pytest

import images
from qemu import blockdev
from system import needs_root, wait_for


def debugged(image, number, once):
    """The disk on top of a file whose writes fail with an errno: once only, or for ever."""
    inject = {"event": "write_aio", "errno": number, "once": once, "immediately": False}
    return {"driver": "blkdebug", "image": {"driver": "file", "filename": image}, "inject-error": [inject]}


@pytest.fixture
def broken(storage_daemon, mount, overlay):
    def start(number, once):
        image = overlay()
        qemu = storage_daemon("vm", blockdev("disk0", image, file=debugged(image, number, once)))
        return qemu, image, mount(qemu.socket).disk("vm", "disk0")
    return start


@pytest.mark.quick
@pytest.mark.parametrize("number,text", [(28, "No space left on device"), (5, "Input/output error")])
@pytest.mark.parametrize("words", ["", "on-error=report"])
def test_an_error_ends_the_job_and_is_told(broken, number, text, words):
    qemu, image, disk = broken(number, False)
    chain = disk.chain
    disk.pull(words)
    assert disk.wait() == "failed"
    job = disk.job
    assert job["state"] == "failed"
    assert text in job["error"]
    failed, = disk.events("job-failed")
    assert text in failed["error"]
    assert failed["released"] == []
    assert failed["cur"] < failed["end"]
    assert disk.progress == (failed["cur"], failed["end"])
    assert disk.chain == chain
    assert qemu.monitor("query-jobs") == []
    # History keeps it, too.
    last = json.loads(disk.read("history").splitlines()[-1])
    assert text in json.dumps(last)


@pytest.mark.quick
def test_stop_parks_the_job_and_resume_goes_on(broken, shelf):
    qemu, image, disk = broken(28, True)
    disk.pull("on-error=stop")
    wait_for(lambda: disk.status == "paused", why="the job to be stopped by the error")
    assert disk.job["io-status"] == "nospace"
    assert disk.line("pause") == "1"
    # A burst is told as one event, a moment after it began.
    wait_for(lambda: disk.events("job-error"), why="the event")
    disk.write("pause", "0")
    assert disk.wait() == "completed"
    qemu.quit()
    assert images.same(image, shelf.template)


def test_stop_can_be_aborted(broken):
    qemu, image, disk = broken(28, False)
    disk.pull("on-error=stop")
    wait_for(lambda: disk.status == "paused")
    disk.write("pause", "0")
    wait_for(lambda: disk.status == "paused", why="the job to be stopped again: nothing was cured")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert len(disk.chain) == 2


def test_enospc_stops_only_for_want_of_space(broken):
    qemu, image, disk = broken(5, False)
    disk.pull("on-error=enospc")
    assert disk.wait() == "failed"


def test_ignore_ends_with_the_error_and_keeps_the_backing_file(broken, shelf):
    qemu, image, disk = broken(28, False)
    disk.pull("on-error=ignore")
    assert disk.wait() == "failed"
    assert len(disk.chain) == 2
    # QEMU's own figures are whole here; CUR = END is for completed and ready alone.
    cur, end = disk.progress
    assert cur < end
    # A burst of I/O errors is one counted event, not one each.
    events = disk.events("job-error")
    assert 1 <= len(events) <= 5
    assert sum(event.get("count", 1) for event in events) >= 8


@needs_root
def test_a_full_file_system(storage_daemon, mount, folder, shelf, cleanup):
    """A real ENOSPC: stop, give it room, resume, to the same content."""
    small = f"{folder}/small"
    subprocess.run(["mkdir", small], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M", "none", small], check=True)
    cleanup(subprocess.run, ["umount", "-l", small])
    image = images.create(f"{small}/disk.qcow2", shelf.template)
    qemu = storage_daemon("vm", blockdev("disk0", image))
    disk = mount(qemu.socket).disk("vm", "disk0")
    disk.pull("on-error=report")
    assert disk.wait() == "failed"
    assert "No space left" in disk.job["error"]
    disk.pull("on-error=stop")
    wait_for(lambda: disk.status == "paused")
    assert disk.job["io-status"] == "nospace"
    subprocess.run(["mount", "-o", "remount,size=100M", small], check=True)
    disk.write("pause", "0")
    assert disk.wait() == "completed"
    qemu.quit()
    assert images.same(image, shelf.template)
