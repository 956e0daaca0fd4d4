"""What is left of a backup or a snapshot that did not come about, at whatever moment it was given up: no file, no job, no node."""

import errno
import json
import os
import signal
import subprocess

import pytest

import images
import layouts
from kinds import Chain
from relay import Relay
from system import wait_for

COMMANDS = {"backup": "dest={path}", "snapshot": "file={path}"}
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(params=[layouts.machine_inline, layouts.storage_daemon_exported], ids=["machine", "daemon"])
def set_up(request, storage_daemon, machine, mount, folder, cleanup):
    class SetUp:
        chain = Chain(folder)
        path = f"{folder}/new.qcow2"

        def write(self, command, more=""):
            self.disk.write(command, f"{COMMANDS[command].format(path=self.path)} {more}\n")

        def refused(self, command, number, more=""):
            with pytest.raises(OSError) as caught:
                self.write(command, more)
            assert caught.value.errno == number, caught.value
            return self.disk.read("error")

        def is_as_before(self):
            assert self.disk.chain == self.chain.all and self.disk.status == "idle"
            wait_for(lambda: self.qemu.monitor("query-jobs") == [], why="no job to be left")
            wait_for(lambda: not os.path.exists(self.path), why="the file to be taken away")
            nodes = [node["name"] for node in self.qemu.monitor("x-debug-query-block-graph")["nodes"]]
            assert not [name for name in nodes if name.startswith("bjfs-")]

        def works(self, command):
            """The same command, now undisturbed."""
            self.write(command)
            assert self.disk.wait() in ("completed", "idle")
            self.qemu.quit()
            assert images.same(self.path, self.chain.expected)

    made = SetUp()
    made.qemu, name = request.param(storage_daemon if request.param in layouts.STORAGE_DAEMON else machine, made.chain.top, made.chain)
    made.relay = Relay(f"{folder}/relay.qmp", made.qemu.socket)
    cleanup(made.relay.close)
    made.mount = mount(f"vm={folder}/relay.qmp", options="timeout=1")
    made.disk = made.mount.disk("vm", name)
    return made


def broken(name, **arguments):
    """Changes a command so that QEMU refuses it."""
    def change(message):
        if message["execute"] == name:
            message["arguments"].update(arguments)
        return message
    return change


LAST = {"backup": ["drive-backup"], "snapshot": ["blockdev-snapshot-sync", "blockdev-snapshot"]}


def last_step(set_up, command):
    machine = set_up.disk.name != "disk0"
    return LAST[command][0 if machine or command == "backup" else 1]


@pytest.mark.quick
@every_command
def test_the_last_step_is_refused(set_up, command):
    argument = {"drive-backup": "device", "blockdev-snapshot-sync": "node-name", "blockdev-snapshot": "node"}[last_step(set_up, command)]
    set_up.relay.change = broken(last_step(set_up, command), **{argument: "nobody"})
    assert "nobody" in set_up.refused(command, errno.EREMOTEIO)
    set_up.is_as_before()
    set_up.relay.change = None
    set_up.works(command)


@every_command
@pytest.mark.parametrize("step", ["blockdev-create", "query-jobs", "job-dismiss"])
def test_the_connection_is_cut_while_it_is_made(set_up, command, step):
    set_up.relay.change = lambda message: None if message["execute"] == step else message
    set_up.refused(command, errno.EHOSTDOWN)
    set_up.relay.change = None
    wait_for(lambda: set_up.mount.domain("vm").connected, why="the connection")
    set_up.is_as_before()
    set_up.works(command)


@every_command
def test_qemu_is_too_slow(set_up, command):
    """The writer is told after the timeout; what QEMU has made by then, or does later, is taken away."""
    set_up.relay.hold = "query-jobs"
    assert "in time" in set_up.refused(command, errno.ETIMEDOUT)
    set_up.relay.release()
    set_up.is_as_before()
    set_up.works(command)


@every_command
def test_a_frozen_qemu(set_up, command):
    set_up.qemu.freeze()
    set_up.refused(command, errno.ETIMEDOUT)
    assert not os.path.exists(set_up.path)
    set_up.qemu.thaw()
    wait_for(lambda: "job-dismiss" in set_up.relay.seen, why="the file to be made after all")
    wait_for(lambda: not os.path.exists(set_up.path), why="the file to be taken away")
    set_up.is_as_before()
    set_up.works(command)


@every_command
def test_the_writer_is_interrupted(set_up, command, run_in_background):
    set_up.relay.hold = "query-jobs"
    words = COMMANDS[command].format(path=set_up.path)
    writer = run_in_background("dd", f"of={set_up.disk.path}/{command}", "status=none", "conv=notrunc", stdin=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    writer.stdin.write(words.encode() + b"\n")
    writer.stdin.close()
    wait_for(lambda: set_up.relay.held, why="the image to be made")
    assert os.path.exists(set_up.path)
    writer.send_signal(signal.SIGINT)
    writer.wait()
    set_up.relay.release()
    wait_for(lambda: not os.path.exists(set_up.path), why="the file to be taken away")
    set_up.is_as_before()
    set_up.works(command)


def test_a_snapshot_whose_answer_is_lost(set_up):
    """It may have been taken, says the refusal, and then `chain` does; nobody who asks again gets a second one."""
    set_up.relay.hold = last_step(set_up, "snapshot")
    assert "`chain` tells" in set_up.refused("snapshot", errno.ETIMEDOUT)
    wait_for(lambda: len(set_up.disk.chain) == 4, why="the truth")
    assert set_up.disk.chain == [set_up.path, *set_up.chain.all]
    set_up.refused("snapshot", errno.EEXIST)
    assert len(set_up.disk.events("chain-changed")) == 1
    assert set_up.mount.domain("vm").disks() == [set_up.disk.name]
    set_up.relay.release()
    set_up.disk.pull()
    assert set_up.disk.wait() == "completed"
    assert set_up.disk.chain == [set_up.path]


def test_no_job_is_started_while_the_disk_goes_over(set_up, run_in_background):
    """It would work on an image that is not the active one by then."""
    set_up.relay.hold = last_step(set_up, "snapshot")
    writer = run_in_background("sh", "-c", f"echo file={set_up.path} > {set_up.disk.path}/snapshot")
    wait_for(lambda: set_up.relay.held, why="the answer")
    with pytest.raises(OSError) as caught:
        set_up.disk.pull()
    assert caught.value.errno == errno.EBUSY and "overlay" in set_up.disk.read("error")
    set_up.relay.release()
    assert writer.wait() == 0
    set_up.disk.pull()
    assert set_up.disk.wait() == "completed"
    assert set_up.disk.chain == [set_up.path]


def test_a_backup_whose_answer_is_lost(set_up):
    """Its events tell as much."""
    set_up.relay.hold = "drive-backup"
    set_up.write("backup", "bandwidth=1M")
    assert set_up.disk.status == "running"
    assert os.path.exists(set_up.path)
    set_up.disk.write("speed", "max\n")
    assert set_up.disk.wait() == "completed"
    set_up.qemu.quit()
    assert images.same(set_up.path, set_up.chain.expected)


def test_a_backup_whose_tables_cannot_be_written(set_up):
    """QEMU would write them when it closes the image, and nobody would hear that it could not."""
    def change(message):
        if message["execute"] == "drive-backup":
            target = json.loads(message["arguments"]["target"].removeprefix("json:"))
            rule = {"event": "flush_to_os", "errno": errno.ENOSPC, "once": False, "immediately": False}
            target["file"] = {"driver": "blkdebug", "image": target["file"], "inject-error": [rule]}
            message["arguments"]["target"] = "json:" + json.dumps(target)
        return message
    set_up.relay.change = change
    set_up.write("backup")
    assert set_up.disk.wait() == "failed"
    assert "flush" in set_up.disk.job["error"] and "No space left" in set_up.disk.job["error"]
    assert not images.same(set_up.path, set_up.chain.expected)
    assert set_up.disk.chain == set_up.chain.all
    os.unlink(set_up.path)
    set_up.relay.change = None
    set_up.works("backup")
