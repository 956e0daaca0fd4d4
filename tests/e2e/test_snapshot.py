"""Snapshots: a new overlay in place at once, on every kind of QEMU and of disk; what is refused leaves no file; proved by qemu-img."""

import errno
import os
import signal

import pytest

import images
import layouts
from images import MIB
from kinds import Chain, SmallFolder
from mount import Refused
from qemu import blockdev
from system import needs_root, wait_for
from test_image import engine_of

every_layout = pytest.mark.parametrize("layout", layouts.STORAGE_DAEMON + layouts.MACHINE, ids=lambda layout: layout.__name__)


def start_layout(layout, storage_daemon, machine, chain):
    return layout(storage_daemon if layout in layouts.STORAGE_DAEMON else machine, chain.top, chain)


@pytest.fixture(params=["machine", "daemon"])
def start(request, storage_daemon, machine, mount, folder):
    """start(chain): a machine, and a storage daemon with an NBD export. Gives (qemu, disk, write(range, pattern) as a guest does)."""
    def begin(chain):
        if request.param == "machine":
            qemu, name = layouts.machine_inline(machine, chain.top, chain)

            def write(where, pattern):
                said = qemu.monitor("human-monitor-command",
                                    command_line=f'qemu-io -d /machine/peripheral/vd0/virtio-backend "write -q -P {pattern} {where}"')
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
        disk.ask("snapshot", words)
    assert caught.value.errno == number, caught.value
    return caught.value.answer


def reads(path, pattern, where, fmt="qcow2"):
    images.run(images.IO, "-f", fmt, "-r", "-c", f"read -q -P {pattern} {where}", path)


@pytest.mark.quick
@every_layout
def test_every_layout(layout, storage_daemon, machine, mount, folder):
    """The folder keeps its name, over a restart of the daemon too; the disk takes its next job, and then another overlay."""
    chain = Chain(folder)
    qemu, name = start_layout(layout, storage_daemon, machine, chain)
    mounted = mount(qemu.socket)
    disk = mounted.disk("vm", name)
    first, second = f"{folder}/first.qcow2", f"{folder}/second.qcow2"
    assert disk.ask("snapshot", f"file={first}\n") == f"the disk stands on {first}\n"
    assert disk.chain == [first, *chain.all]
    assert mounted.domain("vm").disks() == [name]
    told, = disk.events("chain-changed")
    assert told["chain"] == disk.chain and str(told["generation"]) == disk.job["generation"] == "2"
    refused(disk, f"file={second} generation=1\n", errno.ESTALE)
    disk.write("snapshot", f"file={second} generation=2\n")
    assert disk.chain == [second, first, *chain.all]
    mounted.kill()
    mounted.start()
    assert mounted.domain("vm").disks() == [name]
    assert disk.chain == [second, first, *chain.all]
    disk.pull(f"base={chain.top}")
    assert disk.wait() == "completed", disk.job
    assert disk.chain == [second, *chain.all]
    disk.pull()
    assert disk.wait() == "completed", disk.job
    assert disk.chain == [second]
    assert mounted.domain("vm").disks() == [name]
    # Nothing below it has a name that tells what it was called.
    mounted.kill()
    mounted.start()
    assert mounted.domain("vm").disks() == [name]
    disk.write("snapshot", f"file={folder}/third.qcow2\n")
    assert disk.chain == [f"{folder}/third.qcow2", second]
    qemu.quit()
    assert images.same(f"{folder}/third.qcow2", chain.expected)
    for path in [f"{folder}/third.qcow2", second]:
        images.check(path)


def test_what_is_written_goes_to_the_overlay(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    overlay = f"{folder}/over lay.qcow2"
    write("30M 1M", 11)
    before = f"{folder}/before.qcow2"
    disk.write("snapshot", f'file="{overlay}"\n')
    write("30M 2M", 22)
    qemu.quit()
    reads(chain.top, 11, "30M 1M")
    reads(chain.top, 0, "31M 1M")
    images.run(images.IMG, "convert", "-O", "qcow2", overlay, before)
    reads(before, 22, "30M 2M")
    assert images.backing_of(overlay) == chain.top
    assert images.info(overlay)["backing-filename-format"] == "qcow2"
    assert images.info(overlay)["virtual-size"] == 64 * MIB


def test_a_relative_name(start, folder):
    """Seen from the active image's folder, and the header names the active image in the same way: the folder can be moved."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("snapshot", "file=overlay.qcow2\n")
    assert disk.chain == [f"{folder}/overlay.qcow2", *chain.all]
    # From then on the style of the disk's own header counts.
    disk.write("snapshot", f"file={folder}/next.qcow2\n")
    os.mkdir(f"{folder}/sub")
    disk.write("snapshot", "file=sub/last.qcow2\n")
    assert disk.chain == [f"{folder}/sub/last.qcow2", f"{folder}/next.qcow2", f"{folder}/overlay.qcow2", *chain.all]
    qemu.quit()
    assert images.backing_of(f"{folder}/overlay.qcow2") == "top.qcow2"
    assert images.backing_of(f"{folder}/next.qcow2") == "overlay.qcow2"
    assert images.backing_of(f"{folder}/sub/last.qcow2") == f"{folder}/next.qcow2"
    assert images.same(f"{folder}/sub/last.qcow2", chain.expected)


@pytest.mark.parametrize("below, fmt", [("raw", "qcow2"), ("qcow2", "qed"), ("qed", "qcow2")])
@pytest.mark.parametrize("relative", [False, True])
def test_formats(storage_daemon, machine, mount, folder, below, fmt, relative):
    """The format of what is below is named in the header: nothing is guessed."""
    image = images.fill(images.create(f"{folder}/disk.{below}", fmt=below), (1, 4), fmt=below)
    expected = f"{folder}/expected.qcow2"
    images.run(images.IMG, "convert", "-f", below, "-O", "qcow2", image, expected)
    for place in ("daemon", "machine"):
        overlay = f"{folder}/{place}.{fmt}"
        node = blockdev("disk0", image, fmt=below)
        if place == "daemon":
            qemu = storage_daemon("sd", node)
        else:
            qemu = machine("vm", "-blockdev", node, "-device", "virtio-blk-pci,drive=disk0,id=disk0")
        mounted = mount(qemu.socket)
        disk = mounted.disk(qemu.name, "disk0")
        disk.write("snapshot", f"file={os.path.basename(overlay) if relative else overlay} format={fmt}\n")
        assert disk.chain == [overlay, image] and disk.line("format") == fmt
        mounted.close()
        qemu.quit()
        if fmt != "qed":  # which tells raw from the rest only
            assert images.info(overlay)["backing-filename-format"] == below
        images.run(images.IMG, "compare", "-f", fmt, "-F", "qcow2", overlay, expected)


def test_an_image_that_no_machine_uses(mount, folder):
    chain = Chain(folder)
    mounted = mount(f"image:{chain.top}")
    disk = mounted.disk("top", "disk")
    disk.write("snapshot", "file=overlay.qcow2\n")
    assert disk.chain == [f"{folder}/overlay.qcow2", *chain.all]
    assert mounted.domain("top").disks() == ["disk"]
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/overlay.qcow2"]
    mounted.close()
    assert images.same(f"{folder}/overlay.qcow2", chain.expected)


def test_an_engine_that_dies_comes_back_on_the_overlay(mount, folder):
    """Without it jobs would work on an image that is another one's backing image by now."""
    chain = Chain(folder)
    mounted = mount(f"image:{chain.top}")
    disk = mounted.disk("top", "disk")
    disk.write("snapshot", "file=overlay.qcow2\n")
    os.kill(engine_of(mounted), signal.SIGKILL)
    domain = mounted.domain("top")
    wait_for(lambda: not domain.connected, why="its death")
    wait_for(lambda: domain.connected and disk.chain == [f"{folder}/overlay.qcow2", *chain.all], why="the next engine")
    assert domain.disks() == ["disk"]
    assert not disk.events("disk-removed") and len(disk.events("chain-changed")) == 1
    # A daemon that was killed finds it as it is.
    mounted.kill()
    mounted.start()
    assert domain.disks() == ["disk"] and disk.chain == [f"{folder}/overlay.qcow2", *chain.all]
    disk.pull()
    assert disk.wait() == "completed"
    mounted.close()
    assert images.same(f"{folder}/overlay.qcow2", chain.expected)


def test_reuse(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    ours = images.create(f"{folder}/ours.qcow2", chain.top)
    refused(disk, f"file={ours}\n", errno.EEXIST)
    disk.write("snapshot", f"file={ours} reuse\n")
    assert disk.chain == [ours, *chain.all]
    relative = f"{folder}/relative.qcow2"
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-b", "ours.qcow2", "-F", "qcow2", "-u", relative, "64M")
    disk.write("snapshot", "file=relative.qcow2 reuse\n")
    assert disk.chain == [relative, ours, *chain.all]
    write("0 1M", 5)
    qemu.quit()
    assert images.backing_of(relative) == "ours.qcow2"
    reads(relative, 5, "0 1M")


def test_reuse_of_what_does_not_fit(start, folder):
    """Each would have changed the guest's disk, or left a chain that QEMU's next start does not find."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    small = images.create(f"{folder}/small.qcow2", chain.top, size=32 * MIB)
    assert "bytes" in refused(disk, f"file={small} reuse\n", errno.EINVAL)
    alone = images.create(f"{folder}/alone.qcow2")
    assert "none" in refused(disk, f"file={alone} reuse\n", errno.EINVAL)
    other = images.create(f"{folder}/other.qcow2", chain.mid)
    assert chain.mid in refused(disk, f"file={other} reuse\n", errno.EINVAL)
    qed = images.create(f"{folder}/other.qed", chain.top, fmt="qed")
    assert "qcow2" in refused(disk, f"file={qed} reuse\n", errno.EINVAL)
    assert "No such file" in refused(disk, f"file={folder}/nothing reuse\n", errno.EINVAL)
    assert not os.path.exists(f"{folder}/nothing")
    refused(disk, f"file={chain.top} reuse\n", errno.EINVAL)
    assert disk.chain == chain.all
    disk.write("snapshot", f"file={qed} reuse format=qed\n")
    assert disk.chain == [qed, *chain.all]


def test_words(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    overlay = f"{folder}/overlay.qcow2"
    before = qemu.monitor("x-debug-query-block-graph")["nodes"]
    assert "missing" in refused(disk, "\n", errno.EINVAL)
    refused(disk, 'file=""\n', errno.EINVAL)
    refused(disk, f"file={overlay} format=raw\n", errno.EINVAL)
    refused(disk, f"file={overlay} generation=5\n", errno.ESTALE)
    refused(disk, f"file={chain.mid}\n", errno.EEXIST)
    refused(disk, "file=mid.qcow2\n", errno.EEXIST)
    assert "No such file" in refused(disk, "file=nowhere/overlay.qcow2\n", errno.EREMOTEIO)
    refused(disk, f"file={overlay} format=nonsense\n", errno.EINVAL)
    refused(disk, f"file={overlay} format=vdi\n", errno.EREMOTEIO)
    answer = disk.ask("snapshot", "file=overlay.qcow2 dry-run\n")
    assert f"would create {overlay}\n" in answer and "would name top.qcow2" in answer and "blockdev-snapshot" in answer
    assert not os.path.exists(overlay)
    assert disk.chain == chain.all and qemu.monitor("query-jobs") == []
    assert len(qemu.monitor("x-debug-query-block-graph")["nodes"]) == len(before)
    disk.write("pull", "bandwidth=1\n")
    assert "pull" in refused(disk, f"file={overlay}\n", errno.EBUSY)
    assert not os.path.exists(overlay)
    disk.write("abort", "\n")
    disk.write("snapshot", f"file={overlay}\n")
    assert disk.chain == [overlay, *chain.all]


@needs_root
def test_no_room_to_make_it(start, folder, cleanup):
    small = SmallFolder(folder, cleanup)
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    with open(f"{small.path}/fill", "wb") as file:
        file.write(bytes(100 * MIB - 4096 * 8))
    assert "No space left" in refused(disk, f"file={small.path}/overlay.qcow2\n", errno.EREMOTEIO)
    assert os.listdir(small.path) == ["fill"]
    assert disk.chain == chain.all and qemu.monitor("query-jobs") == []


@needs_root
def test_a_folder_that_qemu_may_not_write_to(machine, mount, folder):
    """QEMU makes the file, as the user that it runs as."""
    chain = Chain(folder)
    for path in chain.all:
        os.chown(path, 65534, 65534)
    qemu = machine("vm", "-blockdev", blockdev("disk0", chain.top), "-device", "virtio-blk-pci,drive=disk0,id=vda", user=65534)
    disk = mount(qemu.socket).disk("vm", "vda")
    assert "Permission denied" in refused(disk, f"file={folder}/overlay.qcow2\n", errno.EREMOTEIO)
    assert not os.path.exists(f"{folder}/overlay.qcow2")
    os.mkdir(f"{folder}/theirs")
    os.chown(f"{folder}/theirs", 65534, 65534)
    disk.write("snapshot", f"file={folder}/theirs/overlay.qcow2\n")
    assert os.stat(f"{folder}/theirs/overlay.qcow2").st_uid == 65534
    assert disk.chain[0] == f"{folder}/theirs/overlay.qcow2"


def test_somebody_else_puts_an_overlay(start, folder):
    """The folder stays the disk's."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    theirs = images.create(f"{folder}/theirs.qcow2", chain.top)
    root = "disk0" if disk.name == "disk0" else "fmt0"
    qemu.monitor("blockdev-add", driver="qcow2", node_name="theirs", file={"driver": "file", "filename": theirs}, backing=None)
    qemu.monitor("blockdev-snapshot", node=root, overlay="theirs")
    disks = start.mounted.domain("vm").disks
    wait_for(lambda: disks() and disk.chain == [theirs, *chain.all], why="the look")
    assert disks() == [disk.name]
    disk.pull()
    assert disk.wait() == "completed"
    assert disks() == [disk.name] and disk.chain == [theirs]


def test_live_block_copy(start, folder):
    """The recipe of docs/recipes.md: a snapshot, then a pull, while the guest writes."""
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    write("12M 1M", 1)
    disk.write("snapshot", "file=moved.qcow2\n")
    write("13M 1M", 2)
    disk.pull("bandwidth=2M")
    write("1M 1M", 3)
    write("40M 1M", 4)
    disk.write("speed", "max\n")
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/moved.qcow2"]
    assert disk.events("job-completed")[0]["released"] == chain.all
    qemu.quit()
    for path in chain.all:
        os.unlink(path)
    for pattern, where in (1, "12M 1M"), (2, "13M 1M"), (3, "1M 1M"), (4, "40M 1M"):
        images.run(images.IO, "-f", "qcow2", "-c", f"write -q -z {where}", chain.expected)
        reads(f"{folder}/moved.qcow2", pattern, where)
        images.run(images.IO, "-f", "qcow2", "-c", f"write -q -z {where}", f"{folder}/moved.qcow2")
    assert images.same(f"{folder}/moved.qcow2", chain.expected)
    images.check(f"{folder}/moved.qcow2")


def test_the_overlay_of_a_qemu_that_is_killed_after_the_pull(start, folder):
    chain = Chain(folder)
    qemu, disk, write = start(chain)
    disk.write("snapshot", "file=moved.qcow2\n")
    disk.pull()
    assert disk.wait() == "completed"
    qemu.kill()
    assert images.same(f"{folder}/moved.qcow2", chain.expected)


def test_try_something_and_keep_it(machine, mount, folder):
    """The recipe of docs/recipes.md."""
    chain = Chain(folder)
    qemu, name = layouts.machine_inline(machine, chain.top, chain)
    disk = mount(qemu.socket).disk("vm", name)
    disk.write("snapshot", "file=try.qcow2\n")
    qemu.monitor("human-monitor-command", command_line='qemu-io -d /machine/peripheral/vd0/virtio-backend "write -q -P 9 30M 1M"')
    disk.write("commit", "base=[1] pivot\n")
    assert disk.wait() == "completed"
    assert disk.chain == chain.all
    assert disk.events("job-completed")[0]["released"] == [f"{folder}/try.qcow2"]
    # And once more under the same name, when the file is gone.
    assert "reuse" in refused(disk, "file=try.qcow2\n", errno.EEXIST)
    os.unlink(f"{folder}/try.qcow2")
    disk.write("snapshot", "file=try.qcow2\n")
    assert len(disk.chain) == 4
    qemu.quit()
    reads(chain.top, 9, "30M 1M")
