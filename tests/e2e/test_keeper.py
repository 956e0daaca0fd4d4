"""The keeper: what it holds, how it ends, what it does with servers that die without end; and systemd instead of it."""

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time

import pytest

from manager import Manager
from mount import Background, Mount, Tree, command_line, environment
from qemu import blockdev
from system import (SLOW, Took, children_of, descriptors, detach, has_ended, memory_kib, mount_lines, processes_on, stays, wait_for)
from takeover import crash, family, keeper_of, kill_keeper, no_server, orphans_are_ours
from watch import find_program, flip, needs, refuse, state_of

KEEPER_KIB = 8000  # resident, most of it code that it shares with the server
FAILURES_MOST = 10  # fs/keeper.c


@pytest.fixture
def ours():
    with orphans_are_ours():
        yield


# --- dying ---


@pytest.mark.quick
def test_the_keeper_dies(ours, one):
    """Nobody notices; another one is there, and does its work when the server dies."""
    one.disk.hold()
    server = one.mount.pid
    waiting = one.disk.park()
    for _ in range(3):
        kill_keeper(one.mount)
        assert one.mount.pid == server
        assert flip(one.disk)
    crash(one.mount)
    assert one.disk.status in ("running", "paused")
    assert not waiting.done
    if one.disk.status == "paused":
        flip(one.disk)
    one.disk.release()
    assert waiting.result() == "completed"
    assert one.mount.alive


@pytest.mark.quick
def test_both_die_one_after_the_other(ours, one):
    one.disk.hold()
    for _ in range(3):
        crash(one.mount)
        assert one.disk.status == "running"
        kill_keeper(one.mount)
        assert one.disk.status == "running"
    kill_keeper(one.mount)
    crash(one.mount)
    assert one.disk.status == "running"
    crash(one.mount)
    one.disk.release()
    assert one.disk.wait() == "completed"


def test_the_keeper_dies_while_the_next_server_starts(ours, one):
    """Wherever the new server is in its start: the mount lives, since one of the two always holds it."""
    one.disk.hold()
    for pause in (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.05):
        crash(one.mount)
        time.sleep(pause)  # where it is then is what differs
        kill_keeper(one.mount)
        assert one.disk.status == "running"
        wait_for(lambda: one.mount.process.pid == keeper_of(one.mount) and not has_ended(one.mount.pid))
    one.disk.release()
    assert one.disk.wait() == "completed"


@pytest.mark.quick
def test_both_die_at_once(one):
    """The mount is dead, and says so; the next start detaches it."""
    one.disk.hold()
    one.mount.kill()
    with pytest.raises(OSError) as dead:
        os.statvfs(one.mount.path)
    assert dead.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    one.mount.start()
    assert len(mount_lines(one.mount.path)) == 1
    assert one.disk.status == "running"
    crash(one.mount)
    one.disk.release()
    assert one.disk.wait() == "completed"


# --- clean ends ---


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["keeper", "server", "later keeper"])
def test_a_signal_ends_both(ours, one, sig, whom):
    if whom == "later keeper":
        kill_keeper(one.mount)
    crash(one.mount)
    assert one.disk.status == "idle"
    wait_for(lambda: keeper_of(one.mount))
    if whom == "server":
        os.kill(one.mount.pid, sig)
        assert one.mount.process.wait(10) == 0
        Mount.running.discard(one.mount)
        assert not mount_lines(one.mount.path)
    else:
        one.mount.terminate(sig)
    assert not family(one.mount)


@pytest.mark.quick
def test_umount_ends_both(ours, one):
    crash(one.mount)
    assert one.disk.status == "idle"
    kill_keeper(one.mount)
    one.mount.unmount()
    wait_for(lambda: not family(one.mount), why="all to end")


def test_umount_while_no_server_runs(one):
    """The next server finds the mount gone, and so all is over."""
    with no_server(one.mount):
        subprocess.run(["umount", "-l", one.mount.path], check=True)
    assert one.mount.process.wait(10) == 0
    Mount.running.discard(one.mount)
    wait_for(lambda: not family(one.mount), why="all to end")


def told_to_end(mount):
    """Its keeper, which has been told, or is by this: it ends well, soon, and leaves nothing."""
    with Took() as took:
        mount.process.send_signal(signal.SIGTERM)
        assert mount.process.wait(10) == 0
    assert took.seconds < 1 * SLOW
    Mount.running.discard(mount)
    assert not mount_lines(mount.path)
    wait_for(lambda: not family(mount), why="all to end")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_told_to_end_right_after_a_death(one, sig):
    """The keeper hears of both at once. What it was told is done: that is no failure."""
    server = one.mount.pid
    one.mount.process.send_signal(signal.SIGSTOP)
    os.kill(server, sig)
    wait_for(lambda: has_ended(server), why="the server to die")
    one.mount.process.send_signal(signal.SIGTERM)
    one.mount.process.send_signal(signal.SIGCONT)
    told_to_end(one.mount)


def test_told_to_end_again_and_again(one):
    """Whoever is impatient does not make a failure of a good end, wherever in it he comes."""
    one.disk.hold()
    while one.mount.process.poll() is None:
        one.mount.process.send_signal(signal.SIGTERM)
        time.sleep(0.0002)  # as often as there are moments
    assert one.mount.process.returncode == 0
    Mount.running.discard(one.mount)
    assert not mount_lines(one.mount.path)
    wait_for(lambda: not family(one.mount), why="all to end")


# --- servers that die without end ---


class Assassin:
    """Kills each new server of a mount as soon as it serves, or as soon as it is there."""

    def __init__(self, mount, sig, serving=True):
        self.mount, self.sig, self.serving, self.victims, self.going = mount, sig, serving, [], True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def serves(self, pid):
        """It has a toucher: that is started once it serves."""
        return any("--toucher" in processes_on(self.mount.path).get(child, "") for child in children_of(pid))

    def run(self):
        while self.going:
            for pid in self.mount.servers():
                if pid not in self.victims and (not self.serving or self.serves(pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, self.sig)
                    self.victims.append(pid)
            time.sleep(0.001)

    def stop(self):
        self.going = False
        self.thread.join()


@pytest.mark.timeout(60)
def test_a_server_that_crashes_without_end(one, cleanup):
    """Started again at once, then later and later, then never more: the mount is taken down, and somebody is told why."""
    assassin = Assassin(one.mount, signal.SIGSEGV)
    cleanup(assassin.stop)
    with Took() as took:
        assert one.mount.process.wait(40 * SLOW) not in (0, None)
    Mount.running.discard(one.mount)
    assassin.stop()
    assert len(assassin.victims) == FAILURES_MOST
    assert took.seconds > 3, "no back-off"
    assert not mount_lines(one.mount.path), "a corpse"
    assert one.mount.said().count("killed by signal 11") == FAILURES_MOST
    last = one.mount.said().splitlines()[-1]
    assert one.mount.path in last and "unmounted" in last
    wait_for(lambda: not family(one.mount), why="all to end")
    one.mount.start()
    assert one.disk.status == "idle"


@pytest.mark.timeout(60)
def test_told_to_end_while_it_backs_off(one, cleanup):
    """No server is there at that moment: the mount is taken down all the same."""
    assassin = Assassin(one.mount, signal.SIGSEGV)
    cleanup(assassin.stop)
    wait_for(lambda: len(assassin.victims) >= 7, 20, "the back-off")
    assassin.stop()
    told_to_end(one.mount)


@pytest.mark.timeout(60)
def test_a_request_that_kills_each_server(one, cleanup):
    """After a few lives it is answered with an error, not sent to yet another one. Here the death is ours, a moment after it has come."""
    one.disk.hold()
    reader = one.disk.park()
    assert stays(lambda: not reader.done, 0.1)
    assassin = Assassin(one.mount, signal.SIGABRT)
    cleanup(assassin.stop)
    wait_for(lambda: reader.done, 20, "an answer")
    assassin.stop()
    with pytest.raises(OSError) as error:
        reader.result()
    assert error.value.errno == errno.EIO
    assert len(assassin.victims) <= FAILURES_MOST - 2
    wait_for(lambda: one.mount.servers(), 10, "a server")
    assert one.disk.status == "running"
    one.disk.write("abort", "\n")


@pytest.mark.timeout(60)
def test_who_kills_before_it_serves_is_not_obeyed_for_ever(one, cleanup):
    """Servers that never come to serve: given up, too."""
    assassin = Assassin(one.mount, signal.SIGKILL, serving=False)
    cleanup(assassin.stop)
    wait_for(lambda: not one.mount.alive or len(assassin.victims) > 30, 40, "it to be given up, or to go on")
    assassin.stop()
    if one.mount.alive:  # it was quicker than we
        assert one.disk.status == "idle"
        return
    Mount.running.discard(one.mount)
    assert one.mount.process.returncode != 0
    assert not mount_lines(one.mount.path)
    wait_for(lambda: not family(one.mount), why="all to end")


@pytest.mark.quick
@pytest.mark.parametrize("front", [True, False])
def test_a_server_that_fails_before_it_is_ready(folder, front):
    """One line, an exit status, and no second try."""
    os.mkdir(f"{folder}/mnt")
    os.mkdir(f"{folder}/open")
    os.chmod(f"{folder}/open", 0o777)
    words = [*(["-f"] if front else []), f"unix:{folder}/nobody", f"{folder}/mnt"]
    done = subprocess.run(command_line(folder, *words, options=f"state_dir={folder}/open"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment(folder), timeout=20 * SLOW)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "open" in done.stderr, done.stderr
    assert not done.stdout
    assert not mount_lines(f"{folder}/mnt")


@pytest.mark.quick
def test_killed_before_it_was_ever_ready(storage_daemon, folder, overlay, run_in_background):
    """The first server dies while it connects: said in one line, and over."""
    os.mkdir(f"{folder}/mnt")
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    qemu.freeze()
    process = run_in_background(*command_line(folder, "-f", qemu.socket, f"{folder}/mnt"), stderr=subprocess.PIPE, text=True,
                                env=environment(folder))
    os.kill(wait_for(lambda: children_of(process.pid), why="the server")[0], signal.SIGKILL)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.count("\n") == 1 and "signal 9" in said


# --- what it is ---


def test_what_the_keeper_holds(one):
    """The mount, two memories, a lock, and what a loop needs; nothing of QEMU, nothing in the mount; and hardly any memory."""
    one.disk.hold()
    crash(one.mount)
    assert one.disk.status == "running"
    pid = one.mount.process.pid
    fds = descriptors(pid)
    kinds = [what.replace(" (deleted)", "") for what in fds.values() if what not in ("/dev/null", one.mount.log)]
    assert sum(what == "/dev/fuse" for what in kinds) == 1, sorted(kinds)
    assert sum("memfd:" in what for what in kinds) == 2
    assert sum(what.endswith("/journal.lock") for what in kinds) == 1
    assert not [what for what in fds.values() if what.startswith(one.mount.path + "/") or what == one.mount.path]
    sockets = [what for what in kinds if what.startswith("socket:")]
    known = {"/dev/fuse", "pipe", "socket", "anon_inode"}
    rest = [what for what in kinds if what.split(":")[0] not in known and "memfd:" not in what and not what.endswith("lock")]
    assert not rest, rest
    assert len(sockets) == 2, "more than the two ends of what it is told things by"
    print(f"the keeper: {memory_kib(pid)} KiB resident, {len(fds)} descriptors; the server: {memory_kib(one.mount.pid)} KiB")
    assert memory_kib(pid) < KEEPER_KIB
    with open(f"/proc/{pid}/comm") as file:
        assert file.read().strip() == "blockjobfs-keep"
    one.disk.write("abort", "\n")


def memories(pid):
    """{name: bytes} of the memories that a process holds, as far as they are in use."""
    return {what.split(":")[1].split(" ")[0]: os.stat(f"/proc/{pid}/fd/{fd}").st_blocks * 512
            for fd, what in descriptors(pid).items() if "memfd:" in what}


@pytest.mark.timeout(60)
def test_what_is_left_to_the_next_does_not_grow(one):
    """Neither by lives nor by what happens in them: events beyond those that are kept, jobs, commands, open files."""
    def live():
        refuse(one.disk, 500)
        one.disk.hold()
        one.disk.write("abort", "\n")
        for _ in range(200):
            one.disk.read("status")
        crash(one.mount)
        assert one.disk.status == "cancelled"

    for _ in range(10):  # until the logs are full
        live()
    before = memories(one.mount.process.pid)
    for _ in range(12):
        live()
    after = memories(one.mount.process.pid)
    print(f"{before} became {after}")
    assert len(after) == 2
    for name, size in after.items():
        assert size <= 1.5 * before[name] + (1 << 20), name


@needs("strace")
def test_the_keeper_never_touches_the_mount(one, folder):
    """No system call of its own has the way to it, in the course of some deaths."""
    trace = f"{folder}/trace"
    strace = subprocess.Popen([find_program("strace"), "-o", trace, "-e", "trace=%file,%desc", "-y", "-p", str(one.mount.process.pid)],
                              stderr=subprocess.PIPE, text=True)
    assert "attached" in strace.stderr.readline()
    one.disk.hold()
    for _ in range(3):
        crash(one.mount)
        assert one.disk.status == "running"
    one.disk.write("abort", "\n")
    strace.terminate()
    strace.wait()
    with open(trace) as file:
        lines = file.read().splitlines()
    assert len(lines) > 10
    touching = [line for line in lines if one.mount.path in line and "/mnt.log" not in line]
    assert not touching, touching
    assert not [line for line in lines if "</dev/fuse>" in line and line.startswith(("read", "write"))]


def test_the_keeper_survives_a_stopped_server(one):
    """It waits for nothing in the mount: it is as well as ever, and the server can be killed."""
    server = one.mount.pid
    os.kill(server, signal.SIGSTOP)
    asked = Background(one.disk.read, "status")
    assert stays(lambda: not asked.done and state_of(one.mount.process.pid) == "S", 0.5)
    os.kill(server, signal.SIGKILL)
    assert asked.result() == "idle\n"


@pytest.mark.quick
def test_nokeeper_is_one_process(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    tree = mount(qemu.socket, options="nokeeper")
    assert tree.pid == tree.process.pid
    assert not tree.servers()
    wait_for(lambda: len(family(tree)) == 2, why="it and its toucher")
    tree.disk("vm").pull()
    assert tree.disk("vm").wait() == "completed"
    tree.kill()
    with pytest.raises(OSError):
        os.statvfs(tree.path)
    tree.start()


@pytest.mark.quick
def test_in_the_background(storage_daemon, folder, overlay, cleanup):
    """The command returns when the tree can be read; nothing is written to its terminal by any life."""
    os.mkdir(f"{folder}/mnt")
    cleanup(detach, f"{folder}/mnt")
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    done = subprocess.run(command_line(folder, qemu.socket, "mnt"), cwd=folder, env=environment(folder), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=20 * SLOW)
    assert (done.returncode, done.stdout) == (0, "")
    tree = Tree(f"{folder}/mnt")
    assert tree.disk("vm").status == "idle"
    processes = {pid: line for pid, line in processes_on("mnt").items() if folder in line and line.startswith(("/", "blockjobfs"))}
    server, = [pid for pid, line in processes.items() if "--serve" in line]
    keeper, = [pid for pid, line in processes.items() if pid != server and "--toucher" not in line and "blockjobfs" in line.split(" ")[0]
               and "qemu" not in line.split(" ")[0]]
    os.kill(server, signal.SIGKILL)
    assert tree.disk("vm").status == "idle"
    wait_for(lambda: not [pid for pid in children_of(keeper) if "--toucher" in processes_on("mnt").get(pid, "")], why="the old toucher to go")
    for pid in (keeper, *children_of(keeper)):
        assert [descriptors(pid)[number] for number in range(3)] == ["/dev/null"] * 3
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) != os.getsid(0)
    os.kill(keeper, signal.SIGTERM)
    wait_for(lambda: not mount_lines(f"{folder}/mnt") and has_ended(keeper), 10, "the end")


# --- systemd instead ---


@pytest.fixture
def managed(folder, cleanup):
    def start(*sources, options="nokeeper"):
        if not os.path.isdir(f"{folder}/mnt"):
            os.mkdir(f"{folder}/mnt")
        manager = Manager(command_line(folder, "-f", *sources, f"{folder}/mnt", options=options), environment(folder), f"{folder}/mnt.log")
        cleanup(detach, f"{folder}/mnt")
        cleanup(manager.close)
        manager.wait_said("READY=1")
        return manager, Tree(f"{folder}/mnt")
    return start


@pytest.mark.quick
def test_under_a_service_manager(storage_daemon, managed, overlay):
    """It keeps the descriptors; the mount survives each life, open files and jobs too, and a stop ends all of it."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    manager, tree = managed(qemu.socket)
    assert {name for name, _ in manager.held} >= {"fuse", "session", "model"}
    disk = tree.disk("vm")
    disk.hold()
    fd = os.open(disk / "status", os.O_RDONLY)
    waiting = disk.park()
    assert stays(lambda: not waiting.done, 0.1)
    for number in range(4):
        manager.kill()
        assert os.pread(fd, 100, 0) == b"running\n"
        assert disk.events("job-started")
        manager.wait_said("READY=1", number + 2)
    os.close(fd)
    assert len(manager.held) <= 6, "what is kept grows with each life"
    assert not waiting.done
    disk.release()
    assert waiting.result() == "completed"
    assert manager.stop() == 0
    assert "STOPPING=1" in manager.said
    assert not mount_lines(tree.path)


def test_a_service_manager_and_umount(storage_daemon, managed, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    manager, tree = managed(qemu.socket)
    manager.kill()
    assert tree.disk("vm").status == "idle"
    subprocess.run(["umount", tree.path], check=True)
    with manager.changed:
        assert manager.changed.wait_for(lambda: manager.pid is None, 10)
    assert manager.status == 0


def test_a_restart_by_a_service_manager(storage_daemon, managed, overlay):
    """What `systemctl restart` sends is SIGTERM: a clean end, and the next life mounts anew."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    manager, tree = managed(qemu.socket)
    assert manager.stop() == 0
    manager, tree = managed(qemu.socket)
    assert len(mount_lines(tree.path)) == 1
    assert tree.disk("vm").status == "idle"
    assert manager.stop() == 0


@pytest.mark.quick
def test_a_takeover_without_its_folders(folder, storage_daemon, overlay, mount):
    """An image_dir that is gone by then keeps no server from taking over: nothing may be made there, that is all."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    os.mkdir(f"{folder}/pool")
    tree = mount(qemu.socket, options=f"image_dir={folder}/pool")
    os.rmdir(f"{folder}/pool")
    before = tree.pid
    os.kill(before, signal.SIGKILL)
    assert tree.disk("vm", "disk0").status == "idle"
    wait_for(lambda: tree.pid != before, why="the next server")
    assert "pool" in tree.said()
