"""The tree from another machine: sshfs over a throw-away sshd on this one reads, commands and is told (by its own polling)."""

import errno
import getpass
import os
import socket
import subprocess

import pytest

from system import detach, mount_lines, needs_root, wait_for
from mount import Disk
from watch import find_program, needs

SFTP = next((path for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
             if os.path.exists(path)), "internal-sftp")


@pytest.fixture
def sshd(folder, run_in_background):
    """The options that lead ssh to it."""
    home = f"{folder}/ssh"
    os.mkdir(home, 0o700)
    os.makedirs("/run/sshd", exist_ok=True)  # sshd wants it to exist, empty
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/{name}"], check=True)
    os.rename(f"{home}/user.pub", f"{home}/authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(f"{home}/config", "w") as config:
        config.write(f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
PidFile none
AuthorizedKeysFile {home}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp {SFTP}
""")
    run_in_background(find_program("sshd"), "-D", "-e", "-f", f"{home}/config", stdin=subprocess.DEVNULL,
                      stderr=open(f"{home}/log", "w"))

    def listens():
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0
    wait_for(listens, why="sshd")
    return ["-o", f"Port={port}", "-o", f"IdentityFile={home}/user", "-o", "IdentitiesOnly=yes", "-F", "/dev/null", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={home}/known"]


@pytest.fixture
def remote(folder, one, sshd, run_in_background, cleanup):
    """The disk of `one`, as another machine has it: mounted as docs/watching.md says."""
    point = f"{folder}/remote"
    os.mkdir(point)
    cleanup(detach, point)
    run_in_background("sshfs", "-f", *sshd, "-o", "direct_io,dir_cache=no,max_conns=4",
                      f"{getpass.getuser()}@127.0.0.1:{one.mount.path}", point, stdin=subprocess.DEVNULL)
    wait_for(lambda: mount_lines(point) and os.path.exists(f"{point}/version"), 10, "sshfs")
    return Disk(f"{point}/domains/vm/disks/disk0")


pytestmark = [needs_root, needs("sshfs", "sshd", "ssh", "ssh-keygen"), pytest.mark.timeout(60)]


def test_read_and_commanded_from_another_machine(one, remote):
    for name in one.disk.list():
        assert remote.read(name) == one.disk.read(name), name
    remote.hold()
    assert one.disk.status == "running"
    remote.write("pause", "1")
    wait_for(lambda: remote.status == "paused")
    remote.write("pause", "0")
    wait_for(lambda: remote.status == "running")
    # sftp knows few errors: the reason is in the file beside.
    with pytest.raises(OSError) as error:
        remote.write("speed", "bogus")
    assert error.value.errno in (errno.EINVAL, errno.EIO, errno.EPERM)
    assert "EINVAL" in remote.read("error")
    before = os.stat(remote / "status")
    remote.release()
    assert remote.wait() == "completed"
    assert remote.chain == [one.image]
    after = os.stat(remote / "status")
    assert after.st_ino == before.st_ino
    assert remote.events() == one.disk.events()


def test_shells_over_sshfs(remote):
    def sh(script):
        return subprocess.run(["sh", "-c", script], cwd=remote.path, stdout=subprocess.PIPE, text=True, timeout=20, check=True).stdout
    assert sh("echo bandwidth=1 >pull && cat status") == "running\n"
    assert sh("echo >abort; cat wait") == "cancelled\n"
    assert sh("tail -n 1 events | jq -r .event") == "job-cancelled\n"


def test_or_without_sshfs(one, sshd):
    """ssh alone does it, too."""
    def ssh(command):
        return subprocess.run(["ssh", *sshd, f"{getpass.getuser()}@127.0.0.1", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True, check=True, timeout=20).stdout
    assert ssh(f"cd {one.disk.path} && echo >pull && cat wait") == "completed\n"
