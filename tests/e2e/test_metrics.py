"""metrics.prom: what monitoring reads."""

import re
import shutil
import subprocess

import pytest

from qemu import blockdev
from system import wait_for

SAMPLE = re.compile(r'([a-z_]+)(\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? ([0-9.e+-]+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def samples(mount):
    """{(name, ((label, value), ...)): number}"""
    found = {}
    for line in mount.read("metrics.prom").splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line!r}"
        key = (match[1].removeprefix("blockjobfs_"), tuple(LABEL.findall(match[3] or "")))
        assert key not in found, f"told twice: {line!r}"
        found[key] = float(match[4])
    return found


@pytest.mark.quick
def test_jobs_are_counted(one):
    before = samples(one.mount)
    assert before["jobs_live", (("type", "pull"),)] == 0
    assert ("last_job_result", (("domain", "vm"), ("disk", "disk0"), ("type", "pull"), ("result", "pulled"))) not in before

    one.disk.hold()
    live = samples(one.mount)
    assert live["jobs_live", (("type", "pull"),)] == 1
    where = (("domain", "vm"), ("disk", "disk0"), ("type", "pull"))
    assert 0 <= live["job_done_bytes", where] < live["job_size_bytes", where]

    one.disk.release()
    assert one.disk.wait() == "completed"
    after = samples(one.mount)
    assert after["jobs_live", (("type", "pull"),)] == 0
    assert after["jobs_ended_total", (("type", "pull"), ("result", "pulled"))] == 1
    assert after["last_job_result", where + (("result", "pulled"),)] == 1
    assert ("job_done_bytes", where) not in after
    assert after["qmp_commands_total", (("command", "block-stream"),)] == 1
    assert after["fuse_requests_total", (("kind", "write"),)] > before.get(("fuse_requests_total", (("kind", "write"),)), 0)


def test_refusals_are_counted(one):
    with pytest.raises(OSError):
        one.disk.write("copy", "dest=/nowhere/at/all.qcow2\n")
    assert samples(one.mount)["qmp_command_errors_total", (("command", "drive-mirror"),)] == 1


def test_domains_by_state(one):
    assert samples(one.mount)["domains", (("state", "connected"),)] == 1
    one.qemu.kill()
    wait_for(lambda: not one.mount.domain("vm").connected, why="the loss")
    now = samples(one.mount)
    assert now["domains", (("state", "connected"),)] == 0
    assert sum(number for (name, _), number in now.items() if name == "domains") == 1


def test_names_of_any_kind(storage_daemon, mount, overlay):
    """A name with a quote and a backslash is one label, and no line of its own."""
    qemu = storage_daemon("vm", blockdev("disk0", overlay()))
    mounted = mount(f'a"b\\c={qemu.socket}')
    name, = mounted.domains()
    mounted.disk(name, "disk0").pull()
    assert mounted.disk(name, "disk0").wait() == "completed"
    values = [dict(labels)["domain"] for (what, labels) in samples(mounted) if what == "last_job_result"]
    assert [value.replace('\\"', '"').replace("\\\\", "\\") for value in values] == [name]


def test_checkers_take_it(one):
    one.disk.pull()
    one.disk.wait()
    text = one.mount.read("metrics.prom")
    assert text.endswith("# EOF\n")
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
        assert (checked.returncode, checked.stderr) == (0, "")
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    except ImportError:
        return
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {"blockjobfs_build_info", "blockjobfs_domains", "blockjobfs_jobs_ended_total"} <= families


def test_the_kernel_remembers_folders(one):
    """A file's path leads through five folders: reading it again and again asks for the file alone."""
    def asked():
        now = samples(one.mount)
        return sum(now["fuse_requests_total", (("kind", kind),)] for kind in ("lookup", "getattr"))

    one.disk.read("status")
    before = asked()
    for _ in range(100):
        one.disk.read("status")
    assert asked() - before < 300  # it was 1000
