"""The daemon comes and goes; the jobs in QEMU go on."""

import contextlib
import errno
import os
import signal
import subprocess

import pytest

import images
from mount import Background, Tree, command_line, environment
from qemu import blockdev
from system import IS_ROOT, Took, children_of, mount_lines, parent_of, processes_on, stays, wait_for


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_end_leaves_the_job_to_the_next_daemon(one, shelf, sig):
    one.disk.hold()
    job = one.disk.job["id"]
    one.mount.terminate(sig)
    assert one.qemu.monitor.job()["status"] == "running"
    one.mount.start()
    assert one.disk.status == "running"
    assert one.disk.job["id"] == job
    assert one.disk.job["type"] == "pull"
    one.disk.write("speed", "2")
    one.disk.release()
    assert one.disk.wait() == "completed"
    assert one.disk.chain == [one.image]
    assert one.qemu.monitor("query-jobs") == []
    one.qemu.quit()
    assert images.same(one.image, shelf.template)


@pytest.mark.quick
def test_a_job_that_ended_while_nobody_looked(one):
    """It waits in QEMU for the next daemon, which shows its final word and leaves the disk ready."""
    one.disk.hold()
    one.mount.terminate()
    one.qemu.monitor("block-job-set-speed", device=list(one.qemu.monitor.jobs())[0], speed=0)
    one.qemu.monitor.wait_event("BLOCK_JOB_PENDING")
    one.mount.start()
    assert one.disk.wait() == "completed"
    assert one.disk.chain == [one.image]
    assert one.qemu.monitor("query-jobs") == []
    one.disk.pull()
    assert one.disk.wait() == "completed"


def test_a_job_that_was_cancelled_while_nobody_looked(one):
    one.disk.hold()
    one.mount.kill()
    one.qemu.monitor("job-cancel", id=list(one.qemu.monitor.jobs())[0])
    one.qemu.monitor.wait_event("BLOCK_JOB_CANCELLED")
    one.mount.start()
    assert one.disk.wait() == "cancelled"
    assert one.qemu.monitor("query-jobs") == []
    assert len(one.disk.chain) == 2


@pytest.mark.quick
def test_a_killed_daemon_is_followed_by_another_on_the_same_mount_point(one):
    one.disk.hold()
    one.mount.kill()
    with pytest.raises(OSError) as refusal:
        os.stat(one.mount / "version")
    assert refusal.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert mount_lines(one.mount.path)
    one.mount.start()
    assert len(mount_lines(one.mount.path)) == 1
    assert one.disk.status == "running"
    one.disk.release()
    assert one.disk.wait() == "completed"


def waits_for_fuse(pid):
    with open(f"/proc/{pid}/wchan") as file:
        return "request_wait" in file.read()


@pytest.mark.quick
def test_a_start_that_asks_the_dying_mount(one):
    """A supervisor starts the next daemon while the kernel takes the killed one apart: its look at the mount point is aborted (ECONNABORTED)."""
    one.disk.hold()
    keeper, server = one.mount.process, one.mount.pid
    keeper.send_signal(signal.SIGSTOP)
    os.kill(server, signal.SIGSTOP)

    def kill_in_time():
        wait_for(lambda: one.mount.process is not keeper and any(map(waits_for_fuse, children_of(one.mount.process.pid))),
                 why="the next daemon to ask the mount")
        keeper.kill()
        keeper.wait()
        os.kill(server, signal.SIGKILL)
    killer = Background(kill_in_time)
    one.mount.start()
    killer.result()

    def runs():
        with contextlib.suppress(OSError):
            return one.disk.status == "running"
        return False
    wait_for(runs, why="the next daemon to serve")  # the kernel remembered some of the dead mount: start() may have taken that for an answer
    assert len(mount_lines(one.mount.path)) == 1


def test_several_lives_in_a_row(one):
    one.disk.hold()
    for _ in range(3):
        one.mount.kill()
        one.mount.start()
        assert one.disk.status == "running"
    one.disk.write("abort", "\n")
    assert one.disk.status == "cancelled"


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_stays_parked_when_the_daemon_goes(one, sig):
    one.disk.hold()
    cat = subprocess.Popen(["cat", one.disk / "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader = one.disk.park()
    one.qemu.freeze()
    writer = Background(one.disk.write, "speed", "4M")
    assert stays(lambda: not reader.done and not writer.done and cat.poll() is None)
    if sig == signal.SIGTERM:
        one.mount.terminate()
    else:
        one.mount.kill()
    for call in (reader, writer):
        try:
            call.result()
        except OSError:
            pass
    cat.communicate(timeout=10)
    one.qemu.thaw()
    one.mount.start()
    assert one.disk.live
    one.disk.release()
    assert one.disk.wait() == "completed"


@pytest.mark.quick
def test_writers_in_line_when_the_daemon_ends(one):
    """The kernel passes on the second writer of a file when the first is answered: at the very end, of all times."""
    one.disk.hold()
    one.qemu.freeze()
    writers = [Background(one.disk.write, name, text) for name, text in (("speed", "4M"), ("pause", "1"), ("abort", "\n"), ("pull", "\n")) * 8]
    readers = [Background(one.disk.read, name) for name in ("progress", "job", "wait") * 8]
    assert stays(lambda: not any(call.done for call in writers[:3]))
    one.mount.terminate()
    for call in writers + readers:
        try:
            call.result()
        except OSError:
            pass


def test_an_open_file_does_not_keep_the_daemon_from_ending(one):
    """SIGTERM unmounts though somebody has files open and a shell in the tree."""
    held = os.open(one.disk / "status", os.O_RDONLY)
    shell = subprocess.Popen(["sleep", "60"], cwd=one.disk.path)
    try:
        with Took() as took:
            one.mount.terminate()
        assert took.seconds < 5
    finally:
        shell.kill()
        shell.wait()
        with contextlib.suppress(OSError):  # what it was opened on has gone
            os.close(held)
    one.mount.start()


@pytest.mark.quick
def test_unmounting_ends_the_daemon(one):
    one.disk.hold()
    one.mount.unmount()
    assert one.qemu.monitor.job()["status"] == "running"


@pytest.mark.quick
def test_in_the_background_the_command_returns_when_the_tree_can_be_read(storage_daemon, overlay, folder):
    """No -f: exit status 0 means mounted, connected and listed, without any waiting by the caller."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = Tree(f"{folder}/mnt")
    os.mkdir(tree.path)
    for _ in range(3):
        done = subprocess.run(command_line(folder, qemu.socket, tree.path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=environment(folder), cwd=folder, timeout=20)
        assert done.returncode == 0, done.stdout
        assert done.stdout == ""
        try:
            disk = tree.disk("vm", "disk0")
            assert disk.status in ("idle", "completed")
            disk.pull()
            assert disk.wait() == "completed"
            found = processes_on(tree.path)
            pid, = [pid for pid in found if parent_of(pid) not in found]
            assert os.getsid(pid) != os.getsid(0), "the daemon is still in the session of its caller"
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
        finally:
            subprocess.run(["umount", tree.path] if IS_ROOT else ["fusermount3", "-u", tree.path], check=True)
        wait_for(lambda: not processes_on(tree.path), 10, "the daemon to end")
