"""inotify: every tool that watches by it fires for every change, on the file and on its folder, also from another mount namespace."""

import os
import time

import pytest

from qemu import blockdev
from system import needs_root, stays, wait_for
from watch import CLOSE_WRITE, CREATE, DELETE, IS_FOLDER, MODIFY, Inotify, flip, needs, program, refuse  # noqa: F401

CHANGES = 4


@pytest.mark.quick
def test_the_kernel_tells_file_and_folder(one):
    with Inotify(one.disk / "status", one.disk.path) as inotify:
        one.disk.hold()
        inotify.wait(lambda notice: notice.name == "status" and notice.mask == CLOSE_WRITE)
        for _ in range(CHANGES):
            inotify.drain()
            flip(one.disk)
            told = inotify.wait(lambda notice: notice.name == "status" and notice.mask == CLOSE_WRITE) + inotify.drain()
            assert {notice.mask for notice in told if notice.watch == one.disk / "status"} == {MODIFY, CLOSE_WRITE}
            assert {notice.mask for notice in told if notice.watch == one.disk.path and notice.name == "status"} == {MODIFY, CLOSE_WRITE}
            assert {"job", "status", "events"} <= {notice.name for notice in told}
        one.disk.write("abort", "\n")


FILES_AND_CAUSES = ("status", "job", "chain", "error", "events", "progress", "history", "source", "speed", "pause")


@pytest.mark.quick
@pytest.mark.parametrize("name", FILES_AND_CAUSES)
def test_every_file_of_a_disk_tells(one, name):
    """A whole pull, with a refused command before it: each of these changes in it, alone watched."""
    with Inotify(one.disk / name) as inotify:
        refuse(one.disk)
        one.disk.pull()
        assert one.disk.wait() == "completed"
        assert {notice.mask for notice in inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)} == {MODIFY, CLOSE_WRITE}


@pytest.mark.quick
def test_logs_and_states_above_tell(one):
    domain = one.mount.domain("vm")
    paths = [one.mount / "events", domain / "events"]
    with Inotify(*paths) as inotify:
        refuse(one.disk)
        for path in paths:
            inotify.wait(lambda notice, path=path: notice.watch == path and notice.mask == CLOSE_WRITE)
            refuse(one.disk)
    with Inotify(domain / "state", domain / "error", domain.path) as inotify:
        one.qemu.kill()
        told = []
        while not {domain / "state", domain / "error"} <= {notice.watch for notice in told}:
            told += inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
        assert domain.state == "disconnected" or domain.state == "connecting"


def test_what_nobody_watched_is_told_to_who_watches_then(one):
    """Watches come and go; each is told of what changes while it is there."""
    one.disk.hold()
    for _ in range(CHANGES):
        flip(one.disk)
        with Inotify(one.disk / "status") as inotify:
            flip(one.disk)
            inotify.wait(lambda notice: notice.mask == CLOSE_WRITE)
    one.disk.write("abort", "\n")


@pytest.mark.quick
@needs("inotifywait")
@pytest.mark.parametrize("event", ["modify", "close_write"])
@pytest.mark.parametrize("where", ["file", "folder"])
def test_inotifywait(one, program, event, where):
    path = one.disk / "status" if where == "file" else one.disk.path
    watcher = program("inotifywait", "-m", "-e", event, "--format", "%e %f", path)
    watcher.says("Watches established")
    one.disk.hold()
    for _ in range(CHANGES):
        flip(one.disk)
        watcher.says(f"^{event.upper()}.* status$" if where == "folder" else f"^{event.upper()}")
    one.disk.write("abort", "\n")
    assert one.disk.status == "cancelled"


@pytest.mark.quick
def test_who_reads_meanwhile_keeps_no_notice_away(one, run_in_background):
    """Everybody shares one inode: what others are told of it (its mode) must not stop the toucher, which writes what nobody may."""
    script = 'while :; do stat -c %s "$1"/* >/dev/null; done'
    for _ in range(3):
        run_in_background("sh", "-c", script, "sh", one.disk.path)
    with Inotify(one.disk / "error") as inotify:
        deadline, number = time.monotonic() + 3, 0
        while time.monotonic() < deadline:
            number += 1
            with pytest.raises(OSError):
                one.disk.write("speed", f"bogus{number}.")
            inotify.wait(lambda notice: notice.mask == CLOSE_WRITE and f"bogus{number}." in one.disk.read("error"))


@needs("inotifywait")
def test_a_shell_loop_around_inotifywait(one, program):
    watcher = program("sh", "-c", 'inotifywait -qq -e close_write "$1" & sleep 0.1; echo ready; '
                      'while wait; do cat "$1"; inotifywait -qq -e close_write "$1" & done', "sh", one.disk / "status")
    watcher.says("ready")
    one.disk.hold()
    watcher.says("running")


@needs("entr")
def test_entr(folder, one, program):
    one.disk.hold()
    with open(f"{folder}/list", "w") as file:
        file.write(one.disk / "status")
    with open(f"{folder}/list") as file:
        watcher = program("entr", "-n", "cat", one.disk / "status", stdin=file)
    watcher.says("running")
    for _ in range(CHANGES):
        time.sleep(0.2)  # entr itself takes what changes right after its command for the command's doing
        watcher.says(f"^{flip(one.disk)}$")
    time.sleep(0.2)
    one.disk.write("abort", "\n")
    watcher.says("^cancelled$")


NODE_WATCH = """
const fs = require('fs');
fs.watch(process.argv[1], (event, name) => console.log(event, name, fs.readFileSync(process.argv[2], 'utf8').trim()));
console.log('ready');
"""

NODE_WATCH_FILE = """
const fs = require('fs');
fs.watchFile(process.argv[1], { interval: 50 }, (now, before) => {
    if (now.mtimeMs <= before.mtimeMs || now.ino !== before.ino) console.log('odd', now, before);
    fs.readFile(process.argv[1], 'utf8', (error, text) => console.log(error || text.trim()));
});
fs.stat(process.argv[1], () => setTimeout(() => console.log('ready'), 100));
"""


@needs("node")
@pytest.mark.parametrize("where", ["file", "folder"])
def test_node_watch(one, program, where):
    path = one.disk / "status"
    watcher = program("node", "-e", NODE_WATCH, path if where == "file" else one.disk.path, path)
    watcher.says("ready", timeout=15)
    one.disk.hold()
    for _ in range(CHANGES):
        watcher.says(f"^change status {flip(one.disk)}$")
    one.disk.write("abort", "\n")
    watcher.says("^change status cancelled$")


@needs("node")
def test_node_watch_file(one, program):
    """It polls stat: needs nothing but an mtime that rises and an inode that stays."""
    watcher = program("node", "-e", NODE_WATCH_FILE, one.disk / "status")
    watcher.says("ready", timeout=15)
    one.disk.hold()
    watcher.says("^running$")
    for _ in range(CHANGES):
        watcher.says(f"^{flip(one.disk)}$")
    one.disk.write("abort", "\n")
    watcher.says("^cancelled$")
    assert not [line for line in watcher.lines if line.startswith("odd")]


@pytest.mark.quick
def test_disks_that_come_and_go(one, overlay):
    """Plugged in and out behind our back, then with the domain."""
    domain = one.mount.domain("vm")
    with Inotify(domain / "disks") as inotify:
        other = overlay("other")
        one.qemu.monitor("blockdev-add", driver="qcow2", **{"node-name": "disk1"}, file={"driver": "file", "filename": other})
        wait_for(lambda: "disk1" in domain.disks(), why="the new disk")
        told = inotify.wait(lambda notice: notice.mask & CREATE)
        assert [(notice.mask, notice.name) for notice in told] == [(CREATE | IS_FOLDER, "disk1")]
        one.qemu.monitor("blockdev-del", **{"node-name": "disk1"})
        wait_for(lambda: "disk1" not in domain.disks(), why="the disk to go")
        told = inotify.wait(lambda notice: notice.mask & DELETE)
        assert [(notice.mask, notice.name) for notice in told] == [(DELETE | IS_FOLDER, "disk1")]


@needs_root
@needs("inotifywait", "unshare")
def test_through_a_bind_mount_in_another_namespace(folder, one, program):
    """As a container sees it: the domain's folder alone, mounted somewhere else, by somebody else's namespace."""
    os.mkdir(f"{folder}/container")
    script = 'mount --bind "$1" "$2" && exec inotifywait -m -e close_write --format "%e %f" "$2/disks/disk0/status" "$2/disks/disk0"'
    watcher = program("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
                      one.mount.domain("vm").path, f"{folder}/container")
    watcher.says("Watches established")
    assert os.listdir(f"{folder}/container") == []
    one.disk.hold()
    for _ in range(CHANGES):
        flip(one.disk)
        watcher.says("^CLOSE_WRITE.* $")
        watcher.says("^CLOSE_WRITE.* status$")
    one.disk.write("abort", "\n")


@pytest.mark.quick
def test_nothing_is_told_when_nothing_changes(one):
    one.disk.pull()
    assert one.disk.wait() == "completed"
    with Inotify(one.disk.path, *(one.disk / name for name in one.disk.list() if name != "wait")) as inotify:
        inotify.drain(0.2)
        for name in one.disk.list():
            one.disk.read(name)
        assert stays(lambda: not inotify.read(0), 0.3)
