"""`jobs`: the table of all live jobs."""

import os
import select
import time
import unicodedata

import pytest

import images
from mount import Background
from qemu import blockdev
from system import wait_for

HEADER = ["DOMAIN", "DISK", "TYPE", "STATE", "PROGRESS", "RATE", "LEFT"]


def rows(tree):
    lines = tree.read("jobs").splitlines()
    assert lines[0].split() == HEADER
    return lines[1:]


def width(text):
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1 for char in text)


@pytest.fixture
def pair(storage_daemon, mount, overlay):
    """Two storage daemons with two disks each, under one mount."""
    daemons = [storage_daemon(name, *(blockdev(disk, overlay(f"{name}-{disk}")) for disk in ("vda", "vdb"))) for name in ("web1", "db")]
    tree = mount(*(daemon.socket for daemon in daemons))
    tree.daemons = daemons
    return tree


@pytest.mark.quick
def test_a_line_a_live_job(pair):
    assert rows(pair) == []
    pair.disk("web1", "vda").hold()
    pair.disk("db", "vdb").hold()
    pair.disk("db", "vdb").write("pause", "1\n")
    first, second = rows(pair)
    assert first.split()[:4] == ["web1", "vda", "pull", "running"]
    assert second.split()[:4] == ["db", "vdb", "pull", "paused"]
    for line in (first, second):
        bar, percent, rate, left = line.split()[4:]
        assert bar.startswith("[") and bar.endswith("]") and percent.endswith("%")
    for disk in (pair.disk("web1", "vda"), pair.disk("db", "vdb")):
        disk.write("abort", "\n")
    assert rows(pair) == []


@pytest.mark.quick
def test_columns(pair):
    for domain in ("web1", "db"):
        for disk in ("vda", "vdb"):
            pair.disk(domain, disk).hold()
    text = pair.read("jobs")
    lines = text.splitlines()
    assert text.endswith("\n") and len(lines) == 5
    assert all(len(line) <= 80 for line in lines)
    assert len({len(line) for line in lines}) == 1
    for name in ("DISK", "TYPE", "STATE", "PROGRESS"):
        column = lines[0].index(name)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)


@pytest.mark.quick
def test_size_is_what_is_read(pair):
    """Catches a size that is remembered from before a job began or ended, and figures that make a line longer."""
    def check(jobs):
        for _ in range(10):
            size = os.stat(pair / "jobs").st_size
            text = pair.read("jobs")
            assert size == len(text.encode()) and text.count("\n") == 1 + jobs

    disks = [pair.disk(domain, disk) for domain in ("web1", "db") for disk in ("vda", "vdb")]
    check(0)
    for number, disk in enumerate(disks):
        disk.hold()
        check(number + 1)
    for number, disk in enumerate(disks):
        disk.write("speed", "100\n")
        check(4)
        disk.write("pause", f"{number % 2}\n")
        check(4)
    for number, disk in enumerate(disks):
        disk.write("abort", "\n")
        check(3 - number)


def test_figures_are_fresh(storage_daemon, mount, overlay):
    """The bar goes up to the end with each look, and says what progress says."""
    tree = mount(storage_daemon("vm", blockdev("vda", overlay())).socket)
    disk = tree.disk("vm", "vda")
    disk.pull("bandwidth=8M")
    seen = []
    while disk.live:
        lines = rows(tree)
        if lines:
            seen.append(int(lines[0].split()[5].rstrip("%")))
    assert seen and seen == sorted(seen)


def test_long_names(storage_daemon, mount, overlay, folder):
    """They are cut, and told apart; the table is no wider."""
    names = ["a-machine-with-a-very-long-name-" + end for end in ("one", "two")]
    names += ["a-x-name-that-differs-only-in-the-middle-z", "a-x-name-that-diffErs-only-in-the-middle-z"]
    names += ["机器-有一个很长的名字-的虚拟机-第一", "blank and\ttab"]
    sources = []
    for number, name in enumerate(names):
        daemon = storage_daemon(f"q{number}", blockdev("a-disk-with-a-very-long-name", overlay(f"d{number}")))
        sources.append(f"{name}={daemon.socket}")
    tree = mount(*sources)
    for domain in tree.domains():
        tree.domain(domain).disk().hold()
    lines = tree.read("jobs").splitlines()
    assert len(lines) == 1 + len(names)
    assert {width(line) for line in lines} == {80} or all(width(line) <= 80 for line in lines)
    assert len({width(line) for line in lines}) == 1
    assert len({line.split()[0] for line in lines}) == len(lines)
    assert all(len(line.split()) == 8 for line in lines[1:])


@pytest.mark.quick
def test_a_qemu_that_hangs_holds_up_nobody(pair):
    pair.disk("web1", "vda").hold()
    pair.disk("db", "vda").hold()
    hung, other = pair.daemons
    hung.freeze()
    try:
        started = time.monotonic()
        lines = rows(pair)
        assert time.monotonic() - started < 2
        wait_for(lambda: rows(pair)[0].split()[3] == "running?", why="the mark")
        assert rows(pair)[1].split()[:4] == ["db", "vda", "pull", "running"]
        # From now on it is not even asked.
        started = time.monotonic()
        for _ in range(10):
            rows(pair)
        assert time.monotonic() - started < 2
    finally:
        hung.thaw()
    wait_for(lambda: rows(pair)[0].split()[3] == "running", why="it answers again")


def test_a_link_that_is_down(pair):
    pair.disk("web1", "vda").hold()
    pair.daemons[0].freeze()
    pair.daemons[0].kill()
    wait_for(lambda: rows(pair) == [], why="the job is lost")


@pytest.mark.quick
def test_poll(pair):
    """A start, a change of state and an end wake whoever polls the table."""
    disk = pair.disk("web1", "vda")
    with open(pair / "jobs", "rb", buffering=0) as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI)

        def changed():
            woken = bool(poll.poll(5000))
            table.seek(0)
            table.read()
            return woken
        table.read()
        assert not poll.poll(0)
        disk.hold()
        assert changed()
        while poll.poll(50):
            changed()
        disk.write("pause", "1\n")
        assert changed()
        while poll.poll(50):
            changed()
        disk.write("abort", "\n")
        assert changed()


def test_many_readers(pair):
    """Who reads at once shares a query."""
    for domain in ("web1", "db"):
        pair.disk(domain, "vda").hold()
    readers = [Background(rows, pair) for _ in range(20)]
    assert all(len(reader.result()) == 2 for reader in readers)


def test_types_and_ready(machine, mount, folder):
    """active-commit is the widest word; what is ready is at 100 %."""
    base = images.create(f"{folder}/base.qcow2")
    top = images.fill(images.create(f"{folder}/top.qcow2", base), (0, 4))
    qemu = machine("vm", "-drive", f"file={top},if=none,id=d", "-device", "virtio-blk-pci,drive=d,id=vda")
    tree = mount(qemu.socket)
    disk = tree.disk("vm", "vda")
    disk.write("commit", "\n")
    wait_for(lambda: disk.status == "ready", why="the commit is ready")
    line, = rows(tree)
    assert line.split()[:6] == ["vm", "vda", "active-commit", "ready", "[########]", "100%"]
    disk.write("finish", "\n")
    disk.wait()
