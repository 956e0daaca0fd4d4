"""The unit of docs/operations.md under a real systemd: a user manager of root's, in a mount namespace of its own, with a /run of its own."""

import os
import re
import subprocess

import pytest

from qemu import blockdev
from system import BLOCKJOBFS, ROOT, needs_root

SYSTEMD = "/lib/systemd/systemd"

MANAGER = r"""
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/systemd/system
mount -t cgroup2 none /sys/fs/cgroup || exit 77
mkdir -p /sys/fs/cgroup/{name}
echo $$ > /sys/fs/cgroup/{name}/cgroup.procs
mkdir -m 700 -p {folder}/xdg
export XDG_RUNTIME_DIR={folder}/xdg SYSTEMD_UNIT_PATH={folder}/units: DBUS_SESSION_BUS_ADDRESS=unix:path={folder}/xdg/none
{systemd} --user --log-target=console > {folder}/systemd.log 2>&1 &
manager=$!
trap 'systemctl --user exit || :; wait $manager || :; rmdir /sys/fs/cgroup/{name} || :' EXIT
tries=0
until systemctl --user is-system-running --wait >/dev/null 2>&1 || [ -S {folder}/xdg/systemd/private ]; do
    tries=$((tries + 1)); [ $tries -lt 100 ]; sleep 0.1
done
show() {{ systemctl --user show -P "$1" blockjobfs.service; }}
set -x
{script}
"""


def unit(folder, source):
    """The page's own, with other paths."""
    with open(f"{ROOT}/docs/operations.md") as page:
        text = re.search(r"( +\[Unit\]\n.*?multi-user.target\n)", page.read(), re.S).group(1)
    text = re.sub(r"^    ", "", text, flags=re.M)
    line = f"ExecStart={BLOCKJOBFS} -f -o nokeeper,runtime_dir={folder}/run unix:{source} {folder}/mnt"
    changed = re.sub(r"^ExecStart=.*$", line, text, flags=re.M)
    assert changed != text
    return changed


@needs_root
@pytest.mark.skipif(not os.path.exists(SYSTEMD), reason="no systemd is installed")
@pytest.mark.timeout(90)
def test_restart_crash_and_stop(folder, storage_daemon, overlay):
    """`systemctl restart` and a crash leave the mount, its open files and a waiting reader as they are; `stop` unmounts."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    for name in ("mnt", "units", "run"):
        os.mkdir(f"{folder}/{name}", 0o700)
    with open(f"{folder}/units/blockjobfs.service", "w") as file:
        file.write(unit(folder, qemu.socket))
    disk = f"{folder}/mnt/domains/vm/disks/disk0"
    script = f"""
systemctl --user start blockjobfs.service
echo bandwidth=1 > {disk}/pull
exec 9< {disk}/status
cat {disk}/wait > {folder}/waited &
waiter=$!
first=$(show MainPID)
systemctl --user restart blockjobfs.service
second=$(show MainPID)
[ "$first" != "$second" ]
[ "$(cat <&9)" = running ]
[ "$(cat {disk}/status)" = running ]
kill -9 "$second"
[ "$(cat {disk}/status)" = running ]
third=$(show MainPID)
[ "$third" != 0 ] && [ "$third" != "$second" ]
[ "$(show NFileDescriptorStore)" = 4 ]
kill -0 $waiter
echo > {disk}/abort
wait $waiter
[ "$(cat {folder}/waited)" = cancelled ]
exec 9<&-
systemctl --user stop blockjobfs.service
! grep -q " {folder}/mnt " /proc/self/mountinfo
"""
    words = MANAGER.format(name=os.path.basename(folder), folder=folder, systemd=SYSTEMD, script=script)
    done = subprocess.run(["unshare", "-m", "bash", "-c", words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=80)
    if done.returncode == 77:
        pytest.skip(f"no cgroup2 can be mounted here: {done.stdout}")
    with open(f"{folder}/systemd.log", errors="replace") as log:
        assert done.returncode == 0, done.stdout + log.read()
