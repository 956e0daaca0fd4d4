"""Every way to write nonsense: each has its errno and its reason, nothing is carried out, the daemon stays up."""

import errno
import os
import subprocess

import pytest

import images
from mount import Refused
from qemu import blockdev
from system import needs_root

KIB = 1024


@pytest.fixture
def busy(storage_daemon, mount, overlay, shelf):
    """An idle disk on a chain of three, and one with a live job, in one storage daemon."""
    class Busy:
        top = overlay("top", shelf.mid)
        other = overlay("other")
        qemu = storage_daemon("vm", blockdev("calm", top), blockdev("live", other))
        mount = None

    Busy.mount = mount(Busy.qemu.socket)
    Busy.calm, Busy.live = Busy.mount.disk("vm", "calm"), Busy.mount.disk("vm", "live")
    Busy.live.hold()
    return Busy


def shown(disk):
    """All there is to see of a disk that a refused command must not change."""
    job = {key: value for key, value in disk.job.items() if key not in ("rate", "eta")}
    return {"job": job, **{name: disk.read(name) for name in ("status", "chain", "speed", "pause", "history", "source")}}


def check_refusal(disk, name, text, numbers):
    """One refused command: its errno, the text in `error` and on the open file, the event, and that nothing else happened."""
    before = shown(disk)
    events = len(disk.events())
    with pytest.raises(Refused) as caught:
        disk.ask(name, text)
    refusal = caught.value
    numbers = numbers if isinstance(numbers, tuple) else (numbers,)
    assert refusal.errno in numbers, f"{errno.errorcode[refusal.errno]}, not {[errno.errorcode[n] for n in numbers]}: {refusal.error}"
    assert refusal.error.endswith("\n")
    assert refusal.answer == refusal.error, (refusal.answer, refusal.error)
    lines = refusal.error.splitlines()
    assert len(lines) in (2, 3), refusal.error
    assert len(lines[-1]) > 5, refusal.error
    assert all(character.isprintable() or character in "\n" for character in refusal.error), repr(refusal.error)
    after = shown(disk)
    assert after == before
    last = disk.events()[events:]
    assert [event["event"] for event in last] == ["command-refused"], last
    return lines


def check_all(disk, name, rows):
    wrong = []
    for text, numbers in rows:
        try:
            check_refusal(disk, name, text, numbers)
        except BaseException as error:
            wrong.append(f"{name} {text if len(text) < 80 else str(text[:80]) + '...'!r}: {error or type(error).__name__}")
    assert not wrong, "\n".join(wrong)


INVAL = errno.EINVAL
NUMBERS = ["-1", "+1", "1.5M", "1e6", "0x10", "4 M", "M", "4X", "4MM", "4Mi", "4MB", "4iB", "--4", " ", "4M4", "four", "0b1", "1_000", "१",
           "99999999999999999999", "9223372036854775808", "9007199254740993K4", "8388608T", "16777216T", "-9223372036854775808"]


@pytest.mark.quick
def test_rates(busy):
    check_all(busy.calm, "pull", [(f"bandwidth={text}", INVAL) for text in NUMBERS])
    check_all(busy.live, "speed", [(text, INVAL) for text in NUMBERS + ["\n"]] + [("4M 4M", INVAL), ("bandwidth=4M", INVAL), ("max 0", INVAL)])
    assert busy.qemu.monitor.job()["speed"] == 1


@pytest.mark.quick
def test_words(busy):
    check_all(busy.calm, "pull", [(text, INVAL) for text in (
        "bogus", "bogus=1", "base", "base=", "bandwidth", "on-error", "on-error=", "on-error=bogus", "on-error=STOP", "=4M", "=", 
        "bandwidth=1M bandwidth=2M", "bandwidth=1M bandwidth=1M", "on-error=stop on-error=report", "Bandwidth=1M", "bandwidth =1M",
        "bandwidth= 1M", "bandwidth=1M,on-error=stop", "async", "--help", "bandwidth:1M", "pull", "base='/x' '")])
    check_all(busy.live, "pause", [(text, INVAL) for text in ("\n", "2", "yes", "01", "1 1", "0 1", "-1", "+1", "true", "1.0")])
    check_all(busy.live, "abort", [(text, INVAL) for text in ("now", "async async", "async=1", "force", "ASYNC", "async now", "1")])


@pytest.mark.quick
def test_images(busy, shelf, folder):
    absent = f"{folder}/absent.qcow2"
    either = (errno.ENOENT, errno.EINVAL)
    check_all(busy.calm, "pull", [
        (f"base={absent}", errno.ENOENT), (f"base={shelf.template}", errno.ENOENT), ("base=/", errno.ENOENT), ("base=/dev/null", errno.ENOENT),
        (f"base={folder}", errno.ENOENT), ("base=[3]", errno.ENOENT), ("base=[99999999999999999999]", either), ("base=[-1]", either),
        ("base=[]", either), ("base=[x]", either), ("base=[1", either), ("base=[1]]", either), ("base=[ 1]", INVAL), ("base=[0]", either),
        (f"base={busy.top}", either), (f"base={shelf.base}/", errno.ENOENT), (f"base={shelf.base}x", errno.ENOENT),
        (f"base=/{'x' * 5000}", errno.ENOENT), (f"base={'/x' * 3000}", errno.ENOENT), ('base=""', INVAL), (f'base="{absent} "', errno.ENOENT),
        (f"base={shelf.base} bandwidth=-1", INVAL), (f"base={absent} on-error=bogus", INVAL)])


@pytest.mark.quick
def test_quotes(busy, shelf):
    check_all(busy.calm, "pull", [(text, INVAL) for text in (
        '"', '""', 'base="', 'base="unfinished', 'base="a"b', 'base="\\', 'base="\\q"', 'base="\\400"', 'base="\\0"', 'base="\\000"',
        'base="\\12"', '"base"=x', '"base=x"', "base=\\")])


@pytest.mark.quick
def test_lines_and_bytes(busy):
    rows = [(text, INVAL) for text in (
        "bandwidth=1M\nbandwidth=2M\n", "\n\n", "\nbandwidth=1M", "bandwidth=1M\n\n", "bandwidth=1M\0", "\0", "bandwidth=1M\0\n", "\0bandwidth=1M",
        "bandwidth=1M\r", "bandwidth=1M\r\n", "band\x01width=1M", "\x1b[31m", "bandwidth=1\x7f")]
    rows += [(b"\xff\xfe", INVAL), (b"bandwidth=\xff", INVAL), (b"base=\xc3", (INVAL, errno.ENOENT))]
    check_all(busy.calm, "pull", rows)


@pytest.mark.quick
def test_long_commands(busy):
    too_long = [b"x" * (16 * KIB + 1), b"base=/" + b"x" * (17 * KIB), b"bandwidth=1M" + b" " * (17 * KIB), b"\n" * (17 * KIB), b"{" * (17 * KIB),
                b" " * (1 << 20), b"\0" * (17 * KIB), b"x" * (3 << 20)]
    check_all(busy.calm, "pull", [(text, errno.E2BIG) for text in too_long])
    # And at the limit it is read.
    check_all(busy.calm, "pull", [(b"x" * (16 * KIB - 1) + b"\n", INVAL), (b"base=/" + b"x" * (16 * KIB - 7) + b"\n", errno.ENOENT),
                                  (b'base="' + b"y" * 16000, INVAL),
                                  ("bandwidth=1M " * 1200, INVAL)])
    busy.calm.pull(" " * (16 * KIB - 1))
    assert busy.calm.wait() == "completed"


@pytest.mark.quick
def test_json(busy, shelf):
    check_all(busy.calm, "pull", [(text, INVAL) for text in (
        "{", "{}}", "{} {}", "{} base=x", '{"base"}', '{"base": 1}', '{"base": ["x"]}', '{"base": {}}', '{"bogus": "x"}', '{"bandwidth": -1}',
        '{"bandwidth": 1.5}', '{"bandwidth": true}', '{"bandwidth": "-1"}', '{"bandwidth": "4 M"}', '{"bandwidth": null}', '{"on-error": 1}',
        '{"on-error": "bogus"}', '{"bandwidth": 1e30}', '{"bandwidth": 99999999999999999999}',
        '{"base": "a\\u0000b"}', "{'base': 'x'}", '{"base": "x",}', "{" * 1000, '{"a":' * 500 + "1" + "}" * 500, '{"base": "x"')])
    check_all(busy.calm, "pull", [('{"base": "/not/there"}', errno.ENOENT)])


@pytest.mark.quick
def test_every_errno_comes_with_its_reason(storage_daemon, mount, overlay):
    """Those that are no matter of words: the state of the job, of the link, of QEMU."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    disk = mount(qemu.socket, options="timeout=1").disk()
    for name, text in (("speed", "4M"), ("pause", "1"), ("abort", "async")):
        assert len(check_refusal(disk, name, text, errno.ESRCH)) == 2, "no word is at fault"
    disk.hold()
    assert disk.job["id"] in "".join(check_refusal(disk, "pull", "bandwidth=1M\n", errno.EBUSY))
    qemu.freeze()
    with pytest.raises(Refused) as caught:
        disk.ask("pause", "1")
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.answer == caught.value.error
    assert caught.value.error.splitlines()[0] == "1"
    qemu.kill()
    assert disk.wait() == "lost"
    lines = check_refusal(disk, "pull", "\n", errno.EHOSTDOWN)
    assert "connect" in lines[-1], lines


@pytest.mark.quick
def test_the_caret_stands_under_the_word_at_fault(busy):
    for text, word in (("bandwidth=1M bogus=2", "bogus"), ("bandwidth=-1", "bandwidth=-1"), ("base=/not/there bandwidth=1M", "base="),
                       ("  on-error=never", "on-error")):
        number = errno.ENOENT if "there" in text else INVAL
        lines = check_refusal(busy.calm, "pull", text, number)
        assert len(lines) == 3, lines
        written, caret, reason = lines
        assert text.strip() in written
        assert set(caret.strip()) <= {"^", "~"}
        column = caret.index("^")
        place = written.index(word)
        assert place <= column < place + len(text.split(word)[0]) + len(text), (written, caret)
        assert written[column:].startswith((word, word.partition("=")[2] or word)), (written, caret)


@pytest.mark.quick
def test_error_is_empty_again_after_a_command_that_was_taken(busy):
    check_refusal(busy.live, "speed", "bogus", INVAL)
    assert busy.live.read("error")
    busy.live.write("speed", "2")
    assert busy.live.read("error") == ""


@pytest.mark.quick
def test_continuations_and_offsets(busy):
    """A second write, or one at another offset, is refused; the first stands."""
    fd = os.open(busy.live / "speed", os.O_WRONLY)
    try:
        assert os.write(fd, b"1000\n") == 5
        for data in (b"2000\n", b"0\n"):
            with pytest.raises(OSError) as refusal:
                os.write(fd, data)
            assert refusal.value.errno == INVAL
        for offset in (1, 5, 4096, 1 << 40):
            with pytest.raises(OSError) as refusal:
                os.pwrite(fd, b"3000\n", offset)
            assert refusal.value.errno == INVAL
        assert busy.live.line("speed") == "1000"
        assert os.pwrite(fd, b"4000\n", 0) == 5
        assert busy.live.line("speed") == "4000"
    finally:
        os.close(fd)
    # bash writes a line at a time, dash both at once: neither carries out the second.
    for shell in ("bash", "dash"):
        done = subprocess.run([shell, "-c", 'printf "5000\\n6000\\n" > "$0"', busy.live / "speed"], stderr=subprocess.PIPE)
        assert done.returncode != 0, shell
        assert busy.live.line("speed") in ("5000", "4000"), shell


@pytest.mark.quick
def test_redirections_touch_and_truncate(busy):
    """`>`, `>>`, truncate and touch say nothing by themselves, and do not get in the way of what is written."""
    path = busy.live / "speed"
    for command, expected in (('echo 10 > "$0"', "10"), ('echo 20 >> "$0"', "20"), (': > "$0"', "20"), (': >> "$0"', "20"),
                              ('truncate -s 0 "$0"', "20"), ('truncate -s 100 "$0"', "20"), ('echo 30 | tee "$0" > /dev/null', "30"),
                              ('echo 40 | tee -a "$0" > /dev/null', "40"), ('printf 50 > "$0"', "50"),
                              ('echo 60 | dd of="$0" status=none', "60"), ('echo 70 | dd of="$0" conv=notrunc status=none', "70"),
                              ('echo 80 | cp /dev/stdin "$0"', "80"), ('busybox echo 90 > "$0"', "90"),
                              ('python3 -c "import sys; open(sys.argv[1], \'w\').write(\'91\')" "$0"', "91")):
        subprocess.run(["sh", "-c", command, path], check=True, timeout=10)
        assert busy.live.line("speed") == expected, command
    subprocess.run(["touch", busy.calm / "pull"], stderr=subprocess.DEVNULL, timeout=10)
    subprocess.run(["sh", "-c", 'for f in pull abort; do : > "$0/$f"; : >> "$0/$f"; truncate -s 0 "$0/$f"; done', busy.calm.path], check=True)
    assert busy.calm.status == "idle"
    assert busy.calm.events("job-started") == busy.calm.events("command-refused") == []


@pytest.mark.quick
def test_the_tree_cannot_be_rearranged(busy, folder):
    before = [path for path, _ in busy.mount.files()]
    places = [busy.mount.path, busy.mount / "domains", busy.mount.domain("vm").path, busy.mount.domain("vm") / "disks", busy.calm.path]
    outside = f"{folder}/outside"
    with open(outside, "w") as file:
        file.write("x")

    def creates(place):
        new = os.path.join(place, "new")
        yield lambda: os.open(new, os.O_CREAT | os.O_WRONLY)
        if place != busy.mount / "domains":  # there it is a domain: test_attach.py
            yield lambda: os.mkdir(new)
            yield lambda: os.mkdir(os.path.join(place, 'a "b"\nc'))
        yield lambda: os.symlink("x", new)
        yield lambda: os.mknod(new)
        yield lambda: os.mkfifo(new)

    for place in places:
        for create in creates(place):
            with pytest.raises(PermissionError) as refusal:
                create()
            assert refusal.value.errno == errno.EPERM, place
    file, disk = busy.calm / "pull", busy.calm.path
    for change in (lambda: os.unlink(file), lambda: os.rename(file, busy.calm / "push"), lambda: os.rename(file, busy.live / "pull"),
                   lambda: os.rename(busy.live.path, disk + "x"), lambda: os.link(file, busy.calm / "push"), lambda: os.rmdir(disk),
                   lambda: os.rmdir(busy.mount / "domains"), lambda: os.unlink(busy.mount / "README")):
        with pytest.raises(OSError) as refusal:
            change()
        assert refusal.value.errno in (errno.EPERM, errno.EBUSY, errno.ENOTEMPTY), refusal.value
    for command in ('rm -f "$0/status"', 'mv "$0/pull" "$0/push"', 'rm -rf "$0"', f'mv {outside} "$0/pull"', 'sed -i s/a/b/ "$0/speed"'):
        assert subprocess.run(["sh", "-c", command, disk], stderr=subprocess.DEVNULL, timeout=10).returncode != 0, command
    assert os.path.exists(outside)
    assert [path for path, _ in busy.mount.files()] == before
    assert busy.calm.status == "idle"


@pytest.mark.quick
def test_files_that_only_tell_are_not_written(busy):
    for name in ("status", "progress", "job", "wait", "chain", "source", "format", "size", "events", "error", "history"):
        with pytest.raises(OSError) as refusal:
            busy.calm.write(name, "x\n")
        assert refusal.value.errno in (errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL), name
    assert busy.calm.status == "idle"


@pytest.mark.quick
def test_names_that_are_not_there(busy):
    disks = busy.mount.domain("vm") / "disks"
    for name in ("absent", "calm ", "calm\n", "CALM", "a" * 255, "é", "\\x2e", "*", "a/../calm2", ".hidden", "..."):
        with pytest.raises(OSError) as refusal:
            os.stat(os.path.join(disks, name))
        assert refusal.value.errno == errno.ENOENT, name
    for length in (256, 1024, 4000):
        with pytest.raises(OSError) as refusal:
            os.stat(os.path.join(disks, "a" * length))
        assert refusal.value.errno in (errno.ENAMETOOLONG, errno.ENOENT)
    with pytest.raises(NotADirectoryError):
        os.stat(busy.calm / "pull/x")


def test_a_hundred_refusals_cost_nothing(busy):
    """The same again and again, on files that stay open and on new ones: no descriptor, no job, no state is left."""
    for number in range(100):
        with pytest.raises(OSError):
            busy.calm.pull(f"bandwidth={number}x base=/not/there")
    assert busy.calm.status == "idle"
    assert len(busy.qemu.monitor.jobs()) == 1


@pytest.mark.quick
def test_a_read_only_mount(storage_daemon, mount, overlay):
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    disk = mount(qemu.socket, options="ro").disk()
    assert disk.status == "idle"
    with pytest.raises(OSError) as refusal:
        disk.pull()
    assert refusal.value.errno == errno.EROFS
    assert qemu.monitor("query-jobs") == []


@pytest.mark.quick
def test_what_qemu_refuses(storage_daemon, mount, overlay, folder):
    """Its own reason is in `error`. To pull into an image that was opened read-only QEMU needs a lock that another process holds."""
    image = overlay()
    node = blockdev("disk0", image, **{"read-only": True})
    qemu = storage_daemon("vm", node)
    storage_daemon("reader", node)
    disk = mount(qemu.socket).disk()
    lines = check_refusal(disk, "pull", "\n", errno.EREMOTEIO)
    assert 'Failed to get "write" lock' in lines[-1]
    assert disk.status == "idle"
    assert qemu.monitor("query-jobs") == []


@needs_root
def test_other_users_may_look_and_not_write(busy):
    """The tree belongs to the mount's owner: another user reads, and is refused by the file's mode."""
    def as_nobody(command, path):
        return subprocess.run(["sh", "-c", command, path], user=65534, group=65534, extra_groups=[], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=10)

    assert as_nobody('cat "$0"', busy.calm / "status").stdout == "idle\n"
    done = as_nobody('echo > "$0"', busy.calm / "pull")
    assert done.returncode != 0
    assert busy.calm.status == "idle"
    assert len(images.info(busy.top)) > 0
