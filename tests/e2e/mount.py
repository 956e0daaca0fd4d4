"""The daemon under test and the tree it mounts."""

import contextlib
import errno
import json
import os
import select
import signal
import stat
import subprocess
import threading

from qemu import die_with_parent
from system import (BLOCKJOBFS, SLOW, children_of, descriptors, detach, has_ended, mount_lines, processes_on,
                    wait_for)

LIVE = {"running", "paused", "ready", "aborting"}
FINAL = {"completed", "failed", "cancelled", "lost"}
SUSPICIOUS = ("Sanitizer", "runtime error", "Assertion", "assertion", "BUG")


class Refused(Exception):
    """A command that was refused: its errno, the answer on the same open file, and the object's `error` afterwards."""

    def __init__(self, number, answer, error):
        super().__init__(f"{errno.errorcode[number]}: {error!r}")
        self.errno, self.answer, self.error = number, answer, error


class Folder:
    def __init__(self, path):
        self.path = path

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def read(self, name):
        """The whole of a file, read as plainly as can be."""
        fd = os.open(self / name, os.O_RDONLY)
        try:
            parts = []
            while True:
                part = os.read(fd, 1 << 17)
                if not part:
                    return b"".join(parts).decode()
                parts.append(part)
        finally:
            os.close(fd)

    def line(self, name):
        """A file that is one line, without its newline."""
        text = self.read(name)
        assert text.endswith("\n") and text.count("\n") == 1, f"{name} is not one line: {text!r}"
        return text[:-1]

    def write(self, name, text):
        """One write(2). Raises OSError."""
        data = text if isinstance(text, bytes) else text.encode()
        fd = os.open(self / name, os.O_WRONLY)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)

    def ask(self, name, text):
        """Writes a command and reads the answer on the same open file. Raises Refused."""
        data = text if isinstance(text, bytes) else text.encode()
        fd = os.open(self / name, os.O_RDWR)
        try:
            try:
                assert os.write(fd, data) == len(data)
            except OSError as refusal:
                raise Refused(refusal.errno, os.pread(fd, 1 << 16, 0).decode(), self.read("error")) from None
            return os.pread(fd, 1 << 16, 0).decode()
        finally:
            os.close(fd)

    def events(self, name=None):
        """The events told so far, as a list of dicts; those called @name only."""
        text = self.read("events")
        assert text == "" or text.endswith("\n"), "the last line of events is torn"
        events = [json.loads(line) for line in text.splitlines()]
        return [event for event in events if name is None or event["event"] == name]

    def list(self, name=""):
        return sorted(os.listdir(self / name if name else self.path))


class Disk(Folder):
    def __init__(self, path):
        super().__init__(path)
        self.name = os.path.basename(path)

    @property
    def status(self):
        return self.line("status")

    @property
    def live(self):
        return self.status in LIVE

    @property
    def progress(self):
        cur, end = self.line("progress").split(" ")
        return int(cur), int(end)

    @property
    def chain(self):
        return self.read("chain").splitlines()

    @property
    def job(self):
        """The `key value` lines of job."""
        return dict(line.partition(" ")[::2] for line in self.read("job").splitlines())

    def wait(self):
        """Blocks until no job is live; the final word."""
        return self.line("wait")

    def park(self):
        """`wait`, read on a thread of its own: the daemon has the read, unless it is answered already."""
        fd = os.open(self / "wait", os.O_RDONLY)
        reader = Background(self.parked, fd)
        wait_for(lambda: reader.done or reader.blocked_on(fd), why="the read")
        assert self.status  # asked after the read, and answered: the daemon takes requests in their order
        return reader

    @staticmethod
    def parked(fd):
        try:
            return os.read(fd, 100).decode().rstrip("\n")
        finally:
            os.close(fd)

    def pull(self, words=""):
        self.write("pull", words + "\n")

    def hold(self, words=""):
        """A pull so slow that it stays where it is until its speed is changed."""
        self.pull(f"bandwidth=1 {words}".strip())
        assert self.status == "running"
        wait_for(lambda: self.progress[0] > 0, why="the first chunk")

    def release(self):
        self.write("speed", "0\n")


class Domain(Folder):
    def __init__(self, path):
        super().__init__(path)
        self.name = os.path.basename(path)

    @property
    def state(self):
        return self.line("state")

    @property
    def connected(self):
        return self.state.split(" ")[0] == "connected"

    def disks(self):
        return self.list("disks")

    def disk(self, name=None):
        if name is None:
            name, = self.disks()
        path = os.path.join(self.path, "disks", name)
        assert os.path.isdir(path), f"no disk {name!r} among {self.disks()}"
        return Disk(path)


def environment(folder, user=None):
    """Where the daemon may leave things is in the test's own folder, so that whatever it leaves is seen."""
    env = dict(os.environ, LC_ALL="C", HOME=folder)
    for variable, name in (("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run")):
        env[variable] = os.path.join(folder, name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(env[variable], 0o700)
            if user is not None:
                os.chown(env[variable], user, user)
    env["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0:" + env.get("ASAN_OPTIONS", "")
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:" + env.get("UBSAN_OPTIONS", "")
    return env


def command_line(folder, *words, options=None):
    own = f"runtime_dir={folder}/run"
    return [BLOCKJOBFS, "-o", f"{own},{options}" if options else own, *words]


class Tree(Folder):
    """What is mounted."""

    def domains(self):
        return self.list("domains")

    def domain(self, name=None):
        if name is None:
            name, = self.domains()
        path = os.path.join(self.path, "domains", name)
        assert os.path.isdir(path), f"no domain {name!r} among {self.domains()}"
        return Domain(path)

    def disk(self, domain=None, disk=None):
        return self.domain(domain).disk(disk)

    def files(self):
        """(path, stat) of everything in the tree."""
        for where, folders, names in os.walk(self.path):
            for name in sorted(folders) + sorted(names):
                path = os.path.join(where, name)
                yield path, os.lstat(path)

    def readable(self):
        """The regular files that may be read without waiting."""
        return [path for path, info in self.files()
                if stat.S_ISREG(info.st_mode) and info.st_mode & 0o444 and os.path.basename(path) != "wait"]


def is_program(pid, path, option):
    """True if the process was started with @option first, and lives for the mount at @path."""
    with contextlib.suppress(OSError, TypeError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        return words[1:2] == [option.encode()] and path.encode() in words and not has_ended(pid)
    return False


def is_server(pid, path):
    """True if the process serves the mount at @path."""
    return is_program(pid, path, "--serve")


class Mount(Tree):
    """
    blockjobfs -f on @sources, mounted on @name in the test's own @folder. What was started is the keeper (self.process); the daemon that does
    the work is the server below it (self.pid).
    """

    running = set()  # for the watchdog
    usual = 0  # descriptors that are no sockets, of a daemon that has done nothing (conftest.py)

    def __init__(self, folder, sources, options=None, name="mnt", user=None):
        super().__init__(os.path.join(folder, name))
        self.folder = folder
        self.sources = list(sources)
        self.options = options
        self.user = user
        self.log = os.path.join(folder, name + ".log")
        self.process = self.server = None
        if not os.path.isdir(self.path):
            os.mkdir(self.path)
            if user is not None:
                os.chown(self.path, user, user)
        self.start()

    # --- life ---

    def start(self):
        self.launch()
        self.wait_mounted()

    def launch(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command_line(self.folder, "-f", *self.sources, self.path, options=self.options), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=environment(self.folder, self.user), cwd=self.folder,
                preexec_fn=die_with_parent, user=self.user, group=self.user, extra_groups=[] if self.user else None)
        Mount.running.add(self)

    def wait_mounted(self, timeout=15):
        """Until the mount is there (the kernel tells of changes by poll) or the daemon has ended."""
        with open("/proc/self/mountinfo") as mounts:
            poll = select.poll()
            poll.register(mounts, select.POLLPRI | select.POLLERR)
            ended = os.pidfd_open(self.process.pid)
            poll.register(ended, select.POLLIN)
            try:
                while True:
                    mounts.seek(0)
                    mounts.read()
                    if self.answers():
                        break
                    ready = poll.poll(timeout * 1000 * SLOW)
                    if not ready or any(fd == ended for fd, _ in ready):
                        status = self.process.poll()
                        self.kill()
                        raise AssertionError(f"not mounted (exit status {status}): {self.said()}")
            finally:
                os.close(ended)

    def answers(self):
        """The dead mount of an earlier life answers ENOTCONN. A new one answers, or makes us wait for its daemon."""
        if self.user is None:
            return os.path.exists(self / "version")
        return not subprocess.run(["test", "-e", self / "version"], user=self.user, group=self.user, extra_groups=[]).returncode

    def servers(self):
        """Pids of the servers of this mount: one, but for moments."""
        return [pid for pid in processes_on(self.path) if is_server(pid, self.path)]

    @property
    def pid(self):
        """Of the server; with -o nokeeper, of the only process there is."""
        if not is_server(self.server, self.path):
            found = [pid for pid in children_of(self.process.pid) if is_server(pid, self.path)] or self.servers()
            self.server = found[0] if found else self.process.pid
        return self.server

    @property
    def alive(self):
        return self.process.poll() is None

    def said(self):
        """What the daemon has written on stdout and stderr."""
        with open(self.log, errors="replace") as log:
            return log.read()

    def tell(self):
        """Prints what there is to see of the daemon and its jobs, for the report of a test that has failed."""
        print(f"--- the daemon {'is alive' if self.alive else 'has ended'}, and said:\n{self.said()}")
        if self.alive and self.user is None:
            for where, name in [(domain, disk) for domain in self.domains() for disk in (None, *self.list(f"domains/{domain}/disks")[:10])]:
                folder = os.path.join("domains", where, *(("disks", name) if name else ()))
                for file in ("job", "chain", "error") if name else ("state", "error"):
                    with contextlib.suppress(OSError):
                        print(f"--- {folder}/{file}:\n{self.read(os.path.join(folder, file))}", end="")
            print("--- events:\n" + "".join(self.read("events").splitlines(True)[-50:]))

    def check_said(self):
        said = self.said()
        assert not any(word in said for word in SUSPICIOUS), said

    def terminate(self, sig=signal.SIGTERM):
        """Ends the daemon as a service manager does; it must unmount, leave no child, and exit with 0."""
        children = [*children_of(self.pid), *children_of(self.process.pid)]
        self.process.send_signal(sig)
        try:
            status = self.process.wait(15 * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{signal.Signals(sig).name} did not end the daemon; it said: {self.said()}")
        finally:
            if self.process.poll() is not None:
                Mount.running.discard(self)
        assert status == 0, f"exit status {status}: {self.said()}"
        assert not mount_lines(self.path), "the mount is still there"
        wait_for(lambda: all(map(has_ended, children)), why="the children to end")
        self.check_said()

    def unmount(self):
        """umount(8) or fusermount3 -u; the daemon must follow, with 0."""
        if self.user is None:
            command = ["umount", self.path]
        else:
            command = ["fusermount3", "-u", self.path]
        def done():
            self.refusal = subprocess.run(command, stderr=subprocess.PIPE, text=True, user=self.user, group=self.user).stderr
            return not self.refusal or self.user is None
        wait_for(done, 2, "the toucher, which has no mount of its own here, to let go")
        assert not self.refusal
        assert self.process.wait(15 * SLOW) == 0, self.said()
        Mount.running.discard(self)
        self.check_said()

    def kill(self):
        """SIGKILL on keeper and server at once: the dead mount stays."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGSTOP)  # so that it does not start another one in between
        servers = self.servers()
        for pid in servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for pid in servers:
            wait_for(lambda pid=pid: has_ended(pid), why="the server to go")
        Mount.running.discard(self)

    def close(self):
        """The end of a test: as many descriptors as at the start, then a clean end."""
        if not self.process or not self.alive:
            if self in Mount.running:
                Mount.running.discard(self)
                raise AssertionError(f"the daemon died (status {self.process.returncode}): {self.said()}")
            return
        self.settle()
        self.terminate()

    def settle(self):
        """
        Waits until no descriptor is left open: one connection a source or domain, one to the daemon's own helper and one to its keeper may be there, and of
        what is no socket only as many as a daemon that has done nothing has, a lock for each image and four pipes for each command.
        """
        links = max(len(self.sources), len(self.domains())) if self.user is None else len(self.sources)

        def left():
            now = descriptors(self.pid)
            sockets = [what for what in now.values() if what.startswith("socket:")]
            others = [what for what in now.values() if what not in sockets]
            images = sum(what.endswith("/lock") for what in others)
            pipes = 4 * sum("exec:" in source for source in self.sources)
            return now if len(sockets) > links + 2 or len(others) - images > Mount.usual + pipes or images > len(self.sources) else {}
        try:
            wait_for(lambda: not left(), 5)
        except AssertionError:
            raise AssertionError(f"descriptors left open, {Mount.usual} and the sockets are usual: {left()}") from None


class Background:
    """A function on a thread of its own, for what blocks. result() joins it and gives what it returned, or raises."""

    def __init__(self, function, *arguments):
        self.value = self.error = None
        self.thread = threading.Thread(target=self.run, args=(function, arguments), daemon=True)
        self.thread.start()

    def run(self, function, arguments):
        try:
            self.value = function(*arguments)
        except BaseException as error:  # handed over by result()
            self.error = error

    @property
    def done(self):
        return not self.thread.is_alive()

    def blocked_on(self, fd):
        """It is asleep in a system call about @fd."""
        with contextlib.suppress(OSError), open(f"/proc/self/task/{self.thread.native_id}/syscall") as file:
            return file.read().split()[1:2] == [hex(fd)]
        return False

    def result(self, timeout=10):
        self.thread.join(timeout * SLOW)
        assert not self.thread.is_alive(), "still blocked"
        if self.error:
            raise self.error
        return self.value


@contextlib.contextmanager
def watchdog(seconds):
    """
    A hung daemon must not hang its tests: whoever reads from it cannot even be killed. After @seconds every daemon is killed and
    its mount taken away, so that the reader gets an error.
    """
    def bite():
        for mount in list(Mount.running):
            with contextlib.suppress(OSError, AssertionError):
                mount.kill()
            detach(mount.path)

    timer = threading.Timer(seconds, bite)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
