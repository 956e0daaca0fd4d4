"""Fixtures. Every test gets a folder of its own and leaves no process, mount, descriptor or file behind."""

import contextlib
import ctypes
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import pytest

import images
from mount import Mount, watchdog
from peer import Peer
from qemu import Machine, StorageDaemon, blockdev
from system import BLOCKJOBFS, IS_ROOT, SLOW, descriptors, detach, end, mount_lines, processes_on, wait_for

TIMEOUT = 40  # seconds a test may take; @pytest.mark.timeout(N) for another number


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: the subset that is run with the sanitizers too")
    config.addinivalue_line("markers", "timeout(seconds): how long this test may take")
    # Whoever runs this in the background may have it ignore interrupts; what the tests start must not.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not os.access(BLOCKJOBFS, os.X_OK):
        pytest.exit(f"{BLOCKJOBFS} is not built: run make", 1)
    if not os.path.exists("/dev/fuse"):
        pytest.exit("/dev/fuse is missing: these tests mount (in a container: --device /dev/fuse --cap-add SYS_ADMIN)", 1)
    if IS_ROOT:
        with contextlib.suppress(OSError):
            live_apart()


def pytest_collection_modifyitems(config, items):
    """E2E_PART=2/3: every third test, from the second on (tests/e2e.sh)."""
    part, parts = map(int, os.environ.get("E2E_PART", "1/1").split("/"))
    chosen = items[part - 1::parts]
    if len(chosen) < len(items):
        left = set(items) - set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = chosen


def live_apart():
    """
    As root: a mount namespace of our own, so that nothing that goes wrong stays on the machine; and in it a /dev/fuse that every user
    may open, as udev makes it (fusermount3 opens it as its caller).
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result):
        if result:
            raise OSError(ctypes.get_errno(), "no mount namespace")

    check(libc.unshare(0x00020000))  # CLONE_NEWNS
    check(libc.mount(None, b"/", None, 1 << 18 | 1 << 14, None))  # MS_PRIVATE | MS_REC
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        with tempfile.TemporaryDirectory() as where:
            device = f"{where}/fuse"
            os.mknod(device, stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
            os.chmod(device, 0o666)
            check(libc.mount(device.encode(), b"/dev/fuse", None, 1 << 12, None))  # MS_BIND


class TestTimeout(Exception):
    pass


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    marker = item.get_closest_marker("timeout")
    seconds = (marker.args[0] if marker else TIMEOUT) * SLOW

    def alarm(*_):
        raise TestTimeout(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with watchdog(seconds + 5):
        yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call":
        item.failed = report.failed


@pytest.fixture(scope="session", autouse=True)
def usual_descriptors():
    """How many descriptors a daemon has that has done nothing yet."""
    path = new_folder()
    idle = Mount(path, [f"unix:{path}/nobody"])
    time.sleep(0.5)  # what it opens in the background, it has opened
    Mount.usual = sum(not what.startswith("socket:") for what in descriptors(idle.pid).values())
    idle.terminate()
    shutil.rmtree(path)


def new_folder():
    # Short: the path of a unix socket has 107 bytes.
    path = os.path.realpath(tempfile.mkdtemp(prefix="bjfs-"))
    os.chmod(path, 0o755)
    return path


def sweep(path):
    """What is left on @path of processes and mounts, taken away and told."""
    left = []
    try:
        wait_for(lambda: not processes_on(path), 3)
    except AssertionError:
        for pid, line in processes_on(path).items():
            left.append(f"process {pid}: {line}")
            os.kill(pid, signal.SIGKILL)
    for line in mount_lines(path):
        left.append(f"mount: {line}")
        detach(line.split(" ")[4])
    return left


@pytest.fixture
def folder():
    path = new_folder()
    yield path
    left = sweep(path)
    for name in ("tmp", "run"):
        for where, folders, files in os.walk(os.path.join(path, name)):
            folders[:] = [one for one in folders if not one.startswith("state-")]  # what a next life would want
            left += [f"file: {os.path.join(where, file)}" for file in files + folders]
    shutil.rmtree(path, ignore_errors=True)
    assert not left, "left behind: " + "; ".join(left)


@pytest.fixture(scope="session")
def shelf():
    """Images that no test writes to: a template, and a chain of three."""
    path = new_folder()

    class Shelf:
        template = images.fill(images.create(f"{path}/template.qcow2"), (0, 8), (24, 4), (60, 4))
        base = images.fill(images.create(f"{path}/base.qcow2"), (0, 6))
        mid = images.fill(images.create(f"{path}/mid.qcow2", base), (4, 4))
        folder = path

    yield Shelf
    shutil.rmtree(path)


@pytest.fixture
def overlay(folder, shelf):
    """overlay(name, backing): a new image on top of the template (or of another one)."""
    def make(name="disk", backing=None, **more):
        return images.create(f"{folder}/{name}.qcow2", backing or shelf.template, **more)
    return make


@pytest.fixture
def cleanup(folder):
    """cleanup(function, arguments...): called at the end of the test, the last one first; all of them, whatever happens."""
    calls = []
    yield lambda function, *arguments: calls.append((function, arguments))
    errors = []
    for function, arguments in reversed(calls):
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def storage_daemon(folder, cleanup):
    """storage_daemon(name, blockdev...): a qemu-storage-daemon with these nodes."""
    def start(name, *blockdevs, more=(), **options):
        arguments = [word for node in blockdevs for word in ("--blockdev", node)]
        qemu = StorageDaemon(folder, name, arguments + list(more), **options)
        cleanup(qemu.close)
        return qemu
    return start


@pytest.fixture
def machine(folder, cleanup):
    """machine(name, argument...): a qemu-system, stopped before its first instruction."""
    def start(name, *arguments, **options):
        qemu = Machine(folder, name, arguments, **options)
        cleanup(qemu.close)
        return qemu
    return start


@pytest.fixture
def peer(folder, cleanup):
    """peer(name, ...): a scripted QMP peer (see peer.py)."""
    def start(name="fake", **options):
        fake = Peer(f"{folder}/{name}.qmp", **options)
        cleanup(fake.close)
        return fake
    return start


@pytest.fixture
def mount(request, folder, cleanup):
    """mount(source..., options=): the daemon, mounted; its clean end is part of every test. After a failure, what it has to say."""
    def close(mounted):
        if getattr(request.node, "failed", False):
            mounted.tell()
        mounted.close()

    def start(*sources, **options):
        mounted = Mount(folder, sources, **options)
        cleanup(close, mounted)
        return mounted
    return start


@pytest.fixture
def run_in_background(cleanup):
    """run_in_background(command...): a subprocess.Popen that does not outlive the test."""
    def start(*command, **options):
        process = subprocess.Popen(command, **options)
        cleanup(end, process)
        return process
    return start


@pytest.fixture
def one(storage_daemon, mount, overlay):
    """The plainest set-up: a storage daemon with one disk, mounted. Gives an object with qemu, image, mount, disk."""
    class One:
        image = overlay()
        qemu = storage_daemon("vm", blockdev("disk0", image))
        mount = None
        disk = None

    One.mount = mount(One.qemu.socket)
    One.disk = One.mount.disk("vm", "disk0")
    return One
