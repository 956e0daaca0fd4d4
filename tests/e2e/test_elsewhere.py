"""Images made by a QEMU that may be on another host: nothing of it can be seen from here, so QEMU does it all."""

import errno

import pytest

import images
import layouts
from kinds import Chain
from mount import Refused


@pytest.fixture(params=[layouts.machine_inline, layouts.storage_daemon_nodes], ids=["machine", "daemon"])
def far(request, storage_daemon, machine, mount, folder):
    """far(chain): a QEMU behind a command. Gives (qemu, disk)."""
    def begin(chain):
        qemu, name = request.param(storage_daemon if request.param in layouts.STORAGE_DAEMON else machine, chain.top, chain)
        return qemu, mount(f"vm=exec:exec socat - UNIX:{qemu.socket}").disk("vm", name)
    return begin


def test_backup(far, folder):
    chain = Chain(folder)
    qemu, disk = far(chain)
    for fmt in "qcow2", "raw", "qed":
        disk.write("backup", f"dest={folder}/backup.{fmt} format={fmt}\n")
        assert disk.wait() == "completed", disk.job
    with pytest.raises(Refused) as caught:
        disk.ask("backup", f"dest={folder}/backup.raw\n")
    assert caught.value.errno == errno.EEXIST
    qemu.quit()
    for fmt in "qcow2", "raw", "qed":
        images.run(images.IMG, "compare", "-f", fmt, "-F", "qcow2", f"{folder}/backup.{fmt}", chain.expected)


def test_snapshot(far, folder):
    chain = Chain(folder)
    qemu, disk = far(chain)
    disk.write("snapshot", "file=first.qcow2\n")
    disk.write("snapshot", f"file={folder}/second.qcow2\n")
    assert disk.chain == [f"{folder}/second.qcow2", f"{folder}/first.qcow2", *chain.all]
    with pytest.raises(Refused) as caught:
        disk.ask("snapshot", f"file={folder}/nowhere/third.qcow2\n")
    assert caught.value.errno == errno.EREMOTEIO and "No such file" in caught.value.answer
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/second.qcow2"]
    assert qemu.monitor("query-jobs") == []
    qemu.quit()
    assert images.backing_of(f"{folder}/first.qcow2") == "top.qcow2"
    assert images.same(f"{folder}/second.qcow2", chain.expected)
