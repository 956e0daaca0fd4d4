"""make demo, small: what it shows, that it can be run again, and that an interrupt at any moment leaves nothing."""

import os
import pty
import re
import signal
import subprocess
import time

import pytest

from qemu import die_with_parent
from system import BLOCKJOBFS, NOBODY, ROOT, end, fusermount_works, mount_lines, needs_root, processes_on

DEMO = os.path.join(ROOT, "tests", "demo.sh")


@pytest.fixture
def room(folder):
    """A folder for the demo's own, which must be empty in the end."""
    path = f"{folder}/room"
    os.mkdir(path)
    yield path
    assert os.listdir(path) == []
    assert not mount_lines(path)
    assert not processes_on(f"{path}/")


def demo(room, mib=48, bandwidth="24M", **options):
    env = dict(os.environ, HOME=room, TMPDIR=room, DEMO_MIB=str(mib), DEMO_BANDWIDTH=bandwidth, BLOCKJOBFS=BLOCKJOBFS)
    return subprocess.Popen([DEMO], env=env, preexec_fn=die_with_parent, start_new_session=True, stdin=subprocess.DEVNULL, **options)


def test_from_start_to_end_twice(room):
    for _ in range(2):
        process = demo(room, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        assert err == ""
        for text in ("echo bandwidth=24M > pull", "job-completed", "Images are identical.", "completed, 48 of 48 MiB"):
            assert text in out, text
        assert "backing file:" not in out
        assert "\r" not in out and "\x1b" not in out, "this is no terminal"


@needs_root
def test_by_a_user_without_privileges(room):
    if not fusermount_works() or subprocess.run(["test", "-x", DEMO, "-a", "-x", BLOCKJOBFS], user=NOBODY).returncode:
        pytest.skip("fusermount3 or the demo is not for everybody here")
    os.chown(room, NOBODY, NOBODY)
    process = demo(room, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, user=NOBODY, group=NOBODY, extra_groups=[])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "$ fusermount3 -u mnt" in out
    assert "Images are identical." in out


def test_a_bar_on_a_terminal(room):
    ours, theirs = pty.openpty()
    process = demo(room, stdout=theirs, stderr=theirs)
    os.close(theirs)
    out = b""
    try:
        while True:
            part = os.read(ours, 4096)
            if not part:
                break
            out += part
    except OSError:  # the last one has closed the terminal
        pass
    os.close(ours)
    assert process.wait(10) == 0, out
    steps = [int(number) for number in re.findall(rb"\[#* *\] +(\d+)%", out)]
    assert len(steps) > 6
    assert steps[-1] == 100
    # The cursor is there again.
    assert out.rfind(b"\x1b[?25h") > out.rfind(b"\x1b[?25l")


@pytest.mark.parametrize("moment", ["at once", "template", "writing", "blockjobfs", "echo bandwidth", "%  running, [1-9]", "umount|fusermount3"])
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment(room, moment, sig):
    """SIGINT goes to the whole group, as from a terminal; SIGTERM to the script alone."""
    process = demo(room, bandwidth="8M", mib=32, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = ""
        if moment != "at once":
            for line in process.stdout:
                said += line
                if re.search(moment, line):
                    break
        else:
            time.sleep(0.02)
        if sig == signal.SIGINT:
            os.killpg(process.pid, sig)
        else:
            process.send_signal(sig)
        said += process.communicate(timeout=30)[0]
        assert process.returncode in (130, -sig, 0 if moment.startswith("umount") else 130), (process.returncode, said)
    finally:
        end(process)


def test_what_is_missing_is_said_first(room, folder):
    """One line for a program that is not built, and for a disk that is too small."""
    def fails(**environment):
        done = subprocess.run([DEMO], env={**os.environ, "TMPDIR": room, "BLOCKJOBFS": BLOCKJOBFS, **environment}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "not built" in fails(BLOCKJOBFS=f"{folder}/absent")
    assert "TMPDIR" in fails(DEMO_MIB="99999999")
    assert "absent" in fails(TMPDIR=f"{folder}/absent")
