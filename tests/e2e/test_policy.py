"""What users to whom a domain was delegated may do: -o image_dir=, -o allow= and a domain's `allow`."""

import os
import subprocess

import pytest

import images
from mount import Folder, Refused
from qemu import blockdev
from system import BLOCKJOBFS, wait_for
from users import OTHER, USER, errno_of, give, needs_users, run_as, write

pytestmark = needs_users


@pytest.fixture
def pool(folder):
    """A folder for images, and one that is none of anybody's business."""
    class Pool:
        path = f"{folder}/pool"
        outside = f"{folder}/outside"

    for path in (Pool.path, f"{Pool.path}/sub", Pool.outside):
        os.mkdir(path, 0o755)
    os.symlink(Pool.outside, f"{Pool.path}/link")
    os.symlink(f"{Pool.outside}/victim", f"{Pool.path}/flink")
    return Pool


@pytest.fixture
def theirs(storage_daemon, mount, overlay, pool):
    """theirs(options): a mount with a disk that belongs to USER."""
    def start(options=None):
        qemu = storage_daemon("vm", blockdev("disk0", overlay()))
        tree = mount(qemu.socket, options=options)
        domain = tree.domain("vm")
        give(domain.path, USER)
        return tree, domain, domain.disk("disk0")
    return start


def ask(disk, name, text, uid=USER):
    """(errno or None, answer) of a command that a user writes."""
    def work():
        try:
            return None, Folder(disk.path).ask(name, text)
        except Refused as refusal:
            return refusal.errno, refusal.answer
    number, answer = run_as(uid, work)
    return os.strerror(number) if number else None, answer


def entries(path):
    return sorted(os.path.join(where, name) for where, folders, files in os.walk(path) for name in files + folders)


REFUSED = os.strerror(1)


@pytest.mark.quick
def test_copies_go_below_the_image_folder_and_nowhere_else(theirs, pool):
    tree, domain, disk = theirs(f"image_dir={pool.path}")
    before = entries(pool.path), entries(pool.outside)
    for dest, why in (
            (f"{pool.outside}/x", "not below"),
            (f"{pool.path}x", "not below"),
            (pool.path, "not below"),
            (f"{pool.path}/../outside/x", '".."'),
            (f"{pool.path}/sub/../x", '".."'),
            (f"{pool.path}/link/x", "symbolic link"),
            (f"{pool.path}/flink", "symbolic link"),
            (f"/proc/self/root{pool.path}/x", "not below"),
            (f"/proc/{tree.pid}/root{pool.path}/x", "not below")):
        for more in ("", " reuse", " dry-run"):
            error, answer = ask(disk, "copy", f"dest={dest}{more}\n")
            assert (error, why in answer) == (REFUSED, True), (dest, error, answer)
            assert "^" * 5 in answer
    assert before == (entries(pool.path), entries(pool.outside))
    assert disk.status == "idle"
    error, answer = ask(disk, "copy", f"dest={pool.path}//sub/./copy.qcow2\n")
    assert error is None, answer
    wait_for(lambda: disk.status == "ready")
    assert entries(pool.path)[-1] == f"{pool.path}/sub/copy.qcow2"
    assert ask(disk, "finish", "\n")[0] is None
    assert disk.wait() == "completed"
    assert images.same(f"{pool.path}/sub/copy.qcow2", disk.chain[0])


@pytest.mark.quick
def test_an_image_folder_named_through_a_link(theirs, pool, folder):
    os.symlink("pool", f"{folder}/alias")
    tree, domain, disk = theirs(f"image_dir={folder}/alias,image_dir={pool.outside}")
    error, answer = ask(disk, "copy", f"dest={folder}/alias/x dry-run\n")
    assert error is None and f"would create {pool.path}/x\n" in answer, answer
    assert ask(disk, "copy", f"dest={pool.outside}/x dry-run\n")[0] is None
    assert ask(disk, "copy", f"dest={folder}/alias/link/x dry-run\n")[0] == REFUSED


@pytest.mark.quick
def test_snapshot_backup_and_delete_keep_to_the_image_folder(machine, mount, overlay, pool, shelf):
    image = overlay("a")
    qemu = machine("vm", "-blockdev", blockdev("fmt0", image), "-device", "virtio-blk-pci,drive=fmt0,id=vd0")
    tree = mount(qemu.socket, options=f"image_dir={pool.path}")
    give(tree.domain("vm").path, USER)
    disk = tree.disk("vm", "vd0")
    open(f"{pool.path}/old", "w").close()
    before = entries(pool.path), entries(pool.outside)
    for dest in (f"{pool.outside}/x", f"{pool.path}/link/x", f"{pool.path}/../outside/x", f"{pool.path}/flink"):
        assert ask(disk, "snapshot", f"file={dest}\n")[0] == REFUSED
        assert ask(disk, "backup", f"dest={dest}\n")[0] == REFUSED
    assert ask(disk, "snapshot", f"file={pool.path}/old reuse\n")[0] == REFUSED
    assert before == (entries(pool.path), entries(pool.outside))
    assert ask(disk, "backup", f"dest={pool.path}/backup.qcow2\n")[0] is None
    assert disk.wait() == "completed"
    assert ask(disk, "snapshot", f"file={pool.path}//snap.qcow2\n")[0] is None
    assert disk.chain == [f"{pool.path}/snap.qcow2", image, shelf.template]
    # What lies elsewhere is not deleted for him; what lies here is.
    error, answer = ask(disk, "commit", f"top=[1] base=[2] delete\n")
    assert error == REFUSED and image in answer, answer
    assert disk.status == "completed" and os.path.exists(image)
    assert ask(disk, "commit", "shallow delete pivot\n")[0] is None
    assert disk.wait() == "completed"
    wait_for(lambda: not os.path.exists(f"{pool.path}/snap.qcow2"), why="the image to be deleted")
    assert disk.chain == [image, shelf.template]


@pytest.mark.quick
def test_without_an_image_folder_only_the_owner(theirs, pool):
    tree, domain, disk = theirs()
    error, answer = ask(disk, "copy", f"dest={pool.path}/x\n")
    assert error == REFUSED and "image_dir" in answer
    assert disk.read("error") == answer
    disk.ask("copy", f"dest={pool.path}/link/x dry-run\n")
    assert not os.listdir(pool.outside)


@pytest.mark.quick
def test_what_is_there_is_overwritten_only_if_it_lies_there(theirs, pool):
    tree, domain, disk = theirs(f"image_dir={pool.path}")
    old = images.create(f"{pool.path}/old.raw", fmt="raw")
    os.link(old, f"{pool.outside}/other")
    assert ask(disk, "copy", f"dest={old} format=raw\n")[0] == os.strerror(17)
    error, answer = ask(disk, "copy", f"dest={old} format=raw reuse\n")
    assert error == REFUSED and "hard link" in answer
    os.unlink(f"{pool.outside}/other")
    assert ask(disk, "copy", f"dest={old} format=raw reuse\n")[0] is None
    wait_for(lambda: disk.status == "ready")
    assert ask(disk, "abort", "\n")[0] is None


@pytest.mark.quick
def test_a_header_that_a_guest_has_written_leads_nowhere(theirs, pool):
    """
    A raw copy of what a guest wrote may be an image whose header names a file elsewhere for its data: opened as such it would be the
    way out.
    """
    victim = f"{pool.outside}/victim"
    images.run(images.IMG, "create", "-q", "-f", "qcow2", "-o", f"data_file={victim},data_file_raw=on", f"{pool.path}/trap", str(images.SIZE))
    before = os.stat(victim)
    tree, domain, disk = theirs(f"image_dir={pool.path}")
    for words in ("reuse", "reuse format=qcow2", "reuse dry-run", "reuse format=vmdk"):
        error, answer = ask(disk, "copy", f"dest={pool.path}/trap {words}\n")
        assert error == REFUSED and "header" in answer, words
    assert os.stat(victim).st_mtime_ns == before.st_mtime_ns
    disk.ask("copy", f"dest={pool.path}/trap reuse dry-run\n")


@pytest.mark.quick
def test_no_folder_that_he_could_swap_for_a_link(theirs, pool):
    """QEMU opens the path again: between our look and that nothing may change under a user's hands."""
    tree, domain, disk = theirs(f"image_dir={pool.path}")
    os.chown(f"{pool.path}/sub", USER, 0)
    error, answer = ask(disk, "copy", f"dest={pool.path}/sub/x\n")
    assert error == REFUSED and f"{pool.path}/sub can be changed by you" in answer
    os.chown(f"{pool.path}/sub", 0, 0)
    assert ask(disk, "copy", f"dest={pool.path}/sub/x dry-run\n")[0] is None


@pytest.mark.quick
@pytest.mark.parametrize("word, why", [("image_dir=/nowhere/at/all", "No such file"), ("image_dir=/etc/passwd", "Not a directory"),
                                       ("allow=pull:spede", "pull:spede is no verb")])
def test_an_option_that_makes_no_sense(folder, word, why):
    os.mkdir(f"{folder}/mnt")
    done = subprocess.run([BLOCKJOBFS, "-o", f"runtime_dir={folder}/run,{word}", f"unix:{folder}/nobody", f"{folder}/mnt"],
                          stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode != 0
    assert why in done.stderr and done.stderr.count("\n") == 1


# --- verbs ---

@pytest.mark.quick
def test_verbs_of_the_mount_and_of_a_domain(theirs):
    tree, domain, disk = theirs("allow=pull,speed,abort")
    assert domain.line("allow") == "pull,speed,abort"
    assert ask(disk, "pull", "bandwidth=1\n")[0] is None
    assert ask(disk, "speed", "2\n")[0] is None
    error, answer = ask(disk, "pause", "1\n")
    assert error == REFUSED and "pull,speed,abort" in answer
    assert disk.events("command-refused")[-1]["errno"] == "EPERM"
    disk.write("pause", "1\n")
    before = os.stat(domain / "allow").st_mtime_ns
    write(domain / "allow", "pause\n")
    assert os.stat(domain / "allow").st_mtime_ns > before
    assert domain.line("allow") == "pause"
    assert ask(disk, "pause", "0\n")[0] is None
    assert ask(disk, "speed", "0\n")[0] == REFUSED
    assert ask(domain, "allow", "all\n")[0] == REFUSED
    assert domain.line("allow") == "pause"
    tree.kill()
    tree.start()
    wait_for(lambda: domain.connected)
    assert domain.line("allow") == "pause"
    assert ask(disk, "abort", "\n")[0] == REFUSED
    write(domain / "allow", "\n")
    assert domain.line("allow") == "pull,speed,abort"
    assert ask(disk, "abort", "\n")[0] is None
    write(domain / "allow", "none\n")
    assert domain.line("allow") == "none"
    assert ask(disk, "pull", "dry-run\n")[0] == REFUSED
    disk.ask("pull", "dry-run\n")
    assert errno_of(write, domain / "allow", "pull,spede\n") == "EINVAL"
    assert "spede is no verb" in domain.read("error")
    assert domain.line("allow") == "none"


@pytest.mark.quick
def test_a_mode_lets_in_and_verbs_keep_out(theirs):
    """Whoever may open a control file by its mode, without owning it, is bound by the verbs as well."""
    tree, domain, disk = theirs("allow=speed")
    os.chmod(disk / "pull", 0o666)
    os.chmod(disk / "speed", 0o666)
    assert ask(disk, "pull", "\n", uid=OTHER)[0] == REFUSED
    assert ask(disk, "speed", "1\n", uid=OTHER)[0] == os.strerror(3)
