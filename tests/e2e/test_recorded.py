"""What QEMU 7.2 and 10.0 said, played back: recorded.py has recorded it, and tells how."""

import glob
import os

import pytest

from recorded import FOLDER, Player, carry_out

FILES = sorted(glob.glob(f"{FOLDER}/*.jsonl"))


@pytest.mark.quick
@pytest.mark.parametrize("name", [os.path.basename(path) for path in FILES])
def test_played_back(mount, folder, cleanup, name):
    with open(f"{FOLDER}/{name}") as file:
        player = Player(f"{folder}/vm.qmp", file.read(), folder)
    cleanup(player.close)
    disk = mount(f"{folder}/vm.qmp").disk("vm", player.head["disk"])
    for step in player.head["steps"]:
        assert carry_out(disk, step["step"], folder) == step["end"]
    assert not player.strange


def test_both_versions_are_there():
    assert {os.path.basename(path).rsplit(".", 3)[0] for path in FILES} >= {"machine-7", "machine-10", "daemon-7", "daemon-10"}
