"""The command line: what it takes, and one clear line for what it does not."""

import ctypes
import os
import subprocess

import pytest

from mount import Tree, command_line, environment
from qemu import blockdev
from system import BLOCKJOBFS, detach, mount_lines, needs_root, processes_on, wait_for


def run(folder, *arguments, own=True, **options):
    """The command with these words; own: with our -o runtime_dir."""
    words = command_line(folder, *arguments) if own else [BLOCKJOBFS, *arguments]
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
                          env=environment(folder), cwd=folder, **options)


def refused(folder, *arguments, **options):
    """It must be refused: one line on stderr, nothing on stdout, non-zero, nothing mounted or left running. Gives the line."""
    def there():
        """Mounts and processes; a live daemon's helper comes and goes as it likes."""
        return mount_lines(folder), {pid for pid, line in processes_on(folder).items() if "--toucher" not in line}

    before = there()
    done = run(folder, *arguments, **options)
    assert done.returncode != 0
    assert done.returncode < 126, f"died: {done.returncode}"
    assert done.stdout == ""
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("blockjobfs: "), done.stderr
    assert len(done.stderr) > 25, done.stderr
    assert there() == before
    return done.stderr


@pytest.fixture
def socket(storage_daemon, overlay):
    return storage_daemon("vm", blockdev("disk0", overlay())).socket


@pytest.fixture
def point(folder):
    os.mkdir(f"{folder}/mnt")
    return f"{folder}/mnt"


@pytest.mark.quick
def test_help_and_version(folder):
    for flag in ("-h", "--help"):
        done = run(folder, flag, own=False)
        assert done.returncode == 0
        assert done.stderr == ""
        assert "usage: blockjobfs" in done.stdout.lower()
        for word in ("SOURCE", "MOUNTPOINT", "-o", "timeout", "unix:", "tcp:", "exec:", "image:"):
            assert word in done.stdout, word
    for flag in ("-V", "--version"):
        done = run(folder, flag, own=False)
        assert done.returncode == 0
        assert done.stdout.startswith("blockjobfs ")


@pytest.mark.quick
def test_words_that_are_missing_or_wrong(folder, point, socket):
    absent = f"{folder}/absent"
    for arguments in (
            [], [point], [socket], ["-o"], ["-o", "timeout"], ["--bogus", socket, point], ["-x", socket, point],
            ["-o", "timeout=0", socket, point], ["-o", "timeout=-1", socket, point], ["-o", "timeout=abc", socket, point],
            ["-o", "timeout=", socket, point], ["-o", "timeout=1.5.2", socket, point], ["-o", "timeout=99999999999999999999", socket, point],
            ["-o", "no_such_option", socket, point], ["-o", "no_such=option", socket, point],
            [socket, absent], [socket, socket], [socket, ""], ["", point], [absent, point], ["unix:", point], ["image:", point],
            ["name=", point], [f"={socket}", point], [f"a={socket}", f"a={socket}", point], [socket, f"vm=unix:{absent}", point],
            ["nonsense:thing", point]):
        said = refused(folder, *arguments, own=False)
        assert "\x1b" not in said, arguments


@pytest.mark.quick
def test_mount_points_that_are_none(folder, socket, point):
    """Each line names the place and what is wrong with it."""
    with open(f"{folder}/file", "w"):
        pass
    os.symlink(f"{folder}/nowhere", f"{folder}/dangling")
    for place in ("absent", "file", "dangling", "file/below"):
        assert place in refused(folder, socket, f"{folder}/{place}")


def test_a_symlink_to_a_mount_point_will_do(folder, socket, mount, point):
    os.symlink(point, f"{folder}/link")
    tree = mount(socket)
    assert Tree(f"{folder}/link").disk("vm").status == "idle"
    assert tree.domain("vm").connected


@pytest.mark.quick
def test_a_mount_point_that_is_in_use(folder, socket, mount, overlay):
    """Where a live blockjobfs is, another one is refused; the first goes on."""
    tree = mount(socket)
    said = refused(folder, socket, tree.path)
    assert tree.path in said
    assert len(mount_lines(tree.path)) == 1
    assert tree.disk().status == "idle"
    tree.disk().pull()
    assert tree.disk().wait() == "completed"


@needs_root
def test_a_dead_mount_of_somebody_else_is_left_alone(folder, socket, point):
    """Only a dead mount of our own is taken away."""
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"other", point.encode(), b"fuse.other", 0, data) == 0, os.strerror(ctypes.get_errno())
    os.close(fuse)
    try:
        with pytest.raises(OSError):
            os.stat(point)
        assert point in refused(folder, socket, point)
        assert "fuse.other" in mount_lines(point)[0]
    finally:
        detach(point)


@needs_root
def test_a_foreign_file_system_is_not_covered(folder, socket, point):
    """Another file system is mounted there: refused, or at least never taken away."""
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        with open(f"{point}/precious", "w"):
            pass
        done = run(folder, socket, point)
        if done.returncode == 0:
            detach(point)
            wait_for(lambda: not processes_on(f"{folder}/mnt"), 10)
        else:
            assert done.stderr.count("\n") == 1
        assert os.path.exists(f"{point}/precious")
    finally:
        detach(point)


@needs_root
def test_without_dev_fuse(folder, socket, point):
    """A container that was not given the device: one line that names it."""
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no mount namespaces here")
    script = 'mount -t tmpfs none /dev && exec "$0" "$@"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, *command_line(folder, socket, point)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(folder), timeout=30)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert "/dev/fuse" in done.stderr


@pytest.mark.quick
def test_a_machine_that_is_not_there_yet(folder, mount, storage_daemon, overlay):
    """unix: of a socket that does not exist: mounted all the same, and connected once it is there."""
    tree = mount(f"unix:{folder}/vm.qmp", f"name.with.dots=unix:{folder}/never")
    assert tree.domains() == ["name.with.dots", "vm"]
    domain = tree.domain("vm")
    assert domain.state.split()[0] in ("disconnected", "connecting")
    assert domain.disks() == []
    assert domain.read("error")
    storage_daemon("vm", blockdev("disk0", overlay()))
    wait_for(lambda: domain.connected, 15, "the link")
    wait_for(lambda: domain.disks() == ["disk0"])
    assert domain.read("error") == ""
    disk = domain.disk()
    disk.pull()
    assert disk.wait() == "completed"


@pytest.mark.quick
def test_several_sources_and_names(folder, mount, storage_daemon, overlay):
    one = storage_daemon("one", blockdev("disk0", overlay("a")))
    two = storage_daemon("two.three", blockdev("disk0", overlay("b")))
    tree = mount(one.socket, f"unix:{two.socket}")
    assert tree.domains() == ["one", "two.three"]
    tree.terminate()
    tree.sources = [f"A B={one.socket}", f"ünï=unix:{two.socket}"]
    tree.start()
    assert tree.domains() == ["A B", "ünï"]
    assert tree.disk("A B").status == "idle"


def test_a_socket_with_an_equals_sign_in_its_path(folder, mount, storage_daemon, overlay):
    qemu = storage_daemon("vm=1", blockdev("disk0", overlay()))
    tree = mount(f"unix:{qemu.socket}")
    assert len(tree.domains()) == 1
    assert tree.disk().status == "idle"


def test_d_shows_every_request(folder, socket, mount):
    """-d: in the foreground, and talkative."""
    point = f"{folder}/debug"
    os.mkdir(point)
    with open(f"{folder}/debug.log", "w") as log:
        process = subprocess.Popen(command_line(folder, "-d", socket, point), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=environment(folder))
    try:
        wait_for(lambda: os.path.exists(f"{point}/version"), 10)
        assert Tree(point).disk("vm").status == "idle"
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        detach(point)
    with open(f"{folder}/debug.log") as log:
        assert log.read().count("\n") > 10


@needs_root
def test_mount_by_type_as_from_fstab(folder, socket, point):
    """mount -t fuse.blockjobfs: mount(8) finds the command by its name, and passes options its own way."""
    os.mkdir(f"{folder}/bin")
    os.symlink(BLOCKJOBFS, f"{folder}/bin/blockjobfs")
    os.symlink(BLOCKJOBFS, f"{folder}/bin/mount.fuse.blockjobfs")
    env = {**environment(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    if not any(os.access(f"{where}/mount.fuse3", os.X_OK) for where in ("/sbin", "/usr/sbin")):
        pytest.skip("mount.fuse3 is not installed")
    done = subprocess.run(["/sbin/mount.fuse3", f"blockjobfs#{socket}", point, "-o", f"runtime_dir={folder}/run,rw,noatime"], env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    try:
        assert done.returncode == 0, done.stdout
        assert Tree(point).disk("vm").status == "idle"
    finally:
        detach(point)
    wait_for(lambda: not processes_on(point), 10)
