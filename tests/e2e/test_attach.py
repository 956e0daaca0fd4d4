"""Domains made in the tree: mkdir, an address, rmdir."""

import errno
import os
import select
import signal
import subprocess
import threading
import time

import pytest

from mount import Background
from qemu import blockdev
from system import children_of, processes_on, stays, wait_for
from users import USER, needs_users, run_as
from watch import CREATE, DELETE, IS_FOLDER, Inotify


def refused(number, function, *arguments):
    with pytest.raises(OSError) as refusal:
        function(*arguments)
    assert refusal.value.errno == number, refusal.value


def make(tree, name, address=None):
    os.mkdir(tree / f"domains/{name}")
    domain = tree.domain(name)
    if address:
        domain.write("address", address + "\n")
        wait_for(lambda: domain.connected, why=domain.read("error"))
    return domain


@pytest.fixture
def two(storage_daemon, overlay):
    """Two QEMUs that the tree does not know."""
    return [storage_daemon(name, blockdev("disk0", overlay(name))) for name in ("one", "two")]


@pytest.fixture
def tree(mount, peer):
    """A tree with a machine of its own, "vm"."""
    return mount(peer("vm").socket)


@pytest.mark.quick
def test_attach_use_detach(tree, two):
    """The kernel tells of the folder by itself, once; of the disks in it the daemon does."""
    with Inotify(tree / "domains") as inotify:
        domain = make(tree, "web1")
        assert domain.state == "disconnected"
        assert domain.read("address") == ""
        assert "write one" in domain.read("error")
        assert domain.disks() == []
        inotify.add(domain / "disks")
        domain.write("address", f"unix:{two[0].socket}\n")
        wait_for(lambda: domain.connected)
        assert domain.line("address") == f"unix:{two[0].socket}"
        assert domain.read("error") == ""
        disk = domain.disk("disk0")
        disk.pull()
        assert disk.wait() == "completed"
        os.rmdir(domain.path)
        assert tree.domains() == ["vm"]
        told = [(notice.mask, notice.name) for notice in inotify.drain(0.3) if notice.mask & (CREATE | DELETE)]
        assert told[:2] == [(CREATE | IS_FOLDER, "web1"), (CREATE | IS_FOLDER, "disk0")]
        # Of the one its rmdir(2) tells, of the other the toucher's: whichever process is quicker.
        assert sorted(told[2:]) == [(DELETE | IS_FOLDER, "disk0"), (DELETE | IS_FOLDER, "web1")]
    assert [event["event"] for event in tree.events() if event["domain"] == "web1"][:2] == ["domain-added", "disk-added"]
    assert tree.events("domain-removed")[0]["reason"] == "detached"
    assert two[0].monitor("query-jobs") == []  # nothing happened to the machine


@pytest.mark.quick
def test_names(tree):
    for name in (".hidden", "a\nb", "back\\slash", b"\xff", "x" * 256, "\x1b[0m"):
        path = os.path.join(os.fsencode(tree / "domains"), os.fsencode(name) if isinstance(name, str) else name)
        refused(errno.EINVAL, os.mkdir, path)
    for name in ("a b", "é€😀", "x" * 255, "-rf", "a=b", "unix:", "..."):
        if name == "...":
            refused(errno.EINVAL, os.mkdir, tree / f"domains/{name}")
            continue
        os.mkdir(tree / f"domains/{name}")
        refused(errno.EEXIST, os.mkdir, tree / f"domains/{name}")
        os.rmdir(tree / f"domains/{name}")
    refused(errno.EEXIST, os.mkdir, tree / "domains/vm")
    refused(errno.ENOENT, os.rmdir, tree / "domains/nobody")
    for place in ("x", "domains/vm/x", "domains/vm/disks/x", "domains/vm/disks/vd0/x"):
        refused(errno.EPERM, os.mkdir, tree / place)
    for place in ("domains", "domains/vm/disks", "domains/vm/disks/vd0"):
        refused(errno.EPERM, os.rmdir, tree / place)
    assert tree.domains() == ["vm"]
    assert any(event["errno"] == "EINVAL" and "no dot at the beginning" in event["error"] for event in tree.events("command-refused"))


@pytest.mark.quick
def test_addresses(tree, two, folder, overlay):
    domain = make(tree, "web1")
    image = overlay("x")
    for address, number, reason in (
            (f"exec:touch {folder}/ran", errno.EPERM, "command line"), (f"image:{image}", errno.EPERM, "command line"),
            (f"dir:{folder}", errno.EPERM, "command line"), ("unix:relative", errno.EINVAL, "absolute"), ("", errno.EINVAL, "missing"),
            ("bogus", errno.EINVAL, "tcp:HOST:PORT"), (f"x=unix:{two[0].socket}", errno.EINVAL, "an address is"),
            ("unix:/" + "x" * 200, errno.ENAMETOOLONG, "too long"), ("tcp:nowhere", errno.EINVAL, ""),
            (f"unix:{tree.folder}/vm.qmp", errno.EEXIST, "vm has this monitor")):
        refused(number, domain.write, "address", address + "\n")
        assert reason in domain.read("error"), domain.read("error")
        assert domain.read("address") == ""
    refused(errno.EPERM, tree.domain("vm").write, "address", f"unix:{two[0].socket}\n")
    assert not os.path.exists(f"{folder}/ran")
    strange = f"{folder}/a b=c"
    os.rename(two[0].socket, strange)
    domain.write("address", f"unix:{strange}\n")
    wait_for(lambda: domain.connected)
    domain.write("address", f'"unix:{two[1].socket}"\n')
    wait_for(lambda: domain.connected)
    os.rename(strange, two[0].socket)
    domain.write("address", two[0].socket)  # a path alone
    wait_for(lambda: domain.connected and domain.line("address") == f"unix:{two[0].socket}")
    domain.write("address", '{"address": "unix:/nowhere"}')
    assert domain.line("address") == "unix:/nowhere"
    wait_for(lambda: "no such file" in domain.read("error"))
    os.rmdir(domain.path)


@pytest.mark.quick
def test_another_address(tree, two):
    """The disks are the other machine's then; not while a job is live."""
    domain = make(tree, "web1", f"unix:{two[0].socket}")
    disk = domain.disk("disk0")
    chain = disk.chain
    disk.hold()
    with Inotify(domain / "address") as inotify:
        refused(errno.EBUSY, domain.write, "address", f"unix:{two[1].socket}\n")
        assert "live job" in domain.read("error")
        disk.write("abort", "\n")
        held = os.open(disk / "chain", os.O_RDONLY)
        domain.write("address", f"unix:{two[1].socket}\n")
        wait_for(lambda: domain.connected and domain.disks() == ["disk0"])
        assert inotify.wait(lambda notice: True)
    assert domain.disk("disk0").chain != chain
    assert domain.disk("disk0").status == "idle"
    refused(errno.ENODEV, os.pread, held, 100, 0)
    os.close(held)
    os.rmdir(domain.path)
    assert two[0].monitor("query-jobs") == two[1].monitor("query-jobs") == []


@pytest.mark.quick
def test_a_live_job_holds_on(one):
    one.disk.hold()
    domain = one.mount.domain("vm")
    refused(errno.EBUSY, os.rmdir, domain.path)
    assert domain.read("error").splitlines()[0] == "rmdir vm"
    assert one.disk.status == "running"
    one.disk.write("abort", "\n")
    os.rmdir(domain.path)
    assert one.mount.domains() == []
    assert one.qemu.process.poll() is None
    domain = make(one.mount, "again", f"unix:{one.qemu.socket}")
    domain.disk("disk0").pull()
    assert domain.disk("disk0").wait() == "completed"
    os.rmdir(domain.path)


@pytest.mark.quick
def test_an_image_is_detached(mount, overlay, folder):
    """Its engine goes with it, and what it had in the runtime folder."""
    image = overlay("web2")
    tree = mount(f"image:{image}")

    def engines():
        return [line for line in processes_on(image).values() if "--blockdev" in line]

    assert len(engines()) == 1
    os.rmdir(tree.domain("web2").path)
    assert tree.domains() == []
    wait_for(lambda: not engines(), why="the engine to end")
    told = [event["event"] for event in tree.events()]
    assert told[-1] == "domain-removed", told
    tree.sources = []


@pytest.mark.quick
def test_watch_only(mount, peer):
    tree = mount(peer("vm").socket, options="ro")
    refused(errno.EROFS, os.mkdir, tree / "domains/x")
    refused(errno.EROFS, os.rmdir, tree / "domains/vm")
    refused(errno.EROFS, tree.domain("vm").write, "address", "unix:/x\n")
    assert tree.domains() == ["vm"]


@needs_users
@pytest.mark.quick
def test_only_the_owner(tree, two):
    """Also where the folder was given to somebody: what is in a domain can be delegated, which domains there are cannot."""
    domain = make(tree, "web1")

    def all_of_it():
        for number, function, *arguments in (
                ((errno.EACCES, errno.EPERM), os.mkdir, tree / "domains/x"), ((errno.EACCES, errno.EPERM), os.rmdir, domain.path),
                ((errno.EACCES, errno.EPERM), domain.write, "address", f"unix:{two[0].socket}\n")):
            with pytest.raises(OSError) as refusal:
                function(*arguments)
            assert refusal.value.errno in number, refusal.value

    run_as(USER, all_of_it)
    for path in (domain.path, domain / "address"):
        os.chown(path, USER, USER)
    run_as(USER, all_of_it)
    assert tree.domains() == ["vm", "web1"]
    assert domain.read("address") == ""


@pytest.mark.quick
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_life_has_it(tree, two, sig):
    domain = make(tree, "web1", f"unix:{two[0].socket}")
    make(tree, "gone", f"unix:{two[1].socket}")
    os.rmdir(tree / "domains/gone")
    make(tree, "empty")
    inode = os.stat(domain.path).st_ino
    for _ in range(2):
        if sig == signal.SIGKILL:
            tree.kill()
            subprocess.run(["umount", "-l", tree.path], check=True)
        else:
            tree.terminate()
        tree.start()
        assert tree.domains() == ["empty", "vm", "web1"]
        assert domain.connected
        assert domain.line("address") == f"unix:{two[0].socket}"
        assert os.stat(domain.path).st_ino == inode
    domain.disk("disk0").pull()
    assert domain.disk("disk0").wait() == "completed"
    # The command line comes first, and what was said there last counts.
    tree.terminate()
    tree.sources.append(f"web1=unix:{two[1].socket}")
    tree.start()
    assert tree.domain("web1").line("address") == f"unix:{two[1].socket}"
    assert "web1, which was made in the tree, is given up" in tree.said()
    refused(errno.EPERM, tree.domain("web1").write, "address", f"unix:{two[0].socket}\n")
    os.rmdir(tree / "domains/empty")


@pytest.mark.quick
def test_what_is_open_in_a_domain_that_is_detached(tree, two):
    domain = make(tree, "web1", f"unix:{two[0].socket}")
    disk = domain.disk("disk0")
    files = [os.open(path, os.O_RDWR if os.access(path, os.W_OK) and os.stat(path).st_mode & 0o200 else os.O_RDONLY)
             for path in [disk / name for name in disk.list()] + [domain / name for name in domain.list() if os.path.isfile(domain / name)]]
    poll = select.poll()
    for fd in files:
        os.pread(fd, 100, 0)
        poll.register(fd, select.POLLPRI)
    poll.poll(0)
    inside = subprocess.Popen(["sh", "-c", "read x; ls; cat status; echo > pull; cd ..; echo over"], cwd=disk.path, text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.rmdir(domain.path)
    assert {fd for fd, _ in poll.poll(2000)} == set(files)
    again = make(tree, "web1", f"unix:{two[1].socket}")
    for fd in files:
        refused(errno.ENODEV, os.pread, fd, 100, 0)
        with pytest.raises(OSError) as refusal:
            os.pwrite(fd, b"\n", 0)
        assert refusal.value.errno in (errno.ENODEV, errno.EBADF)
        os.close(fd)
    assert "over" in inside.communicate("\n", 10)[0]
    assert again.disk("disk0").status == "idle", "somebody else's file has started a job"
    os.rmdir(again.path)


def test_a_storm_of_folders(tree, two):
    """Made, attached and removed by several at once, with a job on the machine beside them and somebody who looks at all of it."""
    ending = threading.Event()

    def build(number):
        while not ending.is_set():
            path = tree / f"domains/x{number}"
            os.mkdir(path)
            with open(path + "/address", "w") as file:
                file.write(f"unix:{two[number].socket if number < 2 else f'/nowhere{number}'}\n")
            os.listdir(path + "/disks")
            os.rmdir(path)

    def look():
        while not ending.is_set():
            subprocess.run(["ls", "-lR", tree.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with Inotify(tree / "domains") as inotify:
        everybody = [Background(build, number) for number in range(4)] + [Background(look)]
        time.sleep(3)
        ending.set()
        for one in everybody:
            one.result()
        counts = {}
        for notice in inotify.drain(0.3):
            counts[notice.name, notice.mask & CREATE] = counts.get((notice.name, notice.mask & CREATE), 0) + 1
        assert tree.domains() == ["vm"]
        for number in range(4):
            assert counts[f"x{number}", CREATE] == counts[f"x{number}", 0] > 20, counts
    assert stays(lambda: tree.domains() == ["vm"])
    assert len(children_of(tree.pid)) == 1
