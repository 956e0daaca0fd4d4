"""`group`: several disks as one, with real machines and storage daemons."""

import errno
import signal

import pytest

import images
from mount import Background, Refused
from peer import NO_ANSWER, FakeDisk, PeerError
from qemu import blockdev
from system import wait_for


@pytest.fixture
def disks(folder):
    """Two disks with data and nothing below."""
    return [images.fill(images.create(f"{folder}/{name}.qcow2"), (0, 8)) for name in ("a", "b")]


def drive(path, name, number=0):
    return "-drive", f"file={path},if=none,id=d{number}", "-device", f"virtio-blk-pci,drive=d{number},id={name}"


@pytest.fixture
def pair(disks, machine, mount):
    """The domain of a machine with the disks vda and vdb."""
    qemu = machine("vm", *drive(disks[0], "vda", 0), *drive(disks[1], "vdb", 1))
    domain = mount(qemu.socket).domain("vm")
    domain.qemu = qemu
    return domain


def copy(domain, name, folder, words=""):
    dest = f"{folder}/{name}.copy"
    domain.disk(name).write("copy", f"dest={dest} {words}\n")
    return dest


def ready(disk):
    wait_for(lambda: disk.status == "ready", why="the job is ready")


def sleeps(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(") ")[2][0] == "S"


def refused(domain, text, number):
    with pytest.raises(Refused) as caught:
        domain.ask("group", text)
    assert caught.value.errno == number, caught.value.answer
    if number != errno.EHOSTDOWN:  # then `error` soon tells why the link is down
        assert caught.value.error == caught.value.answer
    return caught.value.answer


@pytest.mark.quick
def test_pivot(pair, folder):
    copies = [copy(pair, name, folder) for name in ("vda", "vdb")]
    answer = pair.ask("group", "vda vdb: pivot\n")
    jobs = [pair.disk(name).job for name in ("vda", "vdb")]
    assert answer == "".join(f"{name} pivoted {job['id']}\n" for name, job in zip(("vda", "vdb"), jobs))
    assert [job["result"] for job in jobs] == ["pivoted"] * 2
    assert [pair.disk(name).chain for name in ("vda", "vdb")] == [[path] for path in copies]
    assert len(pair.events("job-completed")) == 2
    assert pair.read("error") == ""


def test_finish(pair, disks, folder):
    for name in ("vda", "vdb"):
        copy(pair, name, folder)
    answer = pair.ask("group", "vda vdb: finish\n")
    assert [line.split()[:2] for line in answer.splitlines()] == [["vda", "kept"], ["vdb", "kept"]]
    assert [pair.disk(name).chain for name in ("vda", "vdb")] == [[path] for path in disks]


def test_finish_on_a_storage_daemon(disks, storage_daemon, mount, folder):
    qemu = storage_daemon("vm", blockdev("vda", disks[0]), blockdev("vdb", disks[1]))
    domain = mount(qemu.socket).domain("vm")
    for name in ("vda", "vdb"):
        copy(domain, name, folder)
    assert "finish" in refused(domain, "vda vdb: pivot\n", errno.EOPNOTSUPP)
    domain.ask("group", "vda vdb: finish\n")
    assert [domain.disk(name).job["result"] for name in ("vda", "vdb")] == ["kept", "kept"]


@pytest.mark.quick
def test_it_waits_for_the_last(pair, folder):
    copy(pair, "vda", folder)
    copy(pair, "vdb", folder, "bandwidth=1")
    ready(pair.disk("vda"))
    group = Background(pair.ask, "group", "vda vdb: pivot\n")
    # Whoever reads is not held up, and nothing is done to the one that is ready.
    for _ in range(5):
        assert pair.disk("vda").progress and pair.disk("vda").status == "ready"
    assert not group.done
    pair.disk("vdb").write("speed", "max\n")
    assert group.result().count("pivoted") == 2


def test_one_that_is_paused_is_waited_for(pair, folder):
    for name in ("vda", "vdb"):
        copy(pair, name, folder)
        ready(pair.disk(name))
    pair.disk("vdb").write("pause", "1\n")
    group = Background(pair.ask, "group", "vda vdb: pivot\n")
    assert pair.disk("vda").progress and not group.done
    pair.disk("vdb").write("pause", "0\n")
    assert group.result().count("pivoted") == 2


@pytest.mark.quick
def test_one_ends_first(pair, folder, disks):
    copy(pair, "vda", folder)
    copy(pair, "vdb", folder, "bandwidth=1")
    ready(pair.disk("vda"))
    group = Background(refused, pair, "vda vdb: pivot\n", errno.ESRCH)
    wait_for(lambda: group.done or pair.disk("vda").progress, why="it is parked")
    pair.disk("vdb").write("abort", "\n")
    answer = group.result()
    assert "vdb" in answer and "cancelled" in answer and "nothing was done" in answer
    assert pair.disk("vda").status == "ready"
    assert pair.disk("vda").chain == [disks[0]]
    pair.disk("vda").write("finish", "\n")


def test_one_fails_first(disks, machine, mount, folder):
    """A part of the disk cannot be read: its copy fails on the way, the other one stays ready."""
    broken = {"driver": "blkdebug", "image": {"driver": "file", "filename": disks[1]},
              "inject-error": [{"event": "read_aio", "errno": errno.EIO, "sector": (6 << 20) // 512, "once": False}]}
    qemu = machine("vm", *drive(disks[0], "vda"), "-blockdev", blockdev("fmt", disks[1], file=broken),
                   "-device", "virtio-blk-pci,drive=fmt,id=vdb")
    domain = mount(qemu.socket).domain("vm")
    copy(domain, "vda", folder)
    ready(domain.disk("vda"))
    copy(domain, "vdb", folder, "bandwidth=1")
    group = Background(refused, domain, "vda vdb: pivot\n", errno.ESRCH)
    assert domain.disk("vdb").progress and not group.done
    domain.disk("vdb").write("speed", "max\n")
    answer = group.result()
    assert "vdb" in answer and "failed" in answer and "nothing was done" in answer
    assert domain.disk("vda").status == "ready"
    assert domain.events("job-failed")[0]["disk"] == "vdb"


def test_abort(pair, folder):
    copy(pair, "vda", folder)
    copy(pair, "vdb", folder, "bandwidth=1")
    ready(pair.disk("vda"))
    answer = pair.ask("group", "vda vdb: abort\n")
    assert [line.split()[:2] for line in answer.splitlines()] == [["vda", "cancelled"], ["vdb", "cancelled"]]
    assert [pair.disk(name).status for name in ("vda", "vdb")] == ["cancelled"] * 2


def test_one_disk_and_json(pair, folder):
    copy(pair, "vda", folder)
    assert pair.ask("group", "vda: finish\n").startswith("vda kept ")
    copy(pair, "vdb", folder)
    assert pair.ask("group", '{"disks": ["vdb"], "do": "finish"}\n').startswith("vdb kept ")


@pytest.mark.quick
@pytest.mark.parametrize("text, number, caret, reason", [
    ("\n", errno.EINVAL, None, "colon"),
    ("vda vdb\n", errno.EINVAL, None, "colon"),
    (": pivot\n", errno.EINVAL, None, "empty"),
    ("vda:\n", errno.EINVAL, None, "missing"),
    ("vda: fly\n", errno.EINVAL, (5, 3), "one of"),
    ("vda: pivot finish\n", errno.EINVAL, (11, 6), "twice"),
    ("vda vdb vda: pivot\n", errno.EINVAL, (8, 3), "twice"),
    ("vda vdz: pivot\n", errno.ENOENT, (4, 3), "no disk"),
    ('"vda" "x y": pivot\n', errno.ENOENT, (6, 5), "no disk"),
    ("vda vdb: pivot\n", errno.ESRCH, (0, 3), "no live job"),
    ("vda vdb: pivot async\n", errno.EINVAL, (15, 5), ""),
    ('{"disks": [], "do": "pivot"}\n', errno.EINVAL, None, "missing"),
    ('{"disks": [3], "do": "pivot"}\n', errno.EINVAL, None, "type"),
])
def test_bad_words(pair, text, number, caret, reason):
    answer = refused(pair, text, number)
    assert reason in answer
    if caret:
        assert answer.splitlines()[1] == " " * caret[0] + "^" * caret[1]
    assert pair.disk("vda").status == pair.disk("vdb").status == "idle"


def test_jobs_that_cannot_come_along(pair, folder):
    copy(pair, "vda", folder, "bandwidth=1")
    assert "vdb" in refused(pair, "vda vdb: pivot\n", errno.ESRCH)
    copy(pair, "vdb", folder, "bandwidth=1 pivot")
    assert "waits for nobody" in refused(pair, "vda vdb: pivot\n", errno.EINVAL)
    pair.ask("group", "vda vdb: abort\n")


def test_interrupted(pair, folder, run_in_background):
    """Nothing is done when the writer is gone before all were ready."""
    copy(pair, "vda", folder)
    copy(pair, "vdb", folder, "bandwidth=1")
    ready(pair.disk("vda"))
    writer = run_in_background("sh", "-c", f"exec echo vda vdb: pivot > '{pair / 'group'}'")
    wait_for(lambda: sleeps(writer.pid), why="it waits")
    writer.send_signal(signal.SIGINT)
    writer.wait(5)
    pair.disk("vdb").write("speed", "max\n")
    ready(pair.disk("vdb"))
    pair.disk("vdb").write("pause", "1\n")
    pair.disk("vdb").write("pause", "0\n")
    assert [pair.disk(name).status for name in ("vda", "vdb")] == ["ready"] * 2
    pair.ask("group", "vda vdb: finish\n")


@pytest.mark.quick
def test_qemu_dies(pair, folder):
    copy(pair, "vda", folder, "bandwidth=1")
    copy(pair, "vdb", folder, "bandwidth=1")
    group = Background(refused, pair, "vda vdb: pivot\n", errno.EHOSTDOWN)
    wait_for(lambda: not group.done and pair.disk("vda").progress[0] >= 0, why="it waits")
    pair.qemu.kill()
    assert "nothing was done" in group.result()


def test_qemu_hangs(disks, machine, mount, folder):
    qemu = machine("vm", *drive(disks[0], "vda", 0), *drive(disks[1], "vdb", 1))
    domain = mount(qemu.socket, options="timeout=1").domain("vm")
    copy(domain, "vda", folder, "bandwidth=1")
    copy(domain, "vdb", folder, "bandwidth=1")
    group = Background(refused, domain, "vda vdb: pivot\n", errno.ETIMEDOUT)
    qemu.freeze()
    try:
        assert "nothing was done" in group.result(20)
    finally:
        qemu.thaw()


def test_a_disk_is_unplugged(pair, folder):
    copy(pair, "vda", folder)
    ready(pair.disk("vda"))
    copy(pair, "vdb", folder)
    ready(pair.disk("vdb"))
    pair.disk("vdb").write("pause", "1\n")
    group = Background(pair.ask, "group", "vda vdb: pivot\n")
    pair.disk("vda").write("finish", "\n")
    with pytest.raises(Refused):
        group.result()
    assert pair.disk("vda").job["result"] == "kept"
    pair.disk("vdb").write("pause", "0\n")
    pair.disk("vdb").write("abort", "\n")


def test_two_groups_and_a_single_command(pair, folder):
    """Of two that wait for the same jobs the first pivots; nobody hangs, nobody is told a wrong end."""
    copy(pair, "vda", folder)
    copy(pair, "vdb", folder, "bandwidth=1")
    ready(pair.disk("vda"))

    def ask(text):
        try:
            return pair.ask("group", text)
        except Refused as refusal:
            return refusal.errno
    groups = [Background(ask, "vda vdb: pivot\n") for _ in range(3)]
    pair.disk("vdb").write("speed", "max\n")
    answers = [group.result() for group in groups]
    assert any(isinstance(answer, str) for answer in answers)
    assert all(isinstance(answer, str) or answer in (errno.EREMOTEIO, errno.ESRCH) for answer in answers)
    assert [pair.disk(name).job["result"] for name in ("vda", "vdb")] == ["pivoted"] * 2


@pytest.fixture
def two(peer, mount):
    """A scripted machine with two mirrors of somebody else's that are ready, and its domain."""
    fakes = [FakeDisk(name, [(f"{name}-node", f"/images/{name}.qcow2")], node=f"{name}-node") for name in ("vda", "vdb")]
    qemu = peer("vm", disks=fakes)
    domain = mount(qemu.socket, options="timeout=1").domain("vm")
    for fake in fakes:
        qemu.start_job(f"job-{fake.qdev}", "mirror", fake)
        qemu.jobs[f"job-{fake.qdev}"]["offset"] = qemu.jobs[f"job-{fake.qdev}"]["len"]
        qemu.ready(f"job-{fake.qdev}")
        ready(domain.disk(fake.qdev))
    return qemu, domain


def softly(qemu, second):
    """The first mirror is ended as is asked for; with the other one @second happens."""
    def cancel(connection, arguments):
        if arguments["device"] == "job-vdb":
            return second(connection)
        qemu.become("job-vda", "waiting")
        qemu.become("job-vda", "pending")
        qemu.conclude("job-vda")
        return None
    return {"block-job-cancel": cancel}


def test_one_is_refused_after_the_other_was_ended(two):
    qemu, domain = two

    def refuse(connection):
        raise PeerError("no, thank you")
    qemu.answers.update(softly(qemu, refuse))
    answer = refused(domain, "vda vdb: finish\n", errno.EREMOTEIO)
    assert "vda: kept job-vda; vdb: EREMOTEIO: no, thank you" in answer
    assert domain.disk("vdb").status == "ready"


def test_one_is_not_answered(two):
    qemu, domain = two
    qemu.answers.update(softly(qemu, lambda connection: NO_ANSWER))
    answer = refused(domain, "vda vdb: finish\n", errno.ETIMEDOUT)
    assert "vda: kept job-vda; vdb: " in answer


def test_the_link_is_lost_in_between(two):
    qemu, domain = two
    qemu.answers.update(softly(qemu, lambda connection: connection.hang_up() or NO_ANSWER))
    answer = refused(domain, "vda vdb: finish\n", errno.EHOSTDOWN)
    assert "vdb: " in answer and "nothing was done" not in answer


def test_accepted_and_then_silence(two):
    """QEMU takes both commands and says no more: whoever has written is not kept for ever."""
    qemu, domain = two

    def cancel(connection, arguments):
        qemu.answers["query-block-jobs"] = lambda *_: NO_ANSWER
    qemu.answers["block-job-cancel"] = cancel
    assert "does not answer" in refused(domain, "vda vdb: finish\n", errno.ETIMEDOUT)
