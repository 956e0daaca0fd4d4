"""The guest goes on writing while the jobs work: what it wrote is there afterwards, on every kind of QEMU, disk and image format."""

import json

import errno
import os

import pytest

import images
import layouts
from guest import Guest, on_machine, over_nbd, reads_as
from images import MIB
from kinds import ACTIVE_COMMIT, COMMIT, COPY, KINDS, PULL, Chain
from mount import Refused
from qemu import blockdev
from system import wait_for

PLACES = {
    "drive": (layouts.machine_drive, "drv0"),
    "inline": (layouts.machine_inline, "-d /machine/peripheral/vd0/virtio-backend"),
    "nodes": (layouts.machine_nodes, "-d sd0"),
    "daemon": (layouts.storage_daemon_exported, None),
}


class Vm:
    def __init__(self, place, chain, storage_daemon, machine, mount):
        layout, device = PLACES[place]
        self.machine = place != "daemon"
        self.qemu, name = layout(machine if self.machine else storage_daemon, chain.top, chain)
        self.disk = mount(self.qemu.socket).disk("vm", name)
        send = on_machine(self.qemu, device) if self.machine else over_nbd(chain.top + ".nbd")
        self.guest = Guest(send, chain.expected, f"{chain.folder}/shadow")

    def write_until(self, *words):
        """
        A few times, and then until the status is one of @words. A guest that writes faster than a job may copy keeps it from its
        end for ever: from some time on the job may be as fast as it can.
        """
        for number in range(1000):
            self.guest.write()
            if number >= 3 and self.disk.status in words:
                return
            if number == 30:
                self.disk.write("speed", "0\n")
        raise AssertionError(f"the job is still {self.disk.status}")

    def run(self, kind, chain, last, more=""):
        """The job from its start to `completed`. What a copy or a base must read as, if it was kept."""
        kind.start(self.disk, chain, f"bandwidth=6M {more}")
        kept = None
        if kind.becomes_ready:
            self.write_until("ready")
            for _ in range(20):
                self.guest.write()
            if last == "finish":
                kept = self.guest.keep(f"{chain.folder}/kept")
            self.disk.write(last, "\n")
            if kept:
                wait_for(lambda: self.disk.status == "completed", why="the end")  # what is written meanwhile may be in it or not
        self.write_until("completed")
        for _ in range(5):
            self.guest.write()
        assert self.guest.writes > 10
        return kept


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind, last", [(PULL, None), (COMMIT, None), (ACTIVE_COMMIT, "pivot"), (ACTIVE_COMMIT, "finish"), (COPY, "pivot"),
                                        (COPY, "finish")])
def test_every_job(place, kind, last, storage_daemon, machine, mount, folder):
    if place == "daemon" and last == "pivot":
        pytest.skip("a storage daemon's disk cannot go over")
    chain = Chain(folder)
    vm = Vm(place, chain, storage_daemon, machine, mount)
    kept = vm.run(kind, chain, last)
    active = vm.disk.chain[0]
    assert active == (kind.chain_after(chain, True)[0] if last != "finish" else chain.top)
    vm.qemu.quit()
    reads_as(active, vm.guest.shadow)
    for path in [active] + ([chain.base, chain.dest][kind is COPY:][:1] if kept else []):
        images.check(path)
    if kept and kind is COPY:
        reads_as(chain.dest, kept)


@pytest.mark.parametrize("place", ["drive", "nodes"])
def test_one_job_after_the_other(place, machine, mount, folder):
    """A commit, a copy of what is above the base, a pull: the guest never stops."""
    chain = Chain(folder)
    vm = Vm(place, chain, None, machine, mount)
    vm.run(COMMIT, chain, None)
    assert vm.disk.chain == [chain.top, chain.base]
    vm.run(COPY, chain, "pivot", "shallow granularity=8K")
    assert vm.disk.chain == [chain.dest, chain.base]
    vm.run(PULL, chain, None)
    assert vm.disk.chain == [chain.dest]
    vm.qemu.quit()
    reads_as(chain.dest, vm.guest.shadow)
    images.check(chain.dest)


@pytest.mark.parametrize("words", ["copy-mode=write-blocking", "copy-mode=background shallow", "shallow reuse", "reuse granularity=8K", "granularity=512"])
def test_copies_of_all_kinds(words, machine, mount, folder):
    chain = Chain(folder)
    vm = Vm("drive", chain, None, machine, mount)
    if "reuse" in words:
        images.create(chain.dest, chain.mid if "shallow" in words else None)
    vm.run(COPY, chain, "pivot", words)
    vm.qemu.quit()
    reads_as(chain.dest, vm.guest.shadow)


def test_a_shallow_copy_with_blocked_writes_is_refused(machine, mount, folder):
    """QEMU takes it, and the copy has zeros beside small writes of the guest: shown with QEMU alone, then that it is refused."""
    chain = Chain(folder)
    vm = Vm("drive", chain, None, machine, mount)
    with pytest.raises(Refused) as caught:
        vm.disk.ask("copy", f"dest={chain.dest} shallow copy-mode=write-blocking\n")
    assert caught.value.errno == errno.EINVAL and "shallow" in caught.value.answer
    assert vm.disk.status == "idle" and not os.path.exists(chain.dest)
    vm.qemu.monitor("drive-mirror", job_id="theirs", device="drv0", target=chain.dest, format="qcow2", sync="top", copy_mode="write-blocking")
    vm.qemu.monitor.wait_event("BLOCK_JOB_READY")
    vm.guest.send(f"write -q -P 1 {5 * MIB} 512")  # beside data of mid
    vm.qemu.monitor("job-complete", id="theirs")
    wait_for(lambda: vm.disk.chain[0] == chain.dest, why="the pivot")
    vm.qemu.quit()
    with open(vm.guest.shadow, "r+b") as file:
        os.pwrite(file.fileno(), b"\1" * 512, 5 * MIB)
    with pytest.raises(AssertionError, match="mismatch"):
        reads_as(chain.dest, vm.guest.shadow)


# --- other formats ---


class Mixed:
    """A chain of images of the formats @base, @mid and @top."""

    def __init__(self, folder, base, mid, top):
        self.folder = folder
        self.formats = {"base": base, "mid": mid, "top": top}
        self.base = images.fill(images.create(f"{folder}/base.{base}", fmt=base), (0, 6), fmt=base)
        self.mid = images.fill(images.create(f"{folder}/mid.{mid}", self.base, fmt=mid, backing_fmt=base), (4, 4), fmt=mid)
        self.top = images.fill(images.create(f"{folder}/top.{top}", self.mid, fmt=top, backing_fmt=mid), (7, 4), fmt=top)
        self.dest = f"{folder}/dest"
        self.expected = f"{folder}/expected.qcow2"
        images.run(images.IMG, "convert", "-f", top, "-O", "qcow2", self.top, self.expected)

    @property
    def all(self):
        return [self.top, self.mid, self.base]

    def format_of(self, path):
        return next((self.formats[name] for name in self.formats if getattr(self, name) == path), self.formats["top"])


@pytest.mark.parametrize("place", ["machine", "daemon"])
@pytest.mark.parametrize("formats", [("raw", "qcow2", "qcow2"), ("raw", "qed", "qed"), ("qcow2", "qed", "qcow2"), ("qed", "qcow2", "qed")], ids="-".join)
@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_formats(place, formats, kind, storage_daemon, machine, mount, folder):
    chain = Mixed(folder, *formats)
    is_machine = place == "machine"
    if is_machine:
        qemu = machine("vm", "-drive", f"file={chain.top},format={formats[2]},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vda")
        disk = mount(qemu.socket).disk("vm", "vda")
        guest = Guest(on_machine(qemu, "drv0"), chain.expected, f"{folder}/shadow")
    else:
        qemu = storage_daemon("vm", blockdev("disk0", chain.top, fmt=formats[2]), more=(
            "--nbd-server", f"addr.type=unix,addr.path={folder}/nbd", "--export", "type=nbd,id=out,node-name=disk0,writable=on"))
        disk = mount(qemu.socket).disk("vm", "disk0")
        guest = Guest(over_nbd(f"{folder}/nbd"), chain.expected, f"{folder}/shadow")
    assert disk.line("format") == formats[2] and disk.chain == chain.all
    kind.start(disk, chain, "bandwidth=32M")
    for _ in range(10):
        guest.write()
    kind.complete(disk, is_machine)
    for _ in range(5):
        guest.write()
    assert disk.chain == kind.chain_after(chain, is_machine)
    active = disk.chain[0]
    fmt = disk.line("format")
    assert fmt == chain.format_of(active)
    qemu.quit()
    reads_as(active, guest.shadow, fmt)
    if kind is COPY or fmt != "raw":
        assert images.info(active)["format"] == fmt


@pytest.mark.parametrize("place", ["machine", "daemon"])
@pytest.mark.parametrize("fmt", ["raw", "qcow2", "qed"])
def test_a_raw_disk_is_copied(place, fmt, storage_daemon, machine, mount, folder):
    """Nothing backs it, and there is nothing to pull or commit; it takes a copy into any format."""
    image = images.fill(images.create(f"{folder}/disk.raw", fmt="raw"), (0, 3), (40, 2), fmt="raw")
    if place == "machine":
        qemu = machine("vm", "-blockdev", blockdev("disk0", image, fmt="raw"), "-device", "virtio-blk-pci,drive=disk0,id=vda")
    else:
        qemu = storage_daemon("vm", blockdev("disk0", image, fmt="raw"))
    disk = mount(qemu.socket).disk()
    assert disk.chain == [image] and disk.line("format") == "raw"
    with pytest.raises(OSError):
        disk.write("commit", "\n")
    disk.write("copy", f"dest={folder}/copy format={fmt}\n")
    wait_for(lambda: disk.status == "ready", why="ready")
    disk.write("pivot" if place == "machine" else "finish", "\n")
    assert disk.wait() == "completed"
    assert disk.line("format") == (fmt if place == "machine" else "raw")
    qemu.quit()
    reads_as(f"{folder}/copy", image, fmt)
