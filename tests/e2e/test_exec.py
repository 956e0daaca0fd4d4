"""exec: sources: a command that carries QMP, and the ways in which commands end; nothing of them is ever left over."""

import errno
import os
import signal
import time

import pytest

import images
from mount import Background
from qemu import blockdev
from system import BLOCKJOBFS, Took, children_of, parent_of, processes_on, wait_for


def refused(disk, name, text=""):
    with pytest.raises(OSError) as refusal:
        disk.write(name, text + "\n")
    return refusal.value.errno


def relay(qemu):
    return f"exec:exec socat - UNIX:{qemu.socket}"


@pytest.fixture
def far(storage_daemon, mount, overlay):
    """A storage daemon with one disk, behind socat. Gives an object with qemu, image, mount, domain, disk."""
    class Far:
        image = overlay()
        qemu = storage_daemon("vm", blockdev("disk0", image))
        mount = None

    Far.mount = mount("vm=" + relay(Far.qemu))
    Far.domain = Far.mount.domain("vm")
    Far.disk = Far.mount.disk("vm", "disk0")
    return Far


def command_of(mount):
    """The pid of the command: the only child of the reaper, which is a child of the daemon."""
    reapers = [pid for pid in children_of(mount.pid) if b"--reaper" in open(f"/proc/{pid}/cmdline", "rb").read()]
    command, = children_of(reapers[0])
    return command


@pytest.mark.quick
def test_pull(far, shelf):
    assert far.domain.line("address") == relay(far.qemu)
    assert far.domain.state == "connected"
    far.disk.hold()
    far.disk.release()
    assert far.disk.wait() == "completed"
    assert far.disk.chain == [far.image]
    assert far.qemu.monitor.jobs() == {}
    far.qemu.quit()
    assert images.same(far.image, shelf.template)


def test_copy(machine, mount, overlay, folder, shelf):
    """A machine behind a command of several parts; the domain is named after the first word."""
    qemu = machine("vm", "-drive", f"file={overlay()},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    with open(f"{folder}/my relay.py", "w") as script:
        script.write("""
import socket, sys, threading, os
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
def out():
    while data := link.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    link.sendall(data)
""")
    tree = mount(f"exec:python3 '{folder}/my relay.py' {qemu.socket} | cat")
    assert tree.domains() == ["python3"]
    disk = tree.disk("python3", "vd0")
    with open(f"{folder}/there", "w") as there:
        there.write("precious")
    assert refused(disk, "copy", f"dest={folder}/there") == errno.EEXIST
    disk.write("copy", f"dest={folder}/new.qcow2 pivot\n")
    assert disk.wait() == "completed"
    assert disk.chain == [f"{folder}/new.qcow2"]
    disk.pull()
    assert disk.wait() == "completed"


# --- the command ends ---


@pytest.mark.quick
def test_killed_command(far):
    """The connection is lost, and the reason told; it comes back, and the job with it."""
    far.disk.hold()
    reader = far.disk.park()
    ident = far.disk.job["id"]
    os.kill(command_of(far.mount), signal.SIGKILL)
    wait_for(lambda: far.domain.events("domain-disconnected"))
    assert far.domain.events("domain-disconnected")[0]["reason"] == f"{relay(far.qemu)[5:]} was killed by signal 9"
    wait_for(lambda: len(far.domain.events("domain-connected")) == 2, 5)
    assert far.disk.status == "running" and far.disk.job["id"] == ident
    far.disk.release()
    assert reader.result() == "completed"
    assert len(far.disk.events("job-started")) == 1 and not far.disk.events("job-lost")


def test_killed_reaper(far):
    """The one that keeps the command is no single point of failure either: the command goes with it, and both come back."""
    command = command_of(far.mount)
    os.kill(parent_of(command), signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{command}") or "Z" in open(f"/proc/{command}/stat").read(), 2)
    wait_for(lambda: len(far.domain.events("domain-connected")) == 2, 5)
    far.disk.pull()
    assert far.disk.wait() == "completed"


@pytest.mark.quick
def test_killed_qemu(far):
    """A command that cannot reach QEMU says why, and does not prove that QEMU is gone: the job is lost when QEMU says so."""
    far.disk.hold()
    far.qemu.kill()
    wait_for(lambda: "Connection refused" in far.domain.read("error"), 5)
    assert " ended with status 1: " in far.domain.read("error")
    assert far.domain.state in ("disconnected", "connecting")
    assert far.disk.status == "running"
    assert refused(far.disk, "pull") in (errno.EHOSTDOWN, errno.EBUSY)
    far.qemu.monitor.close()
    far.qemu.start()
    wait_for(lambda: far.domain.connected, 12)
    assert far.disk.wait() == "lost"
    far.disk.pull()
    assert far.disk.wait() == "completed"


def test_hangs(storage_daemon, mount, overlay):
    """Of QEMU and of the command: the same to whoever waits, and nobody else waits."""
    hung = storage_daemon("hung", blockdev("disk0", overlay("hung")))
    well = storage_daemon("well", blockdev("disk0", overlay("well")))
    tree = mount("hung=" + relay(hung), well.socket, options="timeout=1")
    hung.freeze()
    writer = Background(refused, tree.disk("hung"), "pull")
    with Took() as took:
        tree.disk("well").pull()
        assert tree.disk("well").wait() == "completed"
    assert took.seconds < 1
    assert writer.result() == errno.ETIMEDOUT
    hung.thaw()
    wait_for(lambda: not tree.disk("hung").live)
    wait_for(lambda: tree.domain("hung").connected)
    command = command_of(tree)
    os.kill(command, signal.SIGSTOP)
    assert refused(tree.disk("hung"), "pull") == errno.ETIMEDOUT
    tree.terminate()
    assert not os.path.exists(f"/proc/{command}")


def test_commands_that_fail(mount, folder):
    """The mount comes up; each says what its command did. The pauses between attempts grow."""
    log = f"{folder}/attempts"
    tree = mount("none=exec:/no/such/relay", f"fails=exec:echo x >> {log}; echo no way to web1 >&2; exit 3", "talks=exec:echo Welcome!; cat",
                 "shut=exec:exec >&-; sleep 1000", "silent=exec:cat")
    def error(name, text):
        wait_for(lambda: text in tree.domain(name).read("error"), 5, text)
    error("none", "/no/such/relay ended with status 127: ")
    error("none", "not found")
    error("fails", "exit 3 ended with status 3: no way to web1\n")
    error("talks", "not JSON")
    error("shut", "has closed its output")
    assert tree.domain("silent").state == "connecting"
    wait_for(lambda: os.path.getsize(log) >= 2 * 5, 10)
    time.sleep(2)
    # 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3 s
    assert os.path.getsize(log) / 2 <= 8
    assert "talks" in tree.said()


# --- nothing is left over ---


def stubborn(folder, qemu):
    """A command that takes no TERM, with children in sessions of their own. All have the folder in their command lines, but for sleeps."""
    script = f"{folder}/relay.sh"
    with open(script, "w") as file:
        file.write(f"trap '' TERM HUP INT PIPE\nsetsid sh {folder}/child.sh &\nsocat - UNIX:{qemu.socket}\nsh {folder}/child.sh\n")
    with open(f"{folder}/child.sh", "w") as file:
        file.write("trap '' TERM HUP INT PIPE\nwhile :; do sleep 1000; done\n")
    return f"exec:exec sh {script}"


def left(folder):
    """The reapers, and what they keep, but for sleeps."""
    return {pid: line for pid, line in processes_on(folder).items()
            if any(word in line for word in ("--reaper", "sh ", "socat")) and BLOCKJOBFS not in line}


@pytest.mark.quick
@pytest.mark.parametrize("how", ["terminate", "unmount", "kill"])
def test_the_daemon_ends(how, storage_daemon, mount, overlay, folder):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount("vm=" + stubborn(folder, qemu))
    wait_for(lambda: tree.domain().connected)
    wait_for(lambda: len(left(folder)) == 4)  # the reaper, two shells, socat
    getattr(tree, how)()
    if how != "kill":
        assert not left(folder), "when the daemon has gone, they have"
    wait_for(lambda: not left(folder), 4)
    if how == "kill":
        tree.start()
        wait_for(lambda: tree.domain().connected)
        tree.disk().pull()
        assert tree.disk().wait() == "completed"


def test_many_lives(storage_daemon, mount, overlay, folder):
    """Each life's command is gone before the next one's can be too many."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount("vm=" + stubborn(folder, qemu))
    for _ in range(5):
        tree.kill()
        tree.start()
    wait_for(lambda: tree.domain().connected, 15)
    # One of each.
    wait_for(lambda: len(left(folder)) == 4, 5)


def test_terminal(storage_daemon, mount, overlay):
    """Ctrl-C is for the daemon: its command is in a session of its own."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount("vm=" + relay(qemu))
    command = command_of(tree)
    assert os.getsid(command) == command != os.getsid(tree.pid)
    assert os.readlink(f"/proc/{command}/cwd") == "/"
    # It has its three descriptors and nothing of the daemon's.
    assert sorted(fd for fd in map(int, os.listdir(f"/proc/{command}/fd")) if fd < 3) == [0, 1, 2]
    for fd in os.listdir(f"/proc/{command}/fd"):
        assert "fuse" not in os.readlink(f"/proc/{command}/fd/{fd}")
    tree.terminate(signal.SIGINT)
    assert not os.path.exists(f"/proc/{command}")
