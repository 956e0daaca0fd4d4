"""
Jobs that something else has started, over a monitor of its own: as a script does it, with QEMU's defaults, so that the job is gone the
moment it is over; and as libvirt does it, whose jobs stay until it dismisses them. They are shown, steered, and left to their owner.
"""

import errno
import json

import pytest

import images
from kinds import ACTIVE_COMMIT, COMMIT, COPY, FOUR, PULL, Chain, failing, start_foreign, start_qemu
from mount import LIVE, Background, Refused
from qemu import blockdev
from system import stays, wait_for

class Script:
    """Starts a job and does no more about it."""
    words = {}

    def __init__(self, qemu):
        self.qemu = qemu

    def ends(self):
        """The job has come to its end."""


class Libvirt(Script):
    """Keeps the job, looks how it has ended, and dismisses it."""
    words = {"auto_dismiss": False}

    def ends(self):
        self.qemu.monitor.wait_event("JOB_STATUS_CHANGE", id="theirs", status="concluded")
        job, = self.qemu.monitor("query-jobs")
        assert (job["id"], job["status"]) == ("theirs", "concluded"), "it was dismissed under its owner's feet"
        self.qemu.monitor("job-dismiss", id="theirs")


@pytest.fixture
def vm(place, owner, machine, storage_daemon, mount, folder):
    class Vm:
        chain = Chain(folder)

        @classmethod
        def begin(cls, kind, speed=1 << 20, **files):
            """Starts the job of somebody else, held up by its speed."""
            cls.machine = place == "machine"
            cls.qemu, name = start_qemu(place, machine if cls.machine else storage_daemon, cls.chain, **files)
            cls.disk = mount(cls.qemu.socket).disk("vm", name)
            cls.owner = owner(cls.qemu)
            start_foreign(cls.qemu, kind, cls.chain, speed=speed, **owner.words)
            wait_for(lambda: cls.disk.status in LIVE, why="the job to be seen")

        @classmethod
        def ends(cls, word):
            cls.owner.ends()
            assert cls.disk.wait() == word
            told = [event["event"] for event in cls.disk.events() if event.get("job") == "theirs" and "result" in event]
            assert told == [f"job-{word}"]
            assert cls.disk.job["by"] == "foreign"
            last = json.loads(cls.disk.read("history").splitlines()[-1])
            assert last["job"] == "theirs" and last["state"] == word
            assert cls.qemu.monitor("query-jobs") == []

        @classmethod
        def speed_up(cls):
            cls.qemu.monitor("block-job-set-speed", device="theirs", speed=0)

    return Vm


def refused(disk, name, words=""):
    with pytest.raises(Refused) as caught:
        disk.ask(name, words + "\n")
    return caught.value.errno, caught.value.answer


every_case = pytest.mark.parametrize("place, kind, owner", [
    pytest.param(place, kind, owner, id=f"{place}-{kind}-{owner.__name__}")
    for place in ("machine", "daemon") for kind in FOUR for owner in (Script, Libvirt)
    # A storage daemon with such a stream is not listed: docs/operations.md.
    if (place, kind, owner) != ("daemon", PULL, Libvirt)])
every_ready_case = pytest.mark.parametrize("place, kind, owner", [
    pytest.param(place, kind, owner, id=f"{place}-{kind}-{owner.__name__}")
    for place in ("machine", "daemon") for kind in (ACTIVE_COMMIT, COPY) for owner in (Script, Libvirt)])


@every_case
def test_shown_and_steered(vm, kind):
    vm.begin(kind)
    job = vm.disk.job
    # QEMU calls both commit; that it is active shows when it is ready.
    assert job["type"] == kind.name or (kind is ACTIVE_COMMIT and job["type"] == "commit")
    assert (job["id"], job["by"], job["state"]) == ("theirs", "foreign", "running")
    started, = vm.disk.events("job-started")
    assert started["job"] == "theirs" and started["by"] == "foreign"
    for words in ("pull", "commit", "copy"):
        text = f"dest={vm.chain.folder}/another.qcow2" if words == "copy" else ""
        number, answer = refused(vm.disk, words, text)
        assert number == errno.EBUSY and "theirs" in answer
    vm.disk.write("speed", "64K\n")
    assert vm.qemu.monitor.job()["speed"] == 64 << 10
    going = ["running", "ready"]  # a mirror that is resumed makes a step, however slow it is to be
    for value in "110010":
        vm.disk.write("pause", value + "\n")
        assert vm.qemu.monitor.job()["paused"] == (value == "1")
        assert vm.disk.status in {"0": going, "1": ["paused"]}[value]
    # Its owner steers it, too.
    vm.qemu.monitor("job-pause", id="theirs")
    wait_for(lambda: vm.disk.status == "paused", why="the owner's pause to be shown")
    vm.qemu.monitor("job-resume", id="theirs")
    wait_for(lambda: vm.disk.status in going, why="the owner's resume to be shown")
    waiter = Background(vm.disk.ask, "abort", "\n")
    vm.owner.ends()
    assert waiter.result().split()[0] == "cancelled"
    assert vm.disk.status == "cancelled" and vm.disk.chain == vm.chain.all


@every_case
def test_completed(vm, kind):
    vm.begin(kind)
    waiter = vm.disk.park()
    assert stays(lambda: not waiter.done, 0.05)
    vm.speed_up()
    if kind.becomes_ready:
        wait_for(lambda: vm.disk.status == "ready", why="ready")
        assert vm.disk.job["type"] == kind.name
        cur, end = vm.disk.progress
        assert cur == end > 0
        vm.qemu.monitor("job-complete", id="theirs")
    vm.ends("completed")
    assert waiter.result() == "completed"
    assert vm.disk.job["result"] == kind.result(vm.machine)
    assert vm.disk.chain == kind.chain_after(vm.chain, vm.machine)
    done, = vm.disk.events("job-completed")
    assert done["released"] == [path for path in vm.chain.all if path not in vm.disk.chain]
    vm.qemu.quit()
    kind.check_content(vm.chain, vm.machine)


@every_ready_case
def test_its_owner_keeps_the_old_image(vm, kind):
    """To QEMU this end is the same as a pivot: the graph tells them apart."""
    vm.begin(kind, speed=0)
    wait_for(lambda: vm.disk.status == "ready", why="ready")
    vm.qemu.monitor("block-job-cancel", device="theirs")
    vm.ends("completed")
    assert vm.disk.job["result"] == "kept"
    assert vm.disk.chain == vm.chain.all
    assert vm.disk.events("job-completed")[0]["released"] == []


@every_ready_case
@pytest.mark.parametrize("word", ["pivot", "finish"])
def test_ended_by_us(vm, kind, word):
    vm.begin(kind, speed=0)
    wait_for(lambda: vm.disk.status == "ready", why="ready")
    if word == "pivot" and not vm.machine:
        assert refused(vm.disk, "pivot")[0] == errno.EOPNOTSUPP
        word = "finish"
    vm.disk.write(word, "\n")
    vm.ends("completed")
    assert vm.disk.job["result"] == {"pivot": "pivoted", "finish": "kept"}[word]
    assert vm.disk.chain == (kind.chain_after(vm.chain, True) if word == "pivot" else vm.chain.all)


@every_case
def test_failed(vm, kind):
    vm.begin(kind, mid=failing(vm.chain.mid, "read_aio", errno.EIO, False, late=True))
    vm.speed_up()
    vm.ends("failed")
    assert "Input/output error" in vm.disk.job["error"]
    assert vm.disk.events("job-failed")[0]["error"] == vm.disk.job["error"]
    assert vm.disk.chain == vm.chain.all


@every_case
def test_cancelled_by_its_owner(vm, kind):
    vm.begin(kind)
    vm.qemu.monitor("job-cancel", id="theirs")
    vm.ends("cancelled")
    assert vm.disk.chain == vm.chain.all


@every_case
def test_lost(vm, kind):
    vm.begin(kind)
    vm.qemu.kill()
    assert vm.disk.wait() == "lost"
    assert images.same(vm.chain.top, vm.chain.expected)


def test_not_finalized_under_its_owners_feet(machine, mount, folder):
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    disk = mount(qemu.socket).disk("vm", name)
    start_foreign(qemu, PULL, chain, auto_finalize=False, auto_dismiss=False)
    wait_for(lambda: disk.job.get("qemu-state") == "pending", why="pending")
    assert stays(lambda: qemu.monitor("query-jobs")[0]["status"] == "pending" and disk.status == "running", 1.5)
    qemu.monitor("job-finalize", id="theirs")
    Libvirt(qemu).ends()
    assert disk.wait() == "completed"
    assert disk.chain == [chain.top]


def test_found_at_the_start(machine, mount, folder):
    """A mount that comes later finds the job, and its end."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    start_foreign(qemu, COMMIT, chain, speed=1 << 20)
    disk = mount(qemu.socket).disk("vm", name)
    assert disk.status == "running" and disk.job["by"] == "foreign"
    assert refused(disk, "pull")[0] == errno.EBUSY
    qemu.monitor("block-job-set-speed", device="theirs", speed=0)
    assert disk.wait() == "completed"
    assert disk.chain == [chain.top, chain.base]


def test_a_job_is_wanted_where_one_has_just_begun(machine, mount, folder):
    """Before the tree shows it: QEMU refuses, says why, and the tree shows it then."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    disk = mount(qemu.socket).disk("vm", name)
    for _ in range(10):
        start_foreign(qemu, COMMIT, chain, speed=1 << 20)
        number, answer = refused(disk, "pull")
        assert number == errno.EBUSY or number == errno.EREMOTEIO and "busy" in answer
        wait_for(lambda: disk.job.get("id") == "theirs" and disk.status == "running", why="the job to be seen")
        assert list(qemu.monitor.jobs()) == ["theirs"]
        disk.write("abort", "\n")
        assert disk.status == "cancelled"
    assert len(disk.events("job-started")) == len(disk.events("job-cancelled")) == 10


def test_one_has_begun_on_our_disk_below_the_active_image(machine, mount, folder):
    """libvirt has no such jobs, QEMU has: a stream into an image in the middle is a job of this disk, too."""
    chain = Chain(folder)
    qemu, name = start_qemu("machine", machine, chain)
    disk = mount(qemu.socket).disk("vm", name)
    qemu.monitor("block-stream", job_id="theirs", device="mid", speed=1 << 20)
    wait_for(lambda: disk.status == "running", why="the job to be seen")
    assert disk.job["type"] == "pull"
    assert refused(disk, "commit")[0] == errno.EBUSY
    qemu.monitor("block-job-set-speed", device="theirs", speed=0)
    assert disk.wait() == "completed"
    assert disk.chain == [chain.top, chain.mid]
    assert disk.events("job-completed")[0]["released"] == [chain.base]
    qemu.quit()
    assert images.same(chain.top, chain.expected)


@pytest.mark.parametrize("place", ["machine", "daemon"])
@pytest.mark.parametrize("word", ["completed", "cancelled", "failed"])
def test_a_backup(place, machine, storage_daemon, mount, folder, word):
    chain = Chain(folder)
    files = {"mid": failing(chain.mid, "read_aio", errno.EIO, False, late=True)} if word == "failed" else {}
    qemu, name = start_qemu(place, machine if place == "machine" else storage_daemon, chain, **files)
    disk = mount(qemu.socket).disk("vm", name)
    target = images.create(f"{folder}/backup.qcow2")
    qemu.monitor("blockdev-add", **json.loads(blockdev("target", target)))
    qemu.monitor("blockdev-backup", job_id="theirs", device="disk0", target="target", sync="full", speed=1 << 20)
    wait_for(lambda: disk.status == "running", why="the job to be seen")
    assert disk.job["type"] == "backup" and disk.job["by"] == "foreign"
    assert refused(disk, "pivot")[0] == errno.EAGAIN
    disk.write("pause", "1\n")
    assert disk.status == "paused"
    disk.write("pause", "0\n")
    if word == "cancelled":
        disk.write("abort", "\n")
    else:
        disk.write("speed", "0\n")
    assert disk.wait() == word
    assert disk.job["result"] == word and disk.chain == chain.all
    assert len(disk.events(f"job-{word}")) == 1
    if word == "completed":
        qemu.quit()
        assert images.same(target, chain.expected)


def test_a_job_of_unknown_type(peer, mount):
    """A kind that QEMU may have one day: shown as unknown, steered, its end told."""
    fake = peer()
    disk = mount(fake.socket).disk("fake", "vd0")
    fake.start_job("theirs", "frobnicate")
    wait_for(lambda: disk.status == "running", why="the job to be seen")
    assert disk.job["type"] == "unknown" and disk.job["by"] == "foreign"
    assert refused(disk, "pull")[0] == errno.EBUSY
    assert refused(disk, "pivot")[0] == errno.EAGAIN
    disk.write("speed", "4096\n")
    disk.write("pause", "1\n")
    disk.write("pause", "0\n")
    disk.write("abort", "\n")
    assert disk.status == "cancelled"
    assert disk.events("job-cancelled")[0]["type"] == "unknown"
