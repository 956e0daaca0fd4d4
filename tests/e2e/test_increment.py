"""pull increment=: so many bytes, and then it is parked; how far past its mark it comes, and all that may happen to it meanwhile."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import images
from images import MIB
from kinds import failing
from mount import Refused
from qemu import blockdev
from system import IMG, SLOW, children_of, stays, wait_for

CHUNK = 512 << 10


@pytest.fixture(params=["daemon", "machine"])
def place(request):
    return request.param


@pytest.fixture(scope="module")
def dense(shelf):
    return images.fill(images.create(f"{shelf.folder}/dense.qcow2", size=32 * MIB), (0, 32))


class Set:
    def __init__(self, place, storage_daemon, machine, mount, top, backing, file=None):
        self.top, self.backing = top, backing
        node = blockdev("disk0", top, file=file)
        if place == "daemon":
            self.qemu = storage_daemon("vm", node)
        else:
            self.qemu = machine("vm", "-blockdev", node, "-device", "virtio-blk-pci,drive=disk0,id=disk0")
        self.mount = mount(self.qemu.socket)
        self.disk = self.mount.disk("vm", "disk0")

    def parks(self, words, timeout=20):
        """Writes to pull and waits until it is parked: the cursor."""
        self.disk.pull(words)
        return self.parked(timeout)

    def parked(self, timeout=20):
        wait_for(lambda: self.disk.status != "running", timeout, "it parks")
        assert self.disk.status == "paused", self.disk.job
        job = self.disk.job
        assert job["parked"] == "yes" and job["qemu-state"] == "paused"
        assert self.qemu.monitor.job()["offset"] == self.disk.progress[0] == int(job["cur"])
        return self.disk.progress[0]

    def completes(self):
        assert self.disk.wait() == "completed", self.disk.job
        assert self.disk.chain == [self.top]
        assert self.disk.job["parked"] == self.disk.job["mark"] == "-"
        self.qemu.quit()
        assert images.backing_of(self.top) is None
        assert images.same(self.top, self.backing)
        images.check(self.top)


@pytest.fixture
def pull(storage_daemon, machine, mount, folder, dense):
    """pull(place, backing): a disk above the image, by default a dense one."""
    def make(place, backing=dense, **more):
        return Set(place, storage_daemon, machine, mount, images.create(f"{folder}/top.qcow2", backing, size=images.info(backing)["virtual-size"]), backing, **more)
    return make


# --- to the end ---


@pytest.mark.quick
def test_increments_to_the_end(pull, place):
    """The mark is met exactly where the data is dense, and the last increment ends the job."""
    one = pull(place)
    for mark in (8, 16, 24):
        assert one.parks("increment=8M") == mark * MIB
        job = one.disk.job
        assert (job["increment"], job["mark"]) == (str(8 * MIB), str(mark * MIB))
        assert one.disk.line("pause") == "1"
        assert one.disk.chain == [one.top, one.backing]
    one.disk.pull("increment=8M")
    one.completes()
    words = [event["event"] for event in one.disk.events() if event["job"]]
    assert words == ["job-started", "increment-done"] + ["job-resumed", "increment-done"] * 2 + ["job-resumed", "job-completed"]
    assert [event["mark"] for event in one.disk.events("increment-done")] == [8 * MIB, 16 * MIB, 24 * MIB]
    assert all(event["cur"] == event["mark"] and event["end"] == 32 * MIB for event in one.disk.events("increment-done"))


def test_plain_pull_runs_to_the_end(pull, place):
    one = pull(place)
    one.parks("increment=1M bandwidth=20M")
    one.disk.pull()
    assert one.disk.status in ("running", "completed")
    assert one.disk.line("speed") in (str(20 * MIB), "0")  # 0: it is over already
    one.completes()


@pytest.mark.parametrize("words", ["increment=32M", "increment=1T"])
def test_an_increment_of_all_is_a_plain_pull(pull, words):
    one = pull("machine")
    one.disk.pull(words)
    assert one.disk.job["mark"] == "-"
    one.completes()


def test_down_to_a_base(pull, place, folder, dense):
    """base= is for the first one; what backs the disk in the end is the base."""
    mid = images.fill(images.create(f"{folder}/mid.qcow2", dense, size=32 * MIB), (10, 8))
    one = pull(place, mid)
    assert 12 * MIB <= one.parks("increment=12M base=[2] bandwidth=8M") <= 12 * MIB + CHUNK + 8 * MIB // 10
    with pytest.raises(Refused) as refusal:
        one.disk.ask("pull", "increment=1M base=[2]")
    assert refusal.value.errno == errno.EINVAL and "base" in refusal.value.error
    one.disk.pull()
    assert one.disk.wait() == "completed"
    assert one.disk.chain == [one.top, dense]
    one.qemu.quit()
    assert images.same(one.top, mid)


# --- how exact it is ---


def copied_behind(image, offset):
    """Bytes of data behind @offset that are in the image itself."""
    done = subprocess.run([IMG, "map", "-U", "--output=json", image], stdout=subprocess.PIPE, check=True)
    return sum(max(0, extent["start"] + extent["length"] - max(extent["start"], offset))
               for extent in json.loads(done.stdout) if extent["depth"] == 0 and extent["data"])


@pytest.mark.parametrize("increment", [1, 65536, 300 << 10, 777777, MIB, 3 * MIB + 512, 4 * MIB, 10 * MIB, 31 * MIB])
@pytest.mark.parametrize("bandwidth", [0, 24 * MIB])
def test_no_more_than_a_chunk_past_the_mark(pull, place, increment, bandwidth):
    """Dense data: QEMU's chunk that the mark is in, whatever the bandwidth is."""
    one = pull(place)
    cursor = 0
    for _ in range(5):
        mark = cursor + increment
        if mark >= 32 * MIB:
            break
        cursor = one.parks(f"increment={increment} bandwidth={bandwidth}")
        assert mark <= cursor < mark + CHUNK, (mark, cursor)
        assert one.disk.line("speed") == str(bandwidth)  # the user's, whatever QEMU's is now
    one.disk.pull("bandwidth=max")
    one.completes()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("bandwidth", [0, 24 * MIB])
@pytest.mark.parametrize("seed", [1, 2])
def test_islands(pull, place, folder, bandwidth, seed):
    """Data and holes of any size: what is copied past the mark is at most a chunk and a slice of the rate; the cursor may be over a hole."""
    chance = random.Random(seed)
    image, at = images.create(f"{folder}/islands.qcow2", size=512 * MIB), 0
    words = []
    while at < 500 * MIB:
        length = chance.choice([4 << 10, 64 << 10, 200 << 10, MIB, 5 * MIB])
        words += ["-c", f"write -q -P {chance.randrange(1, 255)} {at} {length}"]
        at += length + chance.choice([64 << 10, 128 << 10, MIB, 6 * MIB, 60 * MIB])
    images.run(images.IO, "-f", "qcow2", *words, image)
    one = pull(place, image)
    cursor = 0
    while cursor < 450 * MIB:
        increment = chance.choice([MIB, 4 * MIB, 20 * MIB])
        mark = cursor + increment
        # Without a bandwidth the daemon sets a limit of its own: what is left in a slice near the mark, a quarter of that far from it.
        part = increment if increment <= 4 * MIB else increment // 4
        allowed = CHUNK + (min(part, bandwidth // 10) if bandwidth else part)
        behind = copied_behind(one.top, mark)
        one.disk.pull(f"increment={increment} bandwidth={bandwidth}")
        wait_for(lambda: one.disk.status != "running", 30, "it parks")
        if one.disk.status == "completed":
            break
        cursor = one.parked()
        assert cursor >= mark
        assert copied_behind(one.top, mark) - behind <= allowed
    else:
        one.disk.pull("bandwidth=max")
    one.completes()


@pytest.mark.timeout(120)
def test_exact_on_a_busy_machine(pull, place, run_in_background):
    for _ in range(2 * os.cpu_count()):
        run_in_background(sys.executable, "-c", "while True: pass")
    one = pull(place)
    cursor = 0
    for _ in range(7):
        mark = cursor + 4 * MIB
        cursor = one.parks("increment=4M", 60)
        assert mark <= cursor < mark + CHUNK


def test_bandwidth_holds_over_increments(pull, place):
    one = pull(place)
    began = time.monotonic()
    for mark in (4, 8, 12):
        assert one.parks(f"increment=4M bandwidth={8 * MIB}") == mark * MIB
    assert time.monotonic() - began >= 12 / 8 - 0.3
    # Without one it stays as it was; speed changes it, now and while it is parked.
    one.disk.write("speed", "6M")
    assert one.disk.line("speed") == one.disk.job["bandwidth"] == str(6 * MIB)
    began = time.monotonic()
    one.disk.pull("increment=6M")
    assert one.disk.line("speed") == str(6 * MIB)
    one.parked()
    assert time.monotonic() - began >= 0.7
    one.disk.write("speed", "max")
    one.disk.pull()
    one.completes()


# --- parked ---


def switches(pid):
    """How often the process has gone to sleep: each wake-up is one."""
    with open(f"/proc/{pid}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


@pytest.mark.timeout(60)
def test_a_parked_job_costs_nothing(pull, place):
    """Nobody looks at it: neither the daemon nor its helper nor QEMU does anything at all."""
    one = pull(place)
    one.parks("increment=1M bandwidth=8M")
    pids = [one.mount.pid, *children_of(one.mount.pid)]
    time.sleep(3 * SLOW)  # whatever is still to be told after it has parked, once a second
    before = [switches(pid) for pid in pids], one.qemu.monitor.job()
    time.sleep(3 * SLOW)
    assert [switches(pid) for pid in pids] == before[0]
    assert one.qemu.monitor.job() == before[1]


@pytest.mark.quick
def test_abort_while_parked(pull, place):
    one = pull(place)
    one.parks("increment=4M")
    one.disk.write("abort", "\n")
    assert one.disk.status == "cancelled"
    assert one.qemu.monitor("query-jobs") == []
    assert one.disk.chain == [one.top, one.backing]
    # What was pulled stays pulled, and the next one passes over it.
    one.disk.pull()
    one.completes()


def test_abort_in_the_middle(pull, place):
    one = pull(place)
    one.disk.pull("increment=16M bandwidth=1M")
    wait_for(lambda: one.disk.progress[0] > 0)
    one.disk.write("abort", "\n")
    assert one.disk.status == "cancelled" and one.disk.chain == [one.top, one.backing]
    one.disk.pull()
    one.completes()


@pytest.mark.quick
def test_pause_and_the_mark_are_two_things(pull, place):
    one = pull(place)
    one.disk.pull("increment=4M bandwidth=2M")
    one.disk.write("pause", "1")
    assert one.disk.status == "paused" and one.disk.job["parked"] == "-"
    wait_for(lambda: one.qemu.monitor.job()["status"] == "paused")
    before = one.disk.progress
    assert before[0] < 4 * MIB
    assert stays(lambda: one.disk.progress == before and one.disk.status == "paused", 1)
    with pytest.raises(Refused) as refusal:
        one.disk.ask("pull", "increment=4M")
    assert refusal.value.errno == errno.EBUSY and "`pause`" in refusal.value.error
    one.disk.write("pause", "0")
    one.disk.write("pause", "0")
    assert one.disk.status == "running"
    with pytest.raises(Refused) as refusal:
        one.disk.ask("pull", "\n")
    assert refusal.value.errno == errno.EBUSY and str(4 * MIB) in refusal.value.error
    one.disk.write("speed", "max")
    assert one.parked() == 4 * MIB
    # Parked: pause 0 does not let it go on, pause 1 and then 0 leave it where it is.
    with pytest.raises(Refused) as refusal:
        one.disk.ask("pause", "0")
    assert refusal.value.errno == errno.EBUSY and "`pull`" in refusal.value.error
    one.disk.write("pause", "1")
    with pytest.raises(Refused):
        one.disk.ask("pull", "\n")
    one.disk.write("pause", "0")
    assert one.disk.status == "paused" and one.disk.job["parked"] == "yes"
    assert one.parks("increment=4M") == 8 * MIB
    one.disk.pull()
    one.completes()
    words = [event["event"] for event in one.disk.events()]
    assert words.count("job-paused") == 1 and words.count("increment-done") == 2


def test_what_makes_no_sense(pull):
    one = pull("machine")
    for words in ("increment=0", "increment=max", "increment=-1", "increment=4X", "increment", "increment=1M increment=2M"):
        with pytest.raises(Refused) as refusal:
            one.disk.ask("pull", words)
        assert refusal.value.errno == errno.EINVAL, words
        assert one.qemu.monitor("query-jobs") == []
    one.parks("increment=4M on-error=stop")
    generation = int(one.disk.job["generation"])
    for words, number in (("increment=0", errno.EINVAL), ("on-error=report", errno.EINVAL), (f"base={one.backing}", errno.EINVAL),
                          (f"generation={generation + 1}", errno.ESTALE)):
        with pytest.raises(Refused) as refusal:
            one.disk.ask("pull", words)
        assert refusal.value.errno == number, words
        assert one.disk.status == "paused" and one.disk.job["parked"] == "yes"
    assert one.disk.ask("pull", "increment=4M dry-run") == f"would go on from {4 * MIB} and park at {8 * MIB}\n"
    assert one.disk.ask("pull", "dry-run") == f"would go on from {4 * MIB} to the end\n"
    for file in ("commit", "copy"):
        with pytest.raises(Refused) as refusal:
            one.disk.ask(file, f"dest={one.top}.copy" if file == "copy" else "\n")
        assert refusal.value.errno == errno.EBUSY
    assert one.parks(f"increment=4M on-error=stop generation={generation}") == 8 * MIB
    one.disk.pull()
    one.completes()


def test_dry_run_starts_nothing(pull):
    one = pull("machine")
    answer = one.disk.ask("pull", "increment=4M dry-run")
    assert f"would park at {4 * MIB}\n" in answer and "block-stream" in answer
    assert one.disk.status == "idle" and one.qemu.monitor("query-jobs") == []


def test_somebody_else_resumes_it(pull, place):
    """job-resume on another monitor: it is parked again, and goes on from there as if nothing had been."""
    one = pull(place)
    one.parks("increment=4M")
    one.qemu.monitor.events.clear()
    one.qemu.monitor("job-resume", id=one.disk.job["id"])
    for status in ("running", "paused"):
        one.qemu.monitor.wait_event("JOB_STATUS_CHANGE", status=status)
    wait_for(lambda: one.qemu.monitor.job()["offset"] == one.disk.progress[0])
    assert one.disk.status == "paused"
    cursor = one.parked()
    assert one.parks("increment=4M") >= cursor + 4 * MIB
    one.disk.pull()
    one.completes()


def test_a_foreign_job_is_not_continued(pull, place):
    one = pull(place)
    one.qemu.monitor("block-stream", device="disk0", job_id="theirs", speed=1)
    wait_for(lambda: one.disk.live)
    one.qemu.monitor("job-pause", id="theirs")
    wait_for(lambda: one.disk.status == "paused")
    for words in ("\n", "increment=4M"):
        with pytest.raises(Refused) as refusal:
            one.disk.ask("pull", words)
        assert refusal.value.errno == errno.EBUSY
    assert one.qemu.monitor.job()["paused"] and one.qemu.monitor.job()["speed"] == 1
    one.disk.write("abort", "\n")


@pytest.mark.parametrize("words", ["increment=4M", ""])
def test_an_error_stops_it(pull, place, folder, dense, words):
    """on-error=stop: paused by the error, before the mark or on the way on from it; `pause` 0 tries again."""
    top = f"{folder}/top.qcow2"
    one = pull(place, file=failing(top, "write_aio", 28, once=True, late=True))
    one.disk.pull(f"on-error=stop {words} bandwidth=8M")
    wait_for(lambda: one.disk.status == "paused", 20)
    job = one.disk.job
    assert job["io-status"] == "nospace" and job["parked"] == "-"
    assert stays(lambda: one.disk.status == "paused" and one.disk.job["cur"] == job["cur"])
    one.disk.write("pause", "0")
    if words:
        assert one.parked() == 4 * MIB
        one.disk.pull("bandwidth=max")
    else:
        one.disk.write("speed", "max")
    one.completes()


# --- links and lives ---


@pytest.mark.parametrize("when", ["parked", "running", "paused"])
def test_the_daemon_is_killed(pull, place, when):
    """A parked job is still parked for the next daemon, a paused one paused; one in the middle goes on to its mark."""
    one = pull(place)
    one.disk.pull("increment=4M bandwidth=8M")
    if when == "parked":
        one.parked()
    elif when == "paused":
        wait_for(lambda: one.disk.progress[0])
        one.disk.write("pause", "1")
    one.mount.kill()
    one.mount.start()
    if when == "paused":
        assert one.disk.status == "paused" and one.disk.job["parked"] == "-"
        assert stays(lambda: one.disk.status == "paused", 0.5)
        one.disk.write("pause", "0")
    cursor = one.parked()
    assert cursor >= 4 * MIB
    if when == "parked":
        assert cursor == 4 * MIB
    else:
        # The moment of a step, in which QEMU is left with the user's limit, is met now and then.
        assert cursor < 4 * MIB + CHUNK + 8 * MIB * 2 * SLOW
    assert one.disk.line("speed") == str(8 * MIB)
    assert one.parks("increment=4M") == cursor + 4 * MIB
    one.disk.pull("bandwidth=max")
    one.completes()


@pytest.mark.timeout(120)
def test_killed_again_and_again(pull, place):
    """Ten lives, each killed at another moment of an increment; it comes to its end all the same."""
    one = pull(place)
    one.disk.pull("increment=24M bandwidth=6M")
    for life in range(10):
        time.sleep(0.11 + life * 0.013)
        one.mount.kill()
        one.mount.start()
        if one.disk.status != "running":
            break
    wait_for(lambda: one.disk.status != "running", 30)
    assert one.parked() >= 24 * MIB
    one.disk.pull("bandwidth=max")
    one.completes()


def test_qemu_is_frozen_in_the_middle(pull, place):
    one = pull(place)
    one.disk.pull("increment=16M bandwidth=8M")
    wait_for(lambda: one.disk.progress[0])
    one.qemu.freeze()
    time.sleep(1)
    one.qemu.thaw()
    assert one.parked(30) == 16 * MIB
    one.disk.pull("bandwidth=max")
    one.completes()


def test_the_daemon_is_stopped_in_the_middle(pull, place):
    """Whatever the daemon does meanwhile, QEMU takes no step that it was not told to take."""
    one = pull(place)
    one.disk.pull("increment=16M bandwidth=8M")
    time.sleep(0.3)
    os.kill(one.mount.pid, signal.SIGSTOP)
    time.sleep(2)
    offset = one.qemu.monitor.job()["offset"]
    os.kill(one.mount.pid, signal.SIGCONT)
    assert offset < 16 * MIB
    assert one.parked(30) == 16 * MIB


def test_qemu_dies_while_parked(pull):
    one = pull("machine")
    one.parks("increment=4M")
    one.qemu.kill()
    assert one.disk.wait() == "lost"


# --- scripts ---

RECIPE = """
cd "$1"
while echo increment=8M > pull; do
    while [ "$(cat status)" = running ]; do
        inotifywait -qq -t 1 -e modify status
    done
    [ "$(cat status)" = paused ] || break
    cat progress
done
cat status
"""


def test_the_recipe(pull, folder):
    """docs/operations.md has the same lines."""
    if subprocess.run(["which", "inotifywait"], stdout=subprocess.DEVNULL).returncode:
        pytest.skip("inotifywait is not installed")
    one = pull("machine")
    done = subprocess.run(["sh", "-c", RECIPE, "sh", one.disk.path], stdout=subprocess.PIPE, text=True, timeout=30 * SLOW)
    lines = done.stdout.splitlines()
    assert lines[:3] == [f"{n * 8 * MIB} {32 * MIB}" for n in (1, 2, 3)], lines
    assert lines[-1] == "completed"
    one.completes()


def test_poll_tells_that_it_is_parked(pull):
    import select
    one = pull("machine")
    with open(one.disk / "status") as status:
        one.disk.pull("increment=8M bandwidth=16M")
        status.read()
        poll = select.poll()
        poll.register(status, select.POLLPRI | select.POLLERR)
        word = "running"
        while word == "running":
            assert poll.poll(20000)
            status.seek(0)
            word = status.read().strip()
    assert word == "paused" and one.disk.job["parked"] == "yes"
    with contextlib.suppress(Refused):
        one.disk.ask("abort", "\n")
