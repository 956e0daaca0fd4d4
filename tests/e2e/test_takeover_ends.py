"""The server is killed on a job's way to its end, at every word that it says to QEMU: the end is told once, and all that belongs to it is done once."""

import json
import os

import pytest

import images
from gate import Setting
from qemu import blockdev
from system import wait_for
from watch import needs  # noqa: F401

every_moment = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


@pytest.fixture
def setting(storage_daemon, machine, mount, folder, cleanup):
    return lambda place="daemon", **more: Setting(place, machine if place == "machine" else storage_daemon, mount, folder, cleanup, **more)


def grow(at, depth):
    while len(at.disk.chain) < depth:
        at.rounds += 1
        at.disk.write("snapshot", f"file={at.folder}/snap{at.rounds}.qcow2\n")


def is_told_once(at, word="completed"):
    job = at.disk.job
    assert job["state"] == word, job
    mine = [event["event"] for event in at.disk.events() if event["job"] == job["id"]]
    assert mine.count("job-started") == 1 and mine.count(f"job-{word}") == 1, mine
    lines = [json.loads(line)["job"] for line in at.disk.read("history").splitlines()]
    assert lines.count(job["id"]) == 1
    wait_for(lambda: at.qemu.monitor("query-jobs") == [], why="QEMU to be free")
    assert at.disk.read("error") == ""


WAYS = [
    ("pull", "pull", "base=[2]", [0, 2, 3]),
    ("commit", "commit", "top=[1] base=[2]", [0, 2, 3]),
    ("commit-delete", "commit", "top=[1] base=[2] delete", [0, 2, 3]),
    ("active-commit", "commit", "base=[1] pivot", [1, 2, 3]),
    ("active-commit-delete", "commit", "base=[1] pivot delete", [1, 2, 3]),
]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name, file, words, left", WAYS, ids=[row[0] for row in WAYS])
@pytest.mark.parametrize("place", ["daemon", "machine"])
@every_moment
def test_an_end_of_its_own(setting, name, file, words, left, place, after):
    if "pivot" in words and place == "daemon":
        pytest.skip("a storage daemon's disk does not go over")
    at = setting(place)

    def prepare(at):
        grow(at, 4)
        at.before = at.disk.chain

    def call(at):
        at.disk.write(file, words + "\n")
        return at.disk.wait()

    def check(at):
        is_told_once(at)
        assert at.disk.chain == [at.before[number] for number in left]
        for number, path in enumerate(at.before):
            assert os.path.exists(path) == ("delete" not in name or number in left), path
        assert len(at.told("image-deleted")) == ("delete" in name)

    assert at.every_word(after, prepare, call, check)
    at.qemu.quit()
    for path in at.disk.chain:
        images.check(path, leaks=True)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("file, words", [("copy", "dest={dest} pivot"), ("copy", "dest={dest} pivot shallow"), ("backup", "dest={dest}")],
                         ids=["copy", "shallow-copy", "backup"])
@every_moment
def test_a_new_image(setting, file, words, after):
    at = setting("machine")

    def prepare(at):
        grow(at, 4)
        at.rounds += 1
        at.before, at.dest = at.disk.chain, f"{at.folder}/new{at.rounds}.qcow2"

    def call(at):
        at.disk.write(file, words.format(dest=at.dest) + "\n")
        return at.disk.wait()

    def check(at):
        is_told_once(at)
        assert os.path.exists(at.dest)
        assert at.disk.chain == (at.before if file == "backup" else [at.dest, *(at.before[1:] if "shallow" in words else [])])

    assert at.every_word(after, prepare, call, check)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("verb, word", [("pivot", "completed"), ("finish", "completed"), ("abort", "cancelled")])
@every_moment
def test_a_group_of_two(machine, mount, folder, cleanup, overlay, verb, word, after):
    """Both, each once, whichever of the two had its command when the server died."""
    def start(name, *words):
        return machine(name, *words, *(word for number in range(2) for word in (
            "-blockdev", blockdev(f"fmt{number}", overlay(f"i{number}")), "-device", f"virtio-blk-pci,drive=fmt{number},id=d{number}")))

    at = Setting("machine", start, mount, folder, cleanup)
    pair = [at.mount.disk("vm", name) for name in ("d0", "d1")]

    def prepare(at):
        wait_for(lambda: at.jobs() == [], why="QEMU to be free")
        at.rounds += 1
        for disk in pair:
            disk.write("copy", f"dest={at.folder}/{disk.name}-{at.rounds}.qcow2 shallow{' bandwidth=1' if verb == 'abort' else ''}\n")
        if verb != "abort":
            wait_for(lambda: all(disk.status == "ready" for disk in pair), 10, "both to be ready")

    def check(at):
        for disk in pair:
            assert disk.wait() == word, disk.job
            ends = [event for event in disk.events() if event["job"] == disk.job["id"] and event["event"] == f"job-{word}"]
            assert len(ends) == 1
            if verb == "pivot":
                assert disk.chain[0] == f"{at.folder}/{disk.name}-{at.rounds}.qcow2"

    assert at.every_word(after, prepare, lambda at: at.mount.domain("vm").write("group", f"d0 d1: {verb}\n"), check)
