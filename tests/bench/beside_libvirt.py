"""Lines of `make bench` beside libvirt, where one runs: the same machine and disks, one with virsh, one with the tree."""

import contextlib
import os
import statistics
import subprocess
import time

from qemu import Machine
from tools import images, mounted, program, stopwatch

URI = "qemu:///system"
DISKS = 8
LINES = {"pull": ("`echo > pull; cat wait` of a tiny disk / `virsh blockpull --wait`", 0.05, False),
         "progress": ("`cat progress` / `virsh blockjob --info`, whole processes", 0.25, False),
         "info": ("virDomainGetBlockJobInfo in a loop / pread of `progress` in a loop", 2, True)}


def virsh(*words):
    return subprocess.run(["virsh", "-q", "-c", URI, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def has_libvirt():
    try:
        return virsh("version").returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def overlays(folder, name):
    """DISKS tiny overlays, and one large one for a job that stays."""
    tiny = images.fill(images.create(f"{folder}/{name}-tiny.qcow2", size=4 << 20), (0, 1))
    large = images.fill(images.create(f"{folder}/{name}-large.qcow2", size=1 << 34), (0, 16))
    made = [images.create(f"{folder}/{name}-{number}.qcow2", tiny, size=4 << 20) for number in range(DISKS)]
    return made + [images.create(f"{folder}/{name}-last.qcow2", large, size=1 << 34)]


def domain_xml(name, disks):
    devices = "".join(f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>"
                      f"<target dev='vd{chr(ord('a') + number)}' bus='virtio'/></disk>" for number, path in enumerate(disks))
    return (f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>"
            f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>")


@contextlib.contextmanager
def both(folder):
    """(a name for virsh, a mounted tree): paused machines with the same disks."""
    os.chmod(folder, 0o755)
    name = f"blockjobfs-bench-{os.getpid()}"
    with open(f"{folder}/domain.xml", "w") as file:
        file.write(domain_xml(name, overlays(folder, "libvirt")))
    created = virsh("create", "--paused", f"{folder}/domain.xml")
    assert created.returncode == 0, created.stdout
    arguments = []
    for number, path in enumerate(overlays(folder, "ours")):
        arguments += ["-drive", f"file={path},if=none,id=d{number}", "-device", f"virtio-blk-pci,drive=d{number},id=disk{number}"]
    qemu = Machine(folder, "ours", arguments)
    try:
        with mounted(folder, [qemu.socket]) as mount:
            yield name, mount
    finally:
        qemu.close()
        virsh("destroy", name)


def took(*command):
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def add(table, line, ours, theirs, turned=False):
    what, target, at_least = LINES[line]
    table.add(what, theirs / ours if turned else ours / theirs, "", target, at_least=at_least)


def libvirt_info(name, disk):
    """Microseconds of virDomainGetBlockJobInfo()."""
    return float(subprocess.run([program("libvirt_info"), URI, name, disk, "200"], stdout=subprocess.PIPE, check=True).stdout)


def measure(folder, table):
    with both(folder) as (name, mount):
        pulls, theirs = [], []
        for number in range(DISKS):
            disk = mount.disk("ours", f"disk{number}")
            pulls.append(took("sh", "-c", f"echo > {disk / 'pull'}; cat {disk / 'wait'}"))
            theirs.append(took("virsh", "-q", "-c", URI, "blockpull", name, f"vd{chr(ord('a') + number)}", "--wait"))
        add(table, "pull", statistics.median(pulls), statistics.median(theirs))
        disk, last = mount.disk("ours", f"disk{DISKS}"), f"vd{chr(ord('a') + DISKS)}"
        disk.hold()
        assert virsh("blockpull", name, last, "--bandwidth", "1").returncode == 0
        reads, infos = [], []
        for _ in range(20):
            reads.append(took("cat", disk / "progress"))
            infos.append(took("virsh", "-q", "-c", URI, "blockjob", name, last, "--info"))
        add(table, "progress", statistics.median(reads), statistics.median(infos))
        if not os.path.exists(program("libvirt_info")):
            table.add(LINES["info"][0], None, "", LINES["info"][1], at_least=True)
            return
        ratios = sorted(libvirt_info(name, last) / stopwatch(200, a=["pread", disk / "progress"], b=[])["a"] for _ in range(9))
        what, target, at_least = LINES["info"]
        table.add(what, ratios[4], "", target, (ratios[1], ratios[-2]), at_least)
        disk.write("abort", "\n")


def libvirt(folder, table):
    if has_libvirt():
        measure(folder, table)
    else:
        for what, target, at_least in LINES.values():
            table.add(what, None, "", target, at_least=at_least)
