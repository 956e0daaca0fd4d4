"""Commits: in the middle of the chain and of the active image, on every kind of QEMU and of disk, proved by qemu-img."""

import errno

import pytest

import images
import layouts
from mount import Refused
from qemu import blockdev
from system import wait_for


@pytest.fixture
def chain(folder):
    """A chain of three images of this test's own, each with data that the others do not have."""
    class Chain:
        base = images.fill(images.create(f"{folder}/base.qcow2"), (0, 6))
        mid = images.fill(images.create(f"{folder}/mid.qcow2", base), (4, 4))
        top = images.fill(images.create(f"{folder}/top.qcow2", mid), (7, 4))
        expected = f"{folder}/expected.qcow2"

    images.run(images.IMG, "convert", "-O", "qcow2", Chain.top, Chain.expected)
    return Chain


def start(layout, storage_daemon, machine, mount, chain):
    qemu, name = layout(storage_daemon if layout in layouts.STORAGE_DAEMON else machine, chain.top, chain)
    return qemu, mount(qemu.socket).disk("vm", name)


every_layout = pytest.mark.parametrize("layout", layouts.STORAGE_DAEMON + layouts.MACHINE, ids=lambda layout: layout.__name__)
every_machine = pytest.mark.parametrize("layout", layouts.MACHINE, ids=lambda layout: layout.__name__)


def ready(disk):
    wait_for(lambda: disk.status != "running", why="the commit is ready")
    assert disk.status == "ready"


def refused(disk, name, words, number):
    with pytest.raises(Refused) as caught:
        disk.ask(name, words)
    assert caught.value.errno == number
    return caught.value.answer


@every_layout
def test_in_the_middle(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)

    disk.write("commit", f"top={chain.mid}\n")
    assert disk.wait() == "completed"

    assert disk.chain == [chain.top, chain.base]
    assert disk.job["type"] == "commit" and disk.job["result"] == "committed"
    assert disk.events("job-completed")[0]["released"] == [chain.mid]
    # The next job can start at once.
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [chain.top]
    qemu.quit()
    assert images.same(chain.top, chain.expected)
    images.check(chain.base)


@every_machine
def test_killed_right_after_a_commit_in_the_middle(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", "top=[1]\n")
    assert disk.wait() == "completed"
    qemu.kill()
    assert images.same(chain.top, chain.expected)


@every_machine
@pytest.mark.parametrize("words", ["", "shallow"])
def test_active_image_and_pivot(layout, words, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    below = [chain.mid, chain.base] if words else [chain.base]

    disk.write("commit", words + "\n")
    ready(disk)
    assert disk.chain == [chain.top, chain.mid, chain.base]
    assert disk.job["type"] == "active-commit"
    cur, end = disk.progress
    assert cur == end > 0
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"

    assert disk.chain == below
    assert disk.job["result"] == "pivoted"
    assert disk.events("job-completed")[0]["released"] == [path for path in (chain.top, chain.mid) if path not in below]
    # Ready for the next job, and for the one after that.
    if words:
        disk.write("commit", "pivot\n")
        assert disk.wait() == "completed"
        assert disk.chain == [chain.base]
    qemu.quit()
    assert images.same(chain.base, chain.expected)


@every_layout
def test_active_image_and_finish(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)

    disk.write("commit", "\n")
    ready(disk)
    disk.write("finish", "\n")
    assert disk.wait() == "completed"

    assert disk.chain == [chain.top, chain.mid, chain.base]
    assert disk.job["result"] == "kept"
    assert disk.events("job-completed")[0]["released"] == []
    disk.pull("base=[2]")
    assert disk.wait() == "completed"
    qemu.quit()
    assert images.same(chain.top, chain.expected)
    assert images.same(chain.base, chain.expected)


@every_machine
def test_abort_when_ready(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", "shallow\n")
    ready(disk)
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    cur, end = disk.progress
    assert cur < end
    assert disk.chain == [chain.top, chain.mid, chain.base]
    qemu.quit()
    assert images.same(chain.top, chain.expected)


def test_pivot_too_early_and_while_paused(machine, mount, chain):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, chain)
    assert "ESRCH" in refused(disk, "pivot", "\n", errno.ESRCH)
    disk.write("commit", "bandwidth=1\n")
    assert "not ready" in refused(disk, "pivot", "\n", errno.EAGAIN)
    refused(disk, "finish", "\n", errno.EAGAIN)
    refused(disk, "pivot", "now\n", errno.EINVAL)
    disk.write("speed", "max\n")
    ready(disk)
    disk.write("pause", "1\n")
    assert disk.status == "paused"
    assert "paused" in refused(disk, "pivot", "\n", errno.EAGAIN)
    disk.write("pause", "0\n")
    assert disk.status == "ready"
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    assert disk.chain == [chain.base]
    refused(disk, "pivot", "\n", errno.ESRCH)
    assert len(disk.events("job-ready")) == 1


def test_words(machine, mount, chain):
    qemu, disk = start(layouts.machine_drive, None, machine, mount, chain)
    before = disk.chain
    assert "shallow" in refused(disk, "commit", "shallow base=[2]\n", errno.EINVAL)
    assert "\n        ^^^^^^^^\n" in refused(disk, "commit", "top=[2] base=[1]\n", errno.EINVAL)
    refused(disk, "commit", "top=[1] base=[1]\n", errno.EINVAL)
    refused(disk, "commit", "top=[2]\n", errno.EINVAL)
    refused(disk, "commit", "top=[2] shallow\n", errno.EINVAL)
    refused(disk, "commit", "top=[1] pivot\n", errno.EINVAL)
    refused(disk, "commit", "top=/nowhere\n", errno.ENOENT)
    refused(disk, "commit", "base=[3]\n", errno.ENOENT)
    refused(disk, "commit", "generation=9\n", errno.ESTALE)
    answer = disk.ask("commit", "top=[1] dry-run\n")
    assert f"would merge {chain.mid}\n" in answer and f"would merge into {chain.base}\n" in answer and "block-commit" in answer
    assert f"would drop {chain.mid}\n" in answer
    assert "would drop" not in disk.ask("commit", "dry-run\n")
    assert disk.status == "idle" and disk.chain == before and disk.job["state"] == "idle"


def test_a_base_that_another_disk_uses(machine, storage_daemon, mount, chain, folder):
    """By another name of the file, in another domain, and below another disk of the same one."""
    import os

    os.link(chain.base, f"{folder}/alias.qcow2")
    other = images.create(f"{folder}/other.qcow2", f"{folder}/alias.qcow2")
    vm, name = layouts.machine_drive(machine, chain.top, chain)
    second = storage_daemon("second", blockdev("disk1", other))
    tree = mount(vm.socket, second.socket)
    disk = tree.disk("vm", name)

    answer = refused(disk, "commit", "top=[1]\n", errno.EBUSY)
    assert "second/disk1" in answer and chain.base in answer
    refused(disk, "commit", "\n", errno.EBUSY)
    assert disk.status == "idle" and disk.chain == [chain.top, chain.mid, chain.base]
    # Into an image that is this disk's alone.
    disk.write("commit", "shallow\n")
    ready(disk)
    disk.write("finish", "\n")
    assert disk.wait() == "completed"


def test_names_stay_relative(machine, mount, folder):
    import os

    os.mkdir(f"{folder}/a")
    os.mkdir(f"{folder}/b")
    base = images.fill(images.create(f"{folder}/b/base.qcow2"), (0, 2))
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-b", "../b/base.qcow2", "-F", "qcow2", "mid.qcow2", cwd=f"{folder}/a")
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", cwd=f"{folder}/a")
    qemu = machine("vm", "-drive", f"file={folder}/a/top.qcow2,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=vda")
    disk = mount(qemu.socket).disk("vm", "vda")
    disk.write("commit", "top=[1]\n")
    assert disk.wait() == "completed"
    assert images.backing_of(f"{folder}/a/top.qcow2") == "../b/base.qcow2"
    assert os.path.samefile(disk.chain[1], base)


def test_a_pull_keeps_names_relative(machine, mount, folder):
    base = images.fill(images.create(f"{folder}/base.qcow2"), (0, 2))
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2", cwd=folder)
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", cwd=folder)
    qemu = machine("vm", "-drive", f"file={folder}/top.qcow2,if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=vda")
    disk = mount(qemu.socket).disk("vm", "vda")
    answer = disk.ask("pull", f"base={base} generation=1 dry-run\n")
    assert f"would drop {folder}/mid.qcow2\n" in answer and "block-stream" in answer and disk.status == "idle"
    disk.pull(f"base={base} generation=1")
    assert disk.wait() == "completed"
    assert images.backing_of(f"{folder}/top.qcow2") == "base.qcow2"
    refused(disk, "pull", "generation=1\n", errno.ESTALE)


def test_foreign_active_commit_is_called_so(machine, mount, chain):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, chain)
    qemu.monitor("block-commit", job_id="theirs", device="fmt0", base_node="b")
    wait_for(lambda: disk.status == "ready", why="the foreign commit is ready")
    assert disk.job["type"] == "active-commit" and disk.job["by"] == "foreign"
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
