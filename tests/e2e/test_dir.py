"""Sources that are a folder: every socket in it, now and later."""

import contextlib
import errno
import os
import resource
import select
import socket
import subprocess
import time

import pytest

from crowd import KINDS, Crowd
from mount import Mount
from qemu import blockdev
from system import BLOCKJOBFS, SLOW, STORAGE_DAEMON, descriptors, memory_kib, stays, wait_for
from users import USER, needs_users
from watch import CREATE, DELETE, IS_FOLDER, Inotify


@pytest.fixture
def sockets(folder):
    path = f"{folder}/vm"
    os.mkdir(path)
    return path


@pytest.fixture
def crowd(sockets, cleanup):
    """QMP sockets without a QEMU, in the folder of sockets."""
    made = Crowd(sockets)
    cleanup(made.close)
    return made


@pytest.fixture
def qemu(run_in_background, overlay):
    """qemu(path): a storage daemon that makes its socket at that path itself, and removes it at its end."""
    def start(path, image=None):
        image = image or overlay(os.path.basename(path) + str(time.monotonic_ns()))
        process = run_in_background(
            STORAGE_DAEMON, "--blockdev", blockdev("disk0", image),
            "--chardev", f"socket,id=m,path={path},server=on,wait=off", "--monitor", "chardev=m")
        wait_for(lambda: os.path.exists(path), why="the socket")
        return process
    return start


def quits(process):
    process.terminate()
    process.wait()


def address_of(tree, name):
    """What its address is; None if there is no such domain at this moment."""
    with contextlib.suppress(OSError, AssertionError):
        return tree.domain(name).line("address")


def shows(tree, *names):
    wait_for(lambda: tree.domains() == sorted(names), why=f"{names}, not {tree.domains()}")


def shows_connected(tree, *names):
    shows(tree, *names)
    wait_for(lambda: all(tree.domain(name).connected for name in names), why="all to be connected")


@pytest.mark.quick
def test_machines_start_and_stop(sockets, mount, qemu):
    """What is there at the start is connected when the mount is; the rest comes and goes, and who watches is told."""
    first = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    assert tree.domains() == ["web1"]
    assert tree.domain("web1").connected
    assert tree.domain("web1").line("address") == f"unix:{sockets}/web1.qmp"
    with Inotify(tree / "domains", tree.domain("web1") / "disks") as inotify:
        second = qemu(f"{sockets}/db.sock")
        told = inotify.wait(lambda notice: notice.mask & CREATE)
        assert [(notice.mask, notice.name) for notice in told] == [(CREATE | IS_FOLDER, "db")]
        shows_connected(tree, "web1", "db")
        disk = tree.disk("db", "disk0")
        inode = os.stat(disk.path).st_ino
        disk.pull()
        assert disk.wait() == "completed"
        quits(first)
        told = inotify.wait(lambda notice: notice.mask & DELETE and notice.name == "web1")
        assert [(notice.mask, notice.name) for notice in told] == [(DELETE | IS_FOLDER, "disk0"), (DELETE | IS_FOLDER, "web1")]
        shows(tree, "db")
        quits(second)
        shows(tree)
        qemu(f"{sockets}/db.sock")
        shows_connected(tree, "db")
        assert os.stat(disk.path).st_ino == inode
        assert disk.status == "idle"
    events = [(event["event"], event["domain"]) for event in tree.events() if event["event"].startswith("domain-")]
    assert events.count(("domain-added", "db")) == 2
    assert events.count(("domain-removed", "db")) == 1
    assert events.index(("domain-disconnected", "web1")) < events.index(("domain-removed", "web1"))


@pytest.mark.quick
def test_a_bare_path(sockets, mount, qemu):
    qemu(f"{sockets}/web1.qmp")
    tree = mount("vm/")  # relative, as the daemon is started in the test's folder
    shows_connected(tree, "web1")
    assert tree.domain().line("address") == f"unix:{sockets}/web1.qmp"


@pytest.mark.quick
def test_only_sockets_of_lasting_names_count(sockets, mount, crowd):
    for name in (".web.qmp", "web.qmp~", "#web.qmp", "web.qmp.tmp", ".tmp", "~"):
        crowd.add(name)
    with open(f"{sockets}/file.qmp", "w"):
        os.mkdir(f"{sockets}/folder.qmp")
    os.mkfifo(f"{sockets}/fifo.qmp")
    os.symlink("nowhere", f"{sockets}/dangling.qmp")
    tree = mount(f"dir:{sockets}")
    assert tree.domains() == []
    crowd.add("web1.qmp.tmp")
    os.rename(f"{sockets}/web1.qmp.tmp", f"{sockets}/web1.qmp")
    shows_connected(tree, "web1")
    os.symlink(f"{sockets}/web.qmp~", f"{sockets}/linked.qmp")
    shows_connected(tree, "web1", "linked")
    os.unlink(f"{sockets}/linked.qmp")
    crowd.end("web.qmp~")
    shows(tree, "web1")
    os.rename(f"{sockets}/web1.qmp", f"{sockets}/web1.qmp.tmp")


@pytest.mark.quick
def test_the_folder_itself_comes_and_goes(folder, mount, cleanup):
    """It is there later than the daemon, with its parents; moved away and back; another one in its place; a link to another."""
    path = f"{folder}/run/later/vm"
    os.mkdir(f"{folder}/run")
    tree = mount(f"dir:{path}")
    assert tree.domains() == []
    assert "dir:" + path in tree.said()

    def crowd_in(where, name):
        os.makedirs(where, exist_ok=True)
        crowd = Crowd(where)
        cleanup(crowd.close)
        crowd.add(name)
        return crowd

    first = crowd_in(path, "web1.qmp")
    shows_connected(tree, "web1")
    os.rename(path, path + ".away")  # its socket is not there any more, but the connection is
    assert stays(lambda: tree.domains() == ["web1"])
    first.folder = path + ".away"
    first.end("web1.qmp")
    shows(tree)
    crowd_in(path, "web2.qmp")
    shows_connected(tree, "web2")
    other = crowd_in(f"{folder}/run/other", "web3.qmp")
    os.rename(path, path + ".old")
    os.symlink(f"{folder}/run/other", path)
    shows_connected(tree, "web2", "web3")
    other.add("web4.qmp")
    shows_connected(tree, "web2", "web3", "web4")
    third = crowd_in(f"{folder}/run/third", "web5.qmp")
    os.symlink(f"{folder}/run/third", path + ".new")
    os.rename(path + ".new", path)
    wait_for(lambda: "web5" in tree.domains())
    for name in ("web3.qmp", "web4.qmp"):
        other.end(name)
    shows_connected(tree, "web2", "web5")
    third.end("web5.qmp")
    os.rename(f"{folder}/run/later", f"{folder}/run/gone")
    os.makedirs(path)
    crowd_in(path, "web6.qmp")
    shows_connected(tree, "web2", "web6")
    for name in ("later", "gone", "other", "third"):
        subprocess.run(["rm", "-r", f"{folder}/run/{name}"], check=True)


@needs_users
def test_a_folder_that_may_not_be_read_is_not_an_empty_one(sockets, folder, crowd):
    crowd.add("web1.qmp")
    os.chmod(crowd.path("web1.qmp"), 0o777)
    tree = Mount(folder, [f"dir:{sockets}"], name="users", user=USER)
    try:
        def listing():
            return subprocess.run(["ls", tree / "domains"], user=USER, group=USER, extra_groups=[], stdout=subprocess.PIPE, text=True).stdout.split()
        assert listing() == ["web1"]
        os.chmod(sockets, 0o700)
        assert stays(lambda: listing() == ["web1"])
        os.chmod(sockets, 0o755)
        crowd.add("web2.qmp")
        wait_for(lambda: listing() == ["web1", "web2"])
    finally:
        tree.kill()
        subprocess.run(["umount", "-l", tree.path], check=True)


@pytest.mark.quick
def test_names_that_clash(sockets, folder, mount, crowd, peer):
    """The command line's goes first, then whoever was there first, then the first by name; the next has its turn when that goes."""
    for name in ("web1.sock", "web1.qmp", "db.qmp"):
        crowd.add(name)
    given = peer("db")
    tree = mount(f"dir:{sockets}", given.socket)
    assert tree.domains() == ["db", "web1"]
    assert tree.domain("db").line("address") == f"unix:{given.socket}"
    assert tree.domain("web1").line("address") == f"unix:{sockets}/web1.qmp"
    refused = {(event["domain"], event["socket"]) for event in tree.events("domain-refused")}
    assert refused == {("web1", f"{sockets}/web1.sock"), ("db", f"{sockets}/db.qmp")}
    assert "web1.sock is not shown: there is another domain of the name web1" in tree.said()
    crowd.end("web1.qmp")
    wait_for(lambda: address_of(tree, "web1") == f"unix:{sockets}/web1.sock", why="the other one")
    crowd.add("web1.qmp")
    wait_for(lambda: len(tree.events("domain-refused")) == 3)
    assert tree.domain("web1").line("address") == f"unix:{sockets}/web1.sock"
    os.rmdir(tree.domain("db").path)
    wait_for(lambda: address_of(tree, "db") == f"unix:{sockets}/db.qmp", why="the other one")
    tree.sources = tree.sources[:1]


@pytest.mark.quick
def test_one_socket_by_two_ways(sockets, folder, mount, crowd):
    """The second is told, and refused: a monitor serves one client."""
    crowd.add("web1.qmp")
    os.symlink("web1.qmp", f"{sockets}/same.qmp")
    os.symlink("vm", f"{folder}/linked")
    tree = mount(f"given=unix:{sockets}/web1.qmp", f"dir:{sockets}", f"dir:{folder}/linked")
    wait_for(lambda: tree.domains() == ["given", "same"] or tree.domains() == ["given"])
    crowd.add("web2.qmp")
    wait_for(lambda: "web2" in tree.domains())
    assert len([name for name in tree.domains() if name == "web2"]) == 1
    assert "the domain given has this monitor already" in tree.said()
    for words in ([f"dir:{sockets}", f"dir:{sockets}/"], [f"a=unix:{sockets}/web2.qmp", f"b=unix:{sockets}/web2.qmp"]):
        os.makedirs(f"{folder}/elsewhere", exist_ok=True)
        done = subprocess.run([BLOCKJOBFS, *words, f"{folder}/elsewhere"], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert "two sources" in done.stderr or "has this monitor already" in done.stderr


@pytest.mark.quick
def test_a_name_in_front_is_refused(sockets, folder):
    os.mkdir(f"{folder}/elsewhere")
    for word in (f"web1=dir:{sockets}", f"web1={sockets}"):
        done = subprocess.run([BLOCKJOBFS, word, f"{folder}/elsewhere"], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert 'leave out "web1="' in done.stderr


@pytest.mark.quick
def test_a_socket_that_is_only_unlinked_still_serves(sockets, mount, qemu):
    """Somebody has tidied up; the machine runs, its job too. When the machine dies the job has its last word before the domain goes."""
    process = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    disk = tree.disk("web1", "disk0")
    disk.hold()
    wait = disk.park()
    os.unlink(f"{sockets}/web1.qmp")
    assert stays(lambda: tree.domains() == ["web1"] and disk.status == "running")
    disk.write("speed", "2")
    process.kill()
    process.wait()
    assert wait.result() == "lost"
    shows(tree)
    told = [event["event"] for event in tree.events()]
    assert told.index("job-lost") < told.index("disk-removed") < told.index("domain-removed")
    assert tree.events("domain-removed")[0]["reason"] == "its socket is gone"


@pytest.mark.quick
def test_a_crashed_machine_keeps_its_folder_while_its_socket_is_there(sockets, mount, qemu):
    process = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    process.kill()
    process.wait()
    wait_for(lambda: tree.domain("web1").state == "disconnected")
    assert stays(lambda: tree.domains() == ["web1"])
    inode = os.stat(tree.domain("web1").path).st_ino
    os.unlink(f"{sockets}/web1.qmp")
    shows(tree)
    qemu(f"{sockets}/web1.qmp")
    shows_connected(tree, "web1")
    assert os.stat(tree.domain("web1").path).st_ino == inode


@pytest.mark.quick
def test_a_socket_is_replaced(sockets, mount, qemu):
    """The next machine takes the path over while the folder of the last one is still there: connected at once."""
    process = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    for _ in range(3):
        process.kill()
        process.wait()
        wait_for(lambda: tree.domain("web1").state == "disconnected")
        time.sleep(0.3)  # its attempts are seldom by now
        process = qemu(f"{sockets}/web1.qmp")  # QEMU unlinks what is there
        wait_for(lambda: tree.domains() == ["web1"] and tree.domain("web1").connected, 2, "the new one")
    quits(process)


@pytest.mark.quick
def test_a_renamed_socket(sockets, mount, crowd):
    """Whoever is connected stays what it was; the new name has its turn afterwards."""
    crowd.add("web1.qmp")
    tree = mount(f"dir:{sockets}")
    os.rename(f"{sockets}/web1.qmp", f"{sockets}/web2.qmp")
    wait_for(lambda: tree.events("domain-refused"), why="the other name to be refused")
    assert tree.domains() == ["web1"]
    assert tree.domain("web1").connected
    for client in crowd.clients["web1.qmp"]:
        client.shutdown(socket.SHUT_RDWR)
    shows_connected(tree, "web2")
    os.rename(f"{sockets}/web2.qmp", f"{sockets}/web1.qmp")


@pytest.mark.quick
def test_detached_until_there_is_another_socket(sockets, mount, qemu):
    process = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    disk = tree.disk("web1", "disk0")
    disk.hold()
    with pytest.raises(OSError) as refusal:
        os.rmdir(tree.domain("web1").path)
    assert refusal.value.errno == errno.EBUSY
    assert "live job" in tree.domain("web1").read("error")
    disk.write("abort", "\n")
    os.rmdir(tree.domain("web1").path)
    assert tree.domains() == []
    os.chmod(f"{sockets}/web1.qmp", 0o700)
    with open(f"{sockets}/something", "w"):
        assert stays(lambda: tree.domains() == [])
    quits(process)
    assert stays(lambda: tree.domains() == [])
    qemu(f"{sockets}/web1.qmp")
    shows_connected(tree, "web1")


@pytest.mark.quick
def test_hostile_names(sockets, mount, crowd):
    names = ["a\nb.qmp", "tab\t.qmp", "\x1b[31mred.qmp", "..a.qmp", "a b'\"$(reboot).qmp", "back\\slash.qmp", "back\\x5cslash.qmp",
             "dots...qmp", "no extension", os.fsdecode(b"\xff\xfe.qmp"), os.fsdecode(b"a\xc3.qmp"), "é€😀.qmp", ".qmp", "-rf.qmp",
             "a\nb.sock", "\\xff\\xfe.qmp"]
    for name in names:
        crowd.add(name)
    tree = mount(f"dir:{sockets}")
    expected = ["a\\x0ab", "tab\\x09", "\\x1b[31mred", "a b'\"$(reboot)", "back\\x5cslash", "back\\x5cx5cslash", "dots..", "no extension",
                "\\xff\\xfe", "a\\xc3", "é€😀", "-rf", "\\x5cxff\\x5cxfe"]
    shows_connected(tree, *expected)
    refused, = tree.events("domain-refused")
    assert refused["domain"] == "a\\x0ab" and refused["socket"].endswith("a\\x0ab.sock")
    assert not any(ord(character) < 32 and character != "\n" for character in tree.said())
    for name in list(crowd.listeners):
        crowd.end(name)
    shows(tree)


def test_paths_that_are_too_long(folder, mount, cleanup):
    """Names of 255 bytes are fine, but a socket's path has 107; told, and no other socket is taken for it."""
    deep = f"{folder}/" + "d" * (80 - len(folder))
    os.mkdir(deep)
    os.mkdir(f"{folder}/short")
    crowd = Crowd(f"{folder}/short")
    cleanup(crowd.close)
    long = "l" * 250 + ".qmp"
    crowd.add("x.qmp")
    os.rename(f"{folder}/short/x.qmp", f"{deep}/{long}")
    crowd.folder = deep
    crowd.listeners[long] = crowd.listeners.pop("x.qmp")
    tree = mount(f"dir:{deep}")
    assert tree.domains() == []
    assert "its path is too long for a socket" in tree.said()
    assert tree.events("domain-refused")[0]["reason"] == "its path is too long for a socket"
    os.rename(f"{deep}/{long}", f"{deep}/ok.qmp")
    crowd.listeners["ok.qmp"] = crowd.listeners.pop(long)
    shows_connected(tree, "ok")


@pytest.mark.quick
def test_what_is_open_in_a_folder_that_goes(sockets, mount, qemu):
    """Files, folders, a working folder, polls and parked waits: an answer for everyone, and the next domain of the name is not theirs."""
    process = qemu(f"{sockets}/web1.qmp")
    tree = mount(f"dir:{sockets}")
    domain, disk = tree.domain("web1"), tree.disk("web1", "disk0")
    disk.hold()
    waits = [disk.park() for _ in range(5)]
    held = [os.open(path, os.O_RDWR if name == "pull" else os.O_RDONLY)
            for name, path in [(name, disk / name) for name in disk.list() if name != "wait"] + [("state", domain / "state")]]
    folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (domain.path, domain / "disks", disk.path)]
    inside = subprocess.Popen(["sh", "-c", "read x; cat status 2>&1; ls 2>&1; cd .. 2>&1; echo over"], cwd=disk.path,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    poll = select.poll()
    os.read(held[-1], 100)
    poll.register(held[-1], select.POLLPRI)
    process.kill()
    process.wait()
    os.unlink(f"{sockets}/web1.qmp")
    for wait in waits:
        assert wait.result() == "lost"
    assert poll.poll(5000 * SLOW)
    shows(tree)
    for round in range(2):
        for fd in held:
            with pytest.raises(OSError) as error:
                os.pread(fd, 100, 0)
            assert error.value.errno in (errno.ENODEV, errno.EIO, errno.ESTALE), error.value
        for fd in folders:
            try:
                assert os.listdir(fd) == []
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ESTALE, errno.EIO), error
        if not round:
            qemu(f"{sockets}/web1.qmp")
            shows_connected(tree, "web1")
    for fd in held + folders:
        os.close(fd)
    assert "over" in inside.communicate("\n", 10)[0]
    assert tree.disk("web1", "disk0").status == "idle"
    tree.disk("web1", "disk0").pull()
    assert tree.disk("web1", "disk0").wait() == "completed"


@pytest.mark.timeout(120)
def test_a_thousand_sockets(sockets, folder, mount, crowd, qemu):
    """Four in five are of no use, each in its own way; whoever works with the one real machine does not notice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    qemu(f"{sockets}/aaa.qmp")
    for number in range(1000):
        crowd.add(f"vm{number:04}.qmp", KINDS[number % len(KINDS)])
    names = [f"vm{number:04}" for number in range(1000)]
    began = time.monotonic()
    tree = mount(f"dir:{sockets}", options="timeout=2")
    mounted = time.monotonic() - began
    assert mounted < 8 * SLOW
    shows(tree, "aaa", *names)
    wait_for(lambda: all(tree.domain(name).connected for name in names[::len(KINDS)]), 20, "the good ones")
    disk = tree.disk("aaa", "disk0")
    slowest = 0
    disk.hold()

    def work():
        nonlocal slowest
        began = time.monotonic()
        assert disk.job["state"] == "running"  # asks QEMU
        assert disk.progress[0] > 0
        assert tree.domain("aaa").connected and tree.domain("aaa").disks() == ["disk0"]
        with pytest.raises(OSError):
            disk.write("speed", "bogus")
        slowest = max(slowest, time.monotonic() - began)

    def work_until(condition, seconds):
        deadline = time.monotonic() + seconds * SLOW
        while not condition():
            assert time.monotonic() < deadline, tree.domains()
            work()

    for _ in range(5):
        work()
    before = memory_kib(tree.pid)
    for name in names[:500]:
        crowd.end(name + ".qmp")
        if name.endswith("00"):
            work()
    work_until(lambda: tree.domains() == ["aaa", *names[500:]], 20)
    for number in range(500):
        crowd.add(f"vm{number:04}.qmp", KINDS[number % len(KINDS)])
        if number % 100 == 0:
            work()
    work_until(lambda: tree.domains() == ["aaa", *names], 20)
    work_until(lambda: all(tree.domain(name).connected for name in names[::len(KINDS)]), 20)
    print(f"mounted after {mounted:.2f} s, the slowest round of commands {slowest:.3f} s, {before} KiB, then {memory_kib(tree.pid)} KiB")
    assert slowest < 1.0 * SLOW
    assert memory_kib(tree.pid) < before + 20000
    disk.write("abort", "\n")
    disk.hold()
    for name in names:
        crowd.end(name + ".qmp")
    work_until(lambda: tree.domains() == ["aaa"], 20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_coming_and_going_in_a_hurry(sockets, mount, crowd):
    """Faster than anybody looks: what is shown in the end is what is there, and nobody watching is left with anything else."""
    tree = mount(f"dir:{sockets}")
    with Inotify(tree / "domains") as inotify:
        shown = set()
        for round in range(30):
            for name in ("a.qmp", "b.qmp", "c.qmp"):
                crowd.add(name)
            if round % 3:
                time.sleep(0.01 * (round % 7))
            for name in ("a.qmp", "b.qmp", "c.qmp"):
                crowd.end(name)
        crowd.add("last.qmp")
        shows_connected(tree, "last")
        for notice in inotify.drain(0.3):
            if notice.mask & CREATE:
                shown.add(notice.name)
            elif notice.mask & DELETE:
                shown.discard(notice.name)
        assert shown == {"last"}


def cpu_seconds(pid):
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


@pytest.mark.timeout(60)
def test_too_few_descriptors(sockets, mount, crowd):
    """Who cannot be connected for want of descriptors says so, costs nothing, keeps nobody else from working, and is connected when there are some."""
    tree = mount(f"dir:{sockets}", options="timeout=2")
    limit = len(descriptors(tree.pid)) + 32 + 10
    _, hard = resource.prlimit(tree.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(tree.pid, resource.RLIMIT_NOFILE, (limit, hard))
    names = [f"vm{number:02}" for number in range(30)]
    for name in names:
        crowd.add(name + ".qmp")

    def connected():
        return [name for name in tree.domains() if tree.domain(name).connected]

    wait_for(lambda: len(tree.domains()) == 30 and len(connected()) >= 8 and
             all(tree.domain(name).read("error") for name in set(names) - set(connected())), 20, "those that there is room for")
    lucky, left = connected(), sorted(set(names) - set(connected()))
    assert len(lucky) <= 12
    for name in left:
        assert f"may not have more than {limit} files open" in tree.domain(name).read("error")
        assert tree.domain(name).line("state") == "disconnected"
        assert tree.said().count(f"{name}: blockjobfs may not have more than {limit}") == 1
    before = cpu_seconds(tree.pid)
    time.sleep(3)
    assert cpu_seconds(tree.pid) - before < 0.3 * SLOW
    assert connected() == lucky
    for name in lucky:
        crowd.end(name + ".qmp")
    wait_for(lambda: len(connected()) >= 8 and not set(connected()) & set(lucky), 25, "the next ones")
    assert tree.domain(connected()[0]).read("error") == ""
    resource.prlimit(tree.pid, resource.RLIMIT_NOFILE, (limit + 30, hard))
    wait_for(lambda: connected() == left, 25, "all of them")
