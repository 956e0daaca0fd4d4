"""
The kinds of jobs on a chain of three images, so that one test can be made of each: how it is started, which image it writes
to, what must be true after its end.
"""

import os
import subprocess

import images
from qemu import blockdev
from system import wait_for

SMALL = 7  # MiB of the small file system: enough for any of the images, not for what a job writes to it
READ_ONLY = {"read-only": True}


class Chain:
    """base <- mid <- top, each with data that the others do not have; `expected` reads as the guest reads top."""

    def __init__(self, folder, **elsewhere):
        """@elsewhere: the folder of one of them."""
        def path(name):
            return f"{elsewhere.get(name, folder)}/{name}.qcow2"

        self.folder = folder
        self.base = images.fill(images.create(path("base")), (0, 6))
        self.mid = images.fill(images.create(path("mid"), self.base), (4, 4))
        self.top = images.fill(images.create(path("top"), self.mid), (7, 4))
        self.dest = f"{elsewhere.get('dest', folder)}/dest.qcow2"
        self.expected = f"{folder}/expected.qcow2"
        images.run(images.IMG, "convert", "-O", "qcow2", self.top, self.expected)

    @property
    def all(self):
        return [self.top, self.mid, self.base]


class Kind:
    def __init__(self, name, file, words, writes, left):
        self.name, self.file, self.words = name, file, words
        self.writes = writes  # the image that the job writes to
        self.left = left  # the chain after it has completed on a machine: names of Chain
        self.becomes_ready = name in ("active-commit", "copy")

    def __repr__(self):
        return self.name

    def start(self, disk, chain, more=""):
        disk.write(self.file, f"{self.words.format(dest=chain.dest)} {more}\n")

    def complete(self, disk, machine):
        """From wherever the job is to `completed`: a machine's disk goes over, a storage daemon's stays."""
        if self.becomes_ready:
            wait_for(lambda: disk.status != "running", 20, "the job to be ready")
            assert disk.status == "ready", disk.job
            disk.write("pivot" if machine else "finish", "\n")
        assert disk.wait() == "completed", disk.job

    def result(self, machine):
        return {"pull": "pulled", "commit": "committed", "backup": "completed"}.get(self.name, "pivoted" if machine else "kept")

    def chain_after(self, chain, machine):
        return [getattr(chain, name) for name in (self.left if machine or not self.becomes_ready else ("top", "mid", "base"))]

    def check_completed(self, disk, chain, machine):
        """To be called before QEMU ends."""
        assert disk.chain == self.chain_after(chain, machine)
        assert disk.job["result"] == self.result(machine)
        cur, end = disk.progress
        assert cur == end > 0
        done = disk.events("job-completed")[-1]
        assert done["error"] is None
        assert done["released"] == [path for path in chain.all if path not in disk.chain]

    def check_content(self, chain, machine):
        """To be called when QEMU has ended well."""
        new = {"active-commit": chain.base, "copy": chain.dest, "backup": chain.dest}.get(self.name, chain.top)
        assert images.same(new, chain.expected)
        if not (self.becomes_ready and machine):
            assert images.same(chain.top, chain.expected)
        for path in self.chain_after(chain, machine) + [new]:
            images.check(path)


PULL = Kind("pull", "pull", "", "top", ["top"])
COMMIT = Kind("commit", "commit", "top=[1]", "base", ["top", "base"])
ACTIVE_COMMIT = Kind("active-commit", "commit", "", "base", ["base"])
COPY = Kind("copy", "copy", "dest={dest}", "dest", ["dest"])
BACKUP = Kind("backup", "backup", "dest={dest}", "dest", ["top", "mid", "base"])
KINDS = [PULL, COMMIT, ACTIVE_COMMIT, COPY, BACKUP]
FOUR = [PULL, COMMIT, ACTIVE_COMMIT, COPY]  # a backup of somebody else's needs more than a command: test_foreign.py


class SmallFolder:
    """A folder on a file system of its own, which can be made full and roomy."""

    def __init__(self, folder, cleanup):
        self.path = f"{folder}/small"
        os.mkdir(self.path)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100M", "none", self.path], check=True)
        cleanup(subprocess.run, ["umount", "-l", self.path])

    def resize(self, mib):
        subprocess.run(["mount", "-o", f"remount,size={mib}M", self.path], check=True)


def failing(path, event, number, once, late=False):
    """The file of an image whose reads or writes of data fail with an errno: once only, or for ever; the first, or the third."""
    rule = {"event": event, "errno": number, "once": once, "immediately": False, **({"state": 3} if late else {})}
    return {"driver": "blkdebug", "image": {"driver": "file", "filename": path}, "inject-error": [rule],
            "set-state": [{"event": event, "state": state, "new_state": state + 1} for state in (1, 2)]}


def start_qemu(place, start, chain, **files):
    """A QEMU called "vm" with the chain, its nodes base, mid and disk0; @files: other files for some of them. (qemu, the disk's name)"""
    nodes = [blockdev("base", chain.base, file=files.get("base"), **READ_ONLY),
             blockdev("mid", chain.mid, backing="base", file=files.get("mid"), **READ_ONLY),
             blockdev("disk0", chain.top, backing="mid", file=files.get("top"))]
    if place == "daemon":
        return start("vm", *nodes), "disk0"
    words = [word for node in nodes for word in ("-blockdev", node)]
    return start("vm", *words, "-device", "virtio-blk-pci,drive=disk0,id=vda"), "vda"


def start_foreign(qemu, kind, chain, **more):
    """The same job, called "theirs", started by somebody else on a QEMU of start_qemu()."""
    if kind is PULL:
        qemu.monitor("block-stream", job_id="theirs", device="disk0", **more)
    elif kind is COMMIT:
        qemu.monitor("block-commit", job_id="theirs", device="disk0", top_node="mid", base_node="base", **more)
    elif kind is ACTIVE_COMMIT:
        qemu.monitor("block-commit", job_id="theirs", device="disk0", base_node="base", **more)
    else:
        qemu.monitor("drive-mirror", job_id="theirs", device="disk0", target=chain.dest, format="qcow2", sync="full", **more)
