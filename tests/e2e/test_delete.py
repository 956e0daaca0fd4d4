"""`delete` of a commit: exactly the images that it has made useless, only when it has completed, and never one that is used."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import time

import pytest

import images
import layouts
from qemu import blockdev
from system import wait_for
from watch import needs
from test_commit import chain, every_layout, every_machine, ready, refused, start  # noqa: F401 (chain is a fixture)


def deletions(disk):
    """What the events tell: (paths deleted, {path: why not})."""
    return ([event["image"] for event in disk.events("image-deleted")],
            {event["image"]: event["error"] for event in disk.events("image-delete-failed")})


def listed(disk):
    return [line.split(" ", 1)[1] for line in disk.read("job").splitlines() if line.startswith("delete ")]


@every_layout
def test_in_the_middle(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", f"top={chain.mid} delete\n")
    assert listed(disk) == [chain.mid]
    assert disk.wait() == "completed"
    assert not os.path.exists(chain.mid)
    assert deletions(disk) == ([chain.mid], {})
    assert disk.chain == [chain.top, chain.base]
    qemu.quit()
    assert images.same(chain.top, chain.expected)


@every_machine
@pytest.mark.quick
def test_active_image(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", "delete pivot\n")
    assert disk.wait() == "completed"
    assert not os.path.exists(chain.top) and not os.path.exists(chain.mid)
    assert deletions(disk) == ([chain.top, chain.mid], {})
    assert listed(disk) == [chain.top, chain.mid]
    # The last word comes after all that is told of the images.
    assert disk.events()[-1]["event"] == "job-completed"
    assert disk.events()[-1]["released"] == [chain.top, chain.mid]
    qemu.quit()
    assert images.same(chain.base, chain.expected)


@every_layout
def test_what_is_kept_is_not_deleted(layout, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", "delete\n")
    ready(disk)
    assert listed(disk) == [chain.top, chain.mid]
    disk.write("finish", "\n")
    assert disk.wait() == "completed"
    assert disk.job["result"] == "kept"
    assert deletions(disk) == ([], {})
    qemu.quit()
    assert images.same(chain.top, chain.expected)


@every_layout
@pytest.mark.parametrize("words", ["bandwidth=1 delete", "top=[1] bandwidth=1 delete"])
def test_aborted(layout, words, storage_daemon, machine, mount, chain):
    qemu, disk = start(layout, storage_daemon, machine, mount, chain)
    disk.write("commit", words + "\n")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert deletions(disk) == ([], {})
    qemu.quit()
    assert images.same(chain.top, chain.expected)


def test_failed(machine, mount, chain):
    """The write into the base fails: nothing may go."""
    base = blockdev("b", chain.base, file={
        "driver": "blkdebug", "image": {"driver": "file", "filename": chain.base},
        "inject-error": [{"event": "write_aio", "errno": errno.EIO}]}, **layouts.READ_ONLY)
    qemu = machine("vm", "-blockdev", base, "-blockdev", blockdev("m", chain.mid, backing="b", **layouts.READ_ONLY),
                   "-blockdev", blockdev("fmt0", chain.top, backing="m"), "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    disk.write("commit", "top=[1] on-error=report delete\n")
    assert disk.wait() == "failed"
    assert os.path.exists(chain.mid) and deletions(disk) == ([], {})


@pytest.mark.quick
def test_dry_run(machine, mount, chain):
    qemu, disk = start(layouts.machine_drive, None, machine, mount, chain)
    answer = disk.ask("commit", "delete dry-run\n")
    assert f"would delete {chain.top}\nwould delete {chain.mid}\n" in answer
    assert disk.status == "idle" and os.path.exists(chain.mid)


@pytest.mark.quick
def test_replaced(machine, mount, chain):
    """Another file has the name by then: it stays, and that is told."""
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, chain)
    disk.write("commit", "delete\n")
    ready(disk)
    os.rename(chain.mid, chain.mid + ".kept")
    with open(chain.mid, "w") as file:
        file.write("mine")
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert deleted == [chain.top] and list(failed) == [chain.mid] and "another file" in failed[chain.mid]
    with open(chain.mid) as file:
        assert file.read() == "mine"
    assert os.path.exists(chain.mid + ".kept")


@pytest.mark.quick
def test_a_link_and_a_missing_file(machine, mount, chain):
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, chain)
    disk.write("commit", "delete\n")
    ready(disk)
    os.rename(chain.mid, chain.mid + ".kept")
    os.symlink(chain.mid + ".kept", chain.mid)
    os.rename(chain.top, chain.top + ".kept")
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert deleted == [] and "gone already" in failed[chain.top] and "another file" in failed[chain.mid]
    assert os.path.islink(chain.mid) and os.path.exists(chain.mid + ".kept") and os.path.exists(chain.top + ".kept")


def test_links_are_refused(machine, mount, chain, folder):
    """What cannot be deleted is told before anything is started."""
    os.rename(chain.mid, f"{folder}/real.qcow2")
    os.symlink(f"{folder}/real.qcow2", chain.mid)
    qemu, disk = start(layouts.machine_nodes, None, machine, mount, chain)
    answer = refused(disk, "commit", "top=[1] delete\n", errno.EINVAL)
    assert "symbolic link" in answer and chain.mid in answer
    assert answer.splitlines()[1].rstrip() == " " * len("top=[1] ") + "^" * len("delete")
    assert disk.status == "idle"
    disk.write("commit", "top=[1]\n")
    assert disk.wait() == "completed"


def test_no_local_file(machine, mount, storage_daemon, chain, folder):
    """An image that is reached by a protocol is none of our files."""
    storage_daemon("server", json.dumps({"driver": "file", "node-name": "out", "filename": chain.mid}), more=(
        "--nbd-server", f"addr.type=unix,addr.path={folder}/nbd", "--export", "type=nbd,id=e,node-name=out,writable=on"))
    nbd = {"driver": "nbd", "server": {"type": "unix", "path": f"{folder}/nbd"}, "export": "out"}
    qemu = machine("vm", "-blockdev", blockdev("b", chain.base, **layouts.READ_ONLY),
                   "-blockdev", blockdev("m", chain.mid, file=nbd, backing="b", **layouts.READ_ONLY),
                   "-blockdev", blockdev("fmt0", chain.top, backing="m"), "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    assert len(disk.chain) == 3 and not disk.chain[1].startswith("/")
    answer = refused(disk, "commit", "top=[1] delete\n", errno.EINVAL)
    assert "absolute path" in answer
    assert disk.status == "idle"


def test_used_by_another_name(machine, storage_daemon, mount, chain, folder):
    """A disk that comes during the commit, and knows the image by a hard link."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    other = storage_daemon("other")
    tree = mount(qemu.socket, other.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", "delete\n")
    ready(disk)
    os.link(chain.mid, f"{folder}/alias.qcow2")
    other.monitor("blockdev-add", **{"driver": "qcow2", "node-name": "x", "read-only": True, "backing": None,
                                     "file": {"driver": "file", "locking": "off", "filename": f"{folder}/alias.qcow2"}})
    wait_for(lambda: tree.domain("other").disks() == ["x"], why="the other disk is seen")
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert deleted == [chain.top] and "other/x uses it" in failed[chain.mid]
    assert os.path.exists(chain.mid)


def test_locked_by_a_program_that_is_not_under_the_mount(machine, mount, chain):
    """Each QEMU locks some of the bytes from 100 on (one that reads an image, byte 100); here it is the test."""
    qemu, disk = start(layouts.machine_drive, None, machine, mount, chain)
    disk.write("commit", "delete\n")
    ready(disk)
    with open(chain.mid, "rb") as image:
        fcntl.lockf(image, fcntl.LOCK_SH, 1, 100)
        disk.write("pivot", "\n")
        assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert deleted == [chain.top] and "locked" in failed[chain.mid]


def test_a_node_that_qemu_keeps(machine, mount, chain, folder):
    """Another overlay has been put on the image in the same QEMU, by nodes that no device has: QEMU keeps it open, and it stays."""
    qemu = machine("vm", "-blockdev", blockdev("b", chain.base, **layouts.READ_ONLY),
                   "-blockdev", blockdev("m", chain.mid, backing="b", **layouts.READ_ONLY),
                   "-blockdev", blockdev("fmt0", chain.top, backing="m"),
                   "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=fmt0,id=sd0")
    disk = mount(qemu.socket).disk("vm", "sd0")
    disk.write("commit", "delete\n")
    ready(disk)
    overlay = images.create(f"{folder}/second.qcow2", chain.mid)
    qemu.monitor("blockdev-add", **json.loads(blockdev("second", overlay, backing="m", **layouts.READ_ONLY)))
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert chain.mid in failed and "node" in failed[chain.mid]
    assert os.path.exists(chain.mid)


@needs("socat")
@pytest.mark.parametrize("words", ["delete", "top=[1] delete", "delete dry-run"])
def test_a_qemu_that_may_be_on_another_host(words, machine, mount, chain):
    """Its files are not ours, whatever their names: nothing begins."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    disk = mount(f"vm=exec:exec socat - UNIX:{qemu.socket}").disk("vm", "vd0")
    assert "not those of this host" in refused(disk, "commit", words + "\n", errno.EOPNOTSUPP)
    assert disk.status == "idle" and qemu.monitor("query-jobs") == []


def test_users_of_the_base_are_refused(machine, storage_daemon, mount, chain):
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    overlay = images.create(chain.mid + ".overlay", chain.mid)
    other = storage_daemon("other", blockdev("x", overlay))
    disk = mount(qemu.socket, other.socket).disk("vm", "vd0")
    assert "other/x" in refused(disk, "commit", "top=[1] delete\n", errno.EBUSY)
    assert disk.status == "idle" and os.path.exists(chain.mid)


@pytest.mark.quick
def test_a_domain_that_was_never_connected_may_use_it(machine, mount, chain):
    """Its monitor serves somebody else: what it has is not known."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    silent = chain.top + ".sock"
    extra = socket.socket(socket.AF_UNIX)
    extra.bind(silent)
    extra.listen(1)
    tree = mount(qemu.socket, f"silent={silent}")
    disk = tree.disk("vm", "vd0")
    assert "silent" in refused(disk, "commit", "top=[1] delete\n", errno.EBUSY)
    disk.write("commit", "top=[1]\n")
    assert disk.wait() == "completed"
    assert os.path.exists(chain.mid)
    extra.close()


@pytest.mark.quick
def test_a_machine_that_is_off_is_no_user(machine, mount, chain, folder):
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    disk = mount(qemu.socket, f"off=unix:{folder}/nobody.qmp").disk("vm", "vd0")
    disk.write("commit", "top=[1] delete\n")
    assert disk.wait() == "completed"
    assert not os.path.exists(chain.mid)


def test_what_an_unplugged_machine_last_had_counts(machine, mount, chain, storage_daemon, folder):
    """A machine that was shut down while the commit ran goes on counting with the chain that it had."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    other = storage_daemon("other")
    tree = mount(qemu.socket, other.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", "delete\n")
    ready(disk)
    other.monitor("blockdev-add", **{"driver": "qcow2", "node-name": "x", "read-only": True, "backing": None,
                                     "file": {"driver": "file", "locking": "off", "filename": chain.mid}})
    wait_for(lambda: tree.domain("other").disks() == ["x"], why="the other disk is seen")
    other.kill()
    wait_for(lambda: not tree.domain("other").connected, why="it is gone")
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    deleted, failed = deletions(disk)
    assert deleted == [chain.top] and "other/x" in failed[chain.mid]


def test_a_failure_is_no_failure_of_the_job(machine, mount, chain, folder):
    """The folder takes no changes (it is immutable): told, and the commit has completed."""
    inner = f"{folder}/fixed"
    os.mkdir(inner)
    mid = f"{inner}/mid.qcow2"
    os.rename(chain.mid, mid)
    images.run(images.IMG, "rebase", "-u", "-b", mid, "-F", "qcow2", chain.top)
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    if subprocess.run(["chattr", "+i", inner], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no immutable folders here")
    try:
        disk.write("commit", "top=[1] delete\n")
        assert disk.wait() == "completed"
    finally:
        subprocess.run(["chattr", "-i", inner], check=True)
    deleted, failed = deletions(disk)
    assert deleted == [] and list(failed) == [mid]
    assert disk.job["result"] == "committed" and os.path.exists(mid)


# --- over the daemon's death ---

def again(tree):
    tree.kill()
    tree.start()


@pytest.mark.quick
@pytest.mark.parametrize("words", ["top=[1] delete bandwidth=1", "delete bandwidth=1"])
def test_killed_while_the_commit_runs(words, machine, mount, chain):
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    tree = mount(qemu.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", words + "\n")
    doomed = listed(disk)
    again(tree)
    assert listed(disk) == doomed
    disk.write("speed", "max\n")
    if words.startswith("delete"):
        ready(disk)
        disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    assert deletions(disk) == (doomed, {})
    assert not any(map(os.path.exists, doomed))
    qemu.quit()
    assert images.same(disk_image(doomed, chain), chain.expected)


def disk_image(doomed, chain):
    return chain.base if chain.top in doomed else chain.top


def test_killed_between_the_end_and_the_deletion(machine, mount, chain, folder):
    """The last word waits for a domain that has just come, since it may use an image: killed there, the next life goes on."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    tree = mount(qemu.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", "delete\n")
    ready(disk)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f"{folder}/silent.qmp")
    silent.listen(4)
    os.mkdir(tree / "domains/silent")
    tree.domain("silent").write("address", f"unix:{folder}/silent.qmp\n")
    disk.write("pivot", "\n")
    wait_for(lambda: not qemu.monitor("query-jobs"), why="QEMU has done its part")
    assert disk.live and os.path.exists(chain.top) and os.path.exists(chain.mid)
    tree.kill()
    silent.close()
    assert os.path.exists(chain.top) and os.path.exists(chain.mid)
    tree.start()
    assert disk.wait() == "completed"
    assert disk.job["result"] == "pivoted"
    assert deletions(disk) == ([chain.top, chain.mid], {})
    assert not os.path.exists(chain.top) and not os.path.exists(chain.mid)
    assert disk.chain == [chain.base]
    os.rmdir(tree / "domains/silent")


def test_both_killed_and_another_disk_has_the_name(machine, mount, chain, folder):
    """Neither the daemon nor QEMU lives on, and the next QEMU has another disk of the name: nothing proves that an image is useless."""
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    tree = mount(qemu.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", "delete\n")
    ready(disk)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(f"{folder}/silent.qmp")
    silent.listen(4)
    os.mkdir(tree / "domains/silent")
    tree.domain("silent").write("address", f"unix:{folder}/silent.qmp\n")
    disk.write("pivot", "\n")
    wait_for(lambda: not qemu.monitor("query-jobs"), why="QEMU has done its part")
    assert disk.live
    tree.kill()
    silent.close()
    qemu.kill()
    other = images.create(f"{folder}/other.qcow2")
    qemu.arguments = ("-drive", f"file={other},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    qemu.start()
    tree.start()
    wait_for(lambda: disk.status != "idle" and not disk.live, why="the end is told")
    deleted, failed = deletions(disk)
    assert deleted == []
    assert os.path.exists(chain.top) and os.path.exists(chain.mid)
    if disk.status == "completed":
        assert set(failed) == {chain.top, chain.mid}
    os.rmdir(tree / "domains/silent")


@pytest.mark.parametrize("number", range(10))
def test_killed_at_about_the_deletion(number, machine, mount, chain):
    """
    Whenever it is killed: the images go once, what has their names by then stays, and the next life tells how the commit ended.
    """
    qemu = machine("vm", "-drive", f"file={chain.top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    tree = mount(qemu.socket)
    disk = tree.disk("vm", "vd0")
    disk.write("commit", "delete\n")
    ready(disk)
    disk.write("pivot", "\n")
    time.sleep(number * 0.004)
    tree.kill()
    new = [path for path in (chain.top, chain.mid) if not os.path.exists(path)]
    for path in new:
        with open(path, "w") as file:
            file.write("mine")
    tree.start()
    assert disk.wait() == "completed"
    assert disk.job["result"] == "pivoted" and disk.chain == [chain.base]
    for path in (chain.top, chain.mid):
        assert os.path.exists(path) == (path in new)
    for path in new:
        with open(path) as file:
            assert file.read() == "mine"
    assert len(disk.read("history").splitlines()) == 1
    qemu.quit()
    assert images.same(chain.base, chain.expected)
