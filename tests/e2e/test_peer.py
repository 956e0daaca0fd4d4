"""Orders of events and kinds of nonsense that no real QEMU shows on demand, from a scripted peer."""

import contextlib
import errno
import json
import os
import random
import socket
import subprocess
import threading
import time

import pytest

from mount import LIVE, Background
from peer import GREETING, NO_ANSWER, FakeDisk, PeerError, without
from qemu import blockdev
from system import SLOW, Took, memory_kib, stays, wait_for


@pytest.fixture
def fake(peer, mount):
    """A scripted machine with one disk, mounted."""
    class Fake:
        qemu = peer("fake")
        mount = None

    Fake.mount = mount(Fake.qemu.socket, options="timeout=2")
    Fake.disk = Fake.mount.disk("fake", "vd0")
    return Fake


def start(fake):
    """A pull that lives until the test says otherwise; its id."""
    fake.disk.pull()
    assert fake.disk.status == "running"
    return fake.qemu.job()[0]


@pytest.mark.quick
def test_the_peer_itself_is_a_good_enough_machine(fake):
    job = start(fake)
    fake.qemu.jobs[job]["offset"] = 1000
    assert fake.disk.progress == (1000, 64 << 20)
    fake.disk.write("speed", "1M")
    assert fake.disk.line("speed") == str(1 << 20)
    fake.disk.write("pause", "1")
    assert fake.disk.status == "paused"
    fake.disk.write("pause", "0")
    fake.qemu.succeed(job)
    assert fake.disk.wait() == "completed"
    assert fake.disk.chain == ["/images/disk.qcow2"]
    assert fake.disk.events("job-completed")[0]["released"] == ["/images/template.qcow2"]
    assert not fake.qemu.jobs
    assert len(fake.qemu.asked("job-finalize")) == len(fake.qemu.asked("job-dismiss")) == 1
    # The nodes of a machine are never listed: that can kill it.
    assert not fake.qemu.asked("query-named-block-nodes")


# --- the order of things ---


@pytest.mark.quick
@pytest.mark.parametrize("end", ["success", "failure", "cancel"])
def test_the_whole_life_of_a_job_before_the_reply_to_its_start(fake, end):
    def stream(connection, arguments):
        fake.qemu.do_block_stream(connection, arguments)
        job = arguments["job-id"]
        if end == "success":
            fake.qemu.succeed(job)
        elif end == "failure":
            fake.qemu.fail(job, "No space left on device")
        else:
            fake.qemu.cancel(job)

    fake.qemu.answers["block-stream"] = stream
    fake.disk.pull()
    assert fake.disk.wait() == {"success": "completed", "failure": "failed", "cancel": "cancelled"}[end]
    if end == "failure":
        assert "No space left on device" in fake.disk.job["error"]
    assert [event["event"] for event in fake.disk.events() if event["event"].startswith("job-")] == \
        ["job-started", {"success": "job-completed", "failure": "job-failed", "cancel": "job-cancelled"}[end]]
    wait_for(lambda: not fake.qemu.jobs, why="the job to be dismissed")
    fake.qemu.answers.clear()
    job = start(fake)
    fake.qemu.succeed(job)
    assert fake.disk.wait() == "completed"


def test_a_job_that_somebody_else_finalized_and_dismissed(fake):
    """Its last traces are two events; the final word must come from them."""
    job = start(fake)
    fake.qemu.succeed(job)
    with contextlib.suppress(KeyError):
        fake.qemu.become(job, "null")
    assert fake.disk.wait() in ("completed", "lost")
    job = start(fake)
    fake.qemu.jobs[job]["auto-dismiss"] = True
    fake.qemu.fail(job, "Input/output error")
    assert fake.disk.wait() == "failed"
    assert "Input/output error" in fake.disk.job["error"]


@pytest.mark.quick
def test_a_start_that_is_refused_after_its_events(fake):
    """QEMU made the job, took it back, and says no: nothing of it may remain."""
    def stream(connection, arguments):
        fake.qemu.event("JOB_STATUS_CHANGE", id=arguments["job-id"], status="created")
        fake.qemu.event("JOB_STATUS_CHANGE", id=arguments["job-id"], status="null")
        raise PeerError("Block node is read-only")

    fake.qemu.answers["block-stream"] = stream
    with pytest.raises(OSError) as refusal:
        fake.disk.pull()
    assert refusal.value.errno == errno.EREMOTEIO
    assert "Block node is read-only" in fake.disk.read("error")
    assert fake.disk.status == "idle"
    assert fake.disk.events("job-started") == []
    assert len(fake.disk.events("command-refused")) == 1


@pytest.mark.quick
def test_ready_twice(fake):
    """READY may be repeated under load: told once."""
    fake.qemu.start_job("theirs", "mirror")
    wait_for(lambda: fake.disk.status == "running")
    for _ in range(3):
        fake.qemu.ready("theirs")
    wait_for(lambda: fake.disk.status == "ready")
    assert fake.disk.job["type"] == "copy"
    assert stays(lambda: len(fake.disk.events("job-ready")) == 1)
    fake.qemu.conclude("theirs")
    assert fake.disk.wait() == "completed"
    assert len(fake.disk.events("job-ready")) == len(fake.disk.events("job-completed")) == 1


@pytest.mark.quick
def test_a_storm_of_errors_is_one_counted_event(fake):
    """20,000 BLOCK_JOB_ERROR: neither 20,000 lines nor a daemon that has no time for others."""
    job = start(fake)
    before = memory_kib(fake.mount.pid)
    for _ in range(20000):
        fake.qemu.event("BLOCK_JOB_ERROR", device=job, operation="write", action="report")
    with Took() as took:
        assert fake.disk.progress
        assert fake.mount.read("README")
    assert took.seconds < 2
    wait_for(lambda: sum(event.get("count", 1) for event in fake.disk.events("job-error")) == 20000, 10, "every error to be counted")
    assert len(fake.disk.events("job-error")) < 20
    assert memory_kib(fake.mount.pid) - before < 20000
    fake.qemu.fail(job, "Input/output error")
    assert fake.disk.wait() == "failed"


def test_states_that_flap(fake):
    """QEMU's own drains pause and resume a job that nobody paused: no event is told of a state that was over when asked."""
    job = start(fake)
    for _ in range(200):
        fake.qemu.event("JOB_STATUS_CHANGE", id=job, status="paused")
        fake.qemu.event("JOB_STATUS_CHANGE", id=job, status="running")
    assert fake.disk.progress
    assert fake.disk.status == "running"
    assert fake.disk.line("pause") == "0"
    assert len(fake.disk.events("job-paused")) <= 2
    fake.qemu.succeed(job)
    assert fake.disk.wait() == "completed"


@pytest.mark.quick
def test_a_late_reply_is_not_the_next_ones(fake):
    """The answer to a command that timed out comes at last, and is dropped; the next command gets its own."""
    start(fake)
    late = []
    answer = fake.qemu.answer

    def spy(connection, message):
        if message.get("execute") == "block-job-set-speed" and not late:
            late.append((connection, {"error": {"class": "GenericError", "desc": "too late"}, "id": message["id"]}))
            return
        answer(connection, message)

    fake.qemu.answer = spy
    with Took() as took, pytest.raises(OSError) as refusal:
        fake.disk.write("speed", "1000")
    assert refusal.value.errno == errno.ETIMEDOUT
    assert 1.5 < took.seconds < 4
    writer = Background(fake.disk.write, "speed", "2000")
    connection, message = late[0]
    connection.send(message)
    writer.result()
    assert fake.qemu.job()[1]["speed"] == 2000
    assert fake.disk.line("speed") == "2000"
    assert fake.disk.read("error") == ""


def test_replies_in_another_order(fake):
    """Replies are matched by id alone."""
    start(fake)
    answer, held, lock = fake.qemu.answer, [], threading.Lock()

    def shuffle(connection, message):
        with lock:
            held.append((connection, message))

    def release():
        while not stop.wait(0.05):
            with lock:
                batch, held[:] = list(held), []
            random.shuffle(batch)
            for connection, message in batch:
                connection.event("STOP")
                answer(connection, message)

    stop = threading.Event()
    fake.qemu.answer = shuffle
    threading.Thread(target=release, daemon=True).start()
    calls = [Background(fake.disk.read, name) for name in ("progress", "job", "speed") * 5]
    calls += [Background(fake.disk.write, "speed", str(number)) for number in (5, 6, 7)]
    for call in calls:
        call.result()
    stop.set()
    fake.qemu.answer = answer
    for connection, message in held:
        answer(connection, message)
    assert fake.disk.line("speed") == str(fake.qemu.job()[1]["speed"])


@pytest.mark.quick
@pytest.mark.parametrize("end", ["success", "failure", "cancel"])
def test_a_hang_up_with_data_pending(fake, end):
    """What was sent before the end of the connection is read before the end is believed."""
    job = start(fake)
    wait = fake.disk.park()
    assert stays(lambda: not wait.done, 0.1)
    # Everything at once, and gone, without waiting for anybody.
    fake.qemu.answers = dict.fromkeys(("job-finalize", "job-dismiss", "query-block-jobs", "query-jobs", "query-block",
                                       "x-debug-query-block-graph"), lambda *_: NO_ANSWER)
    if end == "success":
        fake.qemu.become(job, "waiting")
        fake.qemu.become(job, "pending")
        fake.qemu.conclude(job)
    elif end == "failure":
        fake.qemu.fail(job, "No space left on device")
    else:
        fake.qemu.event("SHUTDOWN", guest=False, reason="host-signal")
        fake.qemu.cancel(job)
    fake.qemu.hang_up()
    assert wait.result() == {"success": "completed", "failure": "failed", "cancel": "cancelled"}[end]
    if end == "failure":
        assert "No space left on device" in fake.disk.job["error"]


@pytest.mark.quick
def test_one_read_shares_the_question_with_all_others(fake):
    """A thousand readers that come together are one query, not a thousand."""
    start(fake)
    gate = threading.Event()
    fake.qemu.answers["query-block-jobs"] = lambda *arguments: (gate.wait(1), fake.qemu.do_query_block_jobs(*arguments))[1]
    before = len(fake.qemu.asked("query-block-jobs"))
    readers = [Background(fake.disk.read, "progress") for _ in range(200)]
    assert stays(lambda: not any(reader.done for reader in readers))
    gate.set()
    assert {reader.result() for reader in readers} == {f"0 {64 << 20}\n"}
    assert len(fake.qemu.asked("query-block-jobs")) - before <= 5


# --- figures ---


@pytest.mark.quick
@pytest.mark.parametrize("offset,length", [(0, 0), (5, 5), (7, 5), (-1, -1), (-5, 3), (3, -5), (0, 1), (1, 1), ((1 << 63) - 1, (1 << 63) - 1),
                                           (1 << 62, 1), (64 << 20, 64 << 20)])
def test_whatever_qemus_figures_are(fake, offset, length):
    """0 <= CUR < END while live, whatever QEMU says; and CUR = END at the end."""
    job = start(fake)
    fake.qemu.jobs[job].update(offset=offset, len=length)
    cur, end = fake.disk.progress
    assert 0 <= cur < end
    assert int(fake.disk.job["cur"]) < int(fake.disk.job["end"])
    fake.qemu.jobs[job].update(len=max(length, 0))
    fake.qemu.succeed(job)
    assert fake.disk.wait() == "completed"
    cur, end = fake.disk.progress
    assert cur == end


@pytest.mark.quick
def test_what_a_qemu_cannot_do(peer, mount):
    """Asked from its schema: EOPNOTSUPP, and the reason names what is missing. Nothing is sent that it does not know."""
    qemu = peer("old", schema=without("block-stream"))
    older = peer("older", schema=without("block-stream base-node", "block-stream auto-finalize", "block-stream auto-dismiss"))
    tree = mount(qemu.socket, older.socket, options="timeout=2")
    disk = tree.disk("old")
    with pytest.raises(OSError) as refusal:
        disk.pull()
    assert refusal.value.errno == errno.EOPNOTSUPP
    assert "block-stream" in disk.read("error")
    assert not qemu.asked("block-stream")
    disk = tree.disk("older")
    with pytest.raises(OSError) as refusal:
        disk.pull("base=[1]")
    assert refusal.value.errno == errno.EOPNOTSUPP
    for arguments in older.asked("block-stream"):
        assert not {"base-node", "auto-finalize", "auto-dismiss"} & set(arguments)


# --- the wire ---


@pytest.mark.quick
@pytest.mark.parametrize("options", [{"chunk": 1}, {"chunk": 7, "newline": b"\n"}, {"newline": b""}, {"newline": b" \r\n\t\n "}],
                         ids=["one byte at a time", "seven, and LF", "nothing between messages", "blank lines"])
def test_any_split_of_bytes(peer, mount, options):
    qemu = peer("fake", **options)
    disk = mount(qemu.socket).disk("fake")
    disk.pull()
    qemu.succeed(qemu.job()[0])
    assert disk.wait() == "completed"
    assert disk.chain == ["/images/disk.qcow2"]


def test_events_before_between_and_inside_everything(peer, mount):
    """From the first byte after the greeting on, and for jobs and disks that nobody knows."""
    def noise(connection):
        connection.event("JOB_STATUS_CHANGE", id="nobody", status="running")
        connection.event("BLOCK_JOB_COMPLETED", device="nobody", type="stream", len=1, offset=1, speed=0)
        connection.event("SOMETHING_NEW", what=[{"deep": None}])
        connection.send({"event": "NO_DATA", "timestamp": {"seconds": 0, "microseconds": 0}})

    def connected(connection):
        connection.send(GREETING)
        noise(connection)

    qemu = peer("fake", connected=connected)
    answer = qemu.answer

    def noisy(connection, message):
        noise(connection)
        answer(connection, message)
        noise(connection)

    qemu.answer = noisy
    disk = mount(qemu.socket).disk("fake")
    disk.pull()
    qemu.succeed(qemu.job()[0])
    assert disk.wait() == "completed"
    assert {event["job"] for event in disk.events() if event["event"].startswith("job-")} == {disk.job["id"]}


DEEP = "[" * 65 + "]" * 65
NONSENSE = {
    "words": b"hello there\r\n", "http": b"HTTP/1.1 200 OK\r\n\r\n", "zeros": b"\0" * 100, "half a message, then other things": b'{"QMP": {]',
    "11 MiB": b'{"QMP": "' + b"x" * (11 << 20) + b'"}\r\n', "11 MiB of a number": b"[" + b"1" * (11 << 20), "65 levels": DEEP.encode() + b"\r\n",
    "a million brackets": b"[" * 1000000, "not utf-8": b'{"QMP": "\xff\xfe"}\r\n', "an array": b"[1, 2]\r\n", "a number": b"17\r\n",
    "no greeting": b'{"return": {}}\r\n', "a bare string": b'"QMP"\r\n', "an unfinished string": b'{"QMP": "' + b"y" * 100 + b"\r\n",
    "a lot of small values": b"[" + b"[]," * 3000000,
}


@pytest.mark.quick
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_peer_that_does_not_speak_qmp(peer, mount, nonsense):
    """The link ends with a reason, or waits for a greeting; the tree is there, the memory is not."""
    qemu = peer("fake", connected=lambda connection: connection.raw(NONSENSE[nonsense]))
    tree = mount(qemu.socket, options="timeout=2")
    domain = tree.domain("fake")
    assert not domain.connected
    assert domain.disks() == []
    wait_for(lambda: domain.read("error"), 5, "a reason")
    assert all(character.isprintable() or character == "\n" for character in domain.read("error"))
    with Took() as took:
        assert stays(lambda: not domain.connected)
    assert took.seconds < 2 * SLOW, "busy with nonsense"
    assert memory_kib(tree.pid) < 300000
    # And when it comes to its senses, all is well.
    qemu.connected = lambda connection: connection.send(GREETING)
    for connection in list(qemu.connections):
        connection.hang_up()
    wait_for(lambda: domain.connected, 20, "the link")


@pytest.mark.quick
@pytest.mark.parametrize("nonsense", ["words", "11 MiB", "65 levels", "half a message, then other things"])
def test_nonsense_in_the_middle_of_a_job(fake, nonsense):
    job = start(fake)
    wait = fake.disk.park()
    reader = None
    for connection in list(fake.qemu.connections):
        connection.raw(NONSENSE[nonsense])
    domain = fake.mount.domain("fake")
    wait_for(lambda: domain.events("domain-disconnected"), 5, "the link to be given up")
    # The machine is still there, and so is its job: the next link finds it.
    wait_for(lambda: domain.connected, 15, "the link to come back")
    wait_for(lambda: fake.disk.status == "running", why="the job to be found")
    assert fake.disk.job["id"] == job
    fake.qemu.succeed(job)
    assert fake.disk.wait() == "completed"
    assert wait.result() in ("lost", "completed")
    assert reader is None


@pytest.mark.quick
def test_a_peer_that_never_greets_is_busy(peer, mount):
    qemu = peer("fake", connected=lambda connection: None)
    with Took() as took:
        tree = mount(qemu.socket)
    assert took.seconds < 5
    assert tree.domain("fake").state == "busy"
    with Took() as took:
        for path in tree.readable():
            with open(path) as file:
                file.read()
    assert took.seconds < 1
    for connection in list(qemu.connections):
        connection.send(GREETING)
    wait_for(lambda: tree.domain("fake").connected, 5)
    assert tree.disk("fake").status == "idle"


def test_a_peer_that_falls_silent_at_every_step(peer, mount):
    """Whichever command gets no answer: the command line returns, and the tree can be read."""
    steps = ["qmp_capabilities", "query-qmp-schema", "query-block", "query-block-jobs", "x-debug-query-block-graph", "query-status"]
    peers = [peer(f"silent{number}", answers={step: lambda *_: NO_ANSWER}) for number, step in enumerate(steps)]
    with Took() as took:
        tree = mount(*[qemu.socket for qemu in peers], options="timeout=1")
    assert took.seconds < 8
    with Took() as took:
        for path in tree.readable():
            with open(path) as file:
                file.read()
    assert took.seconds < 2
    # They find their tongue.
    for qemu in peers:
        qemu.answers.clear()
    for domain in tree.domains():
        wait_for(lambda: tree.domain(domain).connected and tree.domain(domain).disks() == ["vd0"], 20, f"{domain} to be there")


@pytest.mark.quick
def test_a_peer_that_does_not_read(fake):
    """Our bytes pile up in its socket: writers end in ETIMEDOUT, nobody else is held up, memory stays."""
    start(fake)
    gate = threading.Event()
    answer = fake.qemu.answer

    def stuck(connection, message):
        gate.wait(30)
        answer(connection, message)

    fake.qemu.answer = stuck
    try:
        # One writer a file: the kernel lets the writers of one file through one after the other.
        calls = [Background(fake.disk.write, name, text) for name, text in (("speed", "1"), ("pause", "1"), ("abort", "\n"))]
        calls += [Background(fake.disk.read, name) for name in ("progress", "job", "speed") * 50]
        for call in calls:
            with pytest.raises(OSError) as refusal:
                call.result()
            assert refusal.value.errno in (errno.ETIMEDOUT, errno.EHOSTDOWN)
        with Took() as took:
            fake.mount.read("README")
            fake.disk.line("size")
        assert took.seconds < 1
    finally:
        gate.set()
        fake.qemu.answer = answer


WRONG = [None, True, 17, -1, 1e300, "text", [], {}, [None], [[]], [{}], [17], [{"device": 1}], [{"id": None}], {"return": {}}, {"nodes": 1},
         {"nodes": [1], "edges": [{}]}, {"nodes": [{"id": 1}, {"id": 1}], "edges": [{"parent": 1, "child": 1}]}, {"status": []},
         [{"inserted": []}], [{"inserted": {"image": 1, "node-name": {}}}], [{"device": "x", "inserted": {"node-name": "n", "image": {
             "filename": "f", "virtual-size": "many", "backing-image": {"backing-image": {}}}}}],
         [{"meta-type": "command"}], [{"name": "block-stream", "meta-type": "command", "arg-type": 5}]]


@pytest.mark.quick
def test_answers_of_the_wrong_shape(peer, mount, cleanup):
    """Every answer that we read, of every wrong type, singly: no crash, no hang."""
    commands = ["qmp_capabilities", "query-qmp-schema", "query-block", "x-debug-query-block-graph", "query-block-jobs", "query-jobs", "query-status"]
    qemu = peer("fake")
    tree = mount(qemu.socket, options="timeout=1")
    domain = tree.domain("fake")
    for command in commands:
        for wrong in WRONG:
            qemu.answers[command] = lambda *_, wrong=wrong: wrong
            if domain.connected:
                # Make it ask: a look, an event, a job, a read.
                qemu.event("DEVICE_TRAY_MOVED", device="x", tray_open=True)
                qemu.event("RESUME")
                with contextlib.suppress(OSError, ValueError, AssertionError):
                    domain.disks()
                    domain.disk("vd0").pull()
                    domain.disk("vd0").progress
                    qemu.succeed(qemu.job()[0])
            if command in ("qmp_capabilities", "query-qmp-schema"):
                for connection in list(qemu.connections):
                    connection.hang_up()
            assert tree.alive, f"{command} answered {wrong}"
            assert tree.read("README")
            del qemu.answers[command]
            for job in list(qemu.jobs):
                with contextlib.suppress(KeyError):
                    qemu.cancel(job)
                    qemu.become(job, "null")
    for connection in list(qemu.connections):
        connection.hang_up()
    wait_for(lambda: domain.connected and domain.disks() == ["vd0"], 30, "all to be well again")


@pytest.mark.quick
def test_events_of_the_wrong_shape(fake):
    job = start(fake)
    for name in ("JOB_STATUS_CHANGE", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_READY", "BLOCK_JOB_PENDING", "BLOCK_JOB_ERROR",
                 "STOP", "SHUTDOWN", "DEVICE_DELETED", "", "x" * 5000, "\u0000", "new\nline"):
        for data in (None, 17, "text", [], {}, {"id": 1}, {"id": None, "status": None}, {"device": []}, {"id": "x", "status": "unheard-of"},
                     {"device": job, "len": "x", "offset": {}, "speed": [], "error": 5}, {"id": job, "status": "no such state"}):
            if name == "BLOCK_JOB_COMPLETED" and isinstance(data, dict) and data.get("device") == job:
                continue  # that one is an end
            for connection in list(fake.qemu.connections):
                connection.send({"event": name, "data": data, "timestamp": {"seconds": "x"}})
    for message in ({"event": 5}, {"event": None}, {"id": "nobody", "return": {}}, {"return": {}}, {"error": {}}, {"error": 5, "id": 1}, {}):
        for connection in list(fake.qemu.connections):
            connection.send(message)
    assert fake.mount.read("README")
    domain = fake.mount.domain("fake")
    wait_for(lambda: domain.connected, 15)
    wait_for(lambda: fake.disk.status in LIVE)
    fake.qemu.cancel(job)
    assert fake.disk.wait() == "cancelled"


# --- names ---


@pytest.mark.quick
def test_names_that_a_folder_cannot_bear(peer, mount):
    """Escaped as \\xNN, and never a way out of the folder."""
    names = {"../../etc": "\\x2e.\\x2f..\\x2fetc", "a/b": "a\\x2fb", ".hidden": "\\x2ehidden", "..": "\\x2e.", ".": "\\x2e",
             "new\nline": "new\\x0aline", "tab\there": "tab\\x09here", "esc\x1b[31m": "esc\\x1b[31m", "del\x7f": "del\\x7f", "a b": "a b",
             "quo\"te's": "quo\"te's", "ünï": "ünï", "wild*?[x]": "wild*?[x]", "$(reboot)": "$(reboot)", "-rf": "-rf", "plain": "plain"}
    disks = [FakeDisk(qdev=None, device=name, chain=[(f"n{number}", f"/images/{number}")]) for number, name in enumerate(names)]
    qemu = peer("fake", disks=disks)
    domain = mount(qemu.socket).domain("fake")
    assert domain.disks() == sorted(names.values())
    for name, folder in names.items():
        disk = domain.disk(folder)
        assert disk.status == "idle", name
        assert os.path.realpath(disk.path) == disk.path
    disk = domain.disk("new\\x0aline")
    disk.pull()
    assert qemu.wait_asked("block-stream")["device"] in ("new\nline", disks[5].chain[0][0])
    qemu.succeed(qemu.job()[0])
    assert disk.wait() == "completed"
    for event in domain.events():
        json.dumps(event)


@pytest.mark.quick
def test_names_that_are_empty_long_or_the_same(peer, mount):
    names = ["", "x" * 255, "y" * 256, "z" * 5000, "/" * 100, "twin", "twin", "\ud800", "a\0b", "é" * 200]
    qemu = peer("fake", disks=[FakeDisk(qdev=None, device=name, chain=[(f"n{number}", f"/images/{number}")]) for number, name in enumerate(names)])
    domain = mount(qemu.socket).domain("fake")
    assert domain.connected
    shown = domain.disks()
    assert "x" * 255 in shown
    assert "twin" in shown
    for name in shown:
        assert 0 < len(os.fsencode(name)) <= 255
        assert "/" not in name
        assert domain.disk(name).status == "idle"


def test_a_machine_with_a_thousand_disks(peer, mount):
    disks = [FakeDisk(f"vd{number}", [(f"n{number}", f"/images/{number}")]) for number in range(1000)]
    qemu = peer("fake", disks=disks)
    tree = mount(qemu.socket)
    domain = tree.domain("fake")
    assert len(domain.disks()) == 1000
    with Took() as took:
        numbers = {entry.inode() for entry in os.scandir(domain / "disks")}
        assert len(numbers) == 1000
        assert domain.disk("vd999").status == "idle"
    assert took.seconds < 3
    disk = domain.disk("vd500")
    disk.pull()
    qemu.succeed(qemu.job()[0])
    assert disk.wait() == "completed"
    # And they all go.
    qemu.disks[:] = disks[:1]
    qemu.event("DEVICE_DELETED", device="vd1", path="/machine/peripheral/vd1")
    wait_for(lambda: domain.disks() == ["vd0"], 10)


def test_a_machine_with_more_disks_than_anybody_has(peer, mount):
    """A hostile one: what is not shown is said, the rest works, memory is bounded."""
    qemu = peer("fake", disks=[FakeDisk(f"vd{number}", [(f"n{number}", f"/images/{number}")]) for number in range(5000)])
    tree = mount(qemu.socket)
    domain = tree.domain("fake")
    assert domain.connected
    shown = domain.disks()
    assert "vd0" in shown
    assert len(shown) == 5000 or "5000" in domain.read("error") + tree.said()
    assert memory_kib(tree.pid) < 300000
    with Took() as took:
        assert domain.disk("vd0").status == "idle"
    assert took.seconds < 2


def test_paths_that_are_odd(peer, mount):
    chain = [("n0", "/images/new\nline"), ("n1", "/images/tab\tand space"), ("n2", "json:{\"driver\": \"x\"}"), ("n3", "nbd://host/export"),
             ("n4", "relative/path"), ("n5", ""), ("n6", "/" + "x" * 4000), ("n7", "/back\\slash"), ("n8", "esc\x1b[31m")]
    disk = mount(peer("fake", disks=[FakeDisk(chain=chain)]).socket).disk("fake")
    lines = disk.chain
    assert len(lines) == len(chain)
    assert lines[0] == "/images/new\\012line"
    assert lines[1] == "/images/tab\\011and\\040space"
    assert lines[7] == "/back\\134slash"
    assert disk.read("chain").count("\n") == len(chain)
    disk.pull("base=[4]")
    assert disk.live


def test_a_chain_of_a_thousand_images(peer, mount):
    chain = [(f"n{number}", f"/images/{number}") for number in range(200)]
    qemu = peer("fake", disks=[FakeDisk(chain=chain)])
    tree = mount(qemu.socket)
    domain = tree.domain("fake")
    # A message that is nested deeper than 64 levels ends the link, and is never a crash.
    assert not domain.connected or len(domain.disk().chain) == 200
    assert domain.connected or domain.read("error")
    assert tree.alive


def test_a_socket_that_is_no_socket(mount, folder):
    with open(f"{folder}/file", "w"):
        pass
    tree = mount(f"unix:{folder}/file", f"other=unix:{folder}", f"dgram=unix:{folder}/dgram")
    for name in tree.domains():
        assert not tree.domain(name).connected
        assert tree.domain(name).read("error")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(f"{folder}/dgram")
        time.sleep(0.3)
    assert not tree.domain("dgram").connected


def test_a_peer_that_hangs_up_at_once_again_and_again(peer, mount):
    """Reconnects are paced: not a busy loop."""
    count = []
    qemu = peer("fake", connected=lambda connection: (count.append(1), connection.hang_up()))
    tree = mount(qemu.socket)
    time.sleep(1)
    assert 1 <= len(count) < 100
    with open(f"/proc/{tree.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    assert int(fields[11]) + int(fields[12]) < 50, "half a second of processor time in one second of nothing"
    assert not tree.domain("fake").connected


def test_other_domains_do_not_notice(peer, storage_daemon, mount, overlay):
    """A hostile peer that floods: the well one is answered in time."""
    flood = threading.Event()

    def connected(connection):
        connection.send(GREETING)

        def pour():
            line = json.dumps({"event": "FLOOD", "data": {"x": "y" * 1000}, "timestamp": {"seconds": 0, "microseconds": 0}}).encode() + b"\n"
            with contextlib.suppress(OSError):
                while not flood.is_set():
                    connection.socket.sendall(line * 100)
        threading.Thread(target=pour, daemon=True).start()

    bad = peer("bad", connected=connected)
    well = storage_daemon("well", blockdev("disk0", overlay()))
    tree = mount(well.socket, bad.socket, options="timeout=2")
    disk = tree.disk("well")
    disk.hold()
    try:
        with Took() as took:
            for _ in range(20):
                assert disk.progress
        assert took.seconds < 4
        assert memory_kib(tree.pid) < 300000
    finally:
        flood.set()
    disk.release()
    assert disk.wait() == "completed"
    subprocess.run(["ls", "-lR", tree.path], stdout=subprocess.DEVNULL, check=True, timeout=10)
