"""speed, pause and abort; waiting, and being interrupted while waiting."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from images import MIB
from mount import LIVE, Background
from qemu import blockdev
from system import Took, stays, wait_for


@pytest.mark.quick
def test_speed_can_be_changed_again_and_again(one):
    one.disk.hold()
    one.disk.write("pause", "1\n")  # at 2 GiB a second it would be over before the next one
    assert one.disk.line("speed") == "1"
    for text, bytes_a_second in (("4M", 4 * MIB), ("4M", 4 * MIB), ("64K", 65536), ("64KiB\n", 65536), ("123456", 123456), ("2G", 2 << 30),
                                 ("1", 1)):
        one.disk.write("speed", text)
        assert one.disk.line("speed") == str(bytes_a_second)
        assert one.disk.job["bandwidth"] == str(bytes_a_second)
        assert one.qemu.monitor.job()["speed"] == bytes_a_second
    one.disk.write("speed", "max\n")
    one.disk.write("pause", "0\n")
    assert one.disk.wait() == "completed"


@pytest.mark.quick
def test_pause_and_resume_may_be_repeated(one):
    one.disk.hold()
    assert one.disk.line("pause") == "0"
    for value in "0011011001":
        one.disk.write("pause", value + "\n")
        assert one.disk.line("pause") == value
        assert one.disk.status == {"0": "running", "1": "paused"}[value]
        assert one.disk.job["state"] == one.disk.status
        assert one.qemu.monitor.job()["paused"] == (value == "1")
    # A paused job stays where it is, however fast it may be.
    one.disk.write("speed", "0")
    before = one.disk.progress
    assert stays(lambda: one.disk.progress == before and one.disk.status == "paused")
    one.disk.write("pause", "0")
    assert one.disk.wait() == "completed"
    words = [event["event"] for event in one.disk.events()]
    assert words.count("job-paused") == words.count("job-resumed") == 3


@pytest.mark.quick
@pytest.mark.parametrize("paused", [False, True])
def test_abort_returns_when_the_job_is_over(one, shelf, paused):
    one.disk.hold()
    if paused:
        one.disk.write("pause", "1")
    one.disk.write("abort", "\n")
    assert one.disk.status == "cancelled"
    assert one.qemu.monitor("query-jobs") == []
    assert one.disk.chain == [one.image, shelf.template]
    cancelled, = one.disk.events("job-cancelled")
    assert cancelled["released"] == []
    cur, end = one.disk.progress
    assert cur < end
    # At once ready for the next, which goes on where this one stopped.
    one.disk.pull()
    assert one.disk.wait() == "completed"
    assert one.disk.chain == [one.image]


def test_abort_async_returns_at_once(one):
    one.disk.hold()
    one.disk.write("abort", "async\n")
    assert one.disk.status in ("aborting", "cancelled")
    assert one.disk.wait() == "cancelled"
    assert one.qemu.monitor("query-jobs") == []


def test_abort_async_does_not_wait_for_a_job_that_cannot_end(one):
    """QEMU takes the command, but its job cannot get to its end: only the synchronous abort waits for it."""
    one.disk.hold()
    one.qemu.freeze()
    slow = Background(one.disk.write, "abort", "\n")
    assert stays(lambda: not slow.done)
    assert one.disk.status in LIVE
    one.qemu.thaw()
    slow.result()
    assert one.disk.status == "cancelled"


def test_steering_without_a_job_is_esrch(one):
    for name, text in (("speed", "4M"), ("speed", "0"), ("pause", "1"), ("pause", "0"), ("abort", ""), ("abort", "async")):
        with pytest.raises(OSError) as refusal:
            one.disk.write(name, text + "\n")
        assert refusal.value.errno == errno.ESRCH, name
        assert one.disk.read("error")
    one.disk.pull()
    assert one.disk.wait() == "completed"
    with pytest.raises(OSError) as refusal:
        one.disk.write("abort", "\n")
    assert refusal.value.errno == errno.ESRCH
    assert one.disk.status == "completed"


@pytest.mark.parametrize("command,kind", [("block-stream", "pull"), ("blockdev-mirror", "copy"), ("block-commit", "active-commit")])
def test_a_job_of_somebody_else_can_be_seen_and_steered(machine, mount, overlay, shelf, folder, command, kind):
    below = {"driver": "qcow2", "node-name": "below", "file": {"driver": "file", "filename": overlay("below")}}
    arguments = {"base_node": "below"} if command == "block-commit" else {}
    blockdevs = ["-blockdev", blockdev("fmt0", overlay("own", f"{folder}/below.qcow2"), backing=below)]
    if command == "blockdev-mirror":
        blockdevs += ["-blockdev", blockdev("target", overlay("target"))]
        arguments = {"target": "target", "sync": "full"}
    qemu = machine("vm", *blockdevs, "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    qemu.monitor(command, device="fmt0", job_id="theirs", speed=1, **arguments)
    if command == "block-commit":
        # Nothing to do, so that it gets to ready: an active commit, which is not told from another but by the graph.
        qemu.monitor.wait_event("BLOCK_JOB_READY")
    wait_for(lambda: disk.status in LIVE, why="the foreign job to be noticed")
    job = disk.job
    assert job["id"] == "theirs"
    assert job["type"] == kind
    assert job["by"] == "foreign"
    started, = disk.events("job-started")
    assert started["job"] == "theirs"
    if command != "block-commit":
        disk.write("speed", "2")
        assert qemu.monitor.job()["speed"] == 2
        disk.write("pause", "1")
        assert qemu.monitor.job()["paused"]
        disk.write("pause", "0")
        assert not qemu.monitor.job()["paused"]
    with pytest.raises(OSError) as refusal:
        disk.pull()
    assert refusal.value.errno == errno.EBUSY
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert qemu.monitor("query-jobs") == []


def test_a_foreign_job_that_is_ready_and_its_end(machine, mount, overlay, folder):
    """ready is shown with CUR = END, told once; when its owner ends it, the end is told with its figures."""
    qemu = machine("vm", "-blockdev", blockdev("fmt0", overlay()), "-blockdev", blockdev("target", overlay("target")),
                   "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    qemu.monitor("blockdev-mirror", device="fmt0", job_id="theirs", target="target", sync="top")
    qemu.monitor.wait_event("BLOCK_JOB_READY")
    wait_for(lambda: disk.status == "ready")
    cur, end = disk.progress
    assert cur == end > 0
    assert len(disk.events("job-ready")) == 1
    qemu.monitor("block-job-cancel", device="theirs")
    assert disk.wait() == "completed"
    assert len(disk.events("job-completed")) == 1


# --- wait ---


def test_wait_returns_at_once_when_no_job_is_live(one):
    with Took() as took:
        assert one.disk.wait() == "idle"
        one.disk.pull()
        assert one.disk.wait() == "completed"
        assert one.disk.wait() == "completed"
    assert took.seconds < 10


@pytest.mark.quick
@pytest.mark.parametrize("word", ["completed", "cancelled", "lost"])
def test_every_reader_of_wait_gets_the_final_word(one, word):
    one.disk.hold()
    readers = [one.disk.park() for _ in range(12)]
    tools = [subprocess.Popen(["cat", one.disk / "wait"], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert stays(lambda: not any(reader.done for reader in readers) and all(tool.poll() is None for tool in tools))
    # Others are not held up by those who wait.
    with Took() as took:
        assert one.disk.status == "running"
        one.disk.write("speed", "2")
    assert took.seconds < 1
    if word == "completed":
        one.disk.release()
    elif word == "cancelled":
        one.disk.write("abort", "async")
    else:
        one.qemu.kill()
    assert {reader.result() for reader in readers} == {word}
    assert {tool.communicate(timeout=10)[0] for tool in tools} == {word + "\n"}


def test_wait_ends_for_the_job_it_waited_for(one):
    """A reader that was parked during the first job is answered with its end, though the second starts at once."""
    for _ in range(5):
        one.disk.hold()
        reader = one.disk.park()
        assert stays(lambda: not reader.done, 0.05)
        one.disk.write("abort", "\n")
        one.disk.hold()
        assert reader.result() == "cancelled"
        one.disk.write("abort", "\n")


def test_wait_on_an_open_file_can_be_read_again(one):
    fd = os.open(one.disk / "wait", os.O_RDONLY)
    try:
        assert os.read(fd, 100) == b"idle\n"
        assert os.read(fd, 100) == b""
        one.disk.pull("bandwidth=16M")
        assert os.pread(fd, 100, 0) == b"completed\n"
    finally:
        os.close(fd)


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_reader_of_wait(one, sig):
    one.disk.hold()
    reader = subprocess.Popen(["cat", one.disk / "wait"], stdout=subprocess.PIPE)
    assert stays(lambda: reader.poll() is None)
    with Took() as took:
        reader.send_signal(sig)
        assert reader.wait(10) == -sig
    assert took.seconds < 1
    assert one.disk.status == "running"
    one.disk.release()
    assert one.disk.wait() == "completed"


CHILD = """
import os, signal, sys
def alarm(*_): raise InterruptedError
signal.signal(signal.SIGUSR1, alarm)
fd = os.open(sys.argv[1], os.O_WRONLY if len(sys.argv) > 2 else os.O_RDONLY)
print("ready", flush=True)
try:
    if len(sys.argv) > 2: os.write(fd, sys.argv[2].encode())
    else: os.read(fd, 100)
    print("done", flush=True)
except OSError as error:
    print(error.errno or "EINTR", flush=True)
sys.stdin.read()
"""


def blocked_child(*arguments):
    """A process that blocks on a file; a SIGUSR1 makes its system call end, and it says how."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_an_interrupted_reader_of_wait_can_go_on(one):
    """A handler that returns: the reader is answered EINTR and lives."""
    one.disk.hold()
    child = blocked_child(one.disk / "wait")
    time.sleep(0.2)
    child.send_signal(signal.SIGUSR1)
    assert child.stdout.readline() == "EINTR\n"
    child.communicate("")
    assert one.disk.live


@pytest.mark.quick
@pytest.mark.parametrize("name,text", [("pull", ""), ("speed", "4M"), ("pause", "1"), ("abort", "")])
def test_an_interrupted_writer_gets_eintr(one, name, text):
    """QEMU does not answer; the writer can be interrupted, and `job` tells what has become of the command."""
    if name != "pull":
        one.disk.hold()
    one.qemu.freeze()
    child = blocked_child(one.disk / name, text + "\n")
    time.sleep(0.2)
    with Took() as took:
        child.send_signal(signal.SIGUSR1)
        assert child.stdout.readline() == "EINTR\n"
    assert took.seconds < 1
    child.communicate("")
    one.qemu.thaw()
    if name == "pull":
        # QEMU has the command: the job appears, and is ours.
        assert wait_for(lambda: one.disk.job.get("id", "")).startswith("blockjobfs-")
        assert one.disk.wait() == "completed"
        assert len(one.disk.events("job-started")) == 1
    elif name == "abort":
        assert one.disk.wait() == "cancelled"
    elif name == "pause":
        assert wait_for(lambda: one.disk.status == "paused")
    else:
        assert wait_for(lambda: one.disk.line("speed") in (str(4 * MIB), "0"))


def test_a_killed_writer_does_not_orphan_its_job(one):
    """SIGKILL of a writer that waits for an abort: the abort goes on without it."""
    one.disk.hold()
    one.qemu.freeze()
    writer = subprocess.Popen(["sh", "-c", 'echo > "$0"', one.disk / "abort"])
    time.sleep(0.2)
    with Took() as took:
        writer.kill()
        writer.wait(10)
    assert took.seconds < 1
    one.qemu.thaw()
    assert one.disk.wait() == "cancelled"
