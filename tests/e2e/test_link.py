"""Links to sockets that come, go and are replaced: at once when the file changes, and at no cost while there is a connection."""

import os
import select
import socket
import threading
import time

import pytest

from qemu import blockdev
from system import Took, stays, wait_for

SOON = 0.5  # seconds


def connected_soon(domain, times):
    with Took() as took:
        wait_for(lambda: len(domain.events("domain-connected")) == times, 15)
    assert took.seconds < SOON, took.seconds


@pytest.mark.quick
@pytest.mark.parametrize("seconds", [0, 3])
def test_started_again(one, seconds):
    """However long it was away: the pauses between attempts have grown to 3 s by then."""
    domain = one.mount.domain("vm")
    one.disk.hold()
    before = {path: os.stat(path).st_ino for path, _ in one.mount.files() if "/jobs/" not in path}
    for times in (2, 3):
        one.qemu.kill()
        wait_for(lambda: domain.state == "disconnected")
        assert domain.read("error")
        one.qemu.monitor.close()
        time.sleep(seconds)
        one.qemu.start()
        connected_soon(domain, times)
        assert domain.read("error") == ""
    assert {path: os.stat(path).st_ino for path in before} == before
    assert one.disk.status == "lost"


@pytest.mark.quick
def test_folder_made_later(mount, storage_daemon, overlay, folder):
    """Folders that are not there yet, made one by one, removed, and made again."""
    tree = mount(f"vm=unix:{folder}/a/b/c/vm.qmp")
    domain = tree.domain("vm")
    assert domain.state == "disconnected"
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    time.sleep(2)  # no attempt by chance
    os.mkdir(f"{folder}/a")
    os.makedirs(f"{folder}/x/c")
    os.rename(f"{folder}/x", f"{folder}/a/b")
    os.rmdir(f"{folder}/a/b/c")
    os.mkdir(f"{folder}/a/b/c")
    os.rename(qemu.socket, f"{folder}/a/b/c/vm.qmp")
    connected_soon(domain, 1)
    # The folder as a whole is moved away, and another one comes in its place.
    os.rename(f"{folder}/a", f"{folder}/old")
    assert domain.connected
    qemu.kill()
    wait_for(lambda: domain.state == "disconnected")
    qemu.monitor.close()
    qemu.start()
    os.makedirs(f"{folder}/new/b/c")
    os.rename(qemu.socket, f"{folder}/new/b/c/vm.qmp")
    time.sleep(2)
    os.rename(f"{folder}/new", f"{folder}/a")
    connected_soon(domain, 2)


def test_replaced_while_connected(one, storage_daemon, overlay, folder):
    """The connection stands as long as it does, and the next one is to whoever has the name then."""
    domain = one.mount.domain("vm")
    other = storage_daemon("other", blockdev("disk9", overlay("other")))
    os.rename(other.socket, one.qemu.socket)
    assert stays(lambda: domain.connected and domain.disks() == ["disk0"])
    one.disk.pull()
    assert one.disk.wait() == "completed"
    one.qemu.kill()
    connected_soon(domain, 2)
    wait_for(lambda: domain.disks() == ["disk9"], 2)


def test_replaced_while_in_line(storage_daemon, mount, overlay):
    """Nobody waits for a monitor that is busy when another one has its name."""
    busy = storage_daemon("vm", blockdev("disk0", overlay()))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(busy.socket)
        client.recv(1)
        domain = mount(busy.socket).domain("vm")
        assert domain.state == "busy"
        other = storage_daemon("other", blockdev("disk9", overlay("other")))
        os.rename(other.socket, busy.socket)
        connected_soon(domain, 1)
        assert domain.disks() == ["disk9"]


def test_not_allowed_yet(storage_daemon, mount, overlay, folder):
    """A socket that is made accessible later."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    elsewhere = f"{folder}/hidden"
    os.rename(qemu.socket, elsewhere)
    open(qemu.socket, "w").close()
    domain = mount(f"unix:{qemu.socket}").domain("vm")
    assert domain.state == "disconnected"
    assert "refused" in domain.read("error") or "socket" in domain.read("error")
    time.sleep(2)
    os.rename(elsewhere, qemu.socket)
    connected_soon(domain, 1)


def wake_ups(pid):
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


@pytest.mark.quick
def test_nothing_is_watched_while_connected(one, folder):
    """Whatever else goes on in the folder wakes nobody, not even what happens to the socket's file."""
    time.sleep(0.5)
    before = wake_ups(one.mount.pid)
    for i in range(500):
        path = f"{folder}/file{i}"
        open(path, "w").close()
        os.unlink(path)
        os.utime(one.qemu.socket)
    assert wake_ups(one.mount.pid) - before < 20


def test_a_busy_folder_costs_little(mount, folder):
    """While there is no connection each event is looked at, and no more."""
    tree = mount(f"unix:{folder}/vm.qmp")
    time.sleep(0.3)

    def ticks():
        with open(f"/proc/{tree.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    for i in range(5000):
        path = f"{folder}/file{i}"
        open(path, "w").close()
        os.unlink(path)
    assert (ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.5


def test_flaps(one, mount, folder):
    """A monitor whose connection stands for a moment only, each time: the pauses between attempts grow."""
    came = []
    done = threading.Event()
    path = f"{folder}/flaps.qmp"
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    one.mount.terminate()

    def serve():
        while not done.is_set():
            client, _ = server.accept()
            came.append(time.monotonic())
            with client, socket.socket(socket.AF_UNIX) as link:
                link.connect(one.qemu.socket)
                ends = {client: link, link: client}
                until = time.monotonic() + 0.2
                while time.monotonic() < until:
                    for end in select.select(list(ends), [], [], 0.05)[0]:
                        ends[end].sendall(end.recv(1 << 16))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    tree = mount(path, name="flapping")
    domain = tree.domain()
    time.sleep(4)
    assert 3 <= len(domain.events("domain-connected")) <= len(came) <= 8
    assert len(domain.events("domain-disconnected")) >= 2
    done.set()
    wait_for(lambda: not thread.is_alive(), 15)
    server.close()
    os.unlink(path)
