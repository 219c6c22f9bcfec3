"""A short sample of the soak: a few trials of quick kinds; and that the harness counts what it sees."""

from __future__ import annotations

import random
import time

import pytest

from nantui.recovery.transaction import carry_out
from tests.soak import deaths
from tests.soak.__main__ import KINDS as EVERY
from tests.soak.harness import (
    Kind,
    NotPossible,
    Tally,
    read_record,
    run_kind,
    run_kinds,
    run_trial,
    table,
    write_record,
)

SEED = 1
QUICK = {
    "damaged files": 12, "log of gigabytes": 1, "hostile pickles": 100, "crash in a rollback": 2,
    "bit flips": 100, "a helper's successor": 1,
    "crash between phases": 2, "clock jumps": 1, "full disk": 1,
    "full disk in a rollback": 10, "hanging disk": 1, "kill in a recovery": 1,
    "readers' fuzz": 2, "copied runs": 20, "deaths in a rollback": 6,
}  # fmt: skip
KINDS = {kind.name: kind for kind in EVERY}


TRAINED = pytest.param("damaged files", marks=pytest.mark.training)


@pytest.mark.parametrize("name", [TRAINED if name == "damaged files" else name for name in QUICK])
def test_a_sample_survives(name):
    for number in range(1, QUICK[name] + 1):
        try:
            assert run_trial(KINDS[name], SEED, number) == ""
        except NotPossible as reason:
            pytest.skip(str(reason))


def test_what_a_helper_had_prepared_is_removed_when_it_dies(tmp_path, monkeypatch):
    """Killed when all is staged and nothing has begun: no hidden copies of checkpoints stay."""
    deaths.quick(monkeypatch)
    lines, after = deaths.lines_and_end("rollback")
    code = carry_out.__code__
    first = next(line for _, _, line in code.co_lines() if line and line > code.co_firstlineno)
    deaths.trial(tmp_path, "rollback", lines[code.co_filename, first][0], (deaths.HELPER,), after)


@pytest.mark.soak
def test_every_line_with_helper_supervisor_or_both_killed(tmp_path, monkeypatch):
    deaths.quick(monkeypatch)
    tried = list(deaths.every_line(random.Random(SEED)))
    assert len(tried) > 2000
    for number, (action, line, victims) in enumerate(tried):
        deaths.trial(tmp_path / str(number), action, line, victims, deaths.lines_and_end(action)[1])


def test_what_is_lost_is_counted_and_can_be_repeated():
    def sometimes(folder, dice):
        assert dice.random() < 0.5, "thrown too high"

    kind = Kind("dice", "throw them", sometimes, most=40)
    said = []
    tally = Tally(kind)
    run_kind(tally, 7, 60.0, said.append)
    assert tally.tried == 40 and 0 < len(tally.lost) < 40 and tally.survived == 40 - len(tally.lost)
    number, why = tally.lost[0]
    assert "thrown too high" in why and f"--seed 7 --trial {number}" in said[0]
    assert run_trial(kind, 7, number), "the same dice, the same end"
    assert any(f"40 | {tally.survived} | {len(tally.lost)}" in line for line in table([tally]))


def test_time_bounds_it_and_what_is_not_possible_is_said():
    def refuse(folder, dice):
        raise NotPossible("no disk to mount")

    kind = Kind("waiting", "", lambda folder, dice: time.sleep(0.01), most=10**6)
    tally = Tally(kind)
    run_kind(tally, 1, 0.0)
    assert 1 <= tally.tried < 10
    tally = Tally(Kind("disk", "", refuse, most=5))
    run_kind(tally, 1, 1.0)
    assert tally.tried == 0 and "no disk to mount" in table([tally])[2]


def test_a_soak_goes_on_where_an_earlier_piece_ended(tmp_path):
    thrown = []
    kind = Kind("dice", "", lambda folder, dice: thrown.append(dice.random()), most=3)
    for minutes in (0.0, 1.0):
        (tally,) = read_record(tmp_path / "soak.json", [kind], 7)
        run_kinds([tally], 7, minutes, lambda text: None)
        write_record(tmp_path / "soak.json", [tally], 7)
    assert tally.tried == 3 and len(set(thrown)) == 3, "no trial twice"
    assert read_record(tmp_path / "soak.json", [kind], 8)[0].tried == 0, "another seed begins anew"
