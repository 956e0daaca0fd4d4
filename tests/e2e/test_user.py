"""A mount by a user without privileges, through fusermount3."""

import os
import subprocess

import pytest

import images
from qemu import blockdev
from system import BLOCKJOBFS, IS_ROOT, NOBODY, fusermount_works, mount_lines, processes_on, wait_for

@pytest.fixture(autouse=True)
def possible():
    if not fusermount_works():
        pytest.skip("fusermount3 is not set-uid, or /dev/fuse not for everybody")


pytestmark = pytest.mark.skipif(not IS_ROOT, reason="needs root, to become somebody else")


@pytest.fixture
def theirs(folder, shelf):
    """A folder of nobody's, with an overlay in it."""
    path = f"{folder}/home"
    os.mkdir(path)
    image = images.create(f"{path}/disk.qcow2", shelf.template)
    for name in (path, image):
        os.chown(name, NOBODY, NOBODY)
    os.chmod(folder, 0o777)
    done = subprocess.run(["test", "-x", BLOCKJOBFS], user=NOBODY, group=NOBODY, extra_groups=[])
    if done.returncode:
        pytest.skip(f"{BLOCKJOBFS} cannot be run by another user")
    return image


def as_nobody(command, *arguments, check=True):
    """Output of a shell command, run by nobody; $1 and on are @arguments."""
    done = subprocess.run(["sh", "-c", command, "sh", *arguments], user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=30)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.quick
def test_a_users_own_machine(theirs, mount, storage_daemon, shelf):
    qemu = storage_daemon("vm", blockdev("disk0", theirs), user=NOBODY)
    tree = mount(qemu.socket, user=NOBODY)
    disk = f"{tree.path}/domains/vm/disks/disk0"
    assert as_nobody('cat "$1/status"', disk) == "idle\n"
    assert as_nobody('stat -c %u "$1/pull"', disk) == f"{NOBODY}\n"
    assert as_nobody('echo bandwidth=64M > "$1/pull" && cat "$1/wait"', disk) == "completed\n"
    assert as_nobody('cat "$1/chain"', disk) == theirs + "\n"
    line, = mount_lines(tree.path)
    assert "allow_other" not in line
    assert f"user_id={NOBODY}" in line
    assert "nosuid" in line and "nodev" in line
    tree.settle()
    tree.terminate()
    qemu.quit()
    assert images.same(theirs, shelf.template)


@pytest.mark.quick
def test_a_users_own_image(theirs, mount, shelf):
    """image: by a user: the engine is his, its socket in his own run-time folder."""
    tree = mount(f"image:{theirs}", user=NOBODY)
    disks = f"{tree.path}/domains/disk/disks"
    assert as_nobody('cat "$1"/*/status', disks) == "idle\n"
    engine = [pid for pid, line in processes_on(theirs).items() if "storage-daemon" in line.split()[0]]
    assert len(engine) == 1
    assert os.stat(f"/proc/{engine[0]}").st_uid == NOBODY
    assert as_nobody('echo > "$(echo "$1"/*)/pull" && cat "$1"/*/wait', disks) == "completed\n"
    tree.unmount()
    wait_for(lambda: not processes_on(theirs), 10, "the engine to end")
    assert images.backing_of(theirs) is None


def test_a_dead_mount_of_a_user_is_detached(theirs, mount, storage_daemon):
    qemu = storage_daemon("vm", blockdev("disk0", theirs), user=NOBODY)
    tree = mount(qemu.socket, user=NOBODY)
    tree.kill()
    assert mount_lines(tree.path)
    tree.start()
    assert as_nobody('cat "$1/version"', tree.path)
    assert len(mount_lines(tree.path)) == 1


def test_a_machine_of_somebody_else(theirs, mount, storage_daemon, overlay):
    """A socket that the user may not connect to: mounted, disconnected, with the reason; connected never."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay("other")))
    tree = mount(qemu.socket, user=NOBODY)
    state = as_nobody('cat "$1/domains/vm/state"', tree.path)
    assert state.split()[0] == "disconnected"
    assert "ermission" in as_nobody('cat "$1/domains/vm/error"', tree.path)


def test_a_mount_point_that_is_not_his(theirs, storage_daemon, folder):
    qemu = storage_daemon("vm", blockdev("disk0", theirs), user=NOBODY)
    os.mkdir(f"{folder}/root-only", 0o755)
    done = subprocess.run([BLOCKJOBFS, qemu.socket, f"{folder}/root-only"], user=NOBODY, group=NOBODY, extra_groups=[],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
                          env={**os.environ, "XDG_RUNTIME_DIR": os.path.dirname(theirs)})
    assert done.returncode != 0
    assert done.stderr.count("\n") >= 1
    assert not mount_lines(f"{folder}/root-only")
