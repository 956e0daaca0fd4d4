"""A service manager in small: what systemd does for a service with Type=notify, FileDescriptorStoreMax= and Restart=on-failure."""

import array
import contextlib
import fcntl
import os
import signal
import socket
import threading
import time


class Manager:
    """Runs @command in the environment @env, again when it dies, and keeps the descriptors that it gives away (FDSTORE=1)."""

    FIRST = 3  # SD_LISTEN_FDS_START

    def __init__(self, command, env, log):
        self.command, self.env, self.log = command, env, log
        self.held = []  # (name, descriptor), in the order they came: none replaces another
        self.said = []  # lines
        self.changed = threading.Condition()
        self.restarts, self.stopping, self.status, self.pid = 0, False, None, None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("")
        self.start()
        for call in (self.listen, self.watch):
            threading.Thread(target=call, daemon=True).start()

    def start(self):
        address = "@" + self.socket.getsockname()[1:].decode()
        env = dict(self.env, NOTIFY_SOCKET=address)
        names = ":".join(name for name, _ in self.held)
        self.pid = os.fork()
        if self.pid:
            return
        try:
            out = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            null = os.open("/dev/null", os.O_RDONLY)
            for number, fd in enumerate([null, out, out]):
                os.dup2(fd, number)
            for number, (_, fd) in enumerate(self.held):
                os.dup2(fd, self.FIRST + number)
            os.closerange(self.FIRST + len(self.held), 10000)
            if self.held:
                env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(self.held)), LISTEN_FDNAMES=names)
            os.execve(self.command[0], self.command, env)
        finally:
            os._exit(127)

    def listen(self):
        while True:
            try:
                data, control, _, _ = self.socket.recvmsg(1 << 16, 4096)
            except OSError:
                return
            lines = data.decode().split("\n")
            fds = array.array("i")
            for level, kind, part in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.frombytes(part[:len(part) - len(part) % fds.itemsize])
            name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
            with self.changed:
                for fd in fds:
                    self.held.append((name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500)))
                    os.close(fd)
                self.said += lines
                self.changed.notify_all()

    def watch(self):
        while True:
            _, status = os.waitpid(self.pid, 0)
            with self.changed:
                self.status = os.waitstatus_to_exitcode(status)
                if self.stopping or self.status == 0:
                    self.pid = None
                    self.changed.notify_all()
                    return
                self.restarts += 1
                self.start()
                self.changed.notify_all()

    def wait_said(self, line, count=1, timeout=10):
        with self.changed:
            assert self.changed.wait_for(lambda: self.said.count(line) >= count, timeout), f"not said: {line}, but {self.said}"

    def kill(self):
        """SIGKILL, and the next life is started."""
        with self.changed:
            before = self.restarts
            os.kill(self.pid, signal.SIGKILL)
            assert self.changed.wait_for(lambda: self.restarts > before, 10)

    def stop(self):
        """As `systemctl stop`. Returns the exit status."""
        with self.changed:
            self.stopping = True
            if self.pid:
                os.kill(self.pid, signal.SIGTERM)
            assert self.changed.wait_for(lambda: self.pid is None, 15), "it does not end"
        self.close()
        return self.status

    def close(self):
        self.stopping = True
        deadline = time.monotonic() + 5
        while self.pid and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for _, fd in self.held:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.held = []
