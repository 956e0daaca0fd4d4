"""image: sources. A private storage daemon for an offline disk: its start, its end, its lock, and what a kill leaves behind."""

import os
import shutil
import signal
import stat
import subprocess

import pytest

import images
from mount import Tree, command_line, environment
from qemu import blockdev
from system import IS_ROOT, children_of, descriptors, end, parent_of, processes_on, wait_for


def engine_of(mount):
    """The pid of the daemon's only storage daemon."""
    engines = [pid for pid, line in processes_on(mount.folder).items() if "storage-daemon" in line.split()[0]]
    assert len(engines) == 1, engines
    return engines[0]


def start_fails(folder, *arguments):
    """Runs the command, which must end with one line on stderr; gives that line. Nothing may be left."""
    point = f"{folder}/mnt"
    os.makedirs(point, exist_ok=True)
    done = subprocess.run(command_line(folder, *arguments, point), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment(folder), cwd=folder, timeout=30)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert not processes_on(point)
    assert os.listdir(point) == []
    return done.stderr


@pytest.mark.quick
def test_an_offline_disk_is_pulled(mount, overlay, shelf):
    image = overlay("web1")
    tree = mount(f"image:{image}")
    assert tree.domains() == ["web1"]
    domain = tree.domain("web1")
    assert domain.state.split()[0] == "connected"
    assert image in domain.line("address")
    disk = domain.disk()
    assert disk.chain == [image, shelf.template]
    assert disk.line("format") == "qcow2"
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.chain == [image]
    tree.terminate()
    # No lock is left, nor a storage daemon.
    assert not processes_on(image)
    assert images.info(image, share=False).get("backing-filename") is None
    assert images.same(image, shelf.template)
    images.check(image)


@pytest.mark.quick
def test_a_chain_of_three_down_to_a_base(mount, overlay, shelf):
    image = overlay("web1", shelf.mid)
    tree = mount(f"image:{image}")
    disk = tree.disk("web1")
    disk.pull(f"base={shelf.base}")
    assert disk.wait() == "completed"
    assert disk.chain == [image, shelf.base]
    tree.terminate()
    assert images.same(image, shelf.mid)


def test_sources_in_all_their_spellings(mount, overlay, storage_daemon, folder):
    """A bare path, a name in front, several sources of both kinds, a relative path."""
    first, second, third = overlay("first"), overlay("second"), overlay("third.v2")
    qemu = storage_daemon("vm", blockdev("disk0", overlay("live")))
    tree = mount(first, f"renamed=image:{second}", "third.v2.qcow2", f"unix:{qemu.socket}", f"again={overlay('fifth')}")
    assert tree.domains() == ["again", "first", "renamed", "third.v2", "vm"]
    for name in tree.domains():
        disk = tree.domain(name).disk()
        assert len(disk.chain) == 2
    assert tree.disk("third.v2").chain[0] == third
    tree.disk("third.v2").pull()
    assert tree.disk("third.v2").wait() == "completed"


def test_odd_file_names(mount, folder, shelf):
    """Blanks, commas, quotes, an equals sign: neither QEMU's option syntax nor ours gets them wrong."""
    odd = f'{folder}/my disk, "one"=a:b%20\\.qcow2'
    images.create(f"{folder}/x.qcow2", shelf.template)
    os.rename(f"{folder}/x.qcow2", odd)
    tree = mount(f"image:{odd}")
    disk = tree.domain().disk()
    assert len(disk.chain) == 2
    disk.pull()
    assert disk.wait() == "completed"
    tree.terminate()
    assert images.backing_of(odd) is None


@pytest.mark.quick
def test_the_engine_is_private_and_goes_with_the_daemon(mount, overlay):
    tree = mount(f"image:{overlay('web1')}")
    engine = engine_of(tree)
    assert engine in children_of(tree.pid) or parent_of(engine) in (1, tree.process.pid)  # the keeper, which takes in orphans
    sockets = [os.path.join(where, name) for where, _, names in os.walk(f"{tree.folder}") for name in names
               if stat.S_ISSOCK(os.lstat(os.path.join(where, name)).st_mode)]
    with open(f"/proc/{engine}/cmdline") as file:
        words = file.read()
    listening = [path for path in set(sockets) if path in words] or sockets
    for path in listening:
        folder = os.stat(os.path.dirname(path))
        assert stat.S_IMODE(folder.st_mode) & 0o077 == 0, f"{os.path.dirname(path)} can be entered by others"
        assert folder.st_uid == os.geteuid()
    # What the daemon holds open is not inherited.
    inherited = [what for what in descriptors(engine).values() if "/dev/fuse" in what]
    assert not inherited
    tree.terminate()
    wait_for(lambda: not os.path.exists(f"/proc/{engine}"), 5, "the engine to end")
    assert not any(os.path.lexists(path) for path in listening)


@pytest.mark.quick
def test_a_clean_end_aborts_a_live_pull_and_says_so(mount, overlay, shelf):
    image = overlay("web1")
    tree = mount(f"image:{image}")
    disk = tree.disk()
    disk.hold()
    tree.terminate()
    said = tree.said().lower()
    assert "web1" in said and "pull" in said and ("abort" in said or "given up" in said), said
    images.check(image)
    assert images.info(image, share=False)["backing-filename"] == shelf.template
    assert images.same(image, shelf.template)
    # And it goes on in the next life.
    tree.start()
    assert disk.chain == [image, shelf.template]
    disk.pull()
    assert disk.wait() == "completed"
    tree.terminate()
    assert images.same(image, shelf.template)
    assert images.backing_of(image) is None


@pytest.mark.quick
@pytest.mark.parametrize("moment", ["running", "pending", "idle"])
def test_the_engine_that_a_killed_daemon_left_is_adopted(mount, overlay, shelf, moment):
    image = overlay("web1")
    tree = mount(f"image:{image}")
    engine = engine_of(tree)
    disk = tree.disk()
    if moment != "idle":
        disk.hold()
        job = disk.job["id"]
        if moment == "pending":
            # Killed right after it has let the job go: what is left of it ends while nobody looks.
            disk.release()
    tree.kill()
    assert os.path.exists(f"/proc/{engine}"), "the engine died with the daemon"
    tree.start()
    assert engine_of(tree) == engine
    if moment == "idle":
        assert disk.status == "idle"
        disk.pull()
    else:
        assert disk.status in ("running", "completed")
        assert disk.job["id"] == job
        if moment == "running":
            assert disk.status == "running"
            disk.release()
    assert disk.wait() == "completed"
    assert disk.chain == [image]
    tree.terminate()
    assert not processes_on(image)
    assert images.same(image, shelf.template)


def test_when_daemon_and_engine_were_killed_a_new_one_is_started(mount, overlay):
    image = overlay("web1")
    tree = mount(f"image:{image}")
    tree.disk().hold()
    engine = engine_of(tree)
    tree.kill()
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: not processes_on(image))
    tree.start()
    assert engine_of(tree) != engine
    tree.disk().pull()
    assert tree.disk().wait() == "completed"


@pytest.mark.quick
def test_an_engine_killed_in_the_middle_is_a_lost_job(mount, overlay):
    tree = mount(f"image:{overlay('web1')}")
    disk = tree.disk()
    disk.hold()
    os.kill(engine_of(tree), signal.SIGKILL)
    assert disk.wait() == "lost"
    assert disk.status == "lost"


@pytest.mark.quick
def test_an_image_in_use_is_refused(storage_daemon, overlay, folder):
    image = overlay("web1")
    storage_daemon("vm", blockdev("disk0", image))
    said = start_fails(folder, f"image:{image}")
    assert image in said or "web1" in said
    assert "lock" in said or "in use" in said, said


@pytest.mark.quick
def test_two_daemons_on_one_image(mount, overlay, folder):
    """The second is refused, and the first does not notice."""
    image = overlay("web1")
    tree = mount(f"image:{image}", name="first")
    tree.disk().hold()
    said = start_fails(folder, f"image:{image}")
    assert "web1" in said
    assert tree.disk().status == "running"
    tree.disk().release()
    assert tree.disk().wait() == "completed"


@pytest.mark.quick
def test_an_image_that_only_looks_raw_is_refused(folder):
    """A guest could have written the header of another format into it: a format is never guessed."""
    raw = f"{folder}/disk.img"
    with open(raw, "wb") as file:
        file.truncate(1 << 20)
    said = start_fails(folder, f"image:{raw}")
    assert "raw" in said, said
    assert os.stat(raw).st_size == 1 << 20


@pytest.mark.quick
def test_images_that_cannot_be_opened(folder, shelf):
    orphan = images.create(f"{folder}/orphan.qcow2", shelf.template)
    images.run(images.IMG, "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", f"{folder}/gone.qcow2", orphan)
    assert "gone.qcow2" in start_fails(folder, f"image:{orphan}")
    assert "absent" in start_fails(folder, f"image:{folder}/absent.qcow2")
    with open(f"{folder}/empty.qcow2", "w"):
        pass
    start_fails(folder, f"image:{folder}/empty.qcow2")
    with open(f"{folder}/broken.qcow2", "wb") as file:
        file.write(b"QFI\xfb" + b"\xff" * 4096)
    start_fails(folder, f"image:{folder}/broken.qcow2")


def test_one_bad_image_among_good_ones(overlay, folder):
    """All or nothing: the good ones' engines are ended again."""
    good = overlay("good")
    start_fails(folder, f"image:{good}", f"image:{folder}/absent.qcow2")
    wait_for(lambda: not processes_on(good), 5)
    assert images.info(good, share=False)


def test_without_a_storage_daemon(overlay, folder):
    """The program is not installed: one line that names it."""
    image = overlay("web1")
    os.mkdir(f"{folder}/bin")
    os.symlink(shutil.which(images.IMG), f"{folder}/bin/qemu-img")
    os.mkdir(f"{folder}/mnt")
    done = subprocess.run(command_line(folder, f"image:{image}", f"{folder}/mnt"), stderr=subprocess.PIPE, text=True, timeout=30,
                          env={**environment(folder), "PATH": f"{folder}/bin"})
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    assert "qemu-storage-daemon" in done.stderr


def test_a_background_daemon_ends_its_engine(overlay, folder):
    """Without -f: umount ends the daemon, and that its engine."""
    image = overlay("web1")
    tree = Tree(f"{folder}/mnt")
    os.mkdir(tree.path)
    process = subprocess.Popen(command_line(folder, f"image:{image}", tree.path), env=environment(folder), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        out, _ = process.communicate(timeout=30)
    finally:
        end(process)
    assert process.returncode == 0, out
    assert out == ""
    assert processes_on(image)
    tree.disk().hold()
    subprocess.run(["umount", tree.path] if IS_ROOT else ["fusermount3", "-u", tree.path], check=True)
    wait_for(lambda: not processes_on(folder), 10, "daemon and engine to end")
