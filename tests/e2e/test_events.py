"""The event logs: what they tell, in which order, and that they are logs."""

import json
import os
import re

import pytest

from qemu import blockdev
from system import wait_for

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


@pytest.mark.quick
def test_a_pull_from_start_to_end(one, shelf):
    one.disk.hold()
    one.disk.write("pause", "1")
    one.disk.write("pause", "0")
    one.disk.release()
    assert one.disk.wait() == "completed"
    events = one.disk.events()
    words = [event["event"] for event in events]
    assert words.index("job-started") < words.index("job-paused") < words.index("job-resumed") < words.index("job-completed")
    assert words.count("job-completed") == words.count("job-started") == 1
    assert "chain-changed" in words
    for event in events:
        for key in ("event", "seq", "time", "domain", "disk", "job", "type"):
            assert key in event, event
        assert event["domain"] == "vm"
        assert RFC3339.match(event["time"]), event["time"]
        if event["event"].startswith("job-"):
            assert event["job"] == one.disk.job["id"]
            assert event["type"] == "pull"
            assert event["disk"] == "disk0"
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    done, = one.disk.events("job-completed")
    assert done["cur"] == done["end"] > 0
    assert done["error"] is None
    assert done["result"]
    assert done["released"] == [shelf.template]


@pytest.mark.quick
def test_what_is_true_when_the_final_word_is_shown(one):
    """Whoever has read `completed` finds the event and the history line, at once."""
    for number in range(1, 4):
        one.disk.pull()
        assert one.disk.wait() == "completed"
        assert len(one.disk.events("job-completed")) == number
        history = [json.loads(line) for line in one.disk.read("history").splitlines()]
        assert len(history) == number
        assert one.disk.job["id"] in json.dumps(history[-1])


def test_the_logs_above_have_it_all(storage_daemon, mount, overlay):
    one = storage_daemon("one", blockdev("disk0", overlay("a")), blockdev("disk1", overlay("b")))
    two = storage_daemon("two", blockdev("disk0", overlay("c")))
    tree = mount(one.socket, two.socket)
    for domain, disk in (("one", "disk0"), ("one", "disk1"), ("two", "disk0")):
        tree.disk(domain, disk).pull()
        assert tree.disk(domain, disk).wait() == "completed"
    two.kill()
    wait_for(lambda: not tree.domain("two").connected)
    everything = tree.events()
    numbers = [event["seq"] for event in everything]
    assert numbers == sorted(set(numbers))
    done = [(event["domain"], event["disk"]) for event in everything if event["event"] == "job-completed"]
    assert done == [("one", "disk0"), ("one", "disk1"), ("two", "disk0")]
    # The logs below are parts of it.
    for domain in ("one", "two"):
        part = tree.domain(domain).events()
        assert part == [event for event in everything if event["domain"] == domain]
        for name in tree.domain(domain).disks():
            own = tree.disk(domain, name).events()
            assert own == [event for event in part if event.get("disk") == name]
    words = [event["event"] for event in everything if event["domain"] == "two"]
    assert "domain-connected" in words
    assert words[-1] == "domain-disconnected"


@pytest.mark.quick
def test_an_open_log_goes_on_where_it_was_read_to(one):
    fd = os.open(one.disk / "events", os.O_RDONLY)
    try:
        old = os.read(fd, 1 << 16)
        assert os.read(fd, 1 << 16) == b""
        one.disk.hold()
        first = os.read(fd, 1 << 16)
        assert json.loads(first.splitlines()[0])["event"] == "job-started"
        assert os.read(fd, 1 << 16) == b""
        one.disk.write("abort", "\n")
        second = os.read(fd, 1 << 16)
        assert second.endswith(b"\n")
        assert "job-cancelled" in [json.loads(line)["event"] for line in second.splitlines()]
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.read(fd, 1 << 16) == old + first + second
    finally:
        os.close(fd)


def test_a_log_can_be_read_byte_by_byte(one):
    one.disk.pull()
    one.disk.wait()
    with open(one.disk / "events", "rb", buffering=0) as file:
        data = b"".join(iter(lambda: file.read(1), b""))
    assert data.decode() == one.disk.read("events")


@pytest.mark.quick
def test_a_reader_that_falls_behind_is_told_how_much(one):
    """At least the last 1,000 events are kept; what is older is counted, not silently gone; lines stay whole."""
    fd = os.open(one.disk / "events", os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            one.disk.write("speed", "bogus")
        first = json.loads(os.read(fd, 1 << 16).splitlines()[-1])
        assert first["event"] == "command-refused"
        control = os.open(one.disk / "speed", os.O_WRONLY)
        for _ in range(5000):
            with pytest.raises(OSError):
                os.pwrite(control, b"bogus", 0)
        os.close(control)
        kept = one.disk.events()
        assert len(kept) >= 1000
        numbers = [event["seq"] for event in kept if event["event"] != "overrun"]
        assert numbers == sorted(set(numbers))
        rest = b""
        while True:
            part = os.read(fd, 1 << 16)
            if not part:
                break
            rest += part
        lines = [json.loads(line) for line in rest.splitlines()]
        lost = sum(line["lost"] for line in lines if line["event"] == "overrun")
        assert lost > 0
        assert lost + sum(line["event"] == "command-refused" for line in lines) == 5000
        assert os.stat(one.disk / "events").st_size == len(one.disk.read("events"))
    finally:
        os.close(fd)


def test_tail_shows_the_last_lines(one):
    import subprocess
    one.disk.pull()
    one.disk.wait()
    last = subprocess.run(["tail", "-n", "1", one.disk / "events"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert last == one.disk.read("events").splitlines(True)[-1]
