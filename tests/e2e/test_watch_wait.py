"""`wait`: with signals and timeouts, by hundreds, through the end of QEMU and its return, under the kernel's own impatience."""

import contextlib
import os
import signal
import subprocess
import time

import pytest

from system import Took, needs_root, stays, wait_for
from watch import needs, state_of

LIMIT = "/proc/sys/fs/fuse/default_request_timeout"


def sleeping(*processes):
    """Until each of them sits in its read(2)."""
    def reads(process):
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/wchan") as file:
            return "fuse" in file.read() or "request_wait" in file.read()
        return False
    for process in processes:
        wait_for(lambda process=process: reads(process) or state_of(process.pid) in ("S", "D"), why="the reader to wait")


def readers(one, count, command=("cat",)):
    return [subprocess.Popen([*command, one.disk / "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(count)]


@pytest.mark.quick
def test_timeout_ends_it(one):
    one.disk.hold()
    with Took() as took:
        done = subprocess.run(["timeout", "0.3", "cat", one.disk / "wait"], stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (124, b"")
    assert 0.2 < took.seconds < 2
    assert one.disk.status == "running"
    one.disk.write("abort", "\n")
    assert subprocess.run(["timeout", "5", "cat", one.disk / "wait"], stdout=subprocess.PIPE).stdout == b"cancelled\n"


@pytest.mark.quick
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_ends_it(one, number):
    one.disk.hold()
    process, = readers(one, 1)
    other, = readers(one, 1)
    sleeping(process, other)
    process.send_signal(number)
    assert process.wait(5) == -number
    assert stays(lambda: other.poll() is None, 0.1)
    one.disk.write("abort", "\n")
    assert other.communicate(timeout=5)[0] == "cancelled\n"


def test_a_signal_with_a_handler(one):
    """EINTR, as any interrupted read(2); the next read waits again."""
    one.disk.hold()
    script = """
import os, signal, sys
def ring(*_): raise InterruptedError
signal.signal(signal.SIGUSR1, ring)
for _ in range(3):
    try: print(os.read(os.open(sys.argv[1], os.O_RDONLY), 100).decode().strip(), flush=True)
    except InterruptedError: print('interrupted', flush=True)
"""
    process = subprocess.Popen(["/usr/bin/python3", "-c", script, one.disk / "wait"], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        wait_for(lambda: open(f"/proc/{process.pid}/syscall").read().split()[0] == "0", why="read(2)")
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "interrupted\n"
    one.disk.write("abort", "\n")
    assert process.stdout.readline() == "cancelled\n"
    process.wait()
    process.stdout.close()


def test_a_stopped_reader_goes_on(one):
    one.disk.hold()
    process, = readers(one, 1)
    sleeping(process)
    process.send_signal(signal.SIGSTOP)
    one.disk.write("abort", "\n")
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=5)[0] == "cancelled\n"


@pytest.mark.timeout(60)
def test_hundreds(one):
    one.disk.hold()
    processes = readers(one, 300)
    sleeping(*processes)
    for process in processes[:100]:
        process.terminate()
    for process in processes[:100]:
        assert process.wait(10) == -signal.SIGTERM
        process.communicate()
    assert one.disk.status == "running"
    assert all(process.poll() is None for process in processes[100:])
    one.disk.release()
    assert {process.communicate(timeout=10)[0] for process in processes[100:]} == {"completed\n"}


def test_through_the_death_of_qemu(one):
    """The job is lost with its QEMU; who waits learns it, at once, and QEMU's return changes nothing about that."""
    one.disk.hold()
    processes = readers(one, 20)
    sleeping(*processes)
    one.qemu.kill()
    assert {process.communicate(timeout=10)[0] for process in processes} == {"lost\n"}
    one.qemu.start()
    domain = one.mount.domain("vm")
    wait_for(lambda: domain.connected, 10, "the link to be back")
    assert one.disk.wait() == "lost"
    one.disk.hold()
    process, = readers(one, 1)
    sleeping(process)
    one.disk.release()
    assert process.communicate(timeout=10)[0] == "completed\n"


@pytest.fixture
def impatient_kernel(cleanup):
    """The kernel aborts connections with a request older than 4 s: for mounts made until the function that this gives is called."""
    with open(LIMIT) as file:
        before = file.read()

    def restore():
        with open(LIMIT, "w") as file:
            file.write(before)
    cleanup(restore)
    with open(LIMIT, "w") as file:
        file.write("4")
    return restore


@needs_root
@pytest.mark.skipif(not os.path.exists(LIMIT), reason="a kernel without fs.fuse.default_request_timeout")
def test_it_returns_before_the_kernel_loses_patience(impatient_kernel, one):
    impatient_kernel()  # enough: others mount, too
    one.disk.hold()
    with Took() as took:
        word = one.disk.park()
        shell = subprocess.Popen(["sh", "-c", 'while word=$(cat "$1") && [ "$word" = running ]; do n=$((n+1)); done; echo $word $n',
                                  "sh", one.disk / "wait"], stdout=subprocess.PIPE, text=True)
        assert word.result(10) == "running"
    assert took.seconds < 4
    # Longer than the kernel stands for one request.
    assert stays(lambda: one.disk.status == "running", 6 - took.seconds)
    one.disk.release()
    word, rounds = shell.communicate(timeout=10)[0].split()
    assert word == "completed" and int(rounds) >= 1
    time.sleep(0.1)
    assert one.disk.wait() == "completed"


@pytest.mark.quick
@needs("busybox")
@pytest.mark.parametrize("end", ["completed", "cancelled", "lost"])
def test_by_way_of_sendfile(one, end):
    """Not cut off at the length of the word that was true when it began to wait."""
    one.disk.hold()
    process, = readers(one, 1, ("busybox", "cat"))
    sleeping(process)
    assert stays(lambda: process.poll() is None, 0.1)
    if end == "completed":
        one.disk.release()
    elif end == "cancelled":
        one.disk.write("abort", "\n")
    else:
        one.qemu.kill()
    assert process.communicate(timeout=5)[0] == end + "\n"
    assert subprocess.run(["busybox", "cat", one.disk / "wait"], stdout=subprocess.PIPE, text=True).stdout == end + "\n"
    assert os.stat(one.disk / "wait").st_size == len(end) + 1
