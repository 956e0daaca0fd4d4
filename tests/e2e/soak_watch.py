"""Long runs of what test_watch_toucher.py has a few rounds of; run by tests/soak.sh."""

import os

import pytest

import storms
from system import needs_root

ROUNDS = int(os.environ.get("SOAK_ROUNDS") or 100)


@needs_root
@pytest.mark.timeout(60 + ROUNDS * 5)
def test_storms_on_the_toucher(one):
    storms.on_the_toucher(one, ROUNDS)


@needs_root
@pytest.mark.timeout(60 + ROUNDS * 5)
def test_storms_on_the_daemon(one):
    storms.on_the_daemon(one, ROUNDS)
