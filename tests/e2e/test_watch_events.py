"""The event logs as logs: tail of every kind, readers that stop for a while, a thousand of them, rotation."""

import json
import os
import select
import subprocess
import threading
import time

import pytest

from system import memory_kib, wait_for
from test_watch_poll import limit_of_descriptors
from watch import flip, needs, program, refuse  # noqa: F401

KEEP = 1000  # lines that stay at least
MOST = 4000  # lines there may be before older ones go
TAILS = [
    pytest.param(["tail", "-f", "-n", "+1"], id="tail-f"),
    pytest.param(["tail", "-F", "-n", "+1"], id="tail-F"),
    pytest.param(["tail", "-f", "-s", "0.05", "-n", "+1"], id="tail-f-s"),
    pytest.param(["busybox", "tail", "-f", "-n", "1000000"], id="busybox-tail", marks=needs("busybox")),
]


def numbers(lines):
    return [json.loads(line)["seq"] for line in lines]


@pytest.mark.parametrize("command", TAILS)
def test_tail_follows(one, program, command):  # noqa: F811
    tail = program(*command, one.disk / "events")
    wait_for(lambda: tail.lines, why="what there is already")
    one.disk.hold()
    tail.says("job-started")
    for _ in range(2):
        tail.says("job-paused" if flip(one.disk) == "paused" else "job-resumed")
    one.disk.write("abort", "\n")
    tail.says("job-cancelled")
    assert tail.lines == one.disk.read("events").splitlines()


@pytest.mark.parametrize("command", [["tail", "-n", "3"], pytest.param(["busybox", "tail", "-n", "3"], marks=needs("busybox")),
                                     pytest.param(["busybox", "tail", "-n", "2500"], marks=needs("busybox")), ["tail", "-n", "2500"]])
def test_tail_shows_the_last_lines(one, command):
    """Of a short log, and of one that has been rotated."""
    refuse(one.disk, 5)
    for turn in range(2):
        shown = subprocess.run([*command, one.disk / "events"], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert shown.splitlines() == one.disk.read("events").splitlines()[-int(command[-1]):]
        refuse(one.disk, MOST)


ROTATED = [
    pytest.param(["tail", "-f", "-s", "0.02", "-n", "+1"], 25, 611, id="tail-f"),
    pytest.param(["tail", "-F", "-s", "0.02", "-n", "+1"], 10, 900, id="tail-F"),
    pytest.param(["busybox", "tail", "-f", "-n", "1000000"], 5, 900, id="busybox-tail", marks=needs("busybox")),
]


@pytest.mark.quick
@pytest.mark.parametrize("command, rounds, each", ROTATED)
def test_tail_over_rotations(one, program, command, rounds, each):  # noqa: F811
    """No line lost, none doubled, none torn, over some rotations, for one that keeps up."""
    tail = program(*command, one.disk / "events")
    refuse(one.disk)
    tail.says("command-refused")
    first = one.disk.events()[-1]["seq"]
    for _ in range(rounds):
        refuse(one.disk, each)
        last = one.disk.events()[-1]["seq"]
        tail.says(f'"seq":{last},')
    assert last == first + rounds * each > MOST
    lines = [line for line in tail.lines if line.startswith("{")]
    assert not [line for line in lines if "overrun" in line]
    assert [number for number in numbers(lines) if number >= first] == list(range(first, last + 1))
    others = [line for line in tail.lines if not line.startswith("{")]
    assert not [line for line in others if "truncated" not in line], others


@pytest.mark.quick
def test_a_reader_that_keeps_up_loses_nothing(one):
    """By poll and read, with buffers of odd sizes, over some rotations."""
    fd = os.open(one.disk / "events", os.O_RDONLY)
    while os.read(fd, 1 << 16):
        pass
    first = one.mount.events()[-1]["seq"] + 1
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    data = b""
    for _ in range(3 * MOST // 200):
        refuse(one.disk, 200)
        assert poll.poll(5000)
        while part := os.read(fd, 7001):
            data += part
    os.close(fd)
    assert numbers(data.splitlines()) == list(range(first, first + 3 * MOST))


@pytest.mark.quick
def test_a_reader_that_stops_finds_its_overrun_line(one):
    fd = os.open(one.disk / "events", os.O_RDONLY)
    data = os.read(fd, 1 << 16)
    for times in (MOST + KEEP, 10, MOST + 2 * KEEP):
        refuse(one.disk, times)
        before = len(data)
        while part := os.read(fd, 5000):
            data += part
        lines = [json.loads(line) for line in data[before:].splitlines()]
        lost = [line for line in lines if line["event"] == "overrun"]
        assert len(lost) == (times > MOST)
        assert not lost or lines[0] is lost[0]
        assert sum(line["lost"] for line in lost) + len(lines) - len(lost) == times
        assert len(lines) - len(lost) >= min(times, KEEP)
    os.close(fd)


@pytest.mark.timeout(60)
def test_a_thousand_readers(one):
    """Each has a place of its own, and each gets it all."""
    limit_of_descriptors(4096)
    fds = [os.open(one.disk / "events", os.O_RDONLY) for _ in range(1000)]
    epoll = select.epoll(1001)
    for fd in fds:
        while os.read(fd, 1 << 16):
            pass
        epoll.register(fd, select.EPOLLPRI | select.EPOLLET)
    memory = memory_kib(one.mount.pid)
    got = dict.fromkeys(fds, b"")
    for _ in range(5):
        refuse(one.disk, 20)
        wanted = got[fds[0]].count(b"\n") + 20
        while any(data.count(b"\n") < wanted for data in got.values()):
            ready = epoll.poll(5, 1000)
            assert ready
            for fd, _ in ready:
                while part := os.read(fd, 1 << 16):
                    got[fd] += part
    assert len(set(got.values())) == 1
    assert len(numbers(got[fds[0]].splitlines())) == 100
    assert memory_kib(one.mount.pid) - memory < 2000
    epoll.close()
    for fd in fds:
        os.close(fd)


@needs("jq")
def test_jq_on_a_tail(one, program):  # noqa: F811
    """The line that people will write."""
    script = 'exec tail -f -n +1 -s 0.05 "$1" | jq --unbuffered -r \'select(.event | startswith("job-")) | "\\(.event) \\(.disk)"\''
    pipe = program("bash", "-c", f"trap 'kill $(jobs -p)' TERM; {script}", "bash", one.disk / "events", start_new_session=True)
    try:
        one.disk.hold()
        pipe.says("^job-started disk0$")
        one.disk.write("abort", "\n")
        pipe.says("^job-cancelled disk0$")
    finally:
        os.killpg(pipe.pid, 9)


def test_the_logs_size_is_what_it_reads_as(one):
    """What stat says at one moment is there to be read, unless the log was shortened meanwhile, which it says."""
    driver = threading.Thread(target=refuse, args=(one.disk, 3 * MOST))
    driver.start()
    while driver.is_alive():
        fd = os.open(one.disk / "events", os.O_RDONLY)
        size = os.fstat(fd).st_size
        data = b""
        while len(data) < size:
            part = os.read(fd, size - len(data))
            if not part:
                assert data.startswith(b'{"event":"overrun"')
                break
            data += part
        rest = os.read(fd, 1 << 20)
        assert (data + rest).endswith(b"\n")
        told = [json.loads(line) for line in (data + rest).splitlines()]
        assert told[-1]["seq"] - told[0].get("seq", told[-1]["seq"]) <= len(told)
        os.close(fd)
        time.sleep(0.001)
    driver.join()
