"""
The server is killed while a command is under way: at every word that it says to QEMU for it, before QEMU has got that word and after QEMU has
done as it says. The writer has one answer, and what it asked for is done once.
"""

import errno
import json
import os
import shutil

import pytest

import images
from gate import Setting
from mount import FINAL, Background
from system import Took, stays, wait_for
from takeover import crash, no_server

@pytest.fixture
def setting(storage_daemon, machine, mount, folder, cleanup):
    return lambda place="daemon", **more: Setting(place, machine if place == "machine" else storage_daemon, mount, folder, cleanup, **more)


every_moment = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


# --- starting ---

STARTS = [
    ("pull", "pull", "bandwidth=1"),
    ("commit", "commit", "top=[1] bandwidth=1"),
    ("commit-delete", "commit", "top=[1] base=[2] delete bandwidth=1"),
    ("active-commit", "commit", "bandwidth=1"),
    ("copy", "copy", "dest={folder}/dest.qcow2 bandwidth=1"),
    ("backup", "backup", "dest={folder}/dest.qcow2 bandwidth=1"),
]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("place", ["daemon", "machine"])
@pytest.mark.parametrize("name, file, words", STARTS, ids=[row[0] for row in STARTS])
@every_moment
@pytest.mark.quick
def test_a_start(setting, place, name, file, words, after):
    """One job in QEMU, one that is told of, and its id is the answer."""
    at = setting(place)
    words = words.format(folder=at.folder)

    def check(at):
        job, = at.jobs()
        assert at.disk.job["id"] == job
        assert at.value == f"started {job}\n"
        assert [event["job"] for event in at.told("job-started")] == [job]
        assert at.disk.status == "running"
        assert at.disk.read("history").count(job) == 0
        assert at.disk.read("error") == ""
        at.value = None

    def ask(at):
        at.value = at.disk.ask(file, words + "\n")
        return at.value

    names = at.every_word(after, Setting.give_up, ask, check)
    assert names
    at.give_up()
    assert at.disk.chain == at.chain.all


SLOW_IMG = """#!/usr/bin/python3
import fcntl, os, struct, sys, time
if "/dev/fd/3" in sys.argv:
    fd = os.open("/dev/fd/3", os.O_RDWR)
    fcntl.fcntl(fd, 37, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 100, 4, 0))  # F_OFD_SETLK: as QEMU's programs lock an image
    open("{folder}/at-work", "w").close()
    time.sleep(0.5)
    os.close(fd)
os.execv("{img}", sys.argv)
"""


@pytest.mark.quick
@pytest.mark.parametrize("name, words", [("backup", "dest={folder}/dest.qcow2 bandwidth=1"), ("snapshot", "file={folder}/snap.qcow2")])
def test_while_qemu_img_is_at_work(setting, folder, monkeypatch, name, words):
    """What the dead server has started has the file open yet, for a moment: the next one waits for that, and makes the file anew."""
    os.mkdir(f"{folder}/bin")
    with open(f"{folder}/bin/qemu-img", "w") as file:
        file.write(SLOW_IMG.format(folder=folder, img=shutil.which(images.IMG)))
    os.chmod(f"{folder}/bin/qemu-img", 0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    at = setting()
    writer = Background(at.disk.write, name, words.format(folder=folder) + "\n")
    wait_for(lambda: os.path.exists(f"{folder}/at-work"), why="qemu-img to be at work")
    crash(at.mount)
    writer.result()
    assert at.disk.read("error") == ""
    assert len(at.jobs()) == (name == "backup") and len(at.disk.chain) == 3 + (name == "snapshot")
    at.give_up()


@pytest.mark.quick
@pytest.mark.parametrize("place", ["daemon", "machine"])
@pytest.mark.timeout(100)
@every_moment
def test_a_snapshot(setting, place, after):
    """Taken once: one image more in the chain, and no other file made."""
    at = setting(place)
    top = [len(at.disk.chain)]

    def take(at):
        at.rounds += 1
        at.disk.write("snapshot", f"file={at.folder}/snap{at.rounds}.qcow2\n")

    def check(at):
        top[0] += 1
        assert len(at.disk.chain) == top[0]
        assert at.disk.chain[0] == f"{at.folder}/snap{at.rounds}.qcow2"
        assert images.backing_of(at.disk.chain[0]) == at.disk.chain[1]
        assert len(at.told("chain-changed")) == 1

    assert at.every_word(after, Setting.give_up, take, check)


@pytest.mark.quick
@pytest.mark.timeout(150)
@every_moment
def test_the_next_increment(setting, folder, after):
    """Each moves the mark once, wherever on its way the server dies; and all of them are one job."""
    base = images.fill(images.create(f"{folder}/data.qcow2"), (0, 64))
    at = setting(images=[images.create(f"{folder}/over.qcow2", base), base])
    step = 1 << 18
    at.disk.write("pull", f"increment={step}\n")
    job = at.disk.job["id"]

    def parked(at):
        return at.disk.status == "paused" and len(at.disk.events("increment-done")) == at.rounds

    def prepare(at):
        at.rounds += 1
        wait_for(lambda: parked(at), 10, "the mark")
        at.cursor = at.disk.progress[0]

    def call(at):
        at.disk.write("pull", f"increment={step}\n")
        at.rounds += 1
        wait_for(lambda: parked(at), 10, "the next mark")
        at.rounds -= 1

    def check(at):
        assert list(at.jobs()) == [job]
        assert at.cursor + step <= at.disk.progress[0]
        if at.name_of_word != "job-pause":  # between the two words of a step it runs on, under QEMU's limit, until the next server is there
            assert at.disk.progress[0] <= at.cursor + step + (1 << 19)
        assert len(at.disk.events("job-started")) == 1

    assert at.every_word(after, prepare, call, check)
    at.give_up()


# --- steering ---


def hold(at):
    if not at.disk.live:
        at.disk.hold()


STEERS = [
    ("speed", "speed", "3M", lambda at: at.disk.line("speed") == "3145728" and at.qemu.monitor.job()["speed"] == 3 << 20),
    ("pause", "pause", "1", lambda at: at.disk.status == "paused" and len(at.told("job-paused")) == 1),
    ("resume", "pause", "0", lambda at: at.disk.status == "running" and len(at.told("job-resumed")) == 1),
]


@pytest.mark.quick
@pytest.mark.timeout(100)
@pytest.mark.parametrize("name, file, words, right", STEERS, ids=[row[0] for row in STEERS])
@every_moment
def test_steering(setting, name, file, words, right, after):
    at = setting()

    def prepare(at):
        hold(at)
        at.disk.write("speed", "1\n")
        at.disk.write("pause", "1\n" if name == "resume" else "0\n")
        wait_for(lambda: at.disk.status == ("paused" if name == "resume" else "running"), why="the state before")

    def check(at):
        def looks_right():
            at.new = at.disk.events()[at.before:]
            return right(at)
        wait_for(looks_right, why=f"what {name} does")

    def call(at):
        at.before = len(at.disk.events())
        at.disk.write(file, words + "\n")

    assert at.every_word(after, prepare, call, check)
    assert at.disk.read("error") == ""
    at.give_up()


@pytest.mark.quick
@pytest.mark.timeout(100)
@every_moment
def test_an_abort(setting, after):
    at = setting()

    def check(at):
        assert at.disk.status == "cancelled"
        assert at.jobs() == []
        assert len(at.told("job-cancelled")) == 1
        ids = [json.loads(line)["job"] for line in at.disk.read("history").splitlines()]
        assert len(ids) == len(set(ids))

    assert at.every_word(after, hold, lambda at: at.disk.write("abort", "\n"), check)


ENDS = [("pivot", "copy", "pivoted"), ("finish", "copy", "kept"), ("pivot", "commit", "pivoted"), ("finish", "commit", "kept")]


@pytest.mark.timeout(150)
@pytest.mark.parametrize("verb, file, result", ENDS, ids=["-".join(row[:2]) for row in ENDS])
@every_moment
@pytest.mark.quick
def test_an_end(setting, verb, file, result, after):
    """The disk goes over once, or stays."""
    at = setting("machine")

    def prepare(at):
        wait_for(lambda: at.qemu.monitor("query-jobs") == [], why="QEMU to be free")
        at.rounds += 1
        at.disk.write("snapshot", f"file={at.folder}/snap{at.rounds}.qcow2\n")
        at.disk.write(file, f"dest={at.folder}/copy{at.rounds}.qcow2 shallow\n" if file == "copy" else "shallow\n")
        wait_for(lambda: at.disk.status == "ready", 10, "ready")
        at.chain_before = at.disk.chain

    def check(at):
        assert at.disk.wait() == "completed", at.disk.read("job")
        assert at.disk.job["result"] == result
        wait_for(lambda: at.jobs() == [], why="its end in QEMU")
        expected = at.chain_before
        if result == "pivoted":
            expected = [f"{at.folder}/copy{at.rounds}.qcow2", *expected[1:]] if file == "copy" else expected[1:]
        assert at.disk.chain == expected
        assert len([event for event in at.disk.events("job-completed") if event["job"] == at.disk.job["id"]]) == 1

    assert at.every_word(after, prepare, lambda at: at.disk.write(verb, "\n"), check)


@pytest.mark.timeout(100)
@every_moment
@pytest.mark.quick
def test_a_group(setting, storage_daemon, after, folder):
    """All of them, once; a group of one disk that is ready already, and one that waits for it."""
    at = setting("machine")
    group = at.mount.domain("vm")

    def prepare(at):
        wait_for(lambda: at.qemu.monitor("query-jobs") == [], why="QEMU to be free")
        at.rounds += 1
        at.disk.write("copy", f"dest={at.folder}/copy{at.rounds}.qcow2\n")
        wait_for(lambda: at.disk.status == "ready", 10, "ready")

    def check(at):
        assert at.disk.wait() == "completed"
        assert at.disk.job["result"] == "pivoted"
        assert at.disk.chain == [f"{at.folder}/copy{at.rounds}.qcow2"]
        assert len(at.told("job-completed")) == 1

    assert at.every_word(after, prepare, lambda at: group.write("group", f"{at.name}: pivot\n"), check)


def test_a_group_that_waits(setting):
    """It waits for the job to be ready when the server dies; the next one waits on, and does it."""
    at = setting("machine")
    at.disk.write("copy", f"dest={at.folder}/copy.qcow2 bandwidth=1\n")
    writer = Background(at.mount.domain("vm").write, "group", f"{at.name}: pivot\n")
    assert stays(lambda: not writer.done)
    for _ in range(2):
        crash(at.mount)
        assert at.disk.status == "running"
        assert stays(lambda: not writer.done, 0.1)
    at.disk.release()
    writer.result()
    assert at.disk.wait() == "completed"
    assert at.disk.chain == [f"{at.folder}/copy.qcow2"]


# --- QEMU that does not answer ---


@pytest.mark.quick
@pytest.mark.parametrize("place", ["daemon", "machine"])
def test_qemu_gets_it_when_the_server_is_dead(setting, place):
    """What was sent lies in the socket of a QEMU that hangs; it reads that first, and then what the next server says."""
    at = setting(place)
    for _ in range(3):
        at.qemu.freeze()
        writer = Background(at.disk.write, "pull", "bandwidth=1\n")
        wait_for(lambda: "block-stream" in at.gate.seen or "query-block-jobs" in at.gate.seen[-1:], why="it to be sent")
        crash(at.mount)
        at.qemu.thaw()
        writer.result()
        job, = at.jobs()
        assert at.disk.job["id"] == job
        assert [event["job"] for event in at.disk.events("job-started")].count(job) == 1
        at.give_up()
        at.gate.seen.clear()


def test_a_start_whose_job_is_over_when_the_next_server_comes(setting):
    """QEMU has started it, and it has ended, before anybody could say so to its writer: who gets the answer of a start, and then its end."""
    at = setting()
    at.gate.arm(0, True)
    while True:  # up to the command that starts it
        writer = Background(at.disk.write, "pull", "\n")
        wait_for(lambda: at.gate.reached.is_set() or writer.done)
        if not writer.done:
            break
        assert at.disk.wait() == "completed"
        pytest.skip("the pull was over before")
    with no_server(at.mount):
        at.gate.open()
    writer.result()
    assert at.disk.wait() == "completed"
    assert len(at.disk.events("job-started")) == len(at.disk.events("job-completed")) == 1
    assert at.disk.chain == [at.chain.top]


def test_killed_at_each_word_of_one_command(setting):
    """The same writer's command survives several deaths in a row."""
    at = setting()
    at.gate.arm(0, True)
    writer = Background(at.disk.ask, "commit", "top=[1] bandwidth=1\n")
    for number in range(5):
        wait_for(lambda: at.gate.reached.is_set() or writer.done, why="a word")
        if writer.done:
            break
        crash(at.mount)
        at.gate.open()
        at.gate.arm(number, True)
    at.gate.open()
    job, = at.jobs()
    assert writer.result() == f"started {job}\n"
    assert [event["job"] for event in at.disk.events("job-started")] == [job]
    at.give_up()


# --- kernels that do not send again ---


@pytest.fixture
def old_kernel(monkeypatch):
    monkeypatch.setenv("BLOCKJOBFS_RESEND", "0")


@pytest.mark.quick
@pytest.mark.parametrize("name, file, words", [*STARTS, ("snapshot", "snapshot", "file={folder}/snap.qcow2")],
                         ids=[row[0] for row in STARTS] + ["snapshot"])
def test_an_old_kernel(old_kernel, setting, name, file, words):
    """What was under way gets EIO and may have been done; nobody hangs, and all else goes on."""
    at = setting()
    at.gate.arm(0, False)
    writer = Background(at.disk.write, file, words.format(folder=at.folder) + "\n")
    assert at.gate.reached.wait(5)
    fd = os.open(at.disk / "status", os.O_RDONLY)
    crash(at.mount)
    at.gate.open()
    with Took() as took, pytest.raises(OSError) as error:
        writer.result()
    assert error.value.errno == errno.EIO and took.seconds < 2
    assert os.pread(fd, 100, 0).decode().strip() == at.disk.status
    os.close(fd)
    wait_for(lambda: at.mount.domain("vm").connected, why="the link")
    assert len(at.jobs()) <= 1
    wait_for(lambda: at.disk.live == bool(at.jobs()), why="what is true to be shown")
    at.give_up()
    at.disk.write("pull", "\n")
    assert at.disk.wait() == "completed"


@pytest.mark.quick
def test_an_old_kernel_and_readers(old_kernel, setting):
    """A parked `wait` is told EIO; the next one waits; what begins while no server runs is not under way, and answered."""
    at = setting()
    at.disk.hold()
    parked = at.disk.park()
    assert stays(lambda: not parked.done, 0.1)
    for _ in range(2):
        with no_server(at.mount):
            asked = Background(at.disk.read, "status")
            listed = Background(os.listdir, at.disk.path)
            assert stays(lambda: not asked.done, 0.1)
        assert asked.result() == "running\n"
        assert "pull" in listed.result()
        with pytest.raises(OSError) as error:
            parked.result()
        assert error.value.errno == errno.EIO
        parked = at.disk.park()
        assert stays(lambda: not parked.done, 0.1)
    at.disk.release()
    assert parked.result() == "completed"
    assert at.disk.status in FINAL
