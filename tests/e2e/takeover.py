"""Deaths of server and keeper, for the tests of what goes on after them."""

import contextlib
import ctypes
import os
import signal

from mount import Mount, is_program
from system import children_of, has_ended, processes_on, wait_for

PR_SET_CHILD_SUBREAPER = 36


def next_server(mount, old):
    """The pid of the server that has followed the one of pid @old; it may not serve yet."""
    return wait_for(lambda: next((pid for pid in mount.servers() if pid != old), None), 10, "the next server")


def crash(mount, sig=signal.SIGKILL):
    """The server dies. Returns the pid of the next one."""
    old = wait_for(lambda: mount.pid in mount.servers() and mount.pid, 10, "a server")
    os.kill(old, sig)
    return next_server(mount, old)


@contextlib.contextmanager
def no_server(mount):
    """The server dies, and the next one is started at the end of the with statement: the keeper is stopped meanwhile."""
    os.kill(keeper_of(mount), signal.SIGSTOP)
    try:
        server = mount.pid
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: has_ended(server), why="the server to go")
        yield
    finally:
        os.kill(keeper_of(mount), signal.SIGCONT)


def is_keeper(pid, path):
    """True if the process holds the mount at @path, and was started by a server."""
    return is_program(pid, path, "--keeper")


def keeper_of(mount):
    """The pid of the keeper there is; None for a moment."""
    if mount.process.poll() is None:
        return mount.process.pid
    return next((pid for pid in processes_on(mount.path) if is_keeper(pid, mount.path)), None)


class Process:
    """What Mount needs of a subprocess.Popen, of a process that somebody else has started. How it ended is known if it has become ours."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                return self.returncode
            if has_ended(self.pid):
                self.returncode = 0
        return self.returncode

    def wait(self, timeout=10):
        wait_for(lambda: self.poll() is not None, timeout, f"process {self.pid} to end")
        return self.returncode

    def send_signal(self, sig):
        os.kill(self.pid, sig)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def kill_keeper(mount):
    """The keeper dies; mount.process is the next one, which the server has started."""
    old = mount.process
    old.kill()
    old.wait()
    mount.process = Process(wait_for(lambda: keeper_of(mount), 10, "the next keeper"))
    Mount.running.add(mount)


def family(mount):
    """{pid: command line} of all processes of the mount."""
    return {pid: line for pid, line in processes_on(mount.path).items() if "blockjobfs" in line.split(" ")[0]}


@contextlib.contextmanager
def orphans_are_ours():
    """Processes whose parent dies become our children, and are reaped at the end; so their exit status can be had (Process.wait())."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = set(children_of(os.getpid()))
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError, ChildProcessError):
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid() and fields[0] == "Z" and pid not in before:
                    os.waitpid(pid, os.WNOHANG)

