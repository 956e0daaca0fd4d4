"""Copies: to the end, pivoted, finished and aborted, on every kind of QEMU and of disk, proved by qemu-img."""

import errno
import os

import pytest

import images
import layouts
from images import MIB
from mount import Refused
from system import wait_for


@pytest.fixture
def top(overlay, shelf):
    return images.fill(overlay("top", shelf.mid), (30, 2))


@pytest.fixture
def expected(top, folder):
    images.run(images.IMG, "convert", "-O", "qcow2", top, f"{folder}/expected.qcow2")
    return f"{folder}/expected.qcow2"


def start(layout, storage_daemon, machine, mount, top, shelf):
    qemu, name = layout(storage_daemon if layout in layouts.STORAGE_DAEMON else machine, top, shelf)
    return qemu, mount(qemu.socket).disk("vm", name)


every_layout = pytest.mark.parametrize("layout", layouts.STORAGE_DAEMON + layouts.MACHINE, ids=lambda layout: layout.__name__)
every_machine = pytest.mark.parametrize("layout", layouts.MACHINE, ids=lambda layout: layout.__name__)


def ready(disk):
    wait_for(lambda: disk.status != "running", why="the copy is ready")
    assert disk.status == "ready", disk.job


def refused(disk, words, number):
    with pytest.raises(Refused) as caught:
        disk.ask("copy", words)
    assert caught.value.errno == number
    return caught.value.answer


@every_machine
@pytest.mark.parametrize("words", ["", "shallow", "pivot"])
def test_pivot(layout, words, storage_daemon, machine, mount, top, expected, shelf, folder):
    qemu, disk = start(layout, storage_daemon, machine, mount, top, shelf)
    copy = f"{folder}/a copy.qcow2"
    below = [shelf.mid, shelf.base] if words == "shallow" else []

    answer = disk.ask("copy", f"dest={folder}/copy.qcow2 shallow pivot dry-run\n")
    assert f"would drop {top}\n" in answer and answer.count("would drop") == 1 and "job-complete" in answer
    assert disk.ask("copy", f"dest={folder}/copy.qcow2 pivot dry-run\n").count("would drop") == len(disk.chain)
    disk.write("copy", f'dest="{copy}" {words}\n')
    if words != "pivot":
        ready(disk)
        assert disk.chain == [top, shelf.mid, shelf.base]
        disk.write("pivot", "\n")
    assert disk.wait() == "completed"

    assert [os.path.realpath(path.replace("\\040", " ")) for path in disk.chain] == [copy, *below]
    assert disk.job["type"] == "copy" and disk.job["result"] == "pivoted"
    assert disk.events("job-completed")[0]["released"] == [path for path in (top, shelf.mid, shelf.base) if path not in below]
    # Ready for the next job.
    disk.write("copy", f"dest={folder}/second.qcow2 pivot\n")
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/second.qcow2"]
    qemu.quit()
    assert images.same(f"{folder}/second.qcow2", expected)
    assert images.same(copy, expected)


@every_layout
def test_finish_leaves_a_consistent_copy(layout, storage_daemon, machine, mount, top, expected, shelf, folder):
    qemu, disk = start(layout, storage_daemon, machine, mount, top, shelf)
    disk.write("copy", f"dest={folder}/copy.raw format=raw\n")
    ready(disk)
    disk.write("finish", "\n")
    assert disk.wait() == "completed"
    assert disk.job["result"] == "kept"
    assert disk.chain == [top, shelf.mid, shelf.base]
    assert disk.events("job-completed")[0]["released"] == []
    disk.pull()
    assert disk.wait() == "completed"
    qemu.quit()
    images.run(images.IMG, "compare", "-f", "raw", "-F", "qcow2", f"{folder}/copy.raw", expected)


def test_reuse(machine, mount, top, expected, shelf, folder):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, top, shelf)
    copy = images.create(f"{folder}/copy.qcow2")
    disk.write("copy", f"dest={copy} reuse granularity=64K buf-size=1M bandwidth=max copy-mode=write-blocking on-error=report\n")
    ready(disk)
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    qemu.quit()
    assert images.same(copy, expected)


def test_a_target_of_the_wrong_size(machine, mount, top, shelf, folder):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, top, shelf)
    copy = images.create(f"{folder}/copy.qcow2", size=32 * MIB)
    assert "33554432 bytes" in refused(disk, f"dest={copy} reuse\n", errno.EINVAL)
    raw = f"{folder}/copy.raw"
    with open(raw, "wb") as file:
        file.truncate(64 * MIB + 512)
    assert "bytes" in refused(disk, f"dest={raw} reuse format=raw\n", errno.EINVAL)
    assert disk.status == "idle" and disk.events("job-started") == [] and qemu.monitor("query-jobs") == []
    assert disk.chain == [top, shelf.mid, shelf.base]
    disk.pull()
    assert disk.wait() == "completed"


@pytest.mark.quick
@pytest.mark.parametrize("layout", [layouts.machine_nodes, layouts.storage_daemon_nodes], ids=["machine", "daemon"])
def test_what_fails_at_once_was_refused(layout, storage_daemon, machine, mount, top, shelf, folder):
    """
    QEMU takes the command and fails the job before anybody can look: the write fails, and all is as before. On another host nobody but
    QEMU can tell the size of an image.
    """
    qemu, name = layout(storage_daemon if layout in layouts.STORAGE_DAEMON else machine, top, shelf)
    disk = mount(f"vm=exec:exec socat - UNIX:{qemu.socket}").disk("vm", name)
    copy = images.create(f"{folder}/copy.qcow2", size=32 * MIB)
    disk.write("copy", f"dest={folder}/good.qcow2\n")
    ready(disk)
    disk.write("abort", "\n")
    before = disk.read("job"), disk.read("history")
    for number in range(20):
        assert "Source and target image have different sizes" in refused(disk, f"dest={copy} reuse\n", errno.EREMOTEIO)
        assert disk.status == "cancelled" and disk.chain == [top, shelf.mid, shelf.base]
        assert (disk.read("job"), disk.read("history")) == before
        assert qemu.monitor("query-jobs") == []
    assert len(disk.events("job-started")) == 1 and disk.events("job-failed") == []
    assert len(disk.events("command-refused")) == 20
    disk.write("copy", f"dest={folder}/another.qcow2\n")
    ready(disk)
    disk.write("finish", "\n")
    assert disk.wait() == "completed"
    assert [event["event"] for event in disk.events() if event["event"].startswith("job-")][-3:] == ["job-started", "job-ready", "job-completed"]


def test_abort(machine, mount, top, expected, shelf, folder):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, top, shelf)
    disk.write("copy", f"dest={folder}/copy.qcow2 bandwidth=1\n")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    disk.write("copy", f"dest={folder}/copy.qcow2 reuse\n")
    ready(disk)
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert disk.chain == [top, shelf.mid, shelf.base]
    qemu.quit()
    assert images.same(top, expected)


def test_words(machine, mount, top, shelf, folder):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, top, shelf)
    copy = f"{folder}/copy.qcow2"
    assert "missing" in refused(disk, "\n", errno.EINVAL)
    refused(disk, "dest=copy.qcow2\n", errno.EINVAL)
    refused(disk, f"dest={copy} granularity=1000\n", errno.EINVAL)
    refused(disk, f"dest={copy} granularity=256\n", errno.EINVAL)
    refused(disk, f"dest={copy} granularity=128M\n", errno.EINVAL)
    refused(disk, f"dest={copy} copy-mode=lazy\n", errno.EINVAL)
    refused(disk, f"dest={copy} shallow copy-mode=write-blocking\n", errno.EINVAL)
    for words in ("shallow granularity=512", "shallow granularity=4K", "reuse granularity=512", "shallow granularity=8K buf-size=128M",
                  "shallow buf-size=1G"):
        assert "crash" in refused(disk, f"dest={copy} {words}\n", errno.EINVAL)
    for words in ("granularity=512", "shallow granularity=8K", "shallow granularity=8K buf-size=64M", "shallow granularity=2M buf-size=16G",
                  "shallow buf-size=512M", "granularity=512 buf-size=16G"):
        assert "drive-mirror" in disk.ask("copy", f"dest={copy} {words} dry-run\n")
    refused(disk, f"dest={copy} generation=5\n", errno.ESTALE)
    refused(disk, f"dest={folder}/nowhere/copy.qcow2\n", errno.EREMOTEIO)
    refused(disk, f"dest={copy} reuse\n", errno.EREMOTEIO)
    refused(disk, f"dest={top}\n", errno.EEXIST)
    refused(disk, f"dest={top} reuse\n", errno.EREMOTEIO)
    precious = f"{folder}/precious"
    with open(precious, "w") as file:
        file.write("precious\n")
    assert "reuse" in refused(disk, f"dest={precious}\n", errno.EEXIST)
    os.symlink("nowhere", f"{folder}/link")
    refused(disk, f"dest={folder}/link\n", errno.EEXIST)
    assert open(precious).read() == "precious\n"
    answer = disk.ask("copy", f"dest={copy} dry-run\n")
    assert f"would create {copy}\n" in answer and "drive-mirror" in answer
    for fmt in ("file", "null-co", "nbd", "nonsense"):
        assert "^" * len(f"format={fmt}") in refused(disk, f"dest={copy} format={fmt}\n", errno.EINVAL)
    assert not os.path.exists(copy)
    assert disk.status == "idle" and disk.chain == [top, shelf.mid, shelf.base]
