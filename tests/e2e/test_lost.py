"""QEMU goes in the middle of a job, comes back, hangs, or is held by somebody else."""

import errno
import os
import threading

import pytest

import images
from monitor import Monitor
from mount import Background
from qemu import blockdev
from system import Took, stays, wait_for


def refused(disk, name, text=""):
    with pytest.raises(OSError) as refusal:
        disk.write(name, text + "\n")
    return refusal.value.errno


# --- QEMU goes ---


@pytest.mark.quick
def test_qemu_killed_in_the_middle(one, shelf):
    one.disk.hold()
    before = one.disk.progress
    reader = one.disk.park()
    assert stays(lambda: not reader.done, 0.1)
    one.qemu.kill()
    assert reader.result() == "lost"
    assert one.disk.status == "lost"
    assert one.disk.progress == before
    assert one.disk.job["state"] == "lost"
    assert len(one.disk.events("job-lost")) == 1
    domain = one.mount.domain("vm")
    assert domain.state.startswith("disconnected") or domain.state == "connecting"
    assert domain.read("error")
    assert len(domain.events("domain-disconnected")) == 1
    # The folder stays, and says what there is to say; what needs QEMU is refused.
    assert one.disk.chain == [one.image, shelf.template]
    for name, text in (("pull", ""), ("speed", "4M"), ("pause", "1"), ("abort", "")):
        assert refused(one.disk, name, text) in (errno.EHOSTDOWN, errno.ESRCH), name
    assert refused(one.disk, "pull") == errno.EHOSTDOWN
    assert one.disk.wait() == "lost"


@pytest.mark.quick
def test_qemu_comes_back(one, shelf):
    """The same machine on the same socket: connected again by itself, the final word still there, the next job works."""
    one.disk.hold()
    inode = os.stat(one.disk.path).st_ino
    one.qemu.kill()
    assert one.disk.wait() == "lost"
    one.qemu.monitor.close()
    one.qemu.start()
    domain = one.mount.domain("vm")
    wait_for(lambda: domain.connected, 10, "the link to come back")
    assert domain.disks() == ["disk0"]
    assert os.stat(one.disk.path).st_ino == inode
    assert one.disk.status == "lost"
    one.disk.pull()
    assert one.disk.wait() == "completed"
    assert len(one.disk.events("job-lost")) == 1
    assert len(domain.events("domain-connected")) == 2
    one.qemu.quit()
    assert images.same(one.image, shelf.template)


@pytest.mark.quick
def test_qemu_quits_in_the_middle(one):
    """What QEMU said on its way out is believed: it cancels its jobs."""
    one.disk.hold()
    reader = one.disk.park()
    assert stays(lambda: not reader.done, 0.1)
    one.qemu.quit()
    assert reader.result() in ("cancelled", "lost")
    assert one.disk.status == reader.value
    assert len(one.disk.events("job-cancelled")) + len(one.disk.events("job-lost")) == 1
    assert not one.mount.domain("vm").connected


def test_a_machine_quits_in_the_middle(machine, mount, overlay):
    qemu = machine("vm", "-drive", f"file={overlay()},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    disk = mount(qemu.socket).disk("vm", "vd0")
    disk.hold()
    qemu.quit()
    # SHUTDOWN and BLOCK_JOB_CANCELLED came before the end of the connection.
    assert disk.wait() == "cancelled"


@pytest.mark.quick
def test_every_parked_writer_and_reader_is_answered_when_qemu_goes(one):
    one.disk.hold()
    one.qemu.freeze()
    parked = [Background(one.disk.write, "speed", "4M"), Background(one.disk.write, "abort", "\n"),
              Background(one.disk.write, "pause", "1"), Background(one.disk.read, "progress"), Background(one.disk.read, "job")]
    wait = one.disk.park()
    assert stays(lambda: not any(call.done for call in parked[:3]))
    one.qemu.kill()
    for call in parked:
        try:
            call.result()
        except OSError as error:
            assert error.errno in (errno.EHOSTDOWN, errno.ESRCH)
    assert wait.result() == "lost"


# --- QEMU hangs ---


@pytest.fixture
def two(storage_daemon, mount, overlay):
    """Two domains with a live job each, and a daemon that waits two seconds for an answer."""
    class Two:
        hung = storage_daemon("hung", blockdev("disk0", overlay("first")))
        well = storage_daemon("well", blockdev("disk0", overlay("second")))
        mount = None

    Two.mount = mount(Two.hung.socket, Two.well.socket, options="timeout=2")
    Two.stuck, Two.fine = Two.mount.disk("hung"), Two.mount.disk("well")
    Two.stuck.hold()
    Two.fine.hold()
    return Two


@pytest.mark.quick
def test_a_hung_qemu_holds_up_nobody_else(two):
    two.hung.freeze()
    readers = [Background(two.stuck.read, name) for name in ("progress", "job", "progress")]
    with Took() as took:
        for _ in range(50):
            assert two.fine.progress
            assert two.fine.job
        two.fine.write("speed", "2")
    assert took.seconds < 1
    assert not any(reader.done for reader in readers)
    with Took() as took:
        for reader in readers:
            with pytest.raises(OSError) as refusal:
                reader.result()
            assert refusal.value.errno == errno.ETIMEDOUT
    assert took.seconds < 4
    # What is answered from memory is there at once: metadata, and what needs no figures.
    with Took() as took:
        for path, _ in two.mount.files():
            os.stat(path)
        os.statvfs(two.mount.path)
        assert two.stuck.status == "running"
        assert len(two.stuck.chain) == 2
        two.stuck.line("size")
        two.stuck.events()
        assert two.mount.domain("hung").state
    assert took.seconds < 1
    two.hung.thaw()
    assert two.stuck.progress[1] > 0
    two.stuck.release()
    two.fine.release()
    assert two.stuck.wait() == two.fine.wait() == "completed"


@pytest.mark.quick
@pytest.mark.parametrize("name,text", [("speed", "4M"), ("pause", "1"), ("abort", "")])
def test_a_write_to_a_hung_qemu_times_out(two, name, text):
    two.hung.freeze()
    with Took() as took:
        assert refused(two.stuck, name, text) == errno.ETIMEDOUT
    assert 1 < took.seconds < 5
    assert two.stuck.read("error")
    two.hung.thaw()
    # The late answer is not taken for another's.
    if name != "abort":
        for bytes_a_second in (7000, 8000, 9000):
            wait_for(lambda: two.stuck.progress, why="QEMU to answer again")
            two.stuck.write("speed", str(bytes_a_second))
            assert two.stuck.line("speed") == str(bytes_a_second)
            assert two.hung.monitor.job()["speed"] == bytes_a_second
        two.stuck.write("abort", "\n")
    assert two.stuck.wait() == "cancelled"


def test_a_pull_that_timed_out_is_not_started_twice(storage_daemon, mount, overlay):
    """QEMU takes the command when it wakes up. The job is shown; the next pull is refused, not a second job."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    disk = mount(qemu.socket, options="timeout=1").disk()
    qemu.freeze()
    assert refused(disk, "pull", "bandwidth=1") == errno.ETIMEDOUT
    qemu.thaw()
    wait_for(lambda: list(qemu.monitor.jobs()) == [disk.job["id"]], 10, "the job that was started late")
    assert disk.status == "running"
    assert refused(disk, "pull", "bandwidth=1") == errno.EBUSY
    disk.release()
    assert disk.wait() == "completed"
    assert len(disk.events("job-started")) == 1


def test_a_qemu_that_hangs_before_it_greets(storage_daemon, mount, overlay):
    """The command comes back all the same, and the other domain is there."""
    hung = storage_daemon("hung", blockdev("disk0", overlay("first")))
    well = storage_daemon("well", blockdev("disk0", overlay("second")))
    hung.freeze()
    with Took() as took:
        tree = mount(hung.socket, well.socket, options="timeout=2")
    assert took.seconds < 6
    assert tree.domain("well").connected
    assert tree.domain("hung").state.split()[0] in ("busy", "connecting")
    assert tree.domain("hung").disks() == []
    hung.thaw()
    wait_for(lambda: tree.domain("hung").connected, 10)
    assert tree.disk("hung").status == "idle"


# --- somebody else holds the monitor ---


@pytest.mark.quick
def test_a_second_client_holds_the_socket(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    holder = Monitor(qemu.socket)
    tree = mount(qemu.socket)
    domain = tree.domain("vm")
    assert domain.state == "busy"
    assert domain.read("error")
    with Took() as took:
        for path in tree.readable():
            with open(path) as file:
                file.read()
    assert took.seconds < 1
    holder.close()
    wait_for(lambda: domain.connected, 10, "the monitor to be free")
    wait_for(lambda: domain.disks() == ["disk0"], 5)
    disk = domain.disk()
    disk.pull()
    assert disk.wait() == "completed"


# --- a thousand at once ---


@pytest.mark.quick
@pytest.mark.parametrize("name", ["progress", "job", "status", "chain"])
def test_a_thousand_reads_at_once(one, name):
    one.disk.hold()
    count = 1000
    start, answers = threading.Barrier(count), []

    def read():
        start.wait()
        answers.append(one.disk.read(name))

    old = threading.stack_size(256 << 10)
    try:
        threads = [threading.Thread(target=read) for _ in range(count)]
        with Took() as took:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        threading.stack_size(old)
    assert len(answers) == count
    assert all(answers)
    if name != "job":
        assert len(set(answers)) == 1
    assert took.seconds < 10


def test_a_thousand_parked_readers_are_let_go_together(one):
    """Parked without a thread each: the daemon goes on, and all of them get the word."""
    one.disk.hold()
    count = 1000
    answers = []
    old = threading.stack_size(256 << 10)
    try:
        threads = [threading.Thread(target=lambda: answers.append(one.disk.wait())) for _ in range(count)]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(old)
    assert stays(lambda: not answers)
    assert one.disk.status == "running"
    one.disk.release()
    for thread in threads:
        thread.join()
    assert answers == ["completed"] * count
