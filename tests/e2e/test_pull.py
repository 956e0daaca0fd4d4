"""A pull from echo to `completed`, on every kind of QEMU and of disk, proved by qemu-img."""

import json
import os

import pytest

import images
import layouts
from images import MIB
from mount import FINAL, LIVE
from qemu import blockdev
from system import Took


@pytest.fixture
def top(overlay, shelf):
    """A disk on a chain of three, with some data of its own."""
    return images.fill(overlay("top", shelf.mid), (30, 2))


@pytest.fixture
def expected(top, folder):
    """What a guest reads from `top`, as an image of its own."""
    images.run(images.IMG, "convert", "-O", "qcow2", top, f"{folder}/expected.qcow2")
    return f"{folder}/expected.qcow2"


@pytest.fixture(params=layouts.STORAGE_DAEMON + layouts.MACHINE, ids=lambda layout: layout.__name__)
def laid_out(request, storage_daemon, machine, mount, top, expected, shelf):
    start = storage_daemon if request.param in layouts.STORAGE_DAEMON else machine
    qemu, name = request.param(start, top, shelf)
    return qemu, mount(qemu.socket), name


def test_whole_chain(laid_out, top, expected, shelf):
    qemu, mount, name = laid_out
    assert mount.domains() == ["vm"]
    assert mount.domain("vm").disks() == [name]
    disk = mount.disk("vm", name)
    assert disk.chain == [top, shelf.mid, shelf.base]
    assert disk.line("source") == top
    assert disk.line("format") == "qcow2"
    assert disk.line("size") == str(images.SIZE)
    assert disk.status == "idle"
    assert disk.progress == (0, 0)

    disk.pull()
    assert disk.wait() == "completed"

    assert disk.status == "completed"
    cur, end = disk.progress
    assert cur == end > 0
    assert disk.chain == [top]
    assert disk.read("error") == ""
    job = disk.job
    assert job["id"].startswith("blockjobfs-")
    assert job["type"] == "pull"
    assert job["state"] == "completed"
    assert (int(job["cur"]), int(job["end"])) == (cur, end)
    done, = disk.events("job-completed")
    assert sorted(done["released"]) == sorted([shelf.mid, shelf.base])
    # What became unused has not turned into disks, and nothing of the job is left in QEMU.
    assert mount.domain("vm").disks() == [name]
    assert qemu.monitor("query-jobs") == []
    for node in ("m", "b"):
        with pytest.raises(Exception, match="(?i)find node"):
            qemu.monitor("blockdev-del", node_name=node)

    qemu.quit()
    assert images.backing_of(top) is None
    assert images.same(top, expected)
    images.check(top)


def test_down_to_a_base(laid_out, top, expected, shelf):
    qemu, mount, name = laid_out
    disk = mount.disk("vm", name)
    disk.pull(f"base={shelf.base}")
    assert disk.wait() == "completed"
    assert disk.chain == [top, shelf.base]
    done, = disk.events("job-completed")
    assert done["released"] == [shelf.mid]
    assert mount.domain("vm").disks() == [name]
    # And on to the end, from what the first pull has left.
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [top]
    qemu.quit()
    assert images.backing_of(top) is None
    assert images.same(top, expected)


@pytest.mark.parametrize("spelling", ["symlink", "hardlink", "dots", "double slash", "through a linked folder", "number"])
def test_base_by_another_spelling(storage_daemon, mount, top, expected, shelf, folder, spelling):
    if spelling == "symlink":
        base = f"{folder}/other.qcow2"
        os.symlink(shelf.base, base)
    elif spelling == "hardlink":
        base = f"{shelf.folder}/hard.qcow2"
        os.link(shelf.base, base)
    elif spelling == "dots":
        base = f"{folder}/../{os.path.basename(shelf.folder)}/./{os.path.basename(shelf.base)}"
    elif spelling == "double slash":
        base = shelf.base.replace("/", "//")
    elif spelling == "through a linked folder":
        os.symlink(shelf.folder, f"{folder}/shelf")
        base = f"{folder}/shelf/{os.path.basename(shelf.base)}"
    else:
        base = "[2]"
    qemu = storage_daemon("vm", blockdev("disk0", top))
    disk = mount(qemu.socket).disk()
    try:
        disk.pull(f"base={base}")
    finally:
        if spelling == "hardlink":
            os.unlink(base)
    assert disk.wait() == "completed"
    assert disk.chain == [top, shelf.base]
    qemu.quit()
    assert images.same(top, expected)


@pytest.mark.quick
def test_completed_means_ready_for_the_next_job(storage_daemon, mount, folder, shelf):
    """The next pull is written the moment `wait` has returned: no "node is busy", no second attempt."""
    chain = [shelf.template]
    for number in range(8):
        chain.insert(0, images.fill(images.create(f"{folder}/{number}.qcow2", chain[0]), (number, 1)))
    qemu = storage_daemon("vm", *[blockdev("disk0", chain[0])])
    disk = mount(qemu.socket).disk()
    assert disk.chain == chain
    while len(chain) > 2:
        disk.pull("base=[2]")
        assert disk.wait() == "completed"
        del chain[1]
        assert disk.chain == chain
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == chain[:1]
    assert qemu.monitor("query-jobs") == []
    assert len(disk.events("job-completed")) == 8


def test_an_image_that_nothing_backs(storage_daemon, mount, folder):
    image = images.fill(images.create(f"{folder}/alone.qcow2"), (0, 1))
    disk = mount(storage_daemon("vm", blockdev("disk0", image)).socket).disk()
    assert disk.chain == [image]
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [image]


@pytest.mark.quick
@pytest.mark.parametrize("write", [b"", b"\n"], ids=["nothing", "an empty line"])
def test_empty_lines_mean_all_defaults(one, write):
    fd = os.open(one.disk / "pull", os.O_WRONLY)
    try:
        assert os.write(fd, write) == len(write)
    finally:
        os.close(fd)
    # The kernel does not pass on a write of 0 bytes: it must do nothing, not even start.
    assert one.disk.wait() == ("completed" if write else "idle")


@pytest.mark.parametrize("words", [
    "bandwidth=4M base={base} on-error=stop", "on-error=stop  base={base}\tbandwidth=4M", 'base="{base}" bandwidth="4M"',
    " bandwidth=4096K on-error=report base={base} ", "bandwidth=4MiB base={base}",
    '{{"base": "{base}", "bandwidth": "4M", "on-error": "stop"}}', '{{"bandwidth": 4194304, "base": "{base}"}}'])
def test_the_grammar_in_all_its_forms(storage_daemon, mount, top, shelf, words):
    qemu = storage_daemon("vm", blockdev("disk0", top))
    disk = mount(qemu.socket).disk()
    disk.pull(words.format(base=shelf.base))
    assert qemu.monitor.job()["speed"] == 4 * MIB
    assert disk.line("speed") == str(4 * MIB)
    disk.write("speed", "max")
    assert disk.wait() == "completed"
    assert disk.chain == [top, shelf.base]


def test_paths_with_blanks_quotes_and_newlines(storage_daemon, mount, folder, shelf):
    """Such paths are escaped in `chain`, and the line from there is taken as a name again."""
    odd = f"{folder}/a \"b\" \\c\td\ne=f"
    os.mkdir(odd)
    base = images.create(f"{folder}/base.qcow2", shelf.template)
    os.rename(base, f"{odd}/base.qcow2")
    base = f"{odd}/base.qcow2"
    file = {"driver": "file", "filename": base}
    shown = base.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    quoted = '"' + base.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    for number, spelling in enumerate((shown, quoted, json.dumps({"base": base}), None)):
        mid = images.create(f"{folder}/mid{number}.qcow2", shelf.template)
        top = images.create(f"{folder}/top{number}.qcow2", mid)
        qemu = storage_daemon(f"vm{number}", blockdev("disk0", top, backing={
            "driver": "qcow2", "file": {"driver": "file", "filename": mid},
            "backing": {"driver": "qcow2", "file": file, "read-only": True}}))
        disk = mount(qemu.socket, name=f"mnt{number}").disk()
        assert disk.chain == [top, mid, shown, shelf.template]
        if spelling is None:
            disk.pull("base=[2]")
        elif spelling.startswith("{"):
            disk.pull(spelling)
        else:
            disk.pull(f"base={spelling}")
        assert disk.wait() == "completed", spelling
        assert disk.chain == [top, shown, shelf.template], spelling


@pytest.mark.quick
def test_progress_is_whole_only_at_the_end(one):
    """CUR = END only when completed, END never 0 while live, CUR never falls: sampled as fast as can be, from start to end."""
    samples = []
    one.disk.pull("bandwidth=12M")
    while True:
        before = one.disk.status
        cur, end = one.disk.progress
        after = one.disk.status
        samples.append((before, cur, end, after))
        if before in FINAL:
            break
    assert len(samples) > 20
    assert samples[-1][0] == "completed"
    last = 0
    for before, cur, end, after in samples:
        assert cur <= end
        if before in LIVE and after in LIVE:
            assert 0 <= cur < end
        if cur == end:
            assert after == "completed"
        assert cur >= last
        last = cur
    assert samples[-1][1] == samples[-1][2] > 0


def test_a_second_pull_is_refused_while_one_is_live(one):
    one.disk.hold()
    job = one.disk.job["id"]
    for words in ("", "bandwidth=4M"):
        with pytest.raises(OSError) as refusal:
            one.disk.pull(words)
        assert refusal.value.errno == 16  # EBUSY
    assert one.disk.job["id"] == job
    assert one.disk.line("speed") == "1"
    assert list(one.qemu.monitor.jobs()) == [job]
    one.disk.release()
    assert one.disk.wait() == "completed"
    one.disk.pull()
    assert one.disk.wait() == "completed"
    assert one.disk.job["id"] != job


def test_the_bandwidth_is_kept_to(one):
    """16 MiB of data at 8 MiB/s: about two seconds, not none."""
    with Took() as took:
        one.disk.pull("bandwidth=8M")
        assert one.disk.wait() == "completed"
    assert took.seconds > 1
    job = one.disk.job
    assert job["bandwidth"] == str(8 * MIB)


def test_two_domains_at_work(storage_daemon, machine, mount, overlay, shelf):
    """Two pulls side by side: each has its own figures, events and end."""
    first, second = overlay("first"), overlay("second")
    one = storage_daemon("one", blockdev("disk0", first))
    two = machine("two", "-blockdev", blockdev("fmt0", second), "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    tree = mount(one.socket, f"other={two.socket}")
    assert tree.domains() == ["one", "other"]
    a, b = tree.disk("one"), tree.disk("other")
    a.hold()
    b.hold()
    assert a.job["id"] != b.job["id"]
    b.release()
    assert b.wait() == "completed"
    assert a.status == "running"
    assert a.chain == [first, shelf.template]
    assert b.chain == [second]
    a.release()
    assert a.wait() == "completed"
    assert {event["domain"] for event in tree.domain("one").events()} == {"one"}
    assert {event["domain"] for event in tree.domain("other").events()} == {"other"}
    assert sorted(event["domain"] for event in tree.events("job-completed")) == ["one", "other"]
    one.quit()
    two.quit()
    assert images.same(first, shelf.template)
    assert images.same(second, shelf.template)
