"""A flip of any bit: 0 called clean where torch loads something else, 0 mistakes of ours."""

from __future__ import annotations

import random

import pytest

from tests.checkpoint.flips import flip_one, small_checkpoint

ENTRY = 46  # bytes of a directory entry before its name


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_checkpoint(tmp_path_factory.mktemp("flips") / "small.pt")


def test_each_bit_of_a_record_in_the_directory(small, tmp_path):
    """One of them marks it as a folder: torch then loads what lay in memory."""
    at = small.index(b"PK\x01\x02")
    while b"/data/0" not in small[at : at + 80]:
        at = small.index(b"PK\x01\x02", at + 1)
    badges = [flip_one(small, bit, tmp_path).badge for bit in range(8 * at, 8 * (at + ENTRY))]
    assert badges[38 * 8 + 4] == "unreadable", "the folder"
    assert badges.count("unreadable") > 7 * ENTRY


def test_some_bits_of_all(small, tmp_path):
    dice = random.Random(1)
    badges = {flip_one(small, dice.randrange(8 * len(small)), tmp_path).badge for _ in range(250)}
    assert badges == {"clean", "unreadable"}, "padding between records is nobody's"


@pytest.mark.soak
def test_every_bit(small, tmp_path):
    for bit in range(8 * len(small)):
        flip_one(small, bit, tmp_path)
