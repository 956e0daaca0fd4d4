"""
Abort, pivot and finish in every state of QEMU's job machine, for each kind of job that can be there; figures and events that tell
the truth meanwhile.

A job of somebody else's stands in for ours where QEMU passes through a state too fast: one that is not finalized by itself stays
pending, one of a group that ends together waits, one that does not dismiss itself stays concluded.
"""

import errno
import json
import time

import pytest

import images
from kinds import ACTIVE_COMMIT, COMMIT, COPY, FOUR, PULL, Chain, failing, start_foreign, start_qemu
from mount import LIVE, Background, Refused
from qemu import blockdev
from system import Took, stays, wait_for

every_kind = pytest.mark.parametrize("kind", FOUR, ids=repr)
every_ready_kind = pytest.mark.parametrize("kind", [ACTIVE_COMMIT, COPY], ids=repr)


@pytest.fixture(params=["machine", "daemon"])
def place(request):
    return request.param


@pytest.fixture
def vm(place, machine, storage_daemon, mount, folder):
    """A QEMU with a disk on a chain of three: qemu, disk, chain, machine (or else a storage daemon)."""
    class Vm:
        chain = Chain(folder)
    Vm.machine = place == "machine"
    Vm.qemu, name = start_qemu(place, machine if Vm.machine else storage_daemon, Vm.chain)
    Vm.disk = mount(Vm.qemu.socket).disk("vm", name)
    return Vm


def refused(disk, name, words=""):
    with pytest.raises(Refused) as caught:
        disk.ask(name, words + "\n")
    return caught.value.errno, caught.value.answer


def qemu_state(disk, *states):
    wait_for(lambda: disk.job.get("qemu-state") in states, 10, " or ".join(states))


def end_well(vm):
    """The disk takes a pull, and a guest would read the same as ever."""
    assert vm.qemu.monitor("query-jobs") == []
    vm.disk.pull()
    assert vm.disk.wait() == "completed"
    source = vm.disk.chain[0]
    vm.qemu.quit()
    assert images.same(source, vm.chain.expected)


# --- abort ---


@pytest.mark.quick
@every_kind
def test_abort_of_a_job_that_is_being_created(vm, kind):
    """QEMU comes to both commands one after the other: the job is cancelled before it did much, or at its end."""
    vm.qemu.freeze()
    start = Background(kind.start, vm.disk, vm.chain, "bandwidth=1M")
    wait_for(lambda: vm.disk.status == "running", why="the start to be on its way")
    abort = Background(vm.disk.write, "abort", "\n")
    assert stays(lambda: not abort.done, 0.1)
    vm.qemu.thaw()
    start.result()
    abort.result()
    assert vm.disk.status == "cancelled"
    assert vm.disk.chain == vm.chain.all
    end_well(vm)


@every_kind
def test_abort_of_a_paused_job(vm, kind):
    kind.start(vm.disk, vm.chain, "bandwidth=1M")
    vm.disk.write("pause", "1\n")
    qemu_state(vm.disk, "paused")
    vm.disk.write("abort", "\n")
    assert vm.disk.status == "cancelled"
    end_well(vm)


@every_ready_kind
def test_standby(vm, kind):
    """Ready, and paused by its user. QEMU would take `complete` there, and do nothing until it is resumed."""
    kind.start(vm.disk, vm.chain)
    wait_for(lambda: vm.disk.status == "ready", why="ready")
    for _ in range(2):
        vm.disk.write("pause", "1\n")
        assert vm.disk.status == "paused"
        qemu_state(vm.disk, "standby")
        for name in ("pivot", "finish"):
            number, answer = refused(vm.disk, name)
            assert number == errno.EAGAIN and "pause" in answer
        cur, end = vm.disk.progress
        assert cur < end
        vm.disk.write("pause", "0\n")
        assert vm.disk.status == "ready"
    assert len(vm.disk.events("job-ready")) == 1
    vm.disk.write("pause", "1\n")
    vm.disk.write("abort", "\n")
    assert vm.disk.status == "cancelled"
    assert vm.disk.chain == vm.chain.all
    end_well(vm)


@every_ready_kind
def test_abort_when_ready(vm, kind):
    kind.start(vm.disk, vm.chain)
    wait_for(lambda: vm.disk.status == "ready", why="ready")
    vm.disk.write("abort", "\n")
    assert vm.disk.status == vm.disk.job["result"] == "cancelled"
    assert vm.disk.chain == vm.chain.all
    end_well(vm)


@every_kind
def test_abort_of_a_pending_job(vm, kind):
    """It has done its work, and its owner has not finalized it."""
    if kind is PULL and not vm.machine:
        pytest.skip("a storage daemon with such a stream is not listed: docs/operations.md")
    start_foreign(vm.qemu, kind, vm.chain, auto_finalize=False)
    if kind.becomes_ready:
        vm.qemu.monitor.wait_event("BLOCK_JOB_READY")
        vm.qemu.monitor("job-complete", id="theirs")
    qemu_state(vm.disk, "pending")
    assert vm.disk.status == "running" and vm.disk.line("pause") == "0"
    cur, end = vm.disk.progress
    assert cur < end
    for name in ("pivot", "finish"):
        assert refused(vm.disk, name)[0] == errno.EAGAIN
    vm.disk.write("abort", "\n")
    assert vm.disk.status == "cancelled"
    assert vm.disk.chain == vm.chain.all
    end_well(vm)


def test_abort_of_a_waiting_job(vm, folder):
    """Two backups of a group that ends together: the quick one waits for the slow one, and ends with it when it is given up."""
    other = images.create(f"{folder}/other.qcow2")
    vm.qemu.monitor("blockdev-add", **json.loads(blockdev("other", other)))
    for name in ("one", "two"):
        vm.qemu.monitor("blockdev-add", **json.loads(blockdev(name, images.create(f"{folder}/{name}.qcow2"))))
    # An empty disk is backed up at once; the speed holds up the one that has data.
    vm.qemu.monitor("transaction", properties={"completion-mode": "grouped"}, actions=[
        {"type": "blockdev-backup", "data": {"device": "other", "job-id": "slow", "target": "one", "sync": "none"}},
        {"type": "blockdev-backup", "data": {"device": "disk0", "job-id": "quick", "target": "two", "sync": "top"}}])
    qemu_state(vm.disk, "waiting")
    assert vm.disk.job["type"] == "backup" and vm.disk.job["by"] == "foreign"
    assert vm.disk.status == "running"
    cur, end = vm.disk.progress
    assert cur < end
    vm.disk.write("abort", "\n")
    assert vm.disk.status == "cancelled"
    end_well(vm)


@every_kind
def test_abort_of_an_aborting_job(vm, kind):
    """A second and a third abort while the first is on its way: all are told of the one end."""
    kind.start(vm.disk, vm.chain, "bandwidth=1M")
    vm.qemu.freeze()
    calls = [Background(vm.disk.ask, "abort", "\n") for _ in range(3)]
    assert stays(lambda: not any(call.done for call in calls), 0.1)
    assert vm.disk.status == "aborting"
    for name in ("pivot", "finish"):
        assert refused(vm.disk, name)[0] == errno.EAGAIN
    vm.qemu.thaw()
    for call in calls:
        try:
            assert call.result().split()[0] == "cancelled"
        except Refused as late:  # the kernel lets writers of one file in one after the other
            assert late.errno == errno.ESRCH
    assert len(vm.disk.events("job-cancelled")) == 1
    assert refused(vm.disk, "abort")[0] == errno.ESRCH
    end_well(vm)


@every_kind
@pytest.mark.parametrize("word", ["completed", "cancelled"])
def test_a_concluded_job_that_its_owner_does_not_dismiss(vm, kind, word):
    """Its end is told all the same, whoever waits is let go, and it is left to its owner."""
    if kind is PULL and not vm.machine:
        pytest.skip("a storage daemon with such a stream is not listed: docs/operations.md")
    start_foreign(vm.qemu, kind, vm.chain, auto_dismiss=False, speed=1 << 20)
    wait_for(lambda: vm.disk.status in LIVE, why="the job to be seen")
    if word == "cancelled":
        with Took() as took:
            vm.disk.write("abort", "\n")
        assert took.seconds < 5
    else:
        vm.qemu.monitor("block-job-set-speed", device="theirs", speed=0)
        if kind.becomes_ready:
            vm.qemu.monitor.wait_event("BLOCK_JOB_READY")
            vm.qemu.monitor("job-complete", id="theirs")
    assert vm.disk.wait() == word
    assert vm.disk.status == word
    assert told_of_theirs(vm.disk) == [f"job-{word}"]
    assert vm.disk.chain == (kind.chain_after(vm.chain, vm.machine) if word == "completed" else vm.chain.all)
    if word == "completed":
        assert vm.disk.job["result"] == kind.result(vm.machine)
    for name in ("abort", "pivot", "finish", "pause", "speed"):
        assert refused(vm.disk, name, {"pause": "0", "speed": "1"}.get(name, ""))[0] == errno.ESRCH
    left, = vm.qemu.monitor("query-jobs")
    assert (left["id"], left["status"]) == ("theirs", "concluded")
    vm.qemu.monitor("job-dismiss", id="theirs")
    if vm.machine or kind is not ACTIVE_COMMIT or word == "cancelled":
        end_well(vm)
    assert told_of_theirs(vm.disk) == [f"job-{word}"]


def told_of_theirs(disk):
    return [event["event"] for event in disk.events() if event.get("job") == "theirs" and "result" in event]


# --- pivot and finish ---


@every_kind
def test_neither_pivot_nor_finish_before_ready(vm, kind):
    for name in ("pivot", "finish"):
        assert refused(vm.disk, name)[0] == errno.ESRCH
    kind.start(vm.disk, vm.chain, "bandwidth=1M")
    for paused in "01":
        vm.disk.write("pause", paused + "\n")
        for name in ("pivot", "finish"):
            number, answer = refused(vm.disk, name)
            assert number == errno.EAGAIN and "not ready" in answer
    job = vm.disk.job["id"]
    assert list(vm.qemu.monitor.jobs()) == [job]
    vm.disk.write("abort", "\n")
    assert vm.disk.status == "cancelled"
    end_well(vm)


@every_ready_kind
@pytest.mark.parametrize("words", [("pivot", "pivot"), ("finish", "finish"), ("finish", "pivot"), ("pivot", "finish"), ("pivot", "abort"), ("finish", "abort")],
                         ids=" then ".join)
def test_twice(machine, mount, folder, kind, words):
    """Both are written before QEMU has done the first: the job ends once, and what is told is what the graph says."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    disk = mount(qemu.socket).disk("vm", name)
    kind.start(disk, chain)
    wait_for(lambda: disk.status == "ready", why="ready")
    qemu.freeze()
    calls = []
    for word in words:
        calls.append(Background(disk.write, word, "\n"))
        assert stays(lambda: not calls[-1].done, 0.05)
    qemu.thaw()
    for call in calls:
        try:
            call.result()
        except OSError as error:
            assert error.errno in (errno.ESRCH, errno.EREMOTEIO), error
    final = disk.wait()
    assert final == "completed" or "abort" in words and final == "cancelled"
    assert len(disk.events(f"job-{final}")) == 1
    if final == "completed":
        pivoted = disk.chain == kind.chain_after(chain, True)
        assert pivoted or disk.chain == chain.all
        assert disk.job["result"] == ("pivoted" if pivoted else "kept")
        assert pivoted == ("pivot" in words) or len(set(words)) == 2
    else:
        assert disk.chain == chain.all
    for word in set(words):
        assert refused(disk, word)[0] == errno.ESRCH
    disk.pull()
    assert disk.wait() == "completed"
    source = disk.chain[0]
    qemu.quit()
    assert images.same(source, chain.expected)


# --- figures ---


@pytest.mark.quick
def test_a_commit_of_nothing(place, machine, storage_daemon, mount, folder, shelf):
    """It is ready at 0 of 0. That is shown as 1 of 1, and as 0 of 1 before; never as a whole that is none."""
    empty = images.create(f"{folder}/empty.qcow2", images.create(f"{folder}/base.qcow2"))
    if place == "machine":
        qemu = machine("vm", "-blockdev", blockdev("disk0", empty), "-device", "virtio-blk-pci,drive=disk0,id=disk0")
    else:
        qemu = storage_daemon("vm", blockdev("disk0", empty))
    disk = mount(qemu.socket).disk("vm", "disk0")
    seen = set()
    disk.write("commit", "\n")
    while ("ready", (1, 1), "ready") not in seen:
        seen.add((disk.status, disk.progress, disk.status))
    for before, figures, after in seen:
        assert figures in ((0, 1), (1, 1))
        assert figures == (0, 1) or after == "ready"
    job = disk.job
    assert (job["type"], job["state"], job["cur"], job["end"]) == ("active-commit", "ready", "1", "1")
    disk.write("pause", "1\n")
    assert disk.progress == (0, 1)
    disk.write("pause", "0\n")
    disk.write("finish", "\n")
    assert disk.wait() == "completed"
    assert disk.progress == (1, 1)
    # One that is given up has not got there.
    disk.write("commit", "\n")
    wait_for(lambda: disk.status == "ready", why="ready")
    disk.write("abort", "\n")
    assert disk.status == "cancelled" and disk.progress == (0, 1)


def test_the_end_grows_with_what_the_guest_writes(machine, mount, folder):
    """A mirror has more to do the more the guest writes. CUR = END only when ready, and END is told as it is."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    disk = mount(qemu.socket).disk("vm", name)

    def write(command):
        answer = qemu.monitor("human-monitor-command", command_line=f'qemu-io -d /machine/peripheral/vda/virtio-backend "{command}"')
        assert answer == "", answer

    disk.write("copy", f"dest={chain.dest} bandwidth=8M\n")
    samples = []
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        written = len(samples) % 20
        write(f"write -q -P {written + 1} {20 + written}M 1M")
        samples.append((disk.status, *disk.progress, disk.status))
        time.sleep(0.05)
    ends = [end for _, _, end, _ in samples]
    assert len(samples) > 20 and ends[-1] > ends[0] and ends == sorted(ends)
    assert all(0 <= cur < end for before, cur, end, after in samples if before == after == "running")
    disk.write("speed", "0\n")
    wait_for(lambda: disk.status == "ready", why="ready")
    before = disk.progress
    assert before[0] == before[1]
    write("write -q -P 99 50M 2M")
    wait_for(lambda: disk.progress[1] > before[1], why="END to grow")
    assert disk.status == "ready" and disk.progress[0] == disk.progress[1]
    disk.write("pivot", "\n")
    assert disk.wait() == "completed"
    qemu.quit()
    images.run(images.IO, "-f", "qcow2", "-c", "read -q -P 99 50M 2M", chain.dest)
    for written in range(20):
        images.run(images.IO, "-f", "qcow2", "-c", f"read -q -P {written + 1} {20 + written}M 1M", chain.dest)


# --- error storms ---


@pytest.mark.parametrize("kind", [COMMIT, COPY], ids=repr)
def test_a_storm_of_errors_is_a_few_counted_events(machine, mount, folder, kind):
    """With on-error=ignore QEMU tries again for ever, with an event each time."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain, mid=failing(chain.mid, "read_aio", errno.EIO, False))
    disk = mount(qemu.socket).disk("vm", name)
    kind.start(disk, chain, "on-error=ignore")
    time.sleep(2)
    events = disk.events("job-error")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert 1 <= len(events) <= 15
    assert sum(event["count"] for event in disk.events("job-error")) > 100
    assert {event["operation"] for event in events} == {"read"}
    assert disk.chain == chain.all
    qemu.kill()
    assert images.same(chain.top, chain.expected)
