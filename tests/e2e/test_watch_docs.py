"""The examples of docs/watching.md run as they stand, where what runs them is there."""

import os
import re
import subprocess
import time

import pytest

from system import ROOT, wait_for
from watch import find_program, program, watches  # noqa: F401

with open(os.path.join(ROOT, "docs", "watching.md")) as _file:
    EXAMPLES = dict(re.findall(r"<!-- example: (\S+) -->\n```\w+\n(.*?)^```$", _file.read(), re.S | re.M))

#        what starts it, what it must have said at last, whether it ends by itself
HOW = {
    "wait": (["sh", "-c", "{text}"], "^completed$", True),
    "loop": (["sh", "-c", "{text}"], '"job-completed"', False),
    "inotifywait": (["sh", "-c", "{text}"], r"^completed (\d+) \1$", False),
    "entr": (["sh", "-c", "{text}"], "^completed$", False),
    "node": (["node", "-e", "{text}"], "^completed$", True),
    "python": (["/usr/bin/python3", "-c", "{text}"], "^job-completed$", True),
    "go": (["{program}"], "^completed$", True),
    "c": (["{program}"], "^completed$", True),
}


def test_all_are_tried():
    assert set(EXAMPLES) == set(HOW)


def build(name, folder):
    """The path of the program, for what has to be compiled."""
    source, path = f"{folder}/example.{name}", f"{folder}/example"
    with open(source, "w") as file:
        file.write(EXAMPLES[name])
    command = {"c": ["cc", "-Wall", "-Wextra", "-Werror", "-o", path, source], "go": ["go", "build", "-o", path, source]}[name]
    environment = dict(os.environ, GOCACHE=os.environ.get("GOCACHE", "/tmp/blockjobfs-go"), GO111MODULE="off", HOME=folder)
    subprocess.run(command, check=True, env=environment)
    return path


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(HOW))
def test_example(folder, one, program, name):  # noqa: F811
    command, last, ends = HOW[name]
    tool = {"c": "cc", "wait": "sh", "loop": "tail", "python": "/usr/bin/python3"}.get(name, name)
    if not find_program(tool):
        pytest.skip(f"{tool} is not installed")
    path = build(name, folder) if name in ("c", "go") else None
    one.disk.hold()
    steps = [("pause", "1", "paused"), ("pause", "0", "running")] if name != "entr" else []
    # Those that do not end are ended with their whole group.
    watcher = program(*(word.format(text=EXAMPLES[name], program=path) for word in command), cwd=one.disk.path,
                      start_new_session=True, stdin=subprocess.DEVNULL)
    try:
        if name in ("node", "entr", "c", "go"):
            watcher.says("^running$", timeout=15)
        elif name in ("loop", "inotifywait", "python"):
            wait_for(lambda: ready(watcher, name), 10, "it to look")
        if name == "entr":
            time.sleep(0.3)  # it takes what changes right after its command for the command's doing
        for control, value, word in steps:
            one.disk.write(control, value)
            if name in ("node", "c", "go"):
                watcher.says(f"^{word}$")
        one.disk.release()
        assert one.disk.wait() == "completed"
        watcher.says(last, timeout=8)
        if ends:
            assert watcher.process.wait(5) == 0
    finally:
        try:
            os.killpg(watcher.pid, 9)
        except ProcessLookupError:
            pass


def ready(watcher, name):
    """The shell's child watches, or has the log open."""
    for pid in group_of(watcher.pid):
        try:
            if name == "inotifywait" and watches(pid) >= 2:
                return True
            if name != "inotifywait" and any(os.readlink(f"/proc/{pid}/fd/{fd}").endswith("/events") for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/wchan") as file:
                    where = file.read()
                return "nanosleep" in where or "poll" in where
        except OSError:
            continue
    return False


def group_of(leader):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == leader:
                yield int(pid)
        except OSError:
            continue
