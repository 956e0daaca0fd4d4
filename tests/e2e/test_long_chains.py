"""Chains of one, two, five and two hundred images: shown, pulled, committed, a base named by its place."""

import errno
import os
import shutil

import pytest

import images
from mount import Refused
from qemu import blockdev
from system import Took, wait_for

LONG = 200  # what libvirt allows


@pytest.fixture(scope="session")
def chains(shelf):
    """chains(length): a folder with that many images, relative names in their headers, and 64 KiB in each that the others do not have (in some, if there are many)."""
    made = {}

    def make(length):
        if length not in made:
            made[length] = f"{shelf.folder}/{length}"
            os.mkdir(made[length])
            for number in range(length):
                below = ["-b", f"{number - 1}.qcow2", "-F", "qcow2"] if number else []
                images.run(images.IMG, "create", "-q", "-u", "-f", "qcow2", *below, f"{number}.qcow2", "64M", cwd=made[length])
                if number % 40 == 0 or length < 40:
                    images.run(images.IO, "-f", "qcow2", "-c", f"write -q -P {number % 255 + 1} {number * 64}K 64K", f"{number}.qcow2",
                               cwd=made[length])
            images.run(images.IMG, "convert", "-O", "raw", f"{length - 1}.qcow2", "expected", cwd=made[length])
        return made[length]
    return make


@pytest.fixture(params=[1, 2, 5, LONG])
def length(request):
    return request.param


class Long:
    def __init__(self, place, length, chains, folder, machine, storage_daemon, mount):
        self.folder = shutil.copytree(chains(length), f"{folder}/chain")
        self.images = [f"{self.folder}/{number}.qcow2" for number in reversed(range(length))]
        top = self.images[0]
        if place == "drive":
            self.qemu = machine("vm", "-drive", f"file={top},if=none,id=d0", "-device", "virtio-blk-pci,drive=d0,id=disk0")
        elif place == "inline":
            self.qemu = machine("vm", "-blockdev", nested(self.images), "-device", "virtio-blk-pci,drive=disk0,id=disk0")
        else:
            self.qemu = storage_daemon("vm", blockdev("disk0", top))
        with Took() as took:
            tree = mount(self.qemu.socket)
            wait_for(lambda: tree.domain("vm").disks(), 20, "the disk")
        self.seconds_to_list = took.seconds
        self.disk = tree.disk("vm", "disk0")

    def ends_as(self, image):
        self.qemu.quit()
        images.run(images.IMG, "compare", "-f", "raw", "-F", "qcow2", f"{self.folder}/expected", image)


def nested(paths):
    """All of a chain in the options of its first image, as libvirt would give it."""
    text = ""
    for path in reversed(paths):
        file = '{"driver": "file", "filename": "%s"}' % path
        name = '"node-name": "disk0", ' if path == paths[0] else ""
        text = '{"driver": "qcow2", %s"file": %s, "backing": %s}' % (name, file, text or "null")
    return text


PLACES = ["drive", "inline", "daemon"]


def may_be(place, length):
    """Long inline chains have a test of their own."""
    if place == "inline" and length == LONG:
        pytest.skip("see test_names_that_qemu_cuts")


@pytest.fixture
def vm(place, length, chains, folder, machine, storage_daemon, mount):
    may_be(place, length)
    return Long(place, length, chains, folder, machine, storage_daemon, mount)


@pytest.mark.timeout(120)
def test_shown_and_pulled(vm, length):
    assert vm.disk.chain == vm.images
    assert vm.seconds_to_list < 3
    with Took() as took:
        for _ in range(20):
            assert vm.disk.chain == vm.images
            assert vm.disk.job
    assert took.seconds < 2
    if length > 2:
        # The base by its place, down to the one before the last.
        vm.disk.pull(f"base=[{length - 2}]")
        assert vm.disk.wait() == "completed"
        assert vm.disk.chain == [vm.images[0], *vm.images[-2:]]
        # The name in its header was relative, and is.
        assert images.backing_of(vm.images[0]) == "1.qcow2"
    vm.disk.pull()
    assert vm.disk.wait() == "completed"
    assert vm.disk.chain == vm.images[:1]
    for words in ("base=[1]", "base=[200]"):
        with pytest.raises(Refused) as caught:
            vm.disk.ask("pull", words + "\n")
        assert caught.value.errno == errno.ENOENT, words
    vm.ends_as(vm.images[0])
    assert images.backing_of(vm.images[0]) is None


@pytest.mark.timeout(120)
def test_committed(vm, place, length):
    if length == 1:
        for words in ("", "shallow", "top=[0]"):
            with pytest.raises(Refused) as caught:
                vm.disk.ask("commit", words + "\n")
            assert caught.value.errno == errno.EINVAL
        return
    if length > 2:
        vm.disk.write("commit", f"top=[1] base=[{length - 1}]\n")
        assert vm.disk.wait() == "completed"
        assert vm.disk.job["result"] == "committed"
        assert vm.disk.events("job-completed")[-1]["released"] == vm.images[1:-1]
        assert images.backing_of(vm.images[0]) == "0.qcow2"
    assert vm.disk.chain == [vm.images[0], vm.images[-1]]
    vm.disk.write("commit", "\n")
    wait_for(lambda: vm.disk.status == "ready", why="ready")
    vm.disk.write("pivot" if place != "daemon" else "finish", "\n")
    assert vm.disk.wait() == "completed"
    assert vm.disk.chain == (vm.images[-1:] if place != "daemon" else [vm.images[0], vm.images[-1]])
    vm.ends_as(vm.images[-1])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("place", ["drive"])
def test_the_active_image_into_the_bottom_of_a_long_chain(place, chains, folder, machine, storage_daemon, mount):
    vm = Long(place, LONG, chains, folder, machine, storage_daemon, mount)
    vm.disk.write("commit", "pivot\n")
    assert vm.disk.wait() == "completed"
    assert vm.disk.chain == vm.images[-1:]
    assert vm.disk.events("job-completed")[-1]["released"] == vm.images[:-1]
    # What the disk let go is let go: the nodes are gone, the next job starts.
    assert len(vm.qemu.monitor("x-debug-query-block-graph")["nodes"]) < 10
    vm.disk.write("copy", f"dest={folder}/copy.qcow2 pivot\n")
    assert vm.disk.wait() == "completed"
    vm.ends_as(f"{folder}/copy.qcow2")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("place", PLACES)
def test_one_by_one(place, chains, folder, machine, storage_daemon, mount):
    """Commits in the middle of five, one image at a time: names stay relative, generations rise by one each."""
    vm = Long(place, 5, chains, folder, machine, storage_daemon, mount)
    generation = int(vm.disk.job["generation"])
    left = list(vm.images)
    while len(left) > 2:
        vm.disk.write("commit", f"top=[1] shallow generation={generation}\n")
        assert vm.disk.wait() == "completed"
        del left[1]
        generation += 1
        assert vm.disk.chain == left
        assert vm.disk.job["generation"] == str(generation)
        assert vm.disk.events("chain-changed")[-1]["generation"] == generation
        assert images.backing_of(left[0]) == os.path.basename(left[1])
        with pytest.raises(Refused) as caught:
            vm.disk.ask("commit", f"generation={generation - 1}\n")
        assert caught.value.errno == errno.ESTALE
    vm.ends_as(vm.images[0])


def test_names_that_qemu_cuts(chains, folder, machine, mount):
    """
    Where headers and options do not say the same, QEMU's name of an image has the options of all that is below it, up to 4095 bytes. What is cut
    is called by its node; each image has a name of its own that is taken for it again.
    """
    count = 60  # with 200 QEMU itself takes seconds for each listing
    vm = Long("inline", count, chains, folder, machine, None, mount)
    chain = vm.disk.chain
    assert len(set(chain)) == count
    assert chain[-20:] == vm.images[-20:] and chain[0] == "node:disk0"
    assert all(path.startswith("node:") or path == image for path, image in zip(chain, vm.images))
    vm.disk.write("commit", f"top={chain[1]} base={chain[30]}\n")
    assert vm.disk.wait() == "completed"
    # The ones that are left are called as before, but those whose name is no longer cut.
    assert len(vm.disk.chain) == count - 29
    vm.disk.write("commit", "pivot\n")
    assert vm.disk.wait() == "completed"
    assert vm.disk.chain == vm.images[-1:] and vm.disk.job["result"] == "pivoted"
    vm.ends_as(vm.images[-1])


@pytest.fixture(params=PLACES)
def place(request):
    return request.param
