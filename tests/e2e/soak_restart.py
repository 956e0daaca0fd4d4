"""
Long runs of deaths: the daemon, or QEMU, is killed at random moments while jobs of every kind begin, run and end; after each death all
that is promised is checked. Run by tests/soak.sh; SOAK_SEED repeats a run as far as chance was ours.
"""

import contextlib
import errno
import json
import os
import random
import subprocess
import time

import pytest

import images
from guest import on_machine, reads_as
from images import MIB
from mount import FINAL, LIVE, Background, Refused
from qemu import blockdev
from system import wait_for

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
LANES = 3

# The kinds of work: a name, the control file, its words, how many images must be in the chain. Another kind of job is another row here, and
# a line in Lane.expected().
WORK = [
    ("pull", "pull", "", 2),
    ("pull to the base", "pull", "base=[-1]", 3),
    ("commit", "commit", "top=[1] base=[2]", 3),
    ("commit and delete", "commit", "top=[1] base=[2] delete", 3),
    ("active commit", "commit", "pivot base=[1]", 2),
    ("active commit and delete", "commit", "pivot base=[1] delete", 2),
    ("copy", "copy", "dest={dest} pivot", 1),
    ("shallow copy", "copy", "dest={dest} pivot shallow", 2),
    ("copy that is kept", "copy", "dest={dest}", 1),
    ("increments", "pull", "increment={increment}", 2),
    ("deadline", "copy", "dest={dest} deadline=1", 1),
    ("abort", "pull", "", 2),
]


def check(path):
    """qemu-img check; what a kill has left unused in the image is no harm."""
    done = subprocess.run([images.IMG, "check", "-U", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in (0, 3), f"{path}: {done.stdout}"


def history(disk):
    return [json.loads(line) for line in disk.read("history").splitlines()]


class Lane:
    """One disk, what its guest must read, and what is known of its jobs."""

    def __init__(self, run, number):
        self.run, self.name = run, f"d{number}"
        self.folder = f"{run.folder}/{self.name}"
        os.mkdir(self.folder)
        self.count = 0
        self.files = [self.new_path()]
        images.create(self.files[0], size=16 * MIB)
        self.shadow = f"{self.folder}/shadow"
        self.told = []  # the lines of history, as they were when the daemon last died
        self.job = None  # the id of the job under way, as far as it is known ...
        self.work = None  # ... and what it is
        self.before = None  # the chain when it was started
        self.writer = None
        self.dest = None
        self.generation = 0
        self.ends = {}

    def new_path(self):
        self.count += 1
        return f"{self.folder}/{self.count}.qcow2"

    @property
    def disk(self):
        return self.run.mount.disk("vm", self.name)

    def arguments(self):
        nodes = [blockdev(self.name, self.files[0])]
        return [word for node in nodes for word in ("-blockdev", node)] + ["-device", f"virtio-blk-pci,drive={self.name},id={self.name}"]

    def begin(self):
        """What the guest must read, before it has written anything."""
        with open(self.shadow, "wb") as shadow:
            shadow.truncate(16 * MIB)

    def send(self, command):
        on_machine(self.run.qemu, f"-d /machine/peripheral/{self.name}/virtio-backend")(command)

    def write(self):
        """The guest writes some data, and waits until it is there."""
        first, length = self.run.random.randrange(0, 15), self.run.random.choice([1, 64, 900])
        pattern = self.run.random.randrange(1, 256)
        self.send(f"write -q -P {pattern} {first}M {length}k")
        self.send("flush")
        with open(self.shadow, "r+b") as file:
            os.pwrite(file.fileno(), bytes([pattern]) * (length << 10), first * MIB)

    def grow(self, depth):
        """New images on top, by somebody else, until there are so many."""
        while len(self.files) < depth:
            path = self.new_path()
            node = [drive for drive in self.run.qemu.monitor("query-block") if drive["qdev"].split("/")[-2] == self.name]
            self.run.qemu.monitor("blockdev-snapshot-sync", node_name=node[0]["inserted"]["node-name"], snapshot_file=path,
                                  snapshot_node_name=f"n{self.name}-{self.count}", format="qcow2")
            self.files.insert(0, path)
            self.write()
        wait_for(lambda: os.listdir(self.disk.path) and self.disk.chain == self.files, 10, "the new chain to be seen")

    # --- a job ---

    def start(self, late):
        """@late: it is being started when the daemon dies."""
        if self.job or self.writer:
            return
        work = self.run.random.choice(WORK)
        self.grow(max(work[3], min(len(self.files), 4)))
        self.write()
        self.work, self.before, self.dest = work, list(self.files), self.new_path()
        words = work[2].format(dest=self.dest, increment=self.run.random.choice(["1M", "3M"])).replace("[-1]", f"[{len(self.files) - 1}]")
        speed = self.run.random.choice(["512K", "2M", "8M", "64M"])
        command = f"{words} bandwidth={speed}\n"
        self.writer = Background(self.disk.ask, work[1], command)
        if not late:
            self.started()

    def started(self):
        """The writer has its answer, or was cut off by the death."""
        writer, self.writer = self.writer, None
        if not writer:
            return
        try:
            self.job = writer.result().split()[1]
        except Refused as refusal:
            assert refusal.errno == errno.EHOSTDOWN, refusal
            self.job = "unknown"
        except OSError:
            self.job = "unknown"

    def steer(self):
        """What has to be done to the job, and a little more."""
        if not self.job:
            return
        with contextlib.suppress(OSError):
            name, status = self.work[0], self.disk.status
            if status == "ready" and name == "copy that is kept":
                self.disk.write("finish", "\n")
            elif status == "ready" and name == "deadline":
                self.disk.write("finish", "\n")
            elif status == "running" and name == "abort":
                self.disk.write("abort", "async\n")
            elif status == "paused" and name == "increments":
                self.disk.write("pull", self.run.random.choice(["increment=2M\n", "\n"]))
            elif status == "running" and self.run.random.random() < 0.3:
                self.disk.write("speed", self.run.random.choice(["1M", "16M", "0"]) + "\n")

    # --- after a death ---

    def revive(self):
        """QEMU is started anew, and nobody has told whether a job had completed: with the old image, unless that was deleted."""
        if not os.path.exists(self.files[0]):
            assert self.run.both_died and "delete" in self.work[2]
            self.files = self.expected("completed")

    def settle(self, qemu_died=False):
        """Looks at what the new life says of the job, and whether all that was said before still is."""
        self.started()
        disk, status, lines = self.disk, None, []
        while status is None or status != disk.status:  # it may end just now
            status, lines, events = disk.status, history(disk), disk.events()
        kept = self.told[-64:]
        ids = [line["job"] for line in lines]
        assert len(ids) == len(set(ids)), f"a job is twice in history: {ids}"
        assert lines[:len(kept)] == kept or len(lines) == 64, f"history has changed: {kept} {lines}"
        new = lines[len(kept):] if len(lines) < 64 else [line for line in lines if line not in kept]
        assert len(new) <= 1, f"more than one job has ended: {new}"
        self.told = lines
        if self.job == "unknown":
            self.job = new[0]["job"] if new else disk.job["id"] if status in LIVE else None
        if new:
            assert self.job == new[0]["job"], (self.job, new)
        events = [event for event in events if event["event"].startswith("job-") and event["job"]]
        for job in {event["job"] for event in events}:
            names = [event["event"] for event in events if event["job"] == job]
            assert names.count("job-started") <= 1, names
            assert sum(name[4:] in FINAL for name in names) <= 1, names
        if not self.job:
            assert status not in LIVE
            self.forget()
        elif status in LIVE:
            job = disk.job
            assert job["id"] == self.job
            assert job["by"] != "foreign", "who asked is forgotten"
        else:
            assert disk.job["id"] == self.job, (disk.read("job"), self.job)
            assert self.job in ids, "it is over, and not in history"
            self.ended(status, disk.job, qemu_died)

    def forget(self):
        self.job = self.work = None
        if self.dest and self.dest not in self.files and os.path.exists(self.dest):
            os.unlink(self.dest)
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            if name.endswith(".qcow2") and path not in self.files:
                os.unlink(path)

    def ended(self, word, job, qemu_died):
        self.ends[f"{self.work[0]}: {word}"] = self.ends.get(f"{self.work[0]}: {word}", 0) + 1
        if not qemu_died:
            allowed = {"abort": {"cancelled", "completed"}, "deadline": {"failed", "completed"}}.get(self.work[0], {"completed"})
            assert word in allowed, job
        if word == "failed" and self.work[0] == "deadline" and not qemu_died:
            assert job["error"].startswith("deadline: "), job
        assert job["by"] != "foreign", "who asked is forgotten"
        assert int(job["generation"]) >= self.generation, "a generation comes a second time"
        self.generation = int(job["generation"])
        after = self.disk.chain
        expected = self.expected(word)
        if self.run.both_died:  # QEMU was started with what had the data, and chain shows that
            expected = after
        elif self.run.qemu_is_up:
            assert after == expected, (self.work, word, job, after, expected)
        if self.run.both_died:
            pass
        elif word == "completed" and "delete" in self.work[2]:
            kept = expected + [event["image"] for event in self.disk.events("image-delete-failed") if qemu_died]
            for path in self.before:
                assert os.path.exists(path) == (path in kept), (self.work, path)
        else:
            for path in self.before:
                assert os.path.exists(path), (self.work, path)
        self.files = expected
        for path in expected:
            check(path)
        reads_as_shared(expected[0], self.shadow)
        if word == "completed" and self.work[0] == "copy that is kept":
            reads_as_shared(self.dest, self.shadow)
        self.forget()

    def expected(self, word):
        before, name = self.before, self.work[0]
        if word != "completed" or name in ("copy that is kept", "deadline"):
            return before
        if name in ("pull", "increments", "abort"):
            return before[:1]
        if name == "pull to the base":
            return [before[0], before[-1]]
        if name.startswith("commit"):
            return before[:1] + before[2:]
        if name.startswith("active commit"):
            return before[1:]
        return [self.dest] + (before[1:] if name == "shallow copy" else [])


def reads_as_shared(image, shadow):
    images.run(images.IMG, "compare", "-U", "-f", "raw", "-F", "qcow2", shadow, image)


class Run:
    def __init__(self, machine, mount, folder):
        print(f"SOAK_SEED={SEED}")
        self.random = random.Random(SEED)
        self.folder, self.machine = folder, machine
        self.mount = None
        self.lanes = [Lane(self, number) for number in range(LANES)]
        self.qemu_is_up, self.both_died = True, False
        self.qemu = machine("vm", *[word for lane in self.lanes for word in lane.arguments()])
        for lane in self.lanes:
            lane.begin()
        self.mount = mount(self.qemu.socket)

    def some_time(self, most):
        time.sleep(self.random.choice([0, 0.02, 0.1, 1]) * self.random.random() * most)

    def die_young(self):
        """Lives that end before anything is mounted, or as it is: what they found out about ended jobs is the next one's to tell."""
        while self.random.random() < 0.4:
            self.mount.launch()
            time.sleep(0.15 * self.random.random())
            self.mount.kill()

    def check_jobs(self):
        """At most one job a disk, and none that the disk does not show."""
        shown = {lane.disk.job["id"] for lane in self.lanes if lane.disk.live}
        jobs = list(self.qemu.monitor.jobs())
        assert len(jobs) <= len(self.lanes), jobs
        shown |= {lane.disk.job["id"] for lane in self.lanes}  # one may have ended just now
        assert set(jobs) <= shown, (jobs, shown)

    def begin_jobs(self):
        for lane in self.lanes:
            lane.start(late=False)
        self.some_time(0.6)
        for lane in self.lanes:
            lane.steer()
        for lane in self.lanes:
            if self.random.random() < 0.3:
                lane.settle()
                if not lane.job:
                    lane.start(late=True)
        self.some_time(0.3)

    def finish(self, qemu_died=False):
        """All jobs to their ends, and the last word on every image."""
        for lane in self.lanes:
            deadline = time.monotonic() + 60
            while lane.job or lane.writer:
                lane.steer()
                lane.settle(qemu_died)
                with contextlib.suppress(OSError):
                    if lane.job and lane.disk.status == "running":
                        lane.disk.write("speed", "0\n")
                assert time.monotonic() < deadline, lane.disk.read("job")
                time.sleep(0.02)
        ends = {}
        for lane in self.lanes:
            for end, count in lane.ends.items():
                ends[end] = ends.get(end, 0) + count
        print("ends:", json.dumps(ends, indent=1, sort_keys=True))


@pytest.mark.timeout(120 + ROUNDS * 10)
def test_daemon_killed(machine, mount, folder):
    run = Run(machine, mount, folder)
    for number in range(ROUNDS):
        run.begin_jobs()
        run.mount.kill()
        run.some_time(0.5)
        run.die_young()
        run.mount.start()
        for lane in run.lanes:
            lane.settle()
        run.check_jobs()
        assert "aside" not in run.mount.said()
    run.finish()
    run.mount.terminate()
    run.qemu.quit()
    for lane in run.lanes:
        reads_as(lane.files[0], lane.shadow)


@pytest.mark.timeout(120 + ROUNDS * 10)
def test_qemu_killed(machine, mount, folder):
    """By SIGKILL, or by quit; now and then with the daemon, too. What was called completed is whole; all else is as it was."""
    run = Run(machine, mount, folder)
    for number in range(ROUNDS):
        run.begin_jobs()
        waiters = [lane.disk.park() for lane in run.lanes]
        both = run.random.random() < 0.2
        if both:
            run.mount.kill()
        how = run.random.choice(["kill", "quit"])
        with contextlib.suppress(EOFError, ConnectionError):
            getattr(run.qemu, how)()
        run.qemu.kill()
        run.qemu.monitor.close()
        run.qemu_is_up = False
        if not both:
            for waiter in waiters:
                assert waiter.result() in FINAL | {"idle"}
            for lane in run.lanes:
                lane.started()
                wait_for(lambda lane=lane: not lane.disk.live, why="the end of a job on a dead QEMU")  # the waiter may have come before the job
                lane.settle(True)
                assert not lane.job, "nothing lives on a dead QEMU"
        else:
            for waiter in waiters:
                with contextlib.suppress(OSError):
                    waiter.result()
        run.both_died = both
        for lane in run.lanes:
            lane.revive()
        run.qemu.arguments = [word for lane in run.lanes for word in lane.arguments()]
        run.qemu.start()
        if both:
            run.mount.start()
        wait_for(lambda: run.mount.domain("vm").connected, 20)
        for lane in run.lanes:
            if both:
                lane.settle(True)
                assert not lane.job, "nothing lives on a new QEMU"
        run.qemu_is_up, run.both_died = True, False
    run.finish(True)
    run.mount.terminate()
    run.qemu.quit()
    for lane in run.lanes:
        reads_as(lane.files[0], lane.shadow)
