"""
Long runs, by tests/soak.sh: the same hard moments many times over. SOAK_ROUNDS says how often. Not collected by a plain run
of the tests, for its name.
"""

import os
import random
import signal
import threading
import time

import pytest

import images
from mount import FINAL, LIVE, Background
from qemu import blockdev
from system import descriptors, memory_kib, processes_on, wait_for

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)
pytestmark = pytest.mark.timeout(60 + ROUNDS * 20)


def thousand_reads(disk, count=1000):
    """As many reads at once of what lives; none may fail or be nonsense."""
    answers, names = [], ("progress", "job", "status", "chain", "speed")
    old = threading.stack_size(256 << 10)
    try:
        threads = [threading.Thread(target=lambda name=names[number % len(names)]: answers.append(disk.read(name)))
                   for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.stack_size(old)
    assert len(answers) == count
    assert all(answers)


def test_qemu_killed_in_the_middle_of_a_pull(one, shelf):
    """Each time: the word is `lost`, everybody is answered, the machine comes back and the next pull goes on."""
    domain = one.mount.domain("vm")
    memory = 0
    for number in range(ROUNDS):
        one.disk.pull(f"bandwidth={random.choice(['1', '1M', '16M'])}")
        waiters = [Background(one.disk.wait) for _ in range(4)]
        time.sleep(random.random() * 0.1)
        one.qemu.kill()
        words = {waiter.result() for waiter in waiters}
        assert len(words) == 1 and words <= FINAL, words
        assert one.disk.status in words
        one.qemu.monitor.close()
        one.qemu.start()
        wait_for(lambda: domain.connected and domain.disks() == ["disk0"], 20, "the machine to come back")
        if len(one.disk.chain) == 1:  # it got to the end: a new overlay for the next round
            one.qemu.kill()
            one.qemu.monitor.close()
            images.create(one.image, shelf.template)
            one.qemu.start()
            wait_for(lambda: domain.connected and len(one.disk.chain) == 2, 20)
        if number == 2:
            memory = memory_kib(one.mount.pid)
    if ROUNDS > 10:
        assert memory_kib(one.mount.pid) < memory + 20000


def test_daemon_killed_in_the_middle_of_a_pull(one, shelf):
    """Each time: the next daemon on the same mount point shows the job, and no second one is started."""
    one.disk.hold()
    job = one.disk.job["id"]
    for _ in range(ROUNDS):
        time.sleep(random.random() * 0.05)
        one.mount.kill()
        one.mount.start()
        assert one.disk.status == "running"
        assert one.disk.job["id"] == job
        assert list(one.qemu.monitor.jobs()) == [job]
    one.disk.release()
    assert one.disk.wait() == "completed"
    one.qemu.quit()
    assert images.same(one.image, shelf.template)


def test_image_daemon_killed_at_any_moment(mount, overlay, shelf):
    """With an engine of its own: killed at any moment, every life goes on with the same disk, and the content is right."""
    image = overlay("web1")
    tree = mount(f"image:{image}")
    for _ in range(ROUNDS):
        disk = tree.disk()
        if disk.status not in LIVE:
            disk.pull(f"bandwidth={random.choice(['1M', '8M', '64M'])}")
        time.sleep(random.random() * 0.1)
        if random.random() < 0.3:
            for pid, line in processes_on(image).items():
                if "storage-daemon" in line.split()[0]:
                    os.kill(pid, signal.SIGKILL)
        tree.kill()
        tree.start()
        assert tree.disk().status in LIVE | FINAL | {"idle"}
    disk = tree.disk()
    try:
        if disk.status in LIVE:
            disk.release()
    except ProcessLookupError:
        pass  # it has ended in between
    disk.wait()
    disk.pull()
    assert disk.wait() == "completed"
    tree.terminate()
    images.check(image, leaks=True)  # engines were killed
    assert images.backing_of(image) is None
    assert images.same(image, shelf.template)


def test_thousand_reads_again_and_again(one):
    one.disk.hold()
    thousand_reads(one.disk)
    before, memory = len(descriptors(one.mount.pid)), memory_kib(one.mount.pid)
    for _ in range(ROUNDS):
        thousand_reads(one.disk)
    assert len(descriptors(one.mount.pid)) <= before + 1
    assert memory_kib(one.mount.pid) < memory + 20000


def test_pulls_in_a_row(storage_daemon, mount, overlay, folder, shelf):
    """Start, steer at random, end at random: the words always fit, and nothing grows."""
    image = overlay("disk")
    qemu = storage_daemon("vm", blockdev("disk0", image))
    tree = mount(qemu.socket)
    disk = tree.disk()
    memory = 0
    for number in range(ROUNDS):
        disk.pull("bandwidth=1")
        try:
            for _ in range(10):
                name, text = random.choice([("speed", "1"), ("speed", "2"), ("pause", "1"), ("pause", "0")])
                disk.write(name, text)
                cur, end = disk.progress
                assert cur < end or disk.status == "completed"
        except ProcessLookupError:
            # Each new speed lets a chunk through, and what was pulled once stays: some round comes to the end.
            assert disk.wait() == "completed"
        if disk.status == "completed":
            break
        disk.write("abort", random.choice(["\n", "async\n"]))
        assert disk.wait() == "cancelled"
        assert qemu.monitor("query-jobs") == []
        if number == 2:
            memory = memory_kib(tree.pid)
    assert not memory or memory_kib(tree.pid) < memory + 20000
    disk.pull()
    assert disk.wait() == "completed"
