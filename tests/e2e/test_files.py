"""The tree as everyday tools see it: sizes, times, modes, snapshots."""

import errno
import os
import shutil
import stat
import subprocess
import time

import pytest

from mount import Mount
from system import IS_ROOT, Took, mount_lines, wait_for

DISK_FILES = {"pull", "speed", "pause", "abort", "progress", "status", "job", "wait", "chain", "source", "format", "size", "events",
              "error", "history"}


def run(command, path):
    """Output of a shell command with the file as $0."""
    return subprocess.run(["sh", "-c", command, path], stdout=subprocess.PIPE, check=True, timeout=20).stdout


@pytest.mark.quick
def test_the_tree_has_what_the_interface_says(one):
    tree = one.mount
    assert {"README", "version", "events", "domains"} <= set(tree.list())
    assert {"address", "state", "error", "events", "disks"} <= set(tree.domain("vm").list())
    assert DISK_FILES <= set(one.disk.list())
    assert tree.line("version")
    assert "domains" in tree.read("README")
    assert one.qemu.socket in tree.domain("vm").line("address")
    assert tree.domain("vm").state.split()[0] == "connected"
    assert tree.domain("vm").read("error") == ""
    assert one.disk.read("error") == ""
    assert one.disk.read("history") == ""
    assert one.disk.line("progress") == "0 0"


def test_a_machine_shows_its_run_state(machine, mount, overlay):
    qemu = machine("vm", "-drive", f"file={overlay()},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vd0")
    domain = mount(qemu.socket).domain("vm")
    assert domain.state == "connected prelaunch"
    qemu.monitor("cont")
    wait_for(lambda: domain.state == "connected running")
    qemu.monitor("stop")
    wait_for(lambda: domain.state == "connected paused")


@pytest.mark.quick
def test_every_size_is_exact(one):
    one.disk.pull()
    one.disk.wait()
    files = one.mount.readable()
    assert len(files) >= 20
    for path in files:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        # It counts those who look at it.
        assert os.stat(path).st_size == len(data) or path.endswith("/metrics.prom"), path
        assert data == b"" or data.endswith(b"\n"), path


TOOLS = {
    "cat": 'cat "$0"', "busybox cat": 'busybox cat "$0"', "head": 'head -n 1000000 "$0"', "tail": 'tail -n 1000000 "$0"',
    "tail -c": 'tail -c 1000000 "$0"', "cp": 'cp "$0" copy && cat copy', "busybox cp": 'busybox cp "$0" copy && cat copy',
    "dd": 'dd if="$0" bs=4096 status=none', "dd bs=1": 'dd if="$0" bs=1 status=none', "grep": 'grep "" "$0" || true',
    "grep -a": 'grep -a "" "$0" || true', "tar": 'tar cf - -C "${0%/*}" "${0##*/}" | tar xOf -', "sed": 'sed "" "$0"',
    "awk": 'awk "{ print }" "$0"', "split": 'rm -f part*; split -b 7 "$0" part && cat part* 2>/dev/null || true',
    "python copyfile": 'python3 -c "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])" "$0" copy && cat copy',
    "python sendfile": 'python3 -c "import os, sys; a = open(sys.argv[1], \'rb\'); '
                       'n = os.fstat(a.fileno()).st_size; p = 0\nwhile p < n: p += os.sendfile(1, a.fileno(), p, n - p)" "$0" | cat',
    "a shell's own read": 'while IFS= read -r line; do printf "%s\\n" "$line"; done < "$0"',
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_read_whole_files(one, folder, tool, monkeypatch):
    if tool.startswith("busybox") and not shutil.which("busybox"):
        pytest.skip("busybox is not installed")
    one.disk.pull()
    one.disk.wait()
    monkeypatch.chdir(folder)
    paths = [one.mount / "README", one.mount / "version", one.mount.domain("vm") / "state"]
    paths += [one.disk / name for name in sorted(DISK_FILES - {"wait"})]
    for path in paths:
        with open(path, "rb") as file:
            expected = file.read()
        assert run(TOOLS[tool], path) == expected, path


def test_wc_and_stat_agree(one):
    for name in ("README", "version"):
        path = one.mount / name
        assert int(run('wc -c < "$0"', path)) == os.stat(path).st_size
        assert int(run('wc -l < "$0"', path)) == one.mount.read(name).count("\n")


def test_walks_over_the_whole_tree_do_not_block(one, folder, monkeypatch):
    """While no job is live not even `wait` blocks: cp -r, tar, grep -r and du get through."""
    monkeypatch.chdir(folder)
    for command in ('cp -r "$0" copy', 'tar cf tree.tar -C "$0" .', 'grep -r zzzz "$0" || true', 'du -a "$0" > /dev/null',
                    'find "$0" -size +0 > /dev/null'):
        with Took() as took:
            run(command, one.mount.path)
        assert took.seconds < 5, command
    assert len(os.listdir(f"{folder}/copy")) == len(one.mount.list())


@pytest.mark.quick
def test_reading_a_control_file_gives_its_usage(one):
    usage = one.disk.read("pull")
    for word in ("base=", "bandwidth=", "on-error="):
        assert word in usage
    assert "async" in one.disk.read("abort")
    # Reading starts nothing.
    assert one.disk.status == "idle"
    assert one.disk.events("job-started") == []


@pytest.mark.quick
def test_times_owners_modes_and_inodes(one):
    now = time.time()
    numbers = {}
    for path, info in one.mount.files():
        assert info.st_mtime > now - 3600, f"{path}: an mtime of {info.st_mtime}"
        assert info.st_mtime < now + 60, path
        assert info.st_atime_ns == info.st_mtime_ns, path
        assert info.st_uid == os.geteuid(), path
        assert info.st_ino not in numbers, f"{path} and {numbers.get(info.st_ino)} have one inode number"
        numbers[info.st_ino] = path
        assert not info.st_mode & 0o022 or stat.S_ISLNK(info.st_mode), path
        if stat.S_ISDIR(info.st_mode):
            assert info.st_mode & 0o555 == 0o555, path
            assert info.st_nlink >= 2, path
        elif stat.S_ISREG(info.st_mode):
            assert info.st_nlink == 1
    for name in ("pull", "speed", "pause", "abort"):
        assert os.stat(one.disk / name).st_mode & 0o200, name
    for name in DISK_FILES - {"pull", "speed", "pause", "abort"}:
        assert not os.stat(one.disk / name).st_mode & 0o222, name


def test_readdir_and_stat_tell_the_same_inode(one):
    for where, folders, files in os.walk(one.mount.path):
        for entry in os.scandir(where):
            assert entry.inode() == os.lstat(entry.path).st_ino, entry.path


@pytest.mark.quick
def test_a_change_moves_the_mtime_and_keeps_the_inode(one):
    def look(name):
        info = os.stat(one.disk / name)
        return info.st_mtime_ns, info.st_ino

    before = {name: look(name) for name in ("status", "job", "chain", "progress")}
    one.disk.pull()
    one.disk.wait()
    after = {name: look(name) for name in before}
    for name in ("status", "job", "chain"):
        assert after[name][0] > before[name][0], name
    assert all(after[name][1] == before[name][1] for name in before)
    # Strictly rising, however quickly changes follow each other.
    last = look("error")[0]
    for _ in range(20):
        with pytest.raises(OSError):
            one.disk.write("speed", "bogus")
        assert look("error")[0] > last
        last = look("error")[0]


@pytest.mark.quick
def test_inodes_are_the_same_in_the_next_life(one):
    def numbers():
        return {os.path.relpath(path, one.mount.path): info.st_ino for path, info in one.mount.files()}

    before = numbers()
    one.mount.terminate()
    one.mount.start()
    assert numbers() == before


@pytest.mark.quick
def test_the_mount_is_as_safe_as_it_should_be(one):
    line, = mount_lines(one.mount.path)
    options, rest = line.split(" - ")
    kind, _, super_options = rest.split(" ", 2)
    assert kind == "fuse.blockjobfs"
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(" ")[5].split(","))
    assert "default_permissions" in super_options
    if IS_ROOT:
        assert "allow_other" in super_options


@pytest.mark.quick
def test_a_file_is_a_snapshot_of_when_it_was_read_at_offset_0(one):
    """Read in one-byte reads, with changes in between: never torn, and new again at offset 0."""
    one.disk.hold()
    for name, change in (("job", lambda: one.disk.write("speed", "1234567")), ("speed", lambda: one.disk.write("speed", "89")),
                         ("chain", one.disk.release)):
        fd = os.open(one.disk / name, os.O_RDONLY)
        try:
            data = os.read(fd, 1)
            whole = one.disk.read(name)
            change()
            if name == "chain":
                assert one.disk.wait() == "completed"
            assert one.disk.read(name) != whole, name
            while True:
                byte = os.read(fd, 1)
                if not byte:
                    break
                data += byte
            if name == "job":
                assert b"bandwidth 1\n" in data
                assert data.endswith(b"\n")
            else:
                assert data.decode() == whole, name
            assert os.read(fd, 1) == b""
            os.lseek(fd, 0, os.SEEK_SET)
            assert os.read(fd, 1 << 16).decode() != data.decode(), name
        finally:
            os.close(fd)


def test_reads_behind_the_end_are_empty(one):
    fd = os.open(one.mount / "README", os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        assert os.pread(fd, 100, 0)
        assert os.pread(fd, 100, size) == b""
        assert os.pread(fd, 100, size + 12345) == b""
        assert os.pread(fd, 100, 1 << 40) == b""
        assert os.pread(fd, 1 << 20, 1) == one.mount.read("README").encode()[1:]
    finally:
        os.close(fd)


def test_two_open_files_do_not_disturb_each_other(one):
    """Everybody has an answer, a snapshot and an offset of his own."""
    first, second = (os.open(one.disk / "pull", os.O_RDWR) for _ in range(2))
    try:
        for fd, words in ((first, b"bogus=1"), (second, b"base=/not/there")):
            with pytest.raises(OSError):
                os.write(fd, words)
        assert b"bogus" in os.pread(first, 4096, 0)
        assert b"/not/there" in os.pread(second, 4096, 0)
        assert b"bogus" not in os.pread(second, 4096, 0)
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.quick
def test_the_answer_on_the_same_open_file(one):
    fd = os.open(one.disk / "pull", os.O_RDWR)
    try:
        with pytest.raises(OSError) as refusal:
            os.write(fd, b"base=/not/there\n")
        assert refusal.value.errno == errno.ENOENT
        answer = os.pread(fd, 4096, 0).decode()
        assert "/not/there" in answer
        assert answer == one.disk.read("error")
        # On with the next command on the same file: at offset 0.
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.write(fd, b"bandwidth=1\n") == 12
        assert os.read(fd, 4096).decode() == os.pread(fd, 4096, 0).decode()
    finally:
        os.close(fd)
    assert one.disk.status == "running"
    assert one.disk.read("error") == ""


def test_statfs_is_answered(one):
    info = os.statvfs(one.mount.path)
    assert info.f_namemax >= 255


def test_mounting_again_elsewhere_shows_the_same(one, folder, cleanup):
    """A second daemon cannot have the monitor: busy, and the first goes on."""
    second = Mount(folder, [one.qemu.socket], name="second")
    cleanup(second.close)
    assert second.domain("vm").state == "busy"
    one.disk.pull()
    assert one.disk.wait() == "completed"
