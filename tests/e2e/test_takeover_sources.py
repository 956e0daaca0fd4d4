"""The server is killed and another one goes on with all kinds of sources, and with QEMUs that come, go and hang meanwhile."""

import contextlib
import errno
import json
import os
import socket
import time

import pytest

from qemu import blockdev
from system import SLOW, STORAGE_DAEMON, Took, children_of, has_ended, processes_on, stays, wait_for
from takeover import crash, no_server
from watch import CREATE, DELETE, IS_FOLDER, Inotify, needs, refuse

PROMPT = 0.5  # seconds that nothing of memory may take, on a machine that others use too


def errno_of(disk, name, text="\n"):
    with pytest.raises(OSError) as refusal:
        disk.write(name, text)
    return refusal.value.errno


def goes_on(tree, disk):
    """The job lives in every life, and comes to its end."""
    disk.hold()
    job = disk.job["id"]
    for _ in range(2):
        crash(tree)
        assert disk.status == "running"
        assert disk.job["id"] == job
    disk.release()
    assert disk.wait() == "completed"
    assert len(disk.events("job-started")) == len(disk.events("job-completed")) == 1


# --- kinds of sources ---


@pytest.mark.quick
def test_an_attached_domain(storage_daemon, mount, overlay, folder):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(f"unix:{folder}/nobody")
    os.mkdir(f"{tree.path}/domains/mine")
    crash(tree)
    assert tree.domains() == ["mine", "nobody"]
    assert tree.domain("mine").read("address") == "" or tree.domain("mine").line("address") == "-"
    tree.domain("mine").write("address", qemu.socket + "\n")
    wait_for(lambda: tree.domain("mine").connected, why="the link")
    goes_on(tree, tree.disk("mine"))
    assert tree.domain("mine").line("address") == f"unix:{qemu.socket}"
    os.rmdir(f"{tree.path}/domains/mine")
    crash(tree)
    assert tree.domains() == ["nobody"]


@pytest.mark.quick
def test_a_folder_of_sockets(mount, overlay, folder, run_in_background):
    """Sockets that came and went while no server ran are told as if one had."""
    os.mkdir(f"{folder}/vm")

    def start(name):
        path = f"{folder}/vm/{name}.qmp"
        process = run_in_background(STORAGE_DAEMON, "--blockdev", blockdev("disk0", overlay(name)),
                                    "--chardev", f"socket,id=m,path={path},server=on,wait=off", "--monitor", "chardev=m")
        wait_for(lambda: os.path.exists(path), why="the socket")
        return process

    first, _ = start("a"), start("b")
    tree = mount(f"dir:{folder}/vm")
    wait_for(lambda: tree.domains() == ["a", "b"] and all(tree.domain(name).connected for name in "ab"), why="both")
    tree.disk("b").hold()
    with Inotify(tree / "domains", mask=CREATE | DELETE) as inotify:
        with no_server(tree):
            first.terminate()
            first.wait()
            start("c")
        told = []
        while {("c", CREATE | IS_FOLDER), ("a", DELETE | IS_FOLDER)} - {(notice.name, notice.mask) for notice in told}:
            more = inotify.read(5)
            assert more, told
            told += more
    assert len(told) == 2, told
    wait_for(lambda: tree.domain("c").connected, why="the new one")
    assert tree.domains() == ["b", "c"]
    assert tree.disk("b").status == "running"
    assert tree.disk("c").status == "idle"
    start("d")
    wait_for(lambda: "d" in tree.domains(), why="one that comes in the new life")
    tree.disk("b").write("abort", "\n")


@pytest.mark.quick
def test_an_image(mount, overlay, folder):
    """The engine is adopted; there is one of it, and its job goes on."""
    tree = mount(f"image:{overlay('web1')}")
    wait_for(lambda: tree.domain("web1").connected, why="the engine")

    def engines():
        return [pid for pid, line in processes_on(folder).items() if "qemu-storage-daemon" in line.split(" ")[0]]

    before = engines()
    assert len(before) == 1
    goes_on(tree, tree.disk("web1"))
    assert engines() == before
    os.kill(before[0], 9)
    wait_for(lambda: engines() and engines() != before and tree.domain("web1").connected, 10, "another engine")
    crash(tree)
    assert tree.disk("web1").chain
    tree.terminate()
    assert not engines()


def test_an_engine_that_dies_while_no_server_runs(mount, overlay, folder):
    tree = mount(f"image:{overlay('web1')}")
    disk = tree.disk("web1")
    disk.hold()
    with no_server(tree):
        engine, = [pid for pid, line in processes_on(folder).items() if "qemu-storage-daemon" in line.split(" ")[0]]
        os.kill(engine, 9)
        wait_for(lambda: has_ended(engine))
    assert disk.wait() == "lost"
    wait_for(lambda: tree.domain("web1").connected, 10, "another engine")
    disk.pull()
    assert disk.wait() == "completed"


@needs("socat")
def test_a_command(storage_daemon, mount, overlay):
    """The dead server's command goes with it, and the monitor is free for the next one's."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(f"vm=exec:exec socat - UNIX:{qemu.socket}")
    disk = tree.disk("vm")
    goes_on(tree, disk)
    wait_for(lambda: sum(line.startswith("socat") for line in processes_on(qemu.socket).values()) == 1, why="the command of the dead to go")


def test_a_monitor_on_tcp(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()), tcp="127.0.0.1")
    tree = mount(f"vm=tcp:127.0.0.1:{qemu.port}")
    goes_on(tree, tree.disk("vm"))


# --- disks and domains that were removed ---


@pytest.mark.quick
def test_a_domain_that_came_back(storage_daemon, mount, overlay, folder):
    """Removed and made again under the same name: other folders, in every life; who holds the old one is told so."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(f"unix:{folder}/nobody")
    path = f"{tree.path}/domains/mine"
    for _ in range(3):
        os.mkdir(path)
        tree.domain("mine").write("address", qemu.socket)
        wait_for(lambda: tree.domain("mine").connected, why="the link")
        here, file = os.open(path, os.O_RDONLY), os.open(f"{path}/disks/disk0/status", os.O_RDONLY)
        crash(tree)
        assert os.pread(file, 100, 0) == b"idle\n"
        assert "state" in os.listdir(here)
        os.rmdir(path)
        crash(tree)
        with pytest.raises(OSError) as gone:
            os.pread(file, 100, 0)
        assert gone.value.errno in (errno.ENODEV, errno.ESTALE)
        os.mkdir(path)
        crash(tree)
        with pytest.raises(OSError):
            os.pread(file, 100, 0)
        assert tree.domain("mine").state.startswith("disconnected")
        os.rmdir(path)
        os.close(here)
        os.close(file)


def test_a_disk_that_came_back(one, overlay):
    image = overlay("second")
    where = one.mount.domain("vm")
    for _ in range(2):
        one.qemu.monitor("blockdev-add", **json.loads(blockdev("disk1", image)))
        wait_for(lambda: "disk1" in where.disks(), why="the disk")
        file = os.open(where / "disks/disk1/status", os.O_RDONLY)
        crash(one.mount)
        assert where.disks() == ["disk0", "disk1"]
        assert os.pread(file, 100, 0) == b"idle\n"
        with no_server(one.mount):
            one.qemu.monitor("blockdev-del", **{"node-name": "disk1"})
        wait_for(lambda: where.disks() == ["disk0"], why="the disk to go")
        with pytest.raises(OSError):
            os.pread(file, 100, 0)
        os.close(file)
    assert one.disk.status == "idle"


# --- QEMUs that hang or die ---


@pytest.fixture
def three(storage_daemon, mount, overlay):
    """Three machines; the second one is in trouble."""
    class Three:
        def __init__(self):
            qemus = [storage_daemon(f"vm{number}", blockdev("disk0", overlay(f"i{number}"))) for number in range(3)]
            self.tree = mount(*(qemu.socket for qemu in qemus), options="timeout=2")
            self.disks = [self.tree.disk(f"vm{number}", "disk0") for number in range(3)]
            self.bad = qemus[1]

    return Three()


@pytest.mark.quick
def test_a_hung_qemu(three):
    """Its disk is there, metadata is prompt, its commands end; nobody else is held up."""
    for disk in three.disks:
        disk.hold()
    three.bad.freeze()
    os.kill(three.tree.pid, 9)
    with Took() as first:
        assert os.listdir(three.disks[1].path)
    with Took() as rest:
        for _, info in three.tree.files():
            assert info.st_ino
    files = len(list(three.tree.files()))
    with Took() as other:
        assert three.disks[0].status == "running"
        assert three.disks[2].progress[1] > 0
    print(f"first answer after {first.seconds * 1000:.0f} ms, {files} files in {rest.seconds * 1000:.0f} ms, "
          f"another machine's figures after {other.seconds * 1000:.0f} ms")
    assert first.seconds < PROMPT * SLOW and rest.seconds < 2 * PROMPT * SLOW and other.seconds < PROMPT * SLOW
    assert three.disks[1].status == "running"
    with Took() as took:
        assert errno_of(three.disks[1], "pause", "1\n") in (errno.ETIMEDOUT, errno.EHOSTDOWN)
    assert took.seconds < 6 * SLOW
    for name in ("progress", "job"):
        with Took() as took, contextlib.suppress(OSError):
            three.disks[1].read(name)
        assert took.seconds < 6 * SLOW, name
    three.disks[0].write("abort", "\n")
    three.bad.thaw()
    wait_for(lambda: three.tree.domain("vm1").connected, 20, "the hung one")
    assert three.disks[1].status == "running"
    three.disks[1].release()
    assert three.disks[1].wait() == "completed"
    three.disks[2].write("abort", "\n")


def test_killed_while_qemu_hangs_and_again(three):
    """A machine that no life has been able to ask keeps what was known of it."""
    three.disks[1].hold()
    job = three.disks[1].job["id"]
    waiting = three.disks[1].park()
    assert stays(lambda: not waiting.done, 0.1)
    three.bad.freeze()
    for _ in range(3):
        crash(three.tree)
        assert three.disks[1].status == "running"
        assert three.tree.domains() == ["vm0", "vm1", "vm2"]
    three.bad.thaw()
    wait_for(lambda: three.tree.domain("vm1").connected, 20, "the hung one")
    assert three.disks[1].job["id"] == job
    assert not waiting.done
    three.disks[1].release()
    assert waiting.result() == "completed"


@pytest.mark.quick
def test_a_qemu_that_dies_while_no_server_runs(three):
    for disk in three.disks:
        disk.hold()
    waiting = three.disks[1].park()
    assert stays(lambda: not waiting.done, 0.1)
    with no_server(three.tree):
        three.bad.kill()
    assert waiting.result() == "lost"
    assert three.disks[1].status == "lost"
    assert three.disks[0].status == three.disks[2].status == "running"
    assert three.tree.domains() == ["vm0", "vm1", "vm2"]
    assert [event["disk"] for event in three.tree.events("job-lost")] == ["disk0"]
    three.bad.monitor.close()
    three.bad.start()
    wait_for(lambda: three.tree.domain("vm1").connected, 20, "another QEMU")
    three.disks[1].pull()
    assert three.disks[1].wait() == "completed"
    three.disks[0].write("abort", "\n")
    three.disks[2].write("abort", "\n")


def test_a_qemu_that_is_another_one_when_the_next_server_comes(three):
    """It died and was started anew while no server ran."""
    three.disks[1].hold()
    with no_server(three.tree):
        three.bad.kill()
        three.bad.monitor.close()
        three.bad.start()
    assert three.disks[1].wait() == "lost"
    wait_for(lambda: three.tree.domain("vm1").connected, 10)
    assert len(three.disks[1].events("job-lost")) == 1
    three.disks[1].pull()
    assert three.disks[1].wait() == "completed"


def test_a_qemu_that_was_never_there(mount, folder):
    tree = mount(f"unix:{folder}/nobody")
    state, error = tree.domain().state, tree.domain().read("error")
    crash(tree)
    assert (tree.domain().state, tree.domain().read("error")) == (state, error)


def test_a_monitor_that_somebody_else_has(storage_daemon, mount, overlay, folder):
    """Taken while no server ran: the jobs stay as they were, and nothing waits for long."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(qemu.socket, options="timeout=1")
    disk = tree.disk("vm")
    disk.hold()
    thief = socket.socket(socket.AF_UNIX)
    with no_server(tree):
        thief.connect(qemu.socket)
        assert thief.recv(1000)
    assert disk.status == "running"
    with Took() as took:
        assert errno_of(disk, "pause", "1\n") in (errno.EHOSTDOWN, errno.ETIMEDOUT)
    assert took.seconds < 5 * SLOW
    thief.close()
    wait_for(lambda: tree.domain("vm").connected, 20, "the link")
    assert disk.status == "running"
    disk.write("abort", "\n")


def test_disks_change_while_no_server_runs(one, overlay):
    """One more, and a longer chain: told in the next life."""
    before = one.disk.chain
    with Inotify(one.mount.domain("vm") / "disks", mask=CREATE | DELETE) as inotify, no_server(one.mount):
        one.qemu.monitor("blockdev-add", **json.loads(blockdev("disk1", overlay("second"))))
        inotify.drain(0)
    wait_for(lambda: one.mount.domain("vm").disks() == ["disk0", "disk1"], why="the new disk")
    assert one.disk.chain == before
    assert [event["disk"] for event in one.mount.events("disk-added")] == ["disk0", "disk1"]


def test_the_tree_of_a_crowd(storage_daemon, mount, overlay, folder):
    """Many domains, nearly all without a QEMU: the next server answers as promptly."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(qemu.socket)
    for number in range(300):
        os.mkdir(f"{tree.path}/domains/d{number}")
    refuse(tree.disk("vm"), 1000)
    os.kill(tree.pid, 9)
    began = time.monotonic()
    assert tree.disk("vm").status == "idle"
    print(f"first answer after {(time.monotonic() - began) * 1000:.0f} ms")
    assert time.monotonic() - began < 2 * PROMPT * SLOW
    assert len(tree.domains()) == 301
    assert len(tree.events("command-refused")) >= 1000
    assert not [pid for pid in children_of(tree.process.pid) if has_ended(pid)]
