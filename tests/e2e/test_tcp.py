"""tcp: sources: every feature over the network, and the ways in which a network fails."""

import ctypes
import errno
import os
import socket

import pytest

import images
from mount import Background, Refused
from qemu import blockdev
from system import Took, wait_for


def refused(disk, name, text=""):
    with pytest.raises(OSError) as refusal:
        disk.write(name, text + "\n")
    return refusal.value.errno


def address(qemu):
    return f"tcp:127.0.0.1:{qemu.port}"


@pytest.fixture
def far(storage_daemon, mount, overlay):
    """A storage daemon with one disk, over TCP. Gives an object with qemu, image, mount, domain, disk."""
    class Far:
        image = overlay()
        qemu = storage_daemon("vm", blockdev("disk0", image), tcp="127.0.0.1")
        mount = None

    Far.mount = mount("vm=" + address(Far.qemu))
    Far.domain = Far.mount.domain("vm")
    Far.disk = Far.mount.disk("vm", "disk0")
    return Far


@pytest.mark.quick
def test_pull(far, shelf):
    assert far.domain.line("address") == address(far.qemu)
    assert far.domain.state == "connected"
    far.disk.hold()
    assert far.disk.status == "running"
    far.disk.write("pause", "1\n")
    wait_for(lambda: far.disk.status == "paused")
    far.disk.write("pause", "0\n")
    far.disk.release()
    assert far.disk.wait() == "completed"
    assert far.disk.chain == [far.image]
    assert far.qemu.monitor.jobs() == {}
    far.disk.pull()
    assert far.disk.wait() == "completed"
    far.qemu.quit()
    assert images.same(far.image, shelf.template)


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_names(host, storage_daemon, mount, overlay):
    """The name of a host is looked up, and all of its addresses are tried; an IPv6 address stands in brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        if host == "::1":
            pytest.skip("no IPv6 here")
    qemu = storage_daemon("vm", blockdev("disk0", overlay()), tcp="::1" if host == "::1" else "127.0.0.1")
    tree = mount(f"tcp:[{host}]:{qemu.port}" if ":" in host else f"tcp:{host}:{qemu.port}")
    assert tree.domains() == [f"{host}-{qemu.port}"]
    assert tree.domain().connected


def test_nobody_there(mount, storage_daemon, overlay):
    """Mounted all the same, and connected as soon as somebody is there and the next attempt is made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Took() as took:
        tree = mount(f"vm=tcp:127.0.0.1:{port}", "odd=tcp:no..such..host:1")
    assert took.seconds < 5
    domain = tree.domain("vm")
    assert domain.state == "disconnected"
    assert domain.read("error") == f"127.0.0.1:{port}: connection refused\n"
    wait_for(lambda: "cannot be looked up" in tree.domain("odd").read("error"), 5)
    assert tree.domain("odd").state == "disconnected"
    qemu = storage_daemon("vm", blockdev("disk0", overlay()), tcp="127.0.0.1", port=port)
    wait_for(lambda: domain.connected, 10)
    assert domain.read("error") == ""
    assert domain.disks() == ["disk0"]
    assert qemu.port == port


def test_busy(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()), tcp="127.0.0.1")
    with socket.create_connection(("127.0.0.1", qemu.port)) as other:
        other.recv(1)
        domain = mount("vm=" + address(qemu)).domain()
        wait_for(lambda: domain.state == "busy", 5)
    wait_for(lambda: domain.connected, 5)


# --- QEMU goes, and hangs ---


@pytest.mark.quick
def test_killed_and_started_again(far):
    """Nobody listens on the port any more: the job is lost. The machine that comes back has the same folders."""
    far.disk.hold()
    reader = far.disk.park()
    before = [os.stat(path).st_ino for path in (far.disk.path, far.domain.path, far.disk / "pull")]
    far.qemu.kill()
    assert reader.result() == "lost"
    wait_for(lambda: far.domain.state == "disconnected")
    assert "connection refused" in far.domain.read("error")
    assert refused(far.disk, "pull") == errno.EHOSTDOWN
    far.qemu.monitor.close()
    with Took() as took:
        far.qemu.start()
        wait_for(lambda: far.domain.connected, 10)
    assert took.seconds < 3
    assert [os.stat(path).st_ino for path in (far.disk.path, far.domain.path, far.disk / "pull")] == before
    assert far.disk.status == "lost"
    far.disk.pull()
    assert far.disk.wait() == "completed"


def test_hangs(storage_daemon, mount, overlay):
    """A monitor that does not answer holds up its own files only."""
    hung = storage_daemon("hung", blockdev("disk0", overlay("hung")), tcp="127.0.0.1")
    well = storage_daemon("well", blockdev("disk0", overlay("well")), tcp="127.0.0.1")
    tree = mount("hung=" + address(hung), "well=" + address(well), options="timeout=1")
    hung.freeze()
    writer = Background(refused, tree.disk("hung"), "pull")
    with Took() as took:
        tree.disk("well").pull()
        assert tree.disk("well").wait() == "completed"
    assert took.seconds < 1
    assert writer.result() == errno.ETIMEDOUT
    hung.thaw()
    wait_for(lambda: tree.disk("hung").status in ("completed", "running", "idle"))


def test_connection_breaks(far):
    """The connection breaks, QEMU and the job do not: the job is the same, and so is its end."""
    far.disk.hold()
    reader = far.disk.park()
    ident = far.disk.job["id"]
    for name in os.listdir(f"/proc/{far.mount.pid}/fd"):
        break_connection(far.mount.pid, name, far.qemu.port)
    wait_for(lambda: len(far.domain.events("domain-connected")) == 2, 10)
    assert far.disk.job["id"] == ident and far.disk.status == "running"
    assert not reader.done
    far.disk.release()
    assert reader.result() == "completed"
    assert len(far.disk.events("job-started")) == 1


def break_connection(pid, name, port):
    """Shuts down the socket that is descriptor @name of @pid, if it is connected to @port."""
    pidfd = os.pidfd_open(pid)
    try:
        fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(name), 0)  # pidfd_getfd
        if fd < 0:
            pytest.skip("no pidfd_getfd here")
        try:
            with socket.socket(fileno=os.dup(fd)) as ours:
                if ours.family == socket.AF_INET and ours.getpeername()[1] == port:
                    ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            os.close(fd)
    finally:
        os.close(pidfd)


# --- files of another host ---


@pytest.fixture
def top(overlay, shelf):
    return images.fill(overlay("top", shelf.mid), (30, 2))


@pytest.fixture
def far_machine(machine, mount, top):
    """A machine over TCP whose disk has a chain of three."""
    class Far:
        image = top
        qemu = machine("vm", "-drive", f"file={top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0", tcp="127.0.0.1")
        mount = None

    Far.mount = mount("vm=" + address(Far.qemu))
    Far.disk = Far.mount.disk("vm", "vd0")
    return Far


def ask_refused(disk, name, words):
    with pytest.raises(Refused) as caught:
        disk.ask(name, words)
    return caught.value


@pytest.mark.quick
def test_copy(far_machine, folder):
    """QEMU is asked whether something is there: what it would make is never made over what is."""
    disk = far_machine.disk
    there = f"{folder}/there.qcow2"
    with open(there, "w") as file:
        file.write("precious")
    assert ask_refused(disk, "copy", f"dest={there}").errno == errno.EEXIST
    assert ask_refused(disk, "copy", f"dest={folder}").errno == errno.EREMOTEIO
    assert ask_refused(disk, "copy", f"dest={folder}/no/such/folder").errno == errno.EREMOTEIO
    assert open(there).read() == "precious"
    disk.write("copy", f"dest={folder}/new.qcow2 pivot\n")
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/new.qcow2"]
    images.create(there)
    disk.write("copy", f"dest={there} reuse\n")
    wait_for(lambda: disk.status == "ready")
    disk.write("finish", "\n")
    assert disk.wait() == "completed"
    # No node is left of the looking.
    graph = far_machine.qemu.monitor("x-debug-query-block-graph")
    assert not [node for node in graph["nodes"] if "look" in node["name"]]


def test_every_command(far_machine, shelf, folder):
    """What is left of the commands, over the network."""
    disk = far_machine.disk
    disk.write("backup", f"dest={folder}/backup.qcow2\n")
    assert disk.wait() == "completed"
    assert images.same(f"{folder}/backup.qcow2", far_machine.image)
    disk.write("snapshot", f"file={folder}/overlay.qcow2\n")
    assert disk.chain == [f"{folder}/overlay.qcow2", far_machine.image, shelf.mid, shelf.base]
    assert ask_refused(disk, "snapshot", f"file={folder}/backup.qcow2").errno == errno.EEXIST
    assert ask_refused(disk, "backup", f"dest={folder}/overlay.qcow2").errno == errno.EEXIST
    disk.write("commit", f"base={far_machine.image} pivot\n")
    assert disk.wait() == "completed"
    assert disk.chain == [far_machine.image, shelf.mid, shelf.base]
    disk.hold()
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert os.path.exists(f"{folder}/overlay.qcow2")


def test_commit(far_machine, shelf, folder):
    """Images are known by the names that QEMU gives them. Another path of the same file, here, means nothing."""
    disk = far_machine.disk
    assert disk.chain == [far_machine.image, shelf.mid, shelf.base]
    os.symlink(shelf.mid, f"{folder}/link")
    assert ask_refused(disk, "commit", f"base={folder}/link").errno == errno.ENOENT
    said = ask_refused(disk, "commit", f"base={shelf.mid} delete")
    assert said.errno == errno.EOPNOTSUPP and os.path.exists(far_machine.image)
    disk.write("commit", f"base={shelf.mid} dry-run\n")
    disk.write("pull", f"base={shelf.base}\n")
    assert disk.wait() == "completed"
    assert disk.chain == [far_machine.image, shelf.base]


def test_shared_base(storage_daemon, mount, overlay, folder, shelf):
    """A name that another disk has, wherever that one is, is not committed into."""
    base = images.create(f"{folder}/base.qcow2")
    far = storage_daemon("far", blockdev("disk0", overlay("far", base)), tcp="127.0.0.1")
    near = storage_daemon("near", blockdev("disk0", overlay("near", base)))
    tree = mount("far=" + address(far), near.socket)
    for name in ("far", "near"):
        assert ask_refused(tree.disk(name), "commit", "\n").errno == errno.EBUSY


def test_relative_paths(machine, mount, overlay, folder, shelf):
    """What QEMU was given as a relative path is one of its own folder: nothing here makes it absolute."""
    image = overlay("rel")
    words = ("-drive", "file=rel.qcow2,if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    far = machine("far", *words, tcp="127.0.0.1", cwd=folder)
    tree = mount("far=" + address(far))
    assert tree.disk("far", "vd0").chain == ["rel.qcow2", shelf.template]
    far.kill()
    near = machine("near", *words, cwd=folder)
    assert mount(near.socket, name="near").disk("near", "vd0").chain == [image, shelf.template]
