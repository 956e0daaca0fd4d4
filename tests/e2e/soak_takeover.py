"""
Long runs of deaths that nobody must notice: the server (or keeper, server and toucher in turn) is killed at random moments, or the program is replaced,
while readers, waiters, pollers, watchers, a listing and a writer use the mount. Run by tests/soak.sh; SOAK_SEED repeats a run as far as chance was ours.
"""

import json
import os
import random
import signal
import time

import pytest

import images
import mount as mounts
from builds import Installed, wait_upgraded
from clients import PATIENCE, Clients
from mount import FINAL
from qemu import blockdev
from system import SLOW, descriptors, has_ended, memory_kib, needs_root, wait_for
from takeover import crash, family, keeper_of, kill_keeper, orphans_are_ours
from watch import asleep_for_good, flip, toucher_of

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
READERS = 8


class Load:
    """A machine with three disks: one has a job all the time, one is the writer's, one is for the changes that must be told."""

    def __init__(self, folder, mount):
        self.folder, self.mount = folder, mount
        self.held, self.written, self.told = (mount.disk("vm", f"disk{number}") for number in range(3))
        self.random = random.Random(SEED)
        self.times = []  # from a kill to the next answer
        self.clients = clients = Clients(folder)
        self.held.hold()
        # Each time that it goes on it copies some more: this one goes in small steps.
        self.told.write("copy", f"dest={folder}/told.qcow2 bandwidth=1 granularity=64K buf-size=64K\n")
        for _ in range(READERS):
            clients.start("reader", self.held.path, self.written.path)
        clients.start("lister", mount.path)
        self.parked = clients.start("waiter", self.held.path)
        clients.start("waiter", self.written.path)
        self.pollers = [clients.start("poller", self.told / "status", how) for how in ("poll", "epoll")]
        os.mkdir(f"{folder}/container")
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        self.watcher = clients.start("watcher", f"{folder}/container/disks/disk2", "status", before=(
            "unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", mount.domain("vm").path, f"{folder}/container"))
        self.followers = [clients.start("follower", mount / "events", f"{folder}/events.{how}", how) for how in ("open", "anew")]
        self.writer = clients.start("writer", self.written.path, f"{folder}/ids")
        wait_for(lambda: clients.slot(self.watcher).word == "watches" and clients.slot(self.writer).calls > 20, 30, "all to be at work")
        wait_for(lambda: toucher_of(mount), why="a toucher")
        self.usual = {"server": len(descriptors(mount.pid)), "keeper": len(descriptors(keeper_of(mount))), "processes": len(family(mount))}
        self.memory = memory_kib(keeper_of(mount))

    def pause(self, most=0.15):
        time.sleep(self.random.uniform(0, most))

    def first_answer(self, since):
        assert self.held.status == "running"
        self.times.append(time.monotonic() - since)

    def complaints(self):
        """What is wrong at this moment: lines."""
        clients = self.clients
        return [*map(json.dumps, clients.reports), *(f"waits: {who}" for who in clients.stuck()), *(f"has ended: {who}" for who in clients.ended())]

    def all_go_on(self):
        """Each client that does not wait for something has come on since."""
        clients = self.clients
        busy = [number for number, name in enumerate(clients.names) if name.split(" ")[0] in ("reader", "lister", "follower", "writer")]
        before = {number: clients.slot(number).calls for number in busy}
        wait_for(lambda: self.complaints() or all(clients.slot(number).calls > before[number] for number in busy), 10, "all to go on")

    def changes_are_told(self):
        """To the pollers and to the watcher, each of whom only looks when it is told."""
        word = flip(self.told)
        for number in (*self.pollers, self.watcher):
            wait_for(lambda number=number: self.clients.slot(number).word == word, PATIENCE + 1, f"{self.clients.names[number]} to hear of {word!r}")

    def check(self, number):
        """What must be so after each round."""
        self.all_go_on()
        self.changes_are_told()
        wrong = self.complaints()
        assert not wrong, f"round {number}, seed {SEED}:\n" + "\n".join(wrong[:10])
        assert self.clients.slot(self.parked).calls == 0, f"round {number}: `wait` has returned"
        asleep = asleep_for_good([process.pid for process in self.clients.processes] + list(family(self.mount)))
        assert not asleep, f"round {number}: in D state: {asleep}"
        wait_for(lambda: len(family(self.mount)) <= self.usual["processes"], why=f"no more processes than {self.usual}: {family(self.mount)}")
        for who, pid in (("server", self.mount.pid), ("keeper", keeper_of(self.mount))):
            wait_for(lambda who=who, pid=pid: len(descriptors(pid)) <= self.usual[who], why=f"no more descriptors of the {who}")

    def seen(self, how):
        """The events that a follower has got, in order."""
        with open(f"{self.folder}/events.{how}") as file:
            lines = file.readlines()
        if how == "anew":
            # The log was shortened between two pieces of one reading: the line that it was in ends there, and the next one says what is lost.
            cut = {number - 1 for number, line in enumerate(lines) if '"overrun"' in line}
            lines = [line for number, line in enumerate(lines)
                     if '"overrun"' not in line and not (number in cut and not line.endswith("}\n"))]
        return [json.loads(line) for line in lines]

    def finish(self):
        """The books are balanced."""
        clients = self.clients
        clients.stop([self.writer])
        self.held.release()
        assert self.held.wait() == "completed"
        wait_for(lambda: clients.slot(self.parked).word == "completed", why="the parked wait to get its word")
        last = self.mount.events()[-1]["seq"]
        wait_for(lambda: all(int(clients.slot(number).word) >= last for number in self.followers), 10, "the followers to get all")
        clients.stop()
        wrong = self.complaints()
        assert not [line for line in wrong if not line.startswith("has ended")], wrong
        with open(f"{self.folder}/ids") as file:
            ids = file.read().split()
        assert len(ids) == len(set(ids)), "an id comes twice"
        opened = [event["seq"] for event in self.seen("open")]
        assert opened == list(range(1, len(opened) + 1)), f"lost or doubled: {[b for a, b in zip(opened, opened[1:]) if b != a + 1][:10]}"
        anew = {event["seq"] for event in self.seen("anew")}
        assert anew == set(range(1, max(anew) + 1)), f"lost: {sorted(set(range(1, max(anew) + 1)) - anew)[:10]}"
        events = {event["seq"]: event for event in self.seen("anew")}
        mine = [event for event in events.values() if event["disk"] == "disk1" and event["job"]]
        for job in ids:
            names = [event["event"] for event in mine if event["job"] == job]
            assert names.count("job-started") == 1, (job, names)
            assert sum(name[4:] in FINAL for name in names) <= 1, (job, names)
        started = {event["job"] for event in mine if event["event"] == "job-started"}
        assert len(started - set(ids)) <= 1, f"jobs that nobody has started: {started - set(ids)}"
        assert memory_kib(keeper_of(self.mount)) < self.memory + 1024, "the keeper grows"
        self.times.sort()
        print(f"\n{len(self.times)} rounds, {clients.calls()} calls, {len(ids)} jobs, {len(events)} events; the longest call "
              f"{clients.longest() * 1000:.0f} ms; from a kill to the next answer: median {self.times[len(self.times) // 2] * 1000:.0f} ms, "
              f"worst {self.times[-1] * 1000:.0f} ms")


@pytest.fixture
def load(folder, mount, storage_daemon, cleanup, request):
    """A Load on the program as it is, or (indirectly) on another one."""
    base = images.fill(images.create(f"{folder}/base.qcow2"), (0, 64))
    overlays = [images.create(f"{folder}/disk{number}.qcow2", base) for number in range(3)]
    qemu = storage_daemon("vm", *(blockdev(f"disk{number}", path) for number, path in enumerate(overlays)))
    under = Load(folder, mount(qemu.socket))
    cleanup(under.clients.close)
    return under


@needs_root
@pytest.mark.timeout(90 + ROUNDS * 5 * SLOW)
def test_the_server_dies(load):
    for number in range(ROUNDS):
        load.pause()
        began = time.monotonic()
        os.kill(load.mount.pid, signal.SIGKILL)
        load.first_answer(began)
        if load.random.random() < 0.2:  # the next one, too, wherever it is by then
            load.pause(0.03)
            os.kill(load.mount.pid, signal.SIGKILL)
        load.pause()
        load.check(number)
    load.finish()


@needs_root
@pytest.mark.timeout(90 + ROUNDS * 6 * SLOW)
def test_keeper_server_and_toucher_die_in_turn(load):
    mount = load.mount

    def toucher():
        victim = toucher_of(mount)
        if victim:
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: has_ended(victim), why="the toucher to go")

    deaths = [lambda: kill_keeper(mount), lambda: crash(mount), toucher]
    with orphans_are_ours():
        for number in range(ROUNDS):
            for _ in range(load.random.randrange(1, 4)):
                load.pause(0.1)
                began = time.monotonic()
                load.random.choice(deaths)()
                load.first_answer(began)
            load.check(number)
        load.finish()
        mount.terminate()


@pytest.fixture
def installed(folder, monkeypatch):
    program = Installed(folder)
    monkeypatch.setattr(mounts, "BLOCKJOBFS", program.path)
    return program


@needs_root
@pytest.mark.timeout(90 + ROUNDS * SLOW)
def test_upgrades_to_and_fro(installed, load):
    for number in range(max(ROUNDS // 10, 2)):
        load.pause()
        version = installed.swap()
        began = time.monotonic()
        load.mount.process.send_signal(load.random.choice([signal.SIGUSR1, signal.SIGHUP]))
        wait_upgraded(installed, load.mount)
        load.first_answer(began)
        assert version in load.mount.read("version")
        load.check(number)
    load.finish()
