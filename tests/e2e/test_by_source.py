"""`by-source`: links to the disks, named after their active images."""

import os
import stat
import subprocess

import pytest

import images
from qemu import blockdev
from system import wait_for
from watch import CREATE, DELETE, Inotify


def escaped(path):
    return path.replace("\\", "\\x5c").replace("/", "\\x2f")


def links(domain):
    """{name: target} as readdir and readlink tell."""
    folder = domain / "by-source"
    return {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}


@pytest.fixture
def vm(machine, mount, folder):
    """A machine with the disks vda and vdb."""
    paths = [images.create(f"{folder}/{name}.qcow2", size=1 << 20) for name in ("a", "b")]
    words = []
    for number, (name, path) in enumerate(zip(("vda", "vdb"), paths)):
        words += ["-drive", f"file={path},if=none,id=d{number}", "-device", f"virtio-blk-pci,drive=d{number},id={name}"]
    qemu = machine("vm", *words)
    domain = mount(qemu.socket).domain("vm")
    domain.qemu, domain.paths = qemu, paths
    return domain


@pytest.mark.quick
def test_links(vm):
    assert links(vm) == {escaped(path): f"../disks/{name}" for name, path in zip(("vda", "vdb"), vm.paths)}
    link = f"{vm / 'by-source'}/{escaped(vm.paths[0])}"
    info = os.lstat(link)
    assert stat.S_ISLNK(info.st_mode) and info.st_size == len("../disks/vda") and info.st_nlink == 1
    assert os.path.samefile(link, vm / "disks/vda")
    with open(f"{link}/source") as source:
        assert source.read() == vm.paths[0] + "\n"
    with os.scandir(vm / "by-source") as entries:
        assert all(entry.is_symlink() and entry.inode() == os.lstat(entry.path).st_ino for entry in entries)
    assert os.lstat(link).st_ino == info.st_ino


@pytest.mark.quick
def test_what_is_not_there_and_what_is_not_allowed(vm):
    folder = vm / "by-source"
    for name in ("x", "vda", escaped(vm.paths[0]) + "x"):
        with pytest.raises(FileNotFoundError):
            os.readlink(f"{folder}/{name}")
    for attempt in (lambda: os.symlink("x", f"{folder}/x"), lambda: os.unlink(f"{folder}/{escaped(vm.paths[0])}"),
                    lambda: os.rename(f"{folder}/{escaped(vm.paths[0])}", f"{folder}/y"), lambda: os.mkdir(f"{folder}/z"),
                    lambda: os.symlink("x", vm / "x")):
        with pytest.raises(PermissionError):
            attempt()
    assert len(links(vm)) == 2


@pytest.mark.quick
def test_pivot_moves_the_link(vm, folder):
    """The folder of the links says so by its mtime, and the old name leads nowhere."""
    disk = vm.disk("vda")
    before = os.stat(vm / "by-source").st_mtime_ns
    inode = os.lstat(f"{vm / 'by-source'}/{escaped(vm.paths[1])}").st_ino
    dest = f"{folder}/copy.qcow2"
    disk.write("copy", f"dest={dest} pivot\n")
    assert disk.wait() == "completed"
    assert links(vm) == {escaped(dest): "../disks/vda", escaped(vm.paths[1]): "../disks/vdb"}
    assert os.stat(vm / "by-source").st_mtime_ns > before
    assert os.lstat(f"{vm / 'by-source'}/{escaped(vm.paths[1])}").st_ino == inode
    with pytest.raises(FileNotFoundError):
        os.lstat(f"{vm / 'by-source'}/{escaped(vm.paths[0])}")


@pytest.mark.quick
def test_inotify(vm, folder):
    """IN_DELETE of the old link, IN_CREATE of the new one, and nothing of the other disk's."""
    disk = vm.disk("vda")
    dest = f"{folder}/copy.qcow2"
    with Inotify(vm / "by-source") as watch:
        disk.write("copy", f"dest={dest} pivot\n")
        assert disk.wait() == "completed"
        told = watch.wait(lambda notice: notice.mask == CREATE and notice.name == escaped(dest))
        if not any(notice.mask == DELETE for notice in told):
            told += watch.wait(lambda notice: notice.mask == DELETE)
        assert {(notice.mask, notice.name) for notice in told + watch.drain()} == {(CREATE, escaped(dest)), (DELETE, escaped(vm.paths[0]))}
    assert links(vm) == {escaped(dest): "../disks/vda", escaped(vm.paths[1]): "../disks/vdb"}


def test_inode_numbers_outlive_the_daemon(machine, mount, folder):
    path = images.create(f"{folder}/a.qcow2", size=1 << 20)
    qemu = machine("vm", "-drive", f"file={path},if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=vda")
    tree = mount(qemu.socket)
    link = f"{tree.path}/domains/vm/by-source/{escaped(path)}"
    inode = os.lstat(link).st_ino
    tree.terminate()
    tree.start()
    assert os.lstat(link).st_ino == inode and os.readlink(link) == "../disks/vda"


def test_two_disks_of_one_image(storage_daemon, mount, folder):
    """One link, to the disk whose name comes first; it goes on to the other one."""
    path = images.create(f"{folder}/shared.qcow2", size=1 << 20)
    read_only = {"read-only": True}
    qemu = storage_daemon("vm", blockdev("zz", path, **read_only), blockdev("aa", path, **read_only))
    domain = mount(qemu.socket).domain("vm")
    assert sorted(domain.disks()) == ["aa", "zz"]
    assert links(domain) == {escaped(path): "../disks/aa"}
    qemu.monitor("blockdev-del", **{"node-name": "aa"})
    wait_for(lambda: domain.disks() == ["zz"], why="one disk is gone")
    assert links(domain) == {escaped(path): "../disks/zz"}
    qemu.monitor("blockdev-del", **{"node-name": "zz"})
    wait_for(lambda: domain.disks() == [], why="the other one, too")
    assert links(domain) == {}


def test_names(storage_daemon, mount, folder):
    """Long paths are cut and told apart, odd bytes are escaped."""
    deep = folder
    for letter in "abcd":
        deep = f"{deep}/{letter * 80}"
    os.makedirs(deep)
    odd = images.create(f"{folder}/a b\tc\\ü.qcow2", size=1 << 20)
    long_names = [images.create(f"{deep}/{name}.qcow2", size=1 << 20) for name in ("one", "two")]
    qemu = storage_daemon("vm", *(blockdev(f"d{number}", path) for number, path in enumerate([odd, *long_names])))
    domain = mount(qemu.socket).domain("vm")
    names = {target: name for name, target in links(domain).items()}
    assert len(names) == 3 and all(len(name.encode()) <= 255 for name in names)
    assert names["../disks/d0"] == escaped(odd).replace("\t", "\\x09")
    assert names["../disks/d1"] != names["../disks/d2"]
    for number, path in enumerate([odd, *long_names]):
        assert os.path.samefile(f"{domain / 'by-source'}/{names[f'../disks/d{number}']}", domain / f"disks/d{number}")


def test_tools(vm):
    """find, ls and tar take the links for what they are."""
    listing = subprocess.run(["ls", "-l", vm / "by-source"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "-> ../disks/vda" in listing.replace("'", "") and "-> ../disks/vdb" in listing.replace("'", "")
    found = subprocess.run(["find", "-L", vm / "by-source", "-name", "source"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert found.count("/source\n") == 2
