"""Every program that reads: the right content, whole, each time anew; also where it goes round read(2)."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time

import pytest

from system import wait_for
from watch import flip, needs, refuse

CHANGES = 2
BUSYBOX_CAT = pytest.param(["busybox", "cat", "{}"], id="busybox-cat", marks=needs("busybox"))
COPIERS = [
    pytest.param(["cp", "{}", "{out}"], id="cp"),
    pytest.param(["cp", "-p", "--reflink=auto", "{}", "{out}"], id="cp-p"),
    pytest.param(["dd", "if={}", "of={out}", "status=none"], id="dd"),
    pytest.param(["dd", "if={}", "of={out}", "bs=1M", "status=none"], id="dd-1M"),
    pytest.param(["busybox", "cp", "{}", "{out}"], id="busybox-cp", marks=needs("busybox")),
    pytest.param(["rsync", "-t", "{}", "{out}"], id="rsync", marks=needs("rsync")),
    pytest.param(["rsync", "--inplace", "{}", "{out}"], id="rsync-inplace", marks=needs("rsync")),
    pytest.param(["install", "-m", "600", "{}", "{out}"], id="install"),
]
PRINTERS = [
    pytest.param(["cat", "{}"], id="cat"),
    BUSYBOX_CAT,
    pytest.param(["dd", "if={}", "bs=1", "status=none"], id="dd-by-bytes"),
    pytest.param(["grep", "-E", "", "{}"], id="grep"),
    pytest.param(["head", "-n", "1000000", "{}"], id="head"),
    pytest.param(["tail", "-n", "1000000", "{}"], id="tail"),
    pytest.param(["tail", "-c", "+1", "{}"], id="tail-c"),
    pytest.param(["busybox", "tail", "-n", "1000000", "{}"], id="busybox-tail", marks=needs("busybox")),
    pytest.param(["bash", "-c", 'printf "%s\\n" "$(<"$1")"', "bash", "{}"], id="bash"),
    pytest.param(["dash", "-c", 'while IFS= read -r line; do printf "%s\\n" "$line"; done <"$1"', "dash", "{}"], id="dash-read",
                 marks=needs("dash")),
    pytest.param(["node", "-e", "require('fs').readFile(process.argv[1], (e, data) => process.stdout.write(data))", "{}"],
                 id="node-readFile", marks=needs("node")),
    pytest.param(["node", "-e", "process.stdout.write(require('fs').readFileSync(process.argv[1]))", "{}"], id="node-readFileSync",
                 marks=needs("node")),
    pytest.param(["/usr/bin/python3", "-c", "import sys; sys.stdout.write(open(sys.argv[1]).read())", "{}"], id="python"),
    pytest.param(["curl", "-s", "file://{}"], id="curl", marks=needs("curl")),
    pytest.param(["sort", "-s", "-k1,1.0", "{}"], id="sort"),
]


def run(command, path, out=None):
    command = [word.format(path, out=out) for word in command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout


def states(one):
    """Some states of the tree with something to read in it: each time something else. More than 4 KiB in `events`."""
    refuse(one.disk, 40)
    one.disk.hold()
    for _ in range(CHANGES):
        yield flip(one.disk)
    one.disk.write("abort", "\n")
    yield "cancelled"


@pytest.mark.parametrize("command", COPIERS)
def test_copies(folder, one, command):
    """Small and large, over the copy before as well."""
    for word in states(one):
        # A live job's figures grow between stat(2) and read(2), and rsync reads no more than stat told.
        for name in ("status", "events", "chain", "job", "README"):
            if name == "job" and word != "cancelled":
                continue
            where = one.mount if name == "README" else one.disk
            out = f"{folder}/copy-of-{name}"
            run(command, where / name, out)
            with open(out) as file:
                assert file.read() == where.read(name)
            if name == "status":
                with open(out) as file:
                    assert file.read() == word + "\n"
    assert os.stat(one.disk / "events").st_size > 4096


@pytest.mark.parametrize("command", PRINTERS)
def test_printed(one, command):
    for word in states(one):
        assert run(command, one.disk / "status") == word + "\n"
        if command[0] != "sort":
            assert run(command, one.disk / "events") == one.disk.read("events")
    assert len(one.disk.read("events")) > 4096


@pytest.mark.quick
def test_counted_and_tested(one):
    for word in states(one):
        text = one.disk.read("events")
        assert run(["wc", "-c", "{}"], one.disk / "events").split()[0] == str(len(text))
        assert run(["wc", "-l", "{}"], one.disk / "events").split()[0] == str(text.count("\n"))
        assert run(["grep", "-c", "command-refused", "{}"], one.disk / "events") == "40\n"
        assert run(["stat", "-c", "%s", "{}"], one.disk / "status") == f"{len(word) + 1}\n"
        assert run(["test", "-s", "{}"], one.disk / "status") == ""
    assert one.disk.read("error") == ""
    assert subprocess.run(["test", "-s", one.disk / "error"]).returncode == 1
    refuse(one.disk)
    assert run(["test", "-s", "{}"], one.disk / "error") == ""
    assert run(["find", one.disk.path, "-name", "error", "-size", "+0"], "") == one.disk / "error" + "\n"
    assert subprocess.run(["grep", "-q", "^cancelled$", one.disk / "status"]).returncode == 0


@needs("jq")
def test_jq(one):
    refuse(one.disk, 40)
    one.disk.pull()
    assert one.disk.wait() == "completed"
    assert run(["jq", "-r", ".event", "{}"], one.disk / "events").split("\n")[-2] == one.disk.events()[-1]["event"]
    assert run(["jq", "-s", 'map(select(.event == "command-refused")) | length', "{}"], one.disk / "events") == "40\n"
    assert run(["jq", "-r", 'select(.event == "job-completed") | .released[0]', "{}"], one.disk / "events").startswith("/")
    assert json.loads(run(["jq", "-s", "-c", ".", "{}"], one.disk / "history"))[0]["error"] is None


def readable(one):
    """All that a copy of the whole tree may take: but for what waits, and what counts those who look at it."""
    return {os.path.relpath(path, one.mount.path) for path in one.mount.readable()} - {"metrics.prom"}


def test_tar(one):
    """The whole tree, which stays as it is meanwhile: every byte, no padding, no complaint."""
    refuse(one.disk, 40)
    one.disk.pull()
    assert one.disk.wait() == "completed"
    done = subprocess.run(["tar", "-C", one.mount.path, "-cf", "-", "."], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = {member.name.removeprefix("./") for member in tar if member.isfile()}
        assert readable(one) <= names
        for member in tar:
            if member.isfile() and member.name.removeprefix("./") in readable(one):
                with open(os.path.join(one.mount.path, member.name), "rb") as file:
                    assert tar.extractfile(member).read() == file.read(), member.name


@needs("rsync")
def test_rsync_of_the_tree(folder, one):
    """Twice: the second time it takes over what has changed, and that only."""
    for turn in range(2):
        one.disk.pull()
        assert one.disk.wait() == "completed"
        done = subprocess.run(["rsync", "-ai", "--exclude=wait", one.mount.path + "/", f"{folder}/copy/"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=20)
        assert done.returncode == 0, done.stdout
        for name in readable(one):
            with open(f"{folder}/copy/{name}") as copy, open(one.mount / name) as file:
                assert copy.read() == file.read(), name
        copied = {line.split()[-1] for line in done.stdout.splitlines() if line.startswith(">f")}
        assert any(name.endswith("/events") for name in copied)
        assert turn == 0 or not any(name.endswith("/size") and "pull" in name for name in copied)
    assert done.stdout.count("README") == 0


def test_python_copies(folder, one):
    """shutil goes by sendfile or copy_file_range where it can."""
    for _ in states(one):
        for name in ("status", "events"):
            shutil.copyfile(one.disk / name, f"{folder}/copy")
            with open(f"{folder}/copy") as file:
                assert file.read() == one.disk.read(name)


def sendfile(fd, out):
    """The whole of @fd by sendfile(2), from its beginning."""
    os.ftruncate(out, 0)
    os.lseek(out, 0, os.SEEK_SET)
    at = 0
    while True:
        sent = os.sendfile(out, fd, at, 1 << 20)
        if not sent:
            return os.pread(out, 1 << 20, 0).decode()
        at += sent


@pytest.mark.quick
@pytest.mark.parametrize("name", ["status", "job", "events", "error"])
def test_sendfile_again_on_the_same_open_file(folder, one, name):
    """It goes through the page cache, which the notice of the change clears."""
    fd = os.open(one.disk / name, os.O_RDONLY)
    out = os.open(f"{folder}/out", os.O_RDWR | os.O_CREAT)
    sendfile(fd, out)
    for _ in states(one):
        if name == "error":
            with pytest.raises(OSError):
                one.disk.write("pull", f"bogus{time.monotonic_ns()}" + "x" * (5000 if _ == "paused" else 1))
        wait_for(lambda: sendfile(fd, out) == one.disk.read(name), 2, "the new content")
    os.close(fd)
    os.close(out)


def test_sendfile_while_it_changes(folder, one):
    """
    Opened anew each time: every content is one that was true, whole. But for one in ten thousand, when two answers were under way at once, of which
    the kernel takes the first (docs/architecture.md, "What the kernel remembers").
    """
    torn = 0
    one.disk.hold()
    out = os.open(f"{folder}/out", os.O_RDWR | os.O_CREAT)
    flipper = subprocess.Popen(["sh", "-c", 'while echo 1 >"$1" && echo 0 >"$1"; do :; done', "sh", one.disk / "pause"],
                               stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            fd = os.open(one.disk / "status", os.O_RDONLY)
            torn += sendfile(fd, out) not in ("running\n", "paused\n", "completed\n")
            os.close(fd)
        assert torn <= 1
    finally:
        flipper.kill()
        flipper.wait()
    os.close(out)
