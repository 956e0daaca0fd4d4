"""Backups: a point in time, whatever the guest writes meanwhile; each kind of sync; what is refused leaves no file; proved by qemu-img."""

import errno
import json
import os
import subprocess

import pytest

import images
import layouts
from images import MIB
from kinds import Chain, SmallFolder
from mount import Refused
from qemu import blockdev
from system import needs_root, wait_for

every_layout = pytest.mark.parametrize("layout", layouts.STORAGE_DAEMON + layouts.MACHINE, ids=lambda layout: layout.__name__)


@pytest.fixture(params=["machine", "daemon"])
def start(request, storage_daemon, machine, mount, folder):
    """start(chain): a machine, and a storage daemon with an NBD export. Gives (qemu, disk, write(range, pattern) as a guest does)."""
    def begin(chain):
        if request.param == "machine":
            qemu, name = layouts.machine_inline(machine, chain.top, chain)

            def write(where, pattern):
                said = qemu.monitor("human-monitor-command", command_line=f'qemu-io -d /machine/peripheral/vd0/virtio-backend "write -q -P {pattern} {where}"')
                assert not said, said
        else:
            qemu, name = layouts.storage_daemon_exported(storage_daemon, chain.top, chain)

            def write(where, pattern):
                images.run(images.IO, "-f", "raw", "-c", f"write -q -P {pattern} {where}", f"nbd+unix:///disk0?socket={chain.top}.nbd")
        begin.mounted = mount(qemu.socket)
        return qemu, begin.mounted.disk("vm", name), write
    return begin


def refused(disk, words, number):
    with pytest.raises(Refused) as caught:
        disk.ask("backup", words)
    assert caught.value.errno == number, caught.value
    return caught.value.answer


def same_as_raw(raw, other):
    done = subprocess.run([images.IMG, "compare", "-q", "-f", "raw", "-F", "qcow2", raw, other])
    return done.returncode == 0


@pytest.mark.quick
def test_a_point_in_time(start, folder):
    """What the guest writes while the backup runs, in front of it and behind it, is not in it, and is on the disk."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest} bandwidth=1M\n")
    wait_for(lambda: disk.progress[0] > 0, why="the first figures")
    for number, where in enumerate(["0 1M", "5M 64k", "8M 2M", "30M 3M", "63M 1M"]):
        write(where, 100 + number)
    assert disk.status == "running" and disk.progress[0] < disk.progress[1]
    disk.write("speed", "0\n")
    assert disk.wait() == "completed"
    assert disk.job["type"] == "backup" and disk.job["result"] == "completed" and disk.job["dest"] == chain.dest
    assert disk.chain == chain.all
    assert disk.events("job-completed")[0]["released"] == []
    assert qemu.monitor("query-jobs") == []
    qemu.quit()
    assert images.same(chain.dest, chain.expected)
    assert not images.same(chain.top, chain.expected)
    images.check(chain.dest)
    images.run(images.IO, "-f", "qcow2", "-c", "read -q -P 103 30M 3M", chain.top)


@every_layout
def test_every_layout(layout, storage_daemon, machine, mount, folder):
    """And nothing is left of it in QEMU: the file can be opened by others, the next backup runs."""
    chain = Chain(folder)
    qemu, name = layout(storage_daemon if layout in layouts.STORAGE_DAEMON else machine, chain.top, chain)
    disk = mount(qemu.socket).disk("vm", name)
    before = {node["name"] for node in qemu.monitor("x-debug-query-block-graph")["nodes"]}
    for number in range(2):
        disk.write("backup", f"dest={folder}/{number}.qcow2\n")
        assert disk.wait() == "completed", disk.job
        assert {node["name"] for node in qemu.monitor("x-debug-query-block-graph")["nodes"]} == before
        images.run(images.IO, "-f", "qcow2", "-c", "write -q 0 64k", f"{folder}/{number}.qcow2")
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [chain.top]


def test_a_killed_qemu_has_not_lost_it(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest}\n")
    assert disk.wait() == "completed"
    qemu.kill()
    assert images.same(chain.dest, chain.expected)
    images.check(chain.dest)


@pytest.mark.parametrize("fmt", ["raw", "qed", "vdi"])
def test_formats(start, folder, fmt):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest} format={fmt}\n")
    assert disk.wait() == "completed", disk.job
    qemu.quit()
    images.run(images.IMG, "compare", "-f", fmt, "-F", "qcow2", chain.dest, chain.expected)


@pytest.mark.parametrize("relative", [False, True])
def test_top_is_the_active_image_alone(start, folder, relative):
    """Its header names the same backing image, in the style that the disk's own header has."""
    chain = Chain(folder)
    if relative:
        images.run(images.IMG, "rebase", "-u", "-b", "mid.qcow2", "-F", "qcow2", chain.top)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest} sync=top\n")
    assert disk.wait() == "completed", disk.job
    qemu.quit()
    assert images.backing_of(chain.dest) == ("mid.qcow2" if relative else chain.mid)
    assert images.same(chain.dest, chain.expected)
    assert images.info(chain.dest)["actual-size"] < 6 * MIB


def test_bitmaps(start, folder):
    """incremental writes what was changed since the last one and begins anew; bitmap writes the same and leaves the bitmap."""
    chain = Chain(folder)
    images.run(images.IMG, "bitmap", "--add", chain.top, "changes")
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={folder}/full.qcow2\n")
    assert disk.wait() == "completed"
    write("20M 1M", 77)
    disk.write("backup", f"dest={folder}/difference.qcow2 sync=bitmap bitmap=changes\n")
    assert disk.wait() == "completed"
    write("40M 1M", 78)
    disk.write("backup", f"dest={folder}/first.qcow2 sync=incremental bitmap=changes\n")
    assert disk.wait() == "completed"
    write("50M 1M", 79)
    disk.write("backup", f"dest={folder}/second.qcow2 sync=incremental bitmap=changes\n")
    assert disk.wait() == "completed"
    qemu.quit()

    def data(name):
        found = json.loads(images.run(images.IMG, "map", "--output=json", f"{folder}/{name}.qcow2"))
        return [(part["start"] // MIB, part["length"] // MIB) for part in found if part["data"]]
    assert data("difference") == [(20, 1)]
    assert data("first") == [(20, 1), (40, 1)]
    assert data("second") == [(50, 1)]
    for name, below in ("first", "full"), ("second", "first"):
        images.run(images.IMG, "rebase", "-u", "-b", f"{folder}/{below}.qcow2", "-F", "qcow2", f"{folder}/{name}.qcow2")
    assert images.same(f"{folder}/second.qcow2", chain.top)


def test_a_bitmap_that_cannot_be_used(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    answer = refused(disk, f"dest={chain.dest} sync=incremental bitmap=nothing\n", errno.ENOENT)
    assert "nothing" in answer and "^^^" in answer
    assert not os.path.exists(chain.dest)
    assert disk.status == "idle" and qemu.monitor("query-jobs") == []
    disk.write("backup", f"dest={chain.dest}\n")
    assert disk.wait() == "completed"


def test_none_runs_until_it_is_aborted(start, folder):
    """What the guest overwrites is kept; the end of that is no completion."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest} sync=none\n")
    write("0 1M", 55)
    assert disk.status == "running"
    with pytest.raises(OSError) as caught:
        disk.write("finish", "\n")
    assert caught.value.errno == errno.EAGAIN
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert disk.chain == chain.all
    qemu.quit()
    # The old content of what was written.
    images.run(images.IMG, "rebase", "-u", "-b", "", chain.dest)
    found = json.loads(images.run(images.IMG, "map", "--output=json", chain.dest))
    assert [(part["start"], part["length"]) for part in found if part["data"]] == [(0, MIB)]


@pytest.mark.parametrize("sync", ["full", "none", "top"])
def test_a_daemon_that_was_killed_meanwhile(start, folder, sync):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("backup", f"dest={chain.dest} bandwidth=1M sync={sync}\n")
    job = disk.job["id"]
    wait_for(lambda: sync == "none" or disk.progress[0] > 0, why="the first figures")
    start.mounted.kill()
    start.mounted.start()
    assert disk.job["id"] == job and disk.status == "running"
    assert disk.chain == chain.all
    if sync == "none":
        disk.write("abort", "\n")
        assert disk.status == "cancelled"
        return
    disk.write("speed", "max\n")
    assert disk.wait() == "completed"
    assert qemu.monitor("query-jobs") == []
    qemu.quit()
    assert images.same(chain.dest, chain.expected)


def test_words(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    dest = chain.dest
    assert "missing" in refused(disk, "\n", errno.EINVAL)
    refused(disk, "dest=backup.qcow2\n", errno.EINVAL)
    refused(disk, f"dest={dest} sync=some\n", errno.EINVAL)
    refused(disk, f"dest={dest} sync=incremental\n", errno.EINVAL)
    refused(disk, f"dest={dest} bitmap=b\n", errno.EINVAL)
    refused(disk, f"dest={dest} sync=bitmap bitmap=b format=raw\n", errno.EINVAL)
    refused(disk, f"dest={dest} sync=top format=raw\n", errno.EINVAL)
    refused(disk, f"dest={dest} reuse\n", errno.EINVAL)
    refused(disk, f"dest={dest} generation=5\n", errno.ESTALE)
    refused(disk, f"dest={chain.mid}\n", errno.EEXIST)
    assert "No such file" in refused(disk, f"dest={folder}/nowhere/backup.qcow2\n", errno.EREMOTEIO)
    assert "nonsense" in refused(disk, f"dest={dest} format=nonsense\n", errno.EINVAL)
    assert "would create" in disk.ask("backup", f"dest={dest} dry-run\n")
    assert not os.path.exists(dest)
    assert disk.status == "idle"
    wait_for(lambda: qemu.monitor("query-jobs") == [], why="the job that should have made the file to be dismissed")
    disk.write("backup", f"dest={dest} bandwidth=1\n")
    assert "backup" in refused(disk, f"dest={folder}/other.qcow2\n", errno.EBUSY)
    assert not os.path.exists(f"{folder}/other.qcow2")
    disk.write("abort", "\n")


@needs_root
def test_no_room_to_make_it(start, folder, cleanup):
    """Refused at once, and nothing half made is left."""
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder, dest=small.path)
    qemu, disk, write = start(chain)
    with open(f"{small.path}/fill", "wb") as file:
        file.write(bytes(100 * MIB - 4096 * 8))
    answer = refused(disk, f"dest={chain.dest}\n", errno.EREMOTEIO)
    assert "No space left" in answer
    assert os.listdir(small.path) == ["fill"]
    assert disk.status == "idle" and qemu.monitor("query-jobs") == []


@needs_root
@pytest.mark.timeout(120)
def test_room_for_the_data_but_not_for_the_tables(start, folder, cleanup):
    """QEMU writes an image's tables last, and does not tell when that fails: `completed` must mean that they are there."""
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder, dest=small.path)
    qemu, disk, write = start(chain)
    words = set()
    for spare in range(0, 8):
        small.resize(100)
        with open(f"{small.path}/fill", "wb") as file:
            file.write(bytes(100 * MIB - 11 * MIB - spare * 65536))
        try:
            disk.write("backup", f"dest={chain.dest}\n")
        except OSError:
            import time; time.sleep(1)
            print(qemu.process.poll(), open(qemu.log).read(), spare)
            raise
        word = disk.wait()
        words.add(word)
        assert word in ("completed", "failed")
        if word == "completed":
            images.check(chain.dest)
            assert images.same(chain.dest, chain.expected), spare
        else:
            assert "No space left" in disk.job["error"]
        os.unlink(chain.dest)
    assert words == {"completed", "failed"}
