"""Starting from odd places: closed standard descriptors, a current folder that is gone, sockets that cannot be opened, raw disks."""

import os
import subprocess

import pytest

import images
from mount import Tree, command_line, environment
from qemu import blockdev
from system import detach, processes_on, wait_for


@pytest.mark.quick
@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_closed_standard_descriptors(folder, storage_daemon, overlay, closed):
    """/dev/fuse must not get the number of one of them: going to the background would replace it, and the mount be dead."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    point = f"{folder}/mnt"
    os.mkdir(point)

    def close():
        for fd in closed:
            os.close(fd)

    process = subprocess.Popen(command_line(folder, qemu.socket, point), preexec_fn=close, env=environment(folder), cwd=folder)
    try:
        assert process.wait(30) == 0
        assert Tree(point).disk("vm").status == "idle"
    finally:
        detach(point)
    wait_for(lambda: not processes_on(point), 10)


@pytest.mark.parametrize("source", ["vm.qmp", "unix:vm.qmp", "image:disk.qcow2", "vm=unix:vm.qmp"])
def test_a_current_folder_that_is_gone(folder, source):
    """A relative path has no meaning then: one line says so, no abort()."""
    os.mkdir(f"{folder}/mnt")
    os.mkdir(f"{folder}/gone")
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", f"{folder}/gone", *command_line(folder, source, f"{folder}/mnt")],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30,
                          env=environment(folder))
    assert done.returncode == 1
    assert done.stderr.startswith("blockjobfs: ") and done.stderr.count("\n") == 1, done.stderr
    assert source in done.stderr


def test_an_error_of_the_link_names_the_socket(folder, mount):
    domain = mount(f"web1=unix:{folder}/nope.qmp").domain("web1")
    assert domain.line("error").startswith(f"{folder}/nope.qmp: ")


def test_a_raw_disk(folder, mount):
    """It has no backing file and cannot have one: nothing is to be pulled, and the flush before the end does not trip over that."""
    image = images.create(f"{folder}/disk.raw", fmt="raw")
    disk = mount(f"image:{image}", options="format=raw").disk("disk")
    assert disk.line("format") == "raw"
    disk.pull()
    assert disk.wait() == "completed"
    assert disk.job["error"] == "-"
