"""A command that is cut short by the server's death, at a word that it says to QEMU or at a system call of its own."""

import json
import os
import subprocess
import threading

from kinds import Chain, start_qemu
from mount import Background
from qemu import blockdev
from relay import Relay
from system import has_ended, wait_for
from takeover import crash, next_server
from watch import find_program

MOST = 60  # words that QEMU hears of one command


class Gate(Relay):
    """
    A relay that stops one command. @after: its answer, when QEMU has carried it out, and what QEMU says in between, events that tell as much; else the
    command itself, which QEMU never gets.
    """

    def __init__(self, path, target):
        self.left = self.after = self.stopped = None
        self.reached, self.opened = threading.Event(), threading.Event()
        super().__init__(path, target)

    def arm(self, number, after):
        """Stops the command after @number others."""
        self.reached.clear()
        self.opened.clear()
        self.stopped, self.after, self.left = None, after, number

    def open(self):
        self.left = self.stopped = None
        self.opened.set()

    def to_qemu(self, line, drain):
        if self.left is not None and line:
            self.left -= 1
            if self.left < 0:
                self.left = None
                message = json.loads(line)
                self.name = message["execute"]
                if self.after:
                    self.stopped = json.dumps(message.get("id"))
                else:
                    self.reached.set()
                    self.opened.wait()
                    self.cut()
                    return None
        return super().to_qemu(line, drain)

    def from_qemu(self, line, drain):
        message = json.loads(line) if line else {}
        if not self.stopped:
            return super().from_qemu(line, drain)
        if ("return" in message or "error" in message) and json.dumps(message.get("id")) == self.stopped:
            self.stopped = None
            self.reached.set()
        return None


class Setting:
    """A chain of three in a QEMU, with a gate before it."""

    def __init__(self, place, start, mount, folder, cleanup, options=None, images=None):
        """@images: a chain instead of the usual one."""
        self.folder, self.machine, self.chain = folder, place == "machine", None
        if images and self.machine:
            self.qemu = start("vm", "-drive", f"file={images[0]},if=none,id=drive0", "-device", "virtio-blk-pci,drive=drive0,id=vda")
            self.name = "vda"
        elif images:
            self.qemu, self.name = start("vm", blockdev("disk0", images[0])), "disk0"
        else:
            self.chain = Chain(folder)
            self.qemu, self.name = start_qemu(place, start, self.chain)
        self.gate = Gate(f"{folder}/gate.qmp", self.qemu.socket)
        cleanup(self.gate.close)
        self.mount = mount(f"vm={self.gate.path}", options=options)
        self.disk = self.mount.disk("vm", self.name)
        self.rounds = 0

    def cut_short(self, number, after, call, *words):
        """@call, in whose course the server is killed. False: there was no such word. Else what it gave."""
        self.gate.arm(number, after)
        writer = Background(call, *words)
        wait_for(lambda: self.gate.reached.is_set() or writer.done, 10, "the word, or the end")
        if not self.gate.reached.is_set():
            self.gate.open()
        if not self.gate.reached.is_set():  # nor has the answer been stopped meanwhile
            writer.result()
            return False
        crash(self.mount)
        self.gate.open()
        try:
            self.value = writer.result()
        except OSError as error:
            raise AssertionError(f"killed at {self.gate.name}: {error}; {self.disk.read('error')}") from None
        return True

    def every_word(self, after, prepare, call, check):
        """For each word in turn. Returns their names."""
        names = []
        for number in range(MOST):
            prepare(self)
            before = len(self.disk.events())
            more = self.cut_short(number, after, call, self)
            self.new = self.disk.events()[before:]
            where = self.name_of_word = self.gate.name if more else "nothing"
            try:
                check(self)
            except AssertionError as error:
                raise AssertionError(f"killed at word {number}, {where}: {error}") from error
            if not more:
                print(f"killed at {' '.join(names)}")
                return names
            names.append(where)
        raise AssertionError(f"no end of words: {names}")

    def told(self, name):
        return [event for event in self.new if event["event"] == name]

    def jobs(self):
        return list(self.qemu.monitor.jobs())

    def give_up(self):
        if self.disk.live:
            self.disk.write("abort", "\n")
        wait_for(lambda: self.qemu.monitor("query-jobs") == [], why="QEMU to be free")
        for name in os.listdir(self.folder):
            if name.startswith("dest"):
                os.unlink(f"{self.folder}/{name}")


CALLS = "write,writev,sendto,sendmsg,sendmmsg,pwrite64,pwritev,fsync,fdatasync,clone3,epoll_ctl,socket,connect"


def killed_at_call(mount, number, call, *words):
    """
    @call, in whose course the server is killed when it is about to make its call of that number (one of CALLS, of its only thread): nothing of that is
    done. What it gave, and whether the server was killed.
    """
    server = mount.pid
    strace = subprocess.Popen([find_program("strace"), "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=SIGKILL:when={number}",
                               "-p", str(server)], stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in strace.stderr.readline()
        writer = Background(call, *words)
        wait_for(lambda: has_ended(server) or writer.done, 10, "the death, or the end")
        if has_ended(server):
            next_server(mount, server)
        return writer.result(), has_ended(server)
    finally:
        strace.terminate()
        strace.wait()
        strace.stderr.close()
