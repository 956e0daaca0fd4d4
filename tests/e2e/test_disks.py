"""Which nodes are disks, and disks that come and go."""

import os

import pytest

import images
from qemu import blockdev
from system import stays, wait_for


@pytest.mark.quick
def test_a_storage_daemon_shows_its_root_nodes(storage_daemon, mount, overlay, shelf, folder):
    """Exported or not; neither backing files nor protocol nodes, named or not."""
    protocol = '{"driver": "file", "node-name": "proto", "filename": "%s"}' % overlay("named")
    qemu = storage_daemon(
        "vm", blockdev("plain", overlay("plain")),
        blockdev("b", shelf.base, **{"read-only": True}), blockdev("m", shelf.mid, backing="b", **{"read-only": True}),
        blockdev("chained", overlay("chained", shelf.mid), backing="m"),
        protocol, '{"driver": "qcow2", "node-name": "on-proto", "file": "proto"}',
        blockdev("exported", overlay("exported")),
        more=("--nbd-server", f"addr.type=unix,addr.path={folder}/nbd", "--export", "type=nbd,id=out,node-name=exported,writable=on"))
    domain = mount(qemu.socket).domain("vm")
    assert domain.disks() == ["chained", "exported", "on-proto", "plain"]
    for name in domain.disks():
        disk = domain.disk(name)
        assert len(disk.chain) == (3 if name == "chained" else 2)
        disk.pull()
        assert disk.wait() == "completed", name


def test_no_disks_at_all(storage_daemon, machine, mount):
    tree = mount(storage_daemon("one").socket, machine("two").socket)
    assert tree.domain("one").disks() == []
    assert tree.domain("two").disks() == []
    assert tree.domain("one").connected
    assert tree.domain("two").connected


def test_a_drive_without_a_medium_is_no_trouble(machine, mount, overlay):
    qemu = machine("vm", "-device", "virtio-scsi-pci", "-device", "scsi-cd,id=cd0", "-blockdev", blockdev("fmt0", overlay()),
                   "-device", "scsi-hd,drive=fmt0,id=sd0")
    domain = mount(qemu.socket).domain("vm")
    assert "sd0" in domain.disks()
    for name in domain.disks():
        domain.disk(name).chain
    disk = domain.disk("sd0")
    disk.pull()
    assert disk.wait() == "completed"


@pytest.mark.quick
def test_disks_come_and_go_in_a_storage_daemon(storage_daemon, mount, overlay, folder):
    qemu = storage_daemon("vm", blockdev("disk0", overlay("a")))
    tree = mount(qemu.socket)
    domain = tree.domain("vm")
    assert domain.disks() == ["disk0"]
    new = overlay("b")
    for _ in range(2):
        qemu.monitor("blockdev-add", driver="qcow2", node_name="disk1", file={"driver": "file", "filename": new})
        wait_for(lambda: domain.disks() == ["disk0", "disk1"], why="the new disk to be seen")
        assert domain.events("disk-added")[-1]["disk"] == "disk1"
        disk = domain.disk("disk1")
        inode = os.stat(disk.path).st_ino
        disk.pull()
        assert disk.wait() == "completed"
        held = os.open(disk / "status", os.O_RDONLY)
        qemu.monitor("blockdev-del", node_name="disk1")
        wait_for(lambda: domain.disks() == ["disk0"], why="the disk to be gone")
        assert domain.events("disk-removed")[-1]["disk"] == "disk1"
        with pytest.raises(FileNotFoundError):
            os.stat(disk.path)
        # A file of it that is still open answers something, and does no harm.
        try:
            os.read(held, 100)
        except OSError:
            pass
        os.close(held)
    assert domain.disk("disk0").status == "idle"
    # The same name and file again has the same number; no other file ever had it.
    qemu.monitor("blockdev-add", driver="qcow2", node_name="disk1", file={"driver": "file", "filename": new})
    wait_for(lambda: domain.disks() == ["disk0", "disk1"])
    assert os.stat(disk.path).st_ino == inode


@pytest.mark.quick
@pytest.mark.parametrize("device", ["scsi-hd", "usb-storage"])
def test_disks_are_plugged_into_a_machine_and_out(machine, mount, overlay, device):
    qemu = machine("vm", "-device", "virtio-scsi-pci", "-device", "qemu-xhci", "-blockdev", blockdev("fmt0", overlay("a")),
                   "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    domain = mount(qemu.socket).domain("vm")
    assert domain.disks() == ["vd0"]
    image = overlay("b")
    qemu.monitor("blockdev-add", driver="qcow2", node_name="new", file={"driver": "file", "filename": image})
    qemu.monitor("device_add", driver=device, drive="new", id="plugged")
    wait_for(lambda: domain.disks() == ["plugged", "vd0"], why="the new disk to be seen")
    disk = domain.disk("plugged")
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [image]
    qemu.monitor("device_del", id="plugged")
    qemu.monitor.wait_event("DEVICE_DELETED")
    wait_for(lambda: domain.disks() == ["vd0"], why="the disk to be gone")
    assert [event["disk"] for event in domain.events("disk-removed")] == ["plugged"]


def test_a_disk_that_is_plugged_out_during_its_job(machine, mount, overlay):
    """The device goes, the job goes on in QEMU: whoever waits gets an answer in the end, and nothing breaks."""
    qemu = machine("vm", "-device", "virtio-scsi-pci", "-blockdev", blockdev("fmt0", overlay("a")), "-device", "scsi-hd,drive=fmt0,id=sd0",
                   "-blockdev", blockdev("fmt1", overlay("b")), "-device", "scsi-hd,drive=fmt1,id=sd1")
    domain = mount(qemu.socket).domain("vm")
    disk = domain.disk("sd1")
    disk.hold()
    wait = disk.park()
    assert stays(lambda: not wait.done, 0.1)
    qemu.monitor("device_del", id="sd1")
    qemu.monitor.wait_event("DEVICE_DELETED")
    for job in qemu.monitor.jobs():
        qemu.monitor("job-cancel", id=job)
    try:
        assert wait.result() in ("cancelled", "lost")
    except OSError:
        pass
    assert domain.disk("sd0").status == "idle"
    wait_for(lambda: qemu.monitor("query-jobs") == [], why="the job to be dismissed")


def test_snapshots_of_somebody_else_are_seen(machine, mount, overlay, folder):
    """The chain grows under us; the folder keeps its name, and the next pull takes the new chain."""
    image = overlay("a")
    qemu = machine("vm", "-drive", f"file={image},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    before = disk.chain
    new = f"{folder}/snap.qcow2"
    qemu.monitor("blockdev-snapshot-sync", device="drv0", snapshot_file=new, format="qcow2")
    wait_for(lambda: disk.chain == [new, *before], why="the new chain to be seen")
    assert disk.line("source") == new
    assert disk.name == "vd0"
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [new]
    qemu.quit()
    assert images.backing_of(new) is None
