"""The daemon is killed at every moment of a job, and started again: what the next life knows, tells and does."""

import contextlib
import errno
import json
import os
import subprocess

import pytest

import images
from kinds import ACTIVE_COMMIT, BACKUP, COMMIT, COPY, KINDS, PULL, Chain, start_qemu
from mount import Background, command_line, environment
from qemu import blockdev
from system import SLOW, needs_root, stays, wait_for

PLACES = ["daemon", "machine"]
every_place = pytest.mark.parametrize("place", PLACES)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


class Setting:
    """A chain of three in a QEMU, mounted."""

    def __init__(self, place, storage_daemon, machine, mount, folder):
        self.place, self.machine = place, place == "machine"
        self.chain = Chain(folder)
        self.qemu, self.name = start_qemu(place, machine if self.machine else storage_daemon, self.chain)
        self.mount = mount(self.qemu.socket)

    @property
    def disk(self):
        return self.mount.disk("vm", self.name)

    def hold(self, kind, more=""):
        """A job that stays where it is."""
        kind.start(self.disk, self.chain, f"bandwidth=1 {more}".strip())
        assert self.disk.status == "running"
        return self.disk.job

    def die(self):
        self.mount.kill()

    def release(self):
        """By the monitor of the test: the daemon may be dead."""
        job, = self.qemu.monitor.jobs()
        self.qemu.monitor("block-job-set-speed", device=job, speed=0)
        return job

    def ended(self):
        """The words of the final events of this life."""
        return [event["event"] for event in self.disk.events()
                if event["event"] in ("job-completed", "job-failed", "job-cancelled", "job-lost")]


@pytest.fixture
def setting(storage_daemon, machine, mount, folder):
    return lambda place="daemon": Setting(place, storage_daemon, machine, mount, folder)


def is_same_job(before, now):
    for key in ("id", "type", "started", "by"):
        assert before[key] == now[key], key


def is_told(at, kind, job, word="completed"):
    """The end is told once in this life, stands once in history, and QEMU is ready for the next job."""
    disk = at.disk
    assert disk.status == disk.wait() == word
    assert at.ended() == [f"job-{word}"]
    lines = [line for line in history(disk) if line["job"] == job["id"]]
    assert [line["state"] for line in lines] == [word]
    assert f"uid={lines[0]['uid']} pid={lines[0]['pid']}" == job["by"]
    assert at.qemu.monitor("query-jobs") == []
    if word == "completed":
        kind.check_completed(disk, at.chain, at.machine)
        left = {event for event in disk.events("job-completed")[-1]["released"]} & {at.chain.mid, at.chain.base}
        names = {"mid": at.chain.mid, "base": at.chain.base}
        nodes = at.qemu.monitor("x-debug-query-block-graph")["nodes"]
        assert not [node["name"] for node in nodes if names.get(node["name"]) in left], "a node of the old chain is left"


def history(disk):
    return [json.loads(line) for line in disk.read("history").splitlines()]


# --- the job runs on ---


@every_kind
@every_place
def test_killed_while_it_runs(setting, place, kind):
    at = setting(place)
    before = at.hold(kind)
    generation = before["generation"]
    at.die()
    at.mount.start()
    assert at.disk.status == "running"
    is_same_job(before, at.disk.job)
    assert at.disk.job["generation"] == generation
    at.disk.release()
    kind.complete(at.disk, at.machine)
    is_told(at, kind, before)
    at.qemu.quit()
    kind.check_content(at.chain, at.machine)


@every_kind
@every_place
@pytest.mark.quick
def test_ended_while_nobody_looked(setting, place, kind):
    """It waits in QEMU: pending, concluded, or ready. Its end is told with what was released since its beginning."""
    at = setting(place)
    before = at.hold(kind)
    at.die()
    at.release()
    final = {PULL: "pending", COMMIT: "concluded", BACKUP: "pending"}.get(kind, "ready")
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == final, 20, final)
    at.mount.start()
    kind.complete(at.disk, at.machine)
    is_told(at, kind, before)
    at.qemu.quit()
    kind.check_content(at.chain, at.machine)


@pytest.mark.parametrize("kind", [ACTIVE_COMMIT, COPY], ids=str)
@pytest.mark.quick
def test_the_pivot_flag(setting, kind):
    """It was given to the life that was killed, and is carried out by the next one."""
    at = setting("machine")
    before = at.hold(kind, "pivot")
    at.die()
    at.release()
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "ready", 20, "ready")
    assert stays(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "ready", 0.1)
    at.mount.start()
    assert at.disk.wait() == "completed"
    assert at.disk.job["result"] == "pivoted"
    is_told(at, kind, before)
    at.qemu.quit()
    kind.check_content(at.chain, True)


@pytest.mark.parametrize("kind", [ACTIVE_COMMIT, COPY], ids=str)
@pytest.mark.parametrize("pivoted", [True, False])
def test_ended_by_somebody_else_meanwhile(setting, kind, pivoted):
    """A pivot and a soft end look the same in QEMU: the chain as it was at the beginning tells them apart."""
    at = setting("machine")
    before = at.hold(kind)
    at.die()
    job = at.release()
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "ready", 20, "ready")
    if pivoted:
        at.qemu.monitor("job-complete", id=job)
    else:
        at.qemu.monitor("block-job-cancel", device=job)
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "concluded", 20, "concluded")
    at.mount.start()
    assert at.disk.wait() == "completed"
    assert at.disk.job["result"] == ("pivoted" if pivoted else "kept")
    is_same_job(before, at.disk.job)
    released = at.disk.events("job-completed")[0]["released"]
    assert released == [path for path in at.chain.all if path not in at.disk.chain]
    assert bool(released) == pivoted


@every_kind
def test_cancelled_while_nobody_looked(setting, kind):
    at = setting()
    before = at.hold(kind)
    at.die()
    job, = at.qemu.monitor.jobs()
    at.qemu.monitor("job-cancel", id=job)
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "concluded", 20, "concluded")
    at.mount.start()
    assert at.disk.wait() == "cancelled"
    is_told(at, kind, before, "cancelled")
    assert at.disk.chain == at.chain.all


# --- killed in the middle of a command ---


@pytest.mark.quick
def test_killed_in_the_middle_of_a_start(setting):
    """QEMU gets the command, or it does not; there is one job then, or none, and none is told of that never was."""
    at = setting()
    at.qemu.freeze()
    writer = Background(at.disk.write, "pull", "bandwidth=1\n")
    assert stays(lambda: not writer.done)
    at.die()
    with pytest.raises(OSError):
        writer.result()
    at.qemu.thaw()
    at.mount.start()
    jobs = list(at.qemu.monitor.jobs())
    assert len(jobs) <= 1
    if jobs:
        assert at.disk.status == "running"
        assert at.disk.job["id"] == jobs[0]
        at.disk.write("abort", "\n")
    else:
        assert at.disk.status == "idle"
        assert history(at.disk) == []
    at.disk.pull()
    assert at.disk.wait() == "completed"


@pytest.mark.parametrize("kind", [PULL, COMMIT], ids=str)
def test_killed_in_the_middle_of_an_abort(setting, kind):
    at = setting()
    before = at.hold(kind)
    at.qemu.freeze()
    writer = Background(at.disk.write, "abort", "\n")
    assert stays(lambda: not writer.done)
    at.die()
    with pytest.raises(OSError):
        writer.result()
    at.qemu.thaw()
    at.mount.start()
    if at.disk.status == "running":  # QEMU has not got it, or has not done it yet
        with contextlib.suppress(ProcessLookupError):
            at.disk.write("abort", "\n")
    assert at.disk.wait() == "cancelled"
    is_told(at, kind, before, "cancelled")


# --- the final word stays ---


def keeps(at):
    """What is read of the last job, in two lives."""
    keys = ("id", "type", "state", "result", "cur", "end", "bandwidth", "started", "ended", "by", "error", "generation")
    return ([at.disk.status, at.disk.progress, at.disk.wait(), at.disk.read("history")], {key: at.disk.job[key] for key in keys})


@every_kind
@pytest.mark.parametrize("life", ["killed", "terminated", "unmounted"])
@pytest.mark.quick
def test_the_final_word_stays(setting, kind, life):
    at = setting()
    kind.start(at.disk, at.chain)
    kind.complete(at.disk, at.machine)
    before = keeps(at)
    {"killed": at.mount.kill, "terminated": at.mount.terminate, "unmounted": at.mount.unmount}[life]()
    at.mount.start()
    assert keeps(at) == before
    assert at.ended() == [], "events begin anew"
    at.disk.write("pull", "\n")
    assert at.disk.wait() == "completed"
    assert [line["type"] for line in history(at.disk)][-1] == "pull"
    assert len(history(at.disk)) == 2


@pytest.mark.parametrize("word", ["failed", "cancelled", "lost"])
def test_the_other_words_stay(setting, word):
    at = setting()
    at.hold(PULL)
    if word == "cancelled":
        at.disk.write("abort", "\n")
    elif word == "lost":
        at.qemu.kill()
    else:
        job, = at.qemu.monitor.jobs()
        at.qemu.monitor("job-cancel", id=job)
        assert at.disk.wait() == "cancelled"
    if word == "lost":
        assert at.disk.wait() == "lost"
        at.qemu.monitor.close()
        at.qemu.start()
        wait_for(lambda: at.mount.domain("vm").connected, 10)
    before = keeps(at)
    at.die()
    at.mount.start()
    assert keeps(at) == before


def test_history_of_many_jobs(setting):
    at = setting()
    for _ in range(5):
        at.hold(PULL)
        at.disk.write("abort", "\n")
        at.die()
        at.mount.start()
    lines = history(at.disk)
    assert len(lines) == 5
    assert len({line["job"] for line in lines}) == 5
    assert [line["ended"] for line in lines] == sorted(line["ended"] for line in lines)


# --- QEMU is another one ---


@every_place
@every_kind
def test_qemu_dies_while_nobody_looks(setting, place, kind):
    at = setting(place)
    before = at.hold(kind)
    at.die()
    at.qemu.kill()
    at.qemu.monitor.close()
    at.qemu.start()
    at.mount.start()
    assert at.disk.wait() == "lost"
    is_told(at, kind, before, "lost")
    assert "QEMU was started anew" in at.disk.job["error"]
    assert at.disk.chain == at.chain.all


@pytest.mark.quick
def test_qemu_comes_back_later(setting):
    at = setting()
    before = at.hold(PULL)
    at.die()
    at.qemu.kill()
    at.qemu.monitor.close()
    at.mount.start()
    assert not at.mount.domain("vm").connected
    at.qemu.start()
    wait_for(lambda: at.mount.domain("vm").connected, 20)
    is_told(at, PULL, before, "lost")


def test_another_name_for_the_same_qemu(setting):
    """A live job is found by its id, whatever its domain is called."""
    at = setting("machine")
    before = at.hold(COPY, "pivot")
    at.die()
    at.mount.sources = [f"other={at.qemu.socket}"]
    at.mount.start()
    disk = at.mount.disk("other")
    is_same_job(before, disk.job)
    disk.release()
    assert disk.wait() == "completed"
    assert disk.job["result"] == "pivoted"


def test_somebody_else_dismisses_it(setting):
    at = setting()
    before = at.hold(COMMIT)
    at.die()
    job = at.release()
    wait_for(lambda: at.qemu.monitor("query-jobs")[0]["status"] == "concluded", 20)
    at.qemu.monitor("job-dismiss", id=job)
    at.mount.start()
    assert at.disk.wait() == "lost"
    is_told(at, COMMIT, before, "lost")
    assert "somebody else" in at.disk.job["error"]


# --- images ---


@pytest.mark.parametrize("life", ["killed", "terminated"])
def test_a_job_of_an_image(mount, overlay, shelf, life):
    """Killed, the engine and its job run on. A clean end gives the job up, and the next life knows that."""
    image = overlay("web1")
    tree = mount(f"image:{image}")
    tree.disk().hold()
    before = tree.disk().job
    if life == "killed":
        tree.kill()
    else:
        tree.terminate()
    tree.start()
    disk = tree.disk()
    is_same_job(before, disk.job)
    if life == "killed":
        disk.release()
        assert disk.wait() == "completed"
    else:
        assert disk.status == "cancelled"
    assert len(history(disk)) == 1


# --- the folder ---


def test_two_daemons_on_one_state_dir(one, folder, mount):
    os.mkdir(f"{folder}/state", 0o700)
    mount(f"unix:{folder}/nobody", name="first", options=f"state_dir={folder}/state")
    os.mkdir(f"{folder}/second")
    words = command_line(folder, f"unix:{folder}/none", f"{folder}/second", options=f"state_dir={folder}/state")
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, env=environment(folder), timeout=30 * SLOW)
    assert done.returncode == 1
    assert "is used by another blockjobfs" in done.stderr and "state_dir=" in done.stderr


@pytest.mark.parametrize("what", ["open", "file", "link", "missing-parent"])
def test_an_unfit_state_dir(folder, what):
    """Refused, not worked around: the user has named it."""
    os.mkdir(f"{folder}/mnt")
    path = f"{folder}/state"
    if what == "open":
        os.mkdir(path)
        os.chmod(path, 0o755)
    elif what == "file":
        open(path, "w").close()
    elif what == "link":
        os.mkdir(f"{folder}/elsewhere", 0o700)
        os.symlink(f"{folder}/elsewhere", path)
    else:
        path += "/below"
    words = command_line(folder, f"unix:{folder}/none", f"{folder}/mnt", options=f"state_dir={path}")
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, env=environment(folder), timeout=30 * SLOW)
    assert done.returncode == 1
    assert path in done.stderr and done.stderr.count("\n") == 1
    if what == "link":
        assert os.listdir(f"{folder}/elsewhere") == []


def journal_of(folder):
    path, = [f"{folder}/run/{name}" for name in os.listdir(f"{folder}/run") if name.startswith("state-")]
    return f"{path}/journal"


@pytest.mark.quick
def test_a_damaged_journal(one, folder):
    """Set aside with a warning; the daemon starts, and what can be read of it counts."""
    for _ in range(2):
        one.disk.hold()
        one.disk.write("abort", "\n")
    one.mount.kill()
    path = journal_of(folder)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    with open(path, "r+b") as file:
        data = file.read()
        at = data.index(b"history/vm/disk0/0")
        file.seek(at + 40)
        file.write(b"X")
    one.mount.start()
    assert "is damaged" in one.mount.said()
    assert os.path.exists(path + ".aside-1")
    assert len(history(one.disk)) == 1
    assert one.disk.status == "cancelled"
    one.disk.pull()
    assert one.disk.wait() == "completed"


def records(data):
    """(where it ends, its kind, key, value) of each record of a journal."""
    at = data.index(b"\n") + 1
    while at < len(data):
        kind, key, value, _ = data[at:at + 37].split(b" ", 3)
        key, value = int(key, 16), int(value, 16)
        body = data[at + 37:at + 37 + key + 1 + value]
        at += 37 + key + 1 + value + 1
        yield at, kind.decode(), body[:key].decode(), body[key + 1:].decode()


@pytest.mark.parametrize("again", ["deleted", "made anew"])
def test_killed_after_every_record(setting, folder, again):
    """
    The journal of a commit with delete, as a death after each of its records would have left it. What was dismissed then and is not
    written down is lost; what is written down is told, once; an image that was deleted and made anew is another one.
    """
    at = setting()
    at.disk.write("commit", "top=[1] base=[2] delete\n")
    assert at.disk.wait() == "completed"
    job = at.disk.job["id"]
    assert not os.path.exists(at.chain.mid)
    at.die()
    path = journal_of(folder)
    with open(path, "rb") as file:
        data = file.read()
    if again == "made anew":
        images.create(at.chain.mid, at.chain.base)
    words = []
    known, done = None, False
    for end, kind, key, value in records(data):
        if key == f"job/{job}":
            known = json.loads(value) if kind == "+" else None
        done = done or (key.startswith("history/") and kind == "+")
        with open(path, "wb") as file:
            file.write(data[:end])
        at.mount.start()
        word = "completed" if done or known and "end" in known else "lost" if known and known["seen"] else "idle"
        assert at.disk.wait() == word, (key, value)
        words.append(word)
        assert [line["state"] for line in history(at.disk)] == ([] if word == "idle" else [word])
        assert at.ended() == ([] if done or word == "idle" else [f"job-{word}"])
        assert os.path.exists(at.chain.mid) == (again == "made anew")
        if word == "completed" and not done:
            begun = known["deleting"] and again == "deleted"  # else somebody else has taken it away, or put it there
            told = at.disk.events("image-deleted" if begun else "image-delete-failed")
            assert [event["image"] for event in told] == [at.chain.mid]
        assert "aside" not in at.mount.said()
        at.die()
    assert set(words) == {"idle", "lost", "completed"}
    at.mount.start()


def test_nothing_is_left_when_nothing_happened(mount, folder):
    tree = mount(f"unix:{folder}/nobody")
    assert os.path.exists(journal_of(folder))
    tree.terminate()
    assert not [name for name in os.listdir(f"{folder}/run") if name.startswith("state-")]


@needs_root
def test_no_room_for_the_journal(storage_daemon, mount, overlay, folder, cleanup):
    """The daemon goes on, says so once, and writes all of it when there is room again."""
    state = f"{folder}/state"
    os.mkdir(state)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", state], check=True)
    cleanup(subprocess.run, ["umount", "-l", state])
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(qemu.socket, options=f"state_dir={state}")
    disk = tree.disk()
    with open(f"{state}/ballast", "wb", buffering=0) as ballast, pytest.raises(OSError) as full:
        while True:
            ballast.write(b"x" * 4096)
    assert full.value.errno == errno.ENOSPC
    for _ in range(12):
        disk.hold()
        disk.write("abort", "\n")
    assert len(history(disk)) == 12
    assert tree.said().count("cannot be written") == 1
    os.unlink(f"{state}/ballast")
    wait_for(lambda: "is written again" in tree.said(), 10, "the next try")
    tree.kill()
    tree.start()
    assert len(history(tree.disk())) == 12
    assert tree.disk().status == "cancelled"


def test_generation_of_another_life(one):
    """The number means the same chain in every life."""
    number = one.disk.job["generation"]
    one.mount.kill()
    one.mount.start()
    assert one.disk.job["generation"] == number
    one.mount.kill()
    one.qemu.monitor("block-stream", device="disk0", job_id="theirs")
    wait_for(lambda: one.qemu.monitor("query-jobs") == [], 20)
    one.mount.start()
    with pytest.raises(OSError) as refusal:
        one.disk.write("pull", f"generation={number}\n")
    assert refusal.value.errno == errno.ESTALE
