"""
A long run of comings and goings: machines start, end, die and are detached in a folder of sockets and by hand, with jobs, watchers and
readers, and the daemon is killed in between. SOAK_SEED repeats a run as far as chance was ours.
"""

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

from mount import FINAL, LIVE
from qemu import blockdev
from system import STORAGE_DAEMON, end, wait_for
from watch import CREATE, DELETE, Inotify

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)
SEED = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
NAMES = ("web1", "web2", "db")


class Machine:
    """A storage daemon that makes its own socket in the folder, or none at the moment."""

    def __init__(self, folder, name, overlay):
        self.path = f"{folder}/vm/{name}.qmp"
        self.name = name
        self.overlay = overlay
        self.process = None
        self.count = 0

    def start(self):
        self.count += 1
        image = self.overlay(f"{self.name}-{self.count}")
        self.process = subprocess.Popen([STORAGE_DAEMON, "--blockdev", blockdev("disk0", image),
                                         "--chardev", f"socket,id=m,path={self.path},server=on,wait=off", "--monitor", "chardev=m"])
        wait_for(lambda: os.path.exists(self.path) or self.process.poll() is not None)
        assert self.process.poll() is None

    def stop(self, sig):
        self.process.send_signal(sig)
        self.process.wait()
        self.process = None
        if sig == signal.SIGKILL:
            os.unlink(self.path)

    @property
    def runs(self):
        return self.process is not None


@pytest.mark.timeout(60 + ROUNDS * 6)
def test_comings_and_goings(folder, mount, overlay, cleanup, run_in_background):
    chance = random.Random(SEED)
    print(f"SOAK_SEED={SEED}")
    os.mkdir(f"{folder}/vm")
    machines = {name: Machine(folder, name, overlay) for name in NAMES}
    for machine in machines.values():
        cleanup(lambda machine=machine: machine.process and end(machine.process))
    tree = mount(f"dir:{folder}/vm")
    detached = set()
    run_in_background("sh", "-c", 'while :; do ls -lR "$0"/domains; cat "$0"/domains/*/state "$0"/domains/*/disks/*/status; done', tree.path,
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(ROUNDS):
        machine = machines[chance.choice(NAMES)]
        action = chance.choice(("start", "start", "job", "job", "quit", "die", "detach", "by hand", "kill the daemon"))
        with Inotify(tree / "domains") as inotify:
            before = set(tree.domains())
            if action == "start" and not machine.runs:
                machine.start()
                detached.discard(machine.name)
            elif action in ("quit", "die") and machine.runs:
                machine.stop(signal.SIGTERM if action == "quit" else signal.SIGKILL)
                detached.discard(machine.name)
            elif action == "job" and machine.runs and machine.name not in detached:
                with contextlib.suppress(OSError):  # it has a live job
                    tree.disk(machine.name, "disk0").pull(chance.choice(("", "bandwidth=1M")))
            elif action == "detach" and machine.runs and machine.name not in detached:
                with contextlib.suppress(OSError):  # EBUSY
                    os.rmdir(tree.domain(machine.name).path)
                    detached.add(machine.name)
            elif action == "by hand":
                os.mkdir(tree / "domains/hand")
                with contextlib.suppress(OSError):  # it has another domain
                    tree.domain("hand").write("address", machine.path)
                    if chance.random() < 0.5:
                        wait_for(lambda: tree.domain("hand").connected or not machine.runs)
                with contextlib.suppress(OSError, AssertionError):  # it is not connected
                    tree.disk("hand", "disk0").pull()
                    tree.disk("hand", "disk0").wait()
                wait_for(lambda: tree.domain("hand").disks() == [] or tree.disk("hand", "disk0").status not in LIVE)
                os.rmdir(tree / "domains/hand")
            time.sleep(chance.choice((0, 0, 0.01, 0.1)))
            wanted = {name for name, machine in machines.items() if machine.runs and name not in detached}
            wait_for(lambda: set(tree.domains()) == wanted, why=f"{wanted} after {action}, not {tree.domains()}")
            shown = set(before)
            for notice in inotify.drain(0.1):
                (shown.add if notice.mask & CREATE else shown.discard if notice.mask & DELETE else id)(notice.name)
            assert shown == wanted, f"told of {shown}, there are {wanted}, after {action}"
        if action == "kill the daemon":
            tree.kill()
            subprocess.run(["umount", "-l", tree.path], check=True)
            tree.start()
            detached.clear()  # what is on the command line is there again
            wanted = {name for name, machine in machines.items() if machine.runs}
        for name in wanted:
            wait_for(lambda: tree.domain(name).connected and tree.domain(name).disks() == ["disk0"], why=tree.domain(name).read("error"))
            assert tree.disk(name, "disk0").status in FINAL | LIVE | {"idle"}
    for machine in machines.values():
        if machine.runs:
            machine.stop(signal.SIGKILL)
    wait_for(lambda: tree.domains() == [])
    seen = {}
    for event in tree.events():
        if event["event"] in ("job-started", "job-completed", "job-failed", "job-cancelled", "job-lost"):
            seen.setdefault(event["job"], []).append(event["event"])
    for job, words in seen.items():
        assert len([word for word in words if word != "job-started"]) == 1, f"{job}: {words}"
