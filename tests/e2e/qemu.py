"""Real QEMUs: storage daemons and machines, each with a monitor for the daemon and one for the test."""

import ctypes
import json
import os
import signal
import socket
import subprocess

from monitor import Monitor
from system import STORAGE_DAEMON, SYSTEM, end

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def blockdev(node, path, backing=None, fmt="qcow2", file=None, **options):
    """
    The argument of --blockdev for a format node on a file. @backing: a node's name, or the options of one (inline); None leaves
    it to the image's header. @file: other options than the plain file's.
    """
    words = {"driver": fmt, "node-name": node, "file": file or {"driver": "file", "filename": path}, **options}
    if backing:
        words["backing"] = backing
    return json.dumps(words)


class Qemu:
    """
    A QEMU with its sockets `socket` (left to the daemon) and `test.socket`, on which `monitor` listens. @tcp: an address; the daemon's
    monitor is on TCP there, at @port or any, which stays.
    """

    def __init__(self, folder, name, arguments, user=None, tcp=None, port=0, cwd=None):
        self.name = name
        self.tcp = tcp
        self.port = port
        self.cwd = cwd
        self.socket = os.path.join(folder, name + ".qmp")
        self.test_socket = os.path.join(folder, name + ".test")
        self.log = os.path.join(folder, name + ".log")
        self.arguments = arguments
        self.user = user
        self.process = None
        self.monitor = None
        self.start()

    def command(self, first, second):
        raise NotImplementedError

    def listen_on(self, path):
        if os.path.lexists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        if self.user is not None:
            os.chown(path, self.user, self.user)
        listener.listen(4)
        return listener

    def listen_on_tcp(self):
        listener = socket.create_server((self.tcp, self.port), backlog=4, family=socket.AF_INET6 if ":" in self.tcp else socket.AF_INET)
        self.port = listener.getsockname()[1]
        return listener

    def start(self):
        # The listening sockets are made here and handed over: nobody has to wait for them to appear.
        listeners = [self.listen_on_tcp() if self.tcp else self.listen_on(self.socket), self.listen_on(self.test_socket)]
        numbers = [listener.fileno() for listener in listeners]
        chardevs = [f"socket,id=mon{i},fd={fd},server=on,wait=off" for i, fd in enumerate(numbers)]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(*chardevs), pass_fds=numbers, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent, cwd=self.cwd, user=self.user, group=self.user, extra_groups=[] if self.user else None)
        for listener in listeners:
            listener.close()
        try:
            self.monitor = Monitor(self.test_socket)
        except Exception:
            end(self.process)
            with open(self.log) as log:
                raise AssertionError(f"{self.name} did not start: {log.read()}")

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        end(self.process)

    def quit(self):
        self.monitor("quit")
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.monitor:
            self.monitor.close()
        end(self.process)
        for path in (self.socket, self.test_socket):
            if os.path.lexists(path):
                os.unlink(path)


class StorageDaemon(Qemu):
    def command(self, first, second):
        return [STORAGE_DAEMON, "--chardev", first, "--monitor", "chardev=mon0",
                "--chardev", second, "--monitor", "chardev=mon1", *self.arguments]


class Machine(Qemu):
    def command(self, first, second):
        return [SYSTEM, "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-m", "32M",
                "-chardev", first, "-mon", "chardev=mon0,mode=control",
                "-chardev", second, "-mon", "chardev=mon1,mode=control", *self.arguments]
