"""
The ways a QEMU can be told of a disk with a chain of three images (top, shelf.mid, shelf.base). Each function starts a QEMU called
"vm" and returns it with the name that the disk's folder must have.
"""

from qemu import blockdev

READ_ONLY = {"read-only": True}


def storage_daemon_header(start, top, shelf):
    return start("vm", blockdev("disk0", top)), "disk0"


def storage_daemon_inline(start, top, shelf):
    base = {"driver": "qcow2", "file": {"driver": "file", "filename": shelf.base}}
    mid = {"driver": "qcow2", "file": {"driver": "file", "filename": shelf.mid}, "backing": base}
    return start("vm", blockdev("disk0", top, backing=mid)), "disk0"


def storage_daemon_nodes(start, top, shelf):
    return start("vm", blockdev("b", shelf.base, **READ_ONLY), blockdev("m", shelf.mid, backing="b", **READ_ONLY),
                 blockdev("disk0", top, backing="m")), "disk0"


def storage_daemon_exported(start, top, shelf):
    socket = top + ".nbd"
    return start("vm", blockdev("disk0", top), more=(
        "--nbd-server", f"addr.type=unix,addr.path={socket}",
        "--export", "type=nbd,id=out,node-name=disk0,writable=on")), "disk0"


def machine_drive(start, top, shelf):
    return start("vm", "-drive", f"file={top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0"), "vd0"


def machine_drive_only(start, top, shelf):
    return start("vm", "-drive", f"file={top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0"), "drv0"


def machine_inline(start, top, shelf):
    base = {"driver": "qcow2", "file": {"driver": "file", "filename": shelf.base}}
    mid = {"driver": "qcow2", "file": {"driver": "file", "filename": shelf.mid}, "backing": base}
    return start("vm", "-blockdev", blockdev("fmt0", top, backing=mid), "-device", "virtio-blk-pci,drive=fmt0,id=vd0"), "vd0"


def machine_nodes(start, top, shelf):
    return start("vm", "-blockdev", blockdev("b", shelf.base, **READ_ONLY),
                 "-blockdev", blockdev("m", shelf.mid, backing="b", **READ_ONLY),
                 "-blockdev", blockdev("fmt0", top, backing="m"),
                 "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=fmt0,id=sd0"), "sd0"


STORAGE_DAEMON = [storage_daemon_header, storage_daemon_inline, storage_daemon_nodes, storage_daemon_exported]
MACHINE = [machine_drive, machine_drive_only, machine_inline, machine_nodes]
