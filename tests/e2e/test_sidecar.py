"""
A sidecar: one domain of the tree, delegated and bound into a container, for a user without privileges. In bubblewrap, with a user
namespace of its own in which it is 1000 and the host's user USER; and by unshare(1), in which it is root.
"""

import contextlib
import os
import shutil
import subprocess

import pytest

import sidecar
from qemu import blockdev
from system import IS_ROOT, ROOT, detach, mount_lines, wait_for
from users import OTHER, USER, give, needs_users, run_as, write

CAN_UNSHARE = IS_ROOT and shutil.which("unshare") and not subprocess.run(
    ["unshare", "--user", "--map-root-user", "--mount", "true"], user=USER, group=USER, extra_groups=[], stderr=subprocess.DEVNULL).returncode
KINDS = [pytest.param(sidecar.bubblewrap, id="bubblewrap",
                      marks=pytest.mark.skipif(not (CAN_UNSHARE and shutil.which("bwrap")), reason="no bubblewrap, or no user namespaces")),
         pytest.param(sidecar.unshare, id="unshare", marks=pytest.mark.skipif(not CAN_UNSHARE, reason="no user namespaces"))]

pytestmark = needs_users


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def host(storage_daemon, mount, overlay, folder, cleanup):
    """Two domains under one mount; the first is USER's."""
    class Host:
        qemu = storage_daemon("web1", blockdev("disk0", overlay("a")))
        other = storage_daemon("web2", blockdev("disk0", overlay("b")))
        tree = mount(qemu.socket, other.socket)
        domain = tree.domain("web1")

        @staticmethod
        def enter(kind, shown=None):
            inside = sidecar.Sidecar(kind(shown or Host.domain.path, folder), USER)
            cleanup(inside.close)
            return inside

    Host.mount = Host.tree
    give(Host.domain.path, USER)
    return Host


DISK = "/mnt/disks/disk0"


@pytest.mark.quick
def test_it_watches_and_steers_its_domain(host, kind):
    inside = host.enter(kind)
    me = [1000, 1000] if kind is sidecar.bubblewrap else [0, 0]
    assert inside("me") == me
    assert inside("owner", f"{DISK}/pull") == me
    assert inside("read", "/mnt/state") == "connected\n"
    assert inside("hold", f"{DISK}/status") == "idle\n"
    inside("write", f"{DISK}/pull", "bandwidth=1\n")
    assert inside("poll", f"{DISK}/status", 5) == "running\n"
    inside("watch", f"{DISK}/status")
    inside("write", f"{DISK}/pause", "1\n")
    assert inside("told", 5)
    assert inside("read", f"{DISK}/pause") == "1\n"
    # What the host does is told inside, too.
    wait_for(lambda: inside("poll", f"{DISK}/status", 5) == "paused\n")
    host.domain.disk().write("pause", "0\n")
    assert inside("poll", f"{DISK}/status", 5) == "running\n"
    inside("write", f"{DISK}/speed", "0\n")
    assert inside("read", f"{DISK}/wait") == "completed\n"
    assert host.domain.disk().job["by"].startswith(f"uid={USER} ")
    assert '"event":"job-completed"' in inside("read", "/mnt/events")


@pytest.mark.quick
def test_it_sees_and_reaches_nothing_else(host, kind, folder):
    inside = host.enter(kind)
    assert not [path for path in inside("tree", "/mnt") if "web2" in path]
    assert inside.errno("stat", host.tree.path) == "ENOENT"
    assert inside.errno("stat", "/mnt/../domains") == "ENOENT"
    assert inside.errno("stat", "/mnt/../web2") == "ENOENT"
    assert inside.errno("stat", "/mnt/disks/../../web2") == "ENOENT"
    assert inside.errno("write", "/mnt/allow", "all\n") == "EPERM"
    assert inside.errno("write", "/mnt/state", "x") == "EACCES"
    assert inside.errno("mkdir", "/mnt/new") in ("EPERM", "EACCES")
    assert inside.errno("write", f"{DISK}/copy", f"dest={folder}/stolen.qcow2\n") == "EPERM"
    assert "image_dir" in inside("read", f"{DISK}/error")
    assert not os.path.exists(f"{folder}/stolen.qcow2")
    # What is not delegated is not his even where he can see it.
    os.chown(host.domain.disk() / "pull", 0, 0)
    assert inside.errno("write", f"{DISK}/pull", "\n") == "EACCES"
    assert inside.errno("chmod", f"{DISK}/pull", 0o666) == "EPERM"
    assert inside.errno("chown", f"{DISK}/speed", 0 if kind is sidecar.bubblewrap else 1, -1) in ("EPERM", "EINVAL")


@pytest.mark.quick
def test_ids_that_it_does_not_have_are_nobodys(host, kind):
    """A file of the host's root, or of somebody else, in a user namespace: by its mode for others alone."""
    inside = host.enter(kind)
    os.chown(host.domain.disk() / "speed", 0, 0)
    os.chown(host.domain.disk() / "pause", OTHER, OTHER)
    for name in ("speed", "pause"):
        assert inside("owner", f"{DISK}/{name}") == [65534, 65534]
        assert inside.errno("write", f"{DISK}/{name}", "1\n") == "EACCES"
        os.chmod(host.domain.disk() / name, 0o646)
        assert inside.errno("write", f"{DISK}/{name}", "1\n") == "ESRCH"
        os.chmod(host.domain.disk() / name, 0o600)
        assert inside.errno("read", f"{DISK}/{name}") == "EACCES"


@pytest.mark.quick
def test_verbs_bind_it(host, kind):
    write(host.domain / "allow", "speed,pause\n")
    inside = host.enter(kind)
    assert inside.errno("write", f"{DISK}/pull", "\n") == "EPERM"
    assert "speed,pause" in inside("read", f"{DISK}/error")
    host.domain.disk().hold()
    inside("write", f"{DISK}/pause", "1\n")
    assert inside("read", f"{DISK}/status") == "paused\n"
    host.domain.disk().write("abort", "\n")


@pytest.mark.quick
def test_a_reconnect_keeps_it(host, kind):
    """QEMU dies and comes back, with one disk more: the sidecar has only waited."""
    inside = host.enter(kind)
    assert inside("hold", "/mnt/state") == "connected\n"
    host.qemu.kill()
    assert inside("poll", "/mnt/state", 5).startswith("disconnected")
    host.qemu.start()
    wait_for(lambda: inside("poll", "/mnt/state", 5) == "connected\n")
    inside("write", f"{DISK}/pull", "\n")
    assert inside("read", f"{DISK}/wait") == "completed\n"


@pytest.fixture
def shared(folder, cleanup):
    """A folder whose mounts are told to those who have it bound as a slave (HostToContainer)."""
    path = f"{folder}/web1"
    os.mkdir(path)
    subprocess.run(["mount", "--bind", path, path], check=True)
    cleanup(detach, path)
    subprocess.run(["mount", "--make-private", path], check=True)
    subprocess.run(["mount", "--make-shared", path], check=True)
    os.mkdir(f"{path}/domain")
    return path


@pytest.mark.quick
def test_a_restart_keeps_it(host, kind, shared):
    """
    A daemon that starts anew mounts anew: what is bound is the folder above, and the domain is bound into it again by whoever starts
    the daemon. The container sees that, and its rights are what they were.
    """
    def bind():
        with contextlib.suppress(AssertionError):
            detach(f"{shared}/domain")
        subprocess.run(["mount", "--bind", host.domain.path, f"{shared}/domain"], check=True)

    bind()
    inside = host.enter(kind, shared)
    disk = "/mnt/domain/disks/disk0"
    assert inside("read", f"{disk}/status") == "idle\n"
    inside("write", f"{disk}/pull", "bandwidth=1\n")
    for end in (host.tree.terminate, host.tree.kill):
        detach(f"{shared}/domain")
        end()
        host.tree.start()
        wait_for(lambda: host.domain.connected)
        bind()
        assert inside("read", f"{disk}/status") == "running\n"
        inside("write", f"{disk}/pause", "1\n")
        inside("write", f"{disk}/pause", "0\n")
    inside("write", f"{disk}/abort", "\n")
    assert inside("read", f"{disk}/status") == "cancelled\n"
    detach(f"{shared}/domain")


def test_the_script_of_the_docs(host, folder, shared, cleanup):
    """`give` of docs/sidecar.md, as it stands there, but for where the tree is; twice, as after a restart."""
    with open(os.path.join(ROOT, "docs", "sidecar.md")) as docs:
        script = "".join(line[4:] for line in docs.read().partition("    #!/bin/sh -e\n")[2].partition("\n\n")[0].splitlines(True))
    script = script.replace("top=/run/blockjobs", f"top={folder}/top")
    assert "mount --bind" in script and f"{folder}/top" in script
    os.makedirs(f"{folder}/top/share")
    os.symlink(host.tree.path, f"{folder}/top/tree")
    os.symlink(shared, f"{folder}/top/share/web1")
    give(host.domain.path, 0)
    cleanup(detach, f"{shared}/domain")
    for _ in range(2):
        subprocess.run(["sh", "-e", "-c", script, "give", "web1", str(USER)], check=True)
        assert len(mount_lines(f"{shared}/domain")) == 1
    inside = host.enter(sidecar.unshare, shared)
    inside("write", "/mnt/domain/disks/disk0/pull", "\n")
    assert inside("read", "/mnt/domain/disks/disk0/wait") == "completed\n"


@pytest.mark.quick
def test_a_namespace_made_by_hand_has_the_rights_of_its_user(host):
    """Root of a user namespace that maps the host's USER and no more: the sibling stays root's."""
    other = host.tree.domain("web2").disk()

    def work():
        write(host.domain.disk() / "pull", "dry-run\n")
        with pytest.raises(PermissionError):
            write(other / "pull", "dry-run\n")

    run_as(USER, work, namespace=f"0 {USER} 1\n")
