"""
A container in small: a process in user, mount, pid and network namespaces of its own, as a user without privileges, that sees of the
host's files the programs and one folder. It does what it is told, a line of JSON at a time.
"""

import json
import os
import subprocess

from system import SLOW

# Runs inside, with nothing but Python's own library.
AGENT = r"""
import ctypes, errno, json, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
held = {}

def read(path):
    with open(path) as file:
        return file.read()

def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)

def hold(path):
    held[path] = open(path)
    return held[path].read()

def poll(path, timeout):
    "The content once poll(2) says that it is another one."
    poll = select.poll()
    poll.register(held[path], select.POLLPRI)
    assert poll.poll(timeout * 1000), "poll does not wake"
    held[path].seek(0)
    return held[path].read()

def watch(path):
    held["inotify"] = libc.inotify_init1(0)
    return libc.inotify_add_watch(held["inotify"], path.encode(), 8)

def told(timeout):
    assert select.select([held["inotify"]], [], [], timeout)[0], "inotify does not tell"
    return len(os.read(held["inotify"], 1 << 16)) > 0

def tree(path):
    return sorted(os.path.join(where, name) for where, folders, files in os.walk(path) for name in folders + files)

def owner(path):
    info = os.lstat(path)
    return [info.st_uid, info.st_gid]

def me():
    return [os.getuid(), os.getgid()]

for line in sys.stdin:
    name, *words = json.loads(line)
    try:
        function = globals().get(name) or getattr(os, name)
        answer = {"value": function(*words)}
    except OSError as error:
        answer = {"errno": errno.errorcode[error.errno]}
    except Exception as error:
        answer = {"failed": repr(error)}
    print(json.dumps(answer), flush=True)
"""

# $1: the folder to be shown as /domain; $2: what is to be hidden. By unshare(1) alone, for machines without bubblewrap.
SCRIPT = 'mkdir -p /mnt && mount --rbind "$1" /mnt && mount -t tmpfs none "$2" && exec python3 -c "$3"'


def bubblewrap(shown, hidden):
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--uid", "1000", "--gid", "1000", "--proc", "/proc", "--dev", "/dev",
             "--tmpfs", "/tmp"]
    for name in os.listdir("/"):
        if os.path.islink(f"/{name}"):
            words += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif name in ("usr", "lib", "lib64", "bin", "etc"):
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    return [*words, "--bind", shown, "/mnt", "/usr/bin/python3", "-c", AGENT]


def unshare(shown, hidden):
    return ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--propagation", "slave",
            "sh", "-c", SCRIPT, "sh", shown, hidden, AGENT]


class Sidecar:
    folder = "/mnt"  # where it sees what it is shown

    def __init__(self, words, uid):
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        user=uid, group=uid, extra_groups=[], env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, cwd="/")

    def __call__(self, name, *words):
        """Value of a function of the agent, or of os. A failure is an AssertionError; an errno comes as OSError."""
        try:
            self.process.stdin.write(json.dumps([name, *words]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.process.stderr.read()}"
        answer = json.loads(line)
        if "errno" in answer:
            raise Denied(answer["errno"])
        assert "failed" not in answer, answer
        return answer["value"]

    def errno(self, name, *words):
        try:
            self(name, *words)
        except Denied as denied:
            return str(denied)
        return None

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10 * SLOW)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process.stderr.close()


class Denied(Exception):
    pass
