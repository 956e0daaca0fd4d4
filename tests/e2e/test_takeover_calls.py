"""
The server is killed at each of its own system calls in turn while a command is carried out: so also when QEMU has answered and the writer
has not been told, and when the writer has been told and those who watch have not.
"""

import json
import os

import pytest

import images
from gate import Setting, killed_at_call
from qemu import blockdev
from system import SLOW, wait_for
from takeover import crash
from watch import needs

pytestmark = [needs("strace"), pytest.mark.skipif(SLOW > 1, reason="a sanitizer's runtime makes calls of its own")]

LAST = 32  # by then the writer has its answer, and what follows is telling


@pytest.fixture
def setting(storage_daemon, machine, mount, folder, cleanup):
    return lambda place="daemon", **more: Setting(place, machine if place == "machine" else storage_daemon, mount, folder, cleanup, **more)


@pytest.fixture
def plenty(folder):
    """A chain with so much data that each of many pulls finds some."""
    base = images.fill(images.create(f"{folder}/plenty.qcow2"), (0, 64))
    return [images.create(f"{folder}/over.qcow2", base), base]


def each_call(at, prepare, call, check, step=1):
    """Returns at how many calls the server was killed."""
    deaths = 0
    for number in range(1, LAST + 1, step):
        prepare(at)
        before = at.mount.events()[-1]["seq"]
        at.value, died = killed_at_call(at.mount, number, call, at)
        deaths += died
        at.new = [event for event in at.mount.events() if event["seq"] > before]
        try:
            check(at)
        except AssertionError as error:
            raise AssertionError(f"killed at call {number}{'' if died else ' (it was not)'}: {error}") from error
    print(f"{deaths} deaths")
    assert deaths
    return deaths


def one_job(at):
    job, = at.jobs()
    assert at.disk.job["id"] == job
    assert at.value == f"started {job}\n"
    assert [event["job"] for event in at.told("job-started")] == [job]
    assert at.disk.status == "running"


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name, file, words, step", [
    ("pull", "pull", "bandwidth=1", 1), ("commit", "commit", "top=[1] base=[2] delete bandwidth=1", 2),
    ("copy", "copy", "dest={folder}/dest.qcow2 bandwidth=1", 1), ("backup", "backup", "dest={folder}/dest.qcow2 bandwidth=1", 2)],
    ids=["pull", "commit", "copy", "backup"])
@pytest.mark.parametrize("place", ["daemon", "machine"])
def test_a_start(setting, place, name, file, words, step, plenty):
    at = setting(place, images=plenty if file == "pull" else None)
    each_call(at, Setting.give_up, lambda at: at.disk.ask(file, words.format(folder=at.folder) + "\n"), one_job, step)
    at.give_up()
    assert len(at.disk.chain) == (2 if at.chain is None else 3)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("place", ["daemon", "machine"])
def test_a_snapshot(setting, place):
    at = setting(place)
    names = at.disk.chain

    def take(at):
        at.rounds += 1
        at.disk.write("snapshot", f"file={at.folder}/snap{at.rounds}.qcow2\n")

    def check(at):
        names.insert(0, f"{at.folder}/snap{at.rounds}.qcow2")
        wait_for(lambda: at.disk.chain == names, why=f"one overlay more: {at.disk.chain}")
        assert len(at.mount.domain("vm").disks()) == 1

    each_call(at, lambda at: None, take, check, 2)
    assert images.backing_of(names[0]) == names[1]


@pytest.mark.timeout(100)
def test_an_abort(setting, plenty):
    at = setting(images=plenty)

    def hold(at):
        if not at.disk.live:
            at.disk.hold()

    def check(at):
        assert at.disk.status == "cancelled"
        assert at.jobs() == []
        ids = [json.loads(line)["job"] for line in at.disk.read("history").splitlines()]
        assert len(ids) == len(set(ids))
        assert len({event["job"] for event in at.told("job-cancelled")}) == 1

    each_call(at, hold, lambda at: at.disk.write("abort", "\n"), check)


@pytest.mark.timeout(100)
def test_a_pause(setting, plenty):
    at = setting(images=plenty)
    at.disk.hold()

    def check(at):
        assert at.disk.status == "paused"
        at.disk.write("pause", "0\n")
        wait_for(lambda: at.disk.status == "running")

    each_call(at, lambda at: None, lambda at: at.disk.write("pause", "1\n"), check)
    at.give_up()


@pytest.mark.timeout(120)
def test_a_pivot(setting):
    at = setting("machine")

    def prepare(at):
        wait_for(lambda: at.jobs() == [], why="QEMU to be free")
        at.rounds += 1
        at.disk.write("copy", f"dest={at.folder}/copy{at.rounds}.qcow2\n")
        wait_for(lambda: at.disk.status == "ready", 10, "ready")

    def check(at):
        assert at.disk.wait() == "completed", at.disk.job
        assert at.disk.job["result"] == "pivoted"
        assert at.disk.chain == [f"{at.folder}/copy{at.rounds}.qcow2"]

    each_call(at, prepare, lambda at: at.disk.write("pivot", "\n"), check, 2)


# --- domains ---


@pytest.fixture
def tree(mount, folder):
    class At:
        pass

    at = At()
    at.mount, at.rounds, at.told = mount(f"unix:{folder}/nobody"), 0, None
    at.path = f"{at.mount.path}/domains/mine"
    return at


@pytest.mark.timeout(100)
def test_mkdir_and_rmdir(tree):
    """Made once, gone once; a mkdir(2) that was answered by nobody is not told that it is there already."""
    def check_made(at):
        assert at.mount.domains() == ["mine", "nobody"]
        assert os.listdir(at.path)
        assert len([event for event in at.new if event["event"] == "domain-added"]) == 1
        os.rmdir(at.path)

    each_call(tree, lambda at: None, lambda at: os.mkdir(at.path), check_made, 2)

    def check_gone(at):
        assert at.mount.domains() == ["nobody"]
        assert len([event for event in at.new if event["event"] == "domain-removed"]) == 1
        assert not os.path.exists(at.path)

    each_call(tree, lambda at: os.mkdir(at.path), lambda at: os.rmdir(at.path), check_gone, 2)


@pytest.mark.timeout(100)
def test_an_address(tree, storage_daemon, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))

    def prepare(at):
        if os.path.exists(at.path):
            os.rmdir(at.path)
        os.mkdir(at.path)

    def check(at):
        wait_for(lambda: at.mount.domain("mine").connected, 10, "the link")
        assert at.mount.domain("mine").line("address") == f"unix:{qemu.socket}"
        assert at.mount.disk("mine").status == "idle"

    each_call(tree, prepare, lambda at: at.mount.domain("mine").write("address", qemu.socket + "\n"), check, 2)
    crash(tree.mount)
    assert tree.mount.disk("mine").status == "idle"
