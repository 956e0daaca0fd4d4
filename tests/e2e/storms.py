"""
SIGKILL in the middle of a storm of notices, at random moments: no process in D state, no hung mount, nothing untold. A few rounds in the
suite (test_watch_toucher.py), a hundred in `make soak` (soak_watch.py).
"""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time

from system import detach, mount_lines, wait_for
from watch import CLOSE_WRITE, Inotify, asleep_for_good, state_of, toucher_of


class Storm:
    """Commands that are refused as fast as they go, readers of what they change, and watchers that look at each notice."""

    def __init__(self, one):
        self.one, self.going, self.notices, self.writes = one, True, 0, 0
        self.inotify = Inotify(one.disk.path, one.disk / "error", one.mount / "events")
        self.threads = [threading.Thread(target=call, daemon=True) for call in (self.write, self.read, self.listen)]
        for thread in self.threads:
            thread.start()

    def write(self):
        number = 0
        while self.going:
            with contextlib.suppress(OSError):
                self.one.disk.write("speed", f"bogus{number}")
            number += 1
            self.writes = number

    def read(self):
        while self.going:
            with contextlib.suppress(OSError):
                for name in ("error", "status", "events", "job"):
                    with open(self.one.disk / name, "rb") as file:
                        file.read()

    def listen(self):
        while self.going:
            for notice in self.inotify.read(0.1):
                self.notices += notice.mask == CLOSE_WRITE

    def stop(self):
        """Nobody hangs: every thread comes back."""
        self.going = False
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads), "a reader or writer hangs"
        self.inotify.close()


def on_the_toucher(one, rounds, seed=None):
    """The toucher is killed; the last state is told all the same, every time."""
    dice = random.Random(seed)
    one.disk.hold()
    storm = Storm(one)
    try:
        for _ in range(rounds):
            time.sleep(dice.uniform(0, 0.05))
            victim = wait_for(lambda: toucher_of(one.mount), why="a toucher")
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: state_of(victim) in (None, "Z"), why="the toucher to go")
            before = storm.notices
            wait_for(lambda: storm.notices > before, why="notices to go on")
            assert not asleep_for_good([one.mount.pid])
    finally:
        storm.stop()
    with Inotify(one.disk / "error") as inotify:
        for number in range(3):
            with contextlib.suppress(OSError):
                one.disk.write("speed", f"last{number}")
        inotify.wait(lambda notice: notice.mask == CLOSE_WRITE and "last2" in one.disk.read("error"))
    one.disk.write("abort", "\n")


def on_the_daemon(one, rounds, seed=None):
    """The daemon is killed: it and its toucher are gone at once, users get an error instead of hanging, and a new one can be started."""
    dice = random.Random(seed)
    mount = one.mount
    for _ in range(rounds):
        if not one.disk.live:
            one.disk.hold()
        storm = Storm(one)
        try:
            wait_for(lambda: storm.notices > 2, why="the storm")
            time.sleep(dice.uniform(0, 0.05))
            toucher = toucher_of(mount)
            if dice.random() < 0.3 and toucher:
                os.kill(toucher, signal.SIGKILL)  # both at once
            daemon = mount.pid
            mount.kill()
            if toucher:
                wait_for(lambda: state_of(toucher) in (None, "Z"), why=f"the toucher to go (it is in {state_of(toucher)})")
        finally:
            storm.stop()
        assert not asleep_for_good([daemon, toucher])
        # A hung mount would hang this.
        subprocess.run(["stat", mount / "README"], timeout=5, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        detach(mount.path)
        assert not mount_lines(mount.path)
        mount.start()
        wait_for(lambda: mount.domain("vm").connected, why="the link")
        wait_for(lambda: toucher_of(mount), why="a toucher")
    if one.disk.live:
        one.disk.write("abort", "\n")
