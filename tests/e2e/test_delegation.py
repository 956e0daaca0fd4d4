"""Delegation: chown and chmod on a domain, what disks that come later inherit, how long it lasts, and that those who watch are told."""

import os
import select
import stat
import subprocess
import threading

import pytest

from qemu import blockdev
from system import BLOCKJOBFS, NOBODY, fusermount_works, wait_for
from users import OTHER, USER, errno_of, give, needs_users, read, run_as, write
from watch import CLOSE_WRITE, MODIFY, Inotify, flip

ATTRIB = 4

pytestmark = needs_users


def owner(path):
    info = os.lstat(path)
    return info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)


def everything(path):
    yield path
    for where, folders, files in os.walk(path):
        for name in folders + files:
            yield os.path.join(where, name)


def plug(qemu, overlay, name):
    qemu.monitor("blockdev-add", **{"driver": "qcow2", "node-name": name, "file": {"driver": "file", "filename": overlay(name)}})


@pytest.mark.quick
def test_chown_gives_a_domain_with_all_that_is_in_it(one):
    disk, domain = one.disk, one.mount.domain("vm")
    assert errno_of(run_as, USER, write, disk / "pull", "\n") == "EACCES"
    done = subprocess.run(["chown", "-R", f"{USER}:{USER}", domain.path], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and not done.stderr
    assert {owner(path)[:2] for path in everything(domain.path)} == {(USER, USER)}
    assert owner(os.path.dirname(domain.path))[:2] == (0, 0)
    run_as(USER, write, disk / "pull", "bandwidth=1\n")
    run_as(USER, write, disk / "pause", "1\n")
    assert run_as(USER, read, disk / "status") == "paused\n"
    assert disk.job["by"].startswith(f"uid={USER} ")
    assert errno_of(run_as, OTHER, write, disk / "pause", "0\n") == "EACCES"
    run_as(USER, write, disk / "abort", "\n")
    assert disk.status == "cancelled"


@pytest.mark.quick
def test_chmod_counts_at_once(one):
    """And only for what it is about: not for the content, its time, or those who watch that."""
    path = one.disk / "speed"
    os.chown(path, USER, OTHER)
    before = os.stat(path)
    for mode, opens in ((0o600, True), (0o400, False), (0o644, True), (0o000, False), (0o777, True)):
        run_as(USER, os.chmod, path, mode)
        assert owner(path) == (USER, OTHER, mode)
        assert errno_of(run_as, USER, write, path, "1\n") == ("ESRCH" if opens else "EACCES")
        assert errno_of(run_as, USER, read, path) == (None if mode & 0o400 else "EACCES")
    run_as(USER, os.chmod, path, 0o7660)
    assert owner(path)[2] == 0o660
    assert errno_of(run_as, 77, write, path, "1\n") == "EACCES"
    assert errno_of(run_as, 77, write, path, "1\n", gid=OTHER) == "ESRCH"
    assert errno_of(run_as, 77, write, path, "1\n", groups=[OTHER]) == "ESRCH"
    with Inotify(path, mask=MODIFY | CLOSE_WRITE | ATTRIB) as inotify:
        os.chmod(path, 0o600)
        assert [notice.mask for notice in inotify.drain()] == [ATTRIB]
    after = os.stat(path)
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_ino == before.st_ino


@pytest.mark.quick
def test_chmod_wakes_no_poller(one):
    path = one.disk / "status"
    with open(path) as file:
        file.read()
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        os.chmod(path, 0o440)
        os.chown(path, USER, USER)
        assert not poll.poll(100)


@pytest.mark.quick
def test_who_may_change_what(one):
    disk, domain = one.disk, one.mount.domain("vm")
    give(domain.path, USER)
    assert errno_of(run_as, USER, os.chown, disk / "pull", OTHER, -1) == "EPERM"
    assert errno_of(run_as, USER, os.chown, disk / "pull", -1, OTHER) == "EPERM"
    assert errno_of(run_as, USER, os.chown, disk.path, 0, 0) == "EPERM"
    assert errno_of(run_as, OTHER, os.chmod, disk / "pull", 0o777) == "EPERM"
    assert errno_of(run_as, USER, os.chmod, os.path.dirname(domain.path), 0o777) == "EPERM"
    # To a group that he is in: as with any file.
    run_as(USER, lambda: os.chown(disk / "pull", -1, OTHER), groups=[OTHER])
    assert owner(disk / "pull")[:2] == (USER, OTHER)
    # What is in no domain stays the mount's owner's.
    for name in ("", "domains", "version", "events"):
        assert errno_of(os.chown, one.mount / name, USER, USER) == "EPERM"
        assert errno_of(os.chmod, one.mount / name, 0o700) == "EPERM"
    assert errno_of(run_as, USER, write, domain / "allow", "all\n") == "EPERM"
    assert "only the mount's owner" in domain.read("error")


@pytest.mark.quick
def test_the_root_of_a_user_namespace_gives_nothing_away(one):
    """The kernel lets him do with the files of its users what root may."""
    disk = one.disk
    give(one.mount.domain("vm").path, USER)
    plain = f"{one.mount.folder}/plain"
    os.mkdir(plain)
    os.chown(plain, USER, USER)

    def work():
        os.chown(plain, 1, 1)  # what we forbid is possible elsewhere
        assert errno_of(os.chown, disk / "pull", 1, -1) == "EPERM"
        os.chmod(disk / "pull", 0o600)
        assert owner(disk / "pull") == (0, 0, 0o600)
        write(disk / "pull", "bandwidth=1\n")
        assert errno_of(write, one.mount.domain("vm") / "allow", "all\n") == "EPERM"

    run_as(USER, work, namespace=f"0 {USER} 1\n1 {OTHER} 1\n")
    assert owner(disk / "pull") == (USER, USER, 0o600)
    assert disk.job["by"].startswith(f"uid={USER} ")
    disk.write("abort", "\n")


@pytest.mark.quick
def test_disks_that_come_later_belong_to_whom_the_domain_does(one, overlay):
    domain = one.mount.domain("vm")
    os.chown(domain.path, USER, USER)
    os.chmod(domain.path, 0o775)
    assert owner(one.disk.path) == (0, 0, 0o755)
    assert owner(one.disk / "pull") == (0, 0, 0o644)
    plug(one.qemu, overlay, "disk1")
    wait_for(lambda: domain.disks() == ["disk0", "disk1"])
    disk = domain.disk("disk1")
    assert owner(disk.path) == (USER, USER, 0o775)
    assert owner(disk / "pull") == (USER, USER, 0o664)
    assert owner(disk / "status") == (USER, USER, 0o444)
    run_as(USER, write, disk / "pull", "\n")
    assert disk.wait() == "completed"
    # Later changes are for those that come later still.
    os.chown(domain.path, OTHER, OTHER)
    os.chmod(domain.path, 0o755)
    plug(one.qemu, overlay, "disk2")
    wait_for(lambda: "disk2" in domain.disks())
    assert owner(domain.disk("disk2") / "pull") == (OTHER, OTHER, 0o644)
    assert owner(disk / "pull") == (USER, USER, 0o664)
    assert owner(one.disk / "pull") == (0, 0, 0o644)


@pytest.mark.quick
@pytest.mark.parametrize("how", ["restart", "kill", "qemu"])
def test_it_lasts(one, overlay, how):
    domain = one.mount.domain("vm")
    plug(one.qemu, overlay, "disk1")
    wait_for(lambda: "disk1" in domain.disks())
    os.chown(domain.path, USER, USER)
    give(one.disk.path, OTHER)
    os.chmod(one.disk / "pull", 0o600)
    write(domain / "allow", "pull,speed\n")
    before = {path: owner(path) for path in everything(domain.path)}
    if how == "restart":
        one.mount.terminate()
        one.mount.start()
    elif how == "kill":
        one.mount.kill()
        one.mount.start()
    else:
        one.qemu.kill()
        wait_for(lambda: domain.state == "disconnected")
        assert {path: owner(path) for path in before if os.path.exists(path)} == before
        one.qemu.start()
        plug(one.qemu, lambda name: f"{one.mount.folder}/{name}.qcow2", "disk1")
    wait_for(lambda: domain.connected and domain.disks() == ["disk0", "disk1"], 15)
    assert {path: owner(path) for path in everything(domain.path)} == before
    assert domain.read("allow") == "pull,speed\n"
    run_as(OTHER, write, one.disk / "pull", "\n")
    assert one.disk.wait() == "completed"


@pytest.mark.quick
def test_it_ends_with_the_domain(one, storage_daemon, overlay):
    """What another domain of that name is, it has not been delegated; nor may a user attach one."""
    qemu = storage_daemon("other", blockdev("disk0", overlay("other")))
    new = os.path.join(one.mount.path, "domains", "new")
    assert errno_of(run_as, USER, os.mkdir, new) == "EACCES"
    for _ in range(2):
        os.mkdir(new)
        domain = one.mount.domain("new")
        assert {owner(path)[:2] for path in everything(new)} == {(0, 0)}
        assert domain.read("allow") == one.mount.domain("vm").read("allow")
        write(f"{new}/address", f"unix:{qemu.socket}\n")
        wait_for(lambda: domain.connected and domain.disks() == ["disk0"])
        assert owner(f"{new}/disks/disk0/pull") == (0, 0, 0o644)
        give(new, USER)
        write(f"{new}/allow", "none\n")
        assert errno_of(run_as, USER, write, f"{new}/address", "unix:/nowhere\n") == "EPERM"
        assert errno_of(run_as, USER, os.rmdir, new) in ("EACCES", "EPERM")
        os.rmdir(new)


@pytest.mark.quick
def test_a_folder_that_is_closed_is_closed_at_once(one):
    """The kernel remembers folders for a moment: not who may enter them."""
    give(one.mount.domain("vm").path, USER)
    path = one.disk / "status"
    for _ in range(3):
        assert run_as(USER, read, path) == "idle\n"
        assert run_as(OTHER, read, path) == "idle\n"
        run_as(USER, os.chmod, one.disk.path, 0o700)
        assert errno_of(run_as, OTHER, read, path) == "EACCES"
        assert run_as(USER, read, path) == "idle\n"
        os.chown(one.disk.path, OTHER, OTHER)
        assert errno_of(run_as, USER, read, path) == "EACCES"
        assert run_as(OTHER, read, path) == "idle\n"
        os.chown(one.disk.path, USER, USER)
        os.chmod(one.disk.path, 0o755)


# --- the opener counts ---

@pytest.mark.quick
def test_who_has_opened_a_file_may_write_it(one):
    """He has lost the right in the meantime: what he writes is carried out."""
    disk = one.disk
    os.chown(disk / "pull", USER, USER)
    taken, given = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(USER, USER, USER)
            fd = os.open(disk / "pull", os.O_WRONLY)
            os.write(given[1], b"opened")
            os.read(taken[0], 1)
            os.write(fd, b"bandwidth=1\n")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.read(given[0], 6) == b"opened"
    os.chown(disk / "pull", 0, 0)
    os.chmod(disk / "pull", 0o600)
    assert errno_of(run_as, USER, write, disk / "pull", "\n") == "EACCES"
    os.write(taken[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert disk.status == "running"
    assert disk.job["by"].startswith(f"uid={USER} ")
    disk.write("abort", "\n")


@pytest.mark.quick
def test_a_descriptor_that_is_handed_on_is_its_openers(one):
    """A set-uid program that is made to write to what somebody else has opened; and what root hands to a user."""
    disk, domain = one.disk, one.mount.domain("vm")
    give(domain.path, USER)
    write(domain / "allow", "speed\n")
    fd = os.open(disk / "pull", os.O_WRONLY)
    try:
        os.seteuid(USER)
        try:
            theirs = os.open(disk / "pull", os.O_WRONLY)
        finally:
            os.seteuid(0)
        try:
            assert errno_of(os.write, theirs, b"bandwidth=1\n") == "EPERM", "root writes, but a user has opened"
        finally:
            os.close(theirs)
        assert "pull is for the mount's owner alone" in disk.read("error")
        run_as(USER, os.write, fd, b"bandwidth=1\n")
    finally:
        os.close(fd)
    assert disk.job["by"].startswith("uid=0 ")
    disk.write("abort", "\n")


# --- those who watch ---

@pytest.mark.quick
@pytest.mark.parametrize("mode", [0o644, 0o400, 0o000])
def test_whoever_owns_it_is_told(one, mode):
    """The one who touches files for us is neither their owner nor anybody who could open them."""
    disk, domain = one.disk, one.mount.domain("vm")
    disk.hold()
    with Inotify(disk / "status", disk / "job") as inotify:
        give(domain.path, USER)
        for name in disk.list():
            os.chmod(disk / name, mode)
        for folder in (disk.path, domain / "disks", domain.path):
            os.chmod(folder, mode & 0o700)
        inotify.drain()
        for _ in range(3):
            flip(disk)
            missing = {disk / "status", disk / "job"}

            def all_told(notice):
                if notice.mask == CLOSE_WRITE:
                    missing.discard(notice.watch)
                return not missing

            inotify.wait(all_told)
    disk.write("abort", "\n")


def test_folders_come_and_go_in_a_folder_that_is_somebody_elses(one, overlay):
    domain = one.mount.domain("vm")
    give(domain.path, USER)
    os.chmod(domain / "disks", 0o500)
    with Inotify(domain / "disks") as inotify:
        plug(one.qemu, overlay, "disk1")
        wait_for(lambda: "disk1" in domain.disks())
        inotify.wait(lambda notice: notice.name == "disk1")
        one.qemu.monitor("blockdev-del", **{"node-name": "disk1"})
        wait_for(lambda: "disk1" not in domain.disks())
        inotify.wait(lambda notice: notice.name == "disk1" and notice.mask & 0x200)


def test_touches_never_get_in_the_way_of_the_owner(one):
    """What the toucher sees of a file must not be what its owner's open is judged by."""
    disk = one.disk
    give(one.mount.domain("vm").path, USER)
    os.chmod(disk / "error", 0o400)
    over = threading.Event()

    def refuse_on():
        fd = os.open(disk / "speed", os.O_WRONLY)
        while not over.is_set():
            errno_of(os.pwrite, fd, b"bogus", 0)
        os.close(fd)

    def look(times):
        return [errno_of(read, disk / "error") for _ in range(times)]

    thread = threading.Thread(target=refuse_on)
    thread.start()
    try:
        assert set(run_as(USER, look, 3000)) == {None}
        assert set(run_as(OTHER, look, 1000)) == {"EACCES"}
    finally:
        over.set()
        thread.join()


# --- mounts of other kinds ---

@pytest.mark.quick
def test_a_mount_that_is_read_only(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    disk = mount(qemu.socket, options="ro").disk("vm", "disk0")
    assert errno_of(os.chown, disk / "pull", USER, USER) == "EROFS"
    assert errno_of(os.chmod, disk / "pull", 0o666) == "EROFS"
    assert owner(disk / "pull") == (0, 0, 0o644)


@pytest.mark.skipif(not fusermount_works(), reason="fusermount3 is not set-uid, or /dev/fuse not for everybody")
def test_a_users_own_mount(storage_daemon, mount, overlay, folder):
    """He sets modes, and gives to nobody; who watches is told all the same."""
    if run_as(NOBODY, os.access, BLOCKJOBFS, os.X_OK) is False:
        pytest.skip(f"{BLOCKJOBFS} cannot be run by another user")
    image = overlay()
    os.chown(image, NOBODY, NOBODY)
    os.chmod(folder, 0o777)
    qemu = storage_daemon("vm", blockdev("disk0", image), user=NOBODY)
    tree = mount(qemu.socket, user=NOBODY)
    disk = f"{tree.path}/domains/vm/disks/disk0"

    def work():
        assert errno_of(os.chown, f"{disk}/pull", OTHER, -1) == "EPERM"
        os.chmod(f"{disk}/status", 0o000)
        os.chmod(f"{disk}/pull", 0o600)
        os.chmod(disk, 0o700)
        assert owner(f"{disk}/pull") == (NOBODY, NOBODY, 0o600)
        with Inotify(f"{disk}/job", mask=CLOSE_WRITE) as inotify:
            write(f"{disk}/pull", "\n")
            inotify.wait(lambda notice: True)
        assert read(f"{disk}/wait") == "completed\n"

    run_as(NOBODY, work)
