"""Every fault is detected in the step it happens and contaminates nothing that is saved afterwards."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.run.results import current, read_results
from tests.worker.matrix import FAULTS, MORE_FAULTS, OPTIMIZERS, WARNED, Case, everything, pairwise, table
from tests.worker.runs import Outcome, Trainings, on_two_ranks, outcome_of, tensors_of, write_request

SHORT = {"epochs": 3}
SEEN_AS = {**FAULTS, **MORE_FAULTS}


class Matrix:
    """Prepares cases, runs those of one process here and those of two ranks in one launch."""

    def __init__(self, trainings: Trainings, place: Path, python: str) -> None:
        self.trainings, self.place, self.python = trainings, place, python
        self.outcomes: dict[Case, list[Outcome]] = {}

    def run(self, cases: list[Case]) -> None:
        for case in cases:
            self._prepare(case)
        two = [case for case in cases if case.ranks == 2]
        if two:
            self._launch(two, self.place / f"ranks-{two[0].name}")
        for case in cases:
            run, number = self.place / case.name, self._number(case)
            if case.ranks == 1:
                from nantui.worker import __main__ as worker

                worker.main([str(run), f"{number:03d}"])
            ranks = range(case.ranks)
            found = [outcome_of(run, number, 0, rank) for rank in ranks]
            self.outcomes[case] = [Outcome(o.exit.code, o.run, o.number, o.rank, o.events) for o in found]

    def _launch(self, cases: list[Case], place: Path) -> None:
        requests = [{"run": str(self.place / case.name), "number": self._number(case)} for case in cases]
        process = on_two_ranks(requests, place, self.python, timeout=60 + 15 * len(cases))
        assert process.returncode == 0, (place / "log").read_text()[-3000:]

    def _prepare(self, case: Case) -> None:
        run, train = self.place / case.name, {**self.trainings.common, **SHORT, "optimizer": case.optimizer}
        request: dict[str, Any] = {"faults": case.faults, "devices": case.ranks}
        if case.moment == "resumed":
            shutil.copytree(self.interrupted(case.optimizer), run)
            request.update(mode="resume", checkpoint="weights/last.pt")
        write_request(run, self._number(case), train, **request)

    def interrupted(self, optimizer: str) -> Path:
        """Return a run that failed in its second epoch, to be resumed there."""
        run = self.place / f"interrupted-{optimizer}"
        if not run.exists():
            fault = {"fault": "exception", "epoch": 2, "batch": 1}
            failed = self.trainings(run, train={**SHORT, "optimizer": optimizer}, faults=[fault])
            assert failed.code == 1 and failed.exit.outcome == "failed"
        return run

    @staticmethod
    def _number(case: Case) -> int:
        return 2 if case.moment == "resumed" else 1


def check(case: Case, outcomes: list[Outcome]) -> None:
    """The fault was seen at its step, by the first rank's report, and nothing saved later holds a trace."""
    first = outcomes[0]
    kind = "warning" if case.fault in WARNED else "incident"
    seen = {(e["epoch"], e["step"], e[kind]) for e in first.of(kind)}
    assert (*case.place, SEEN_AS[case.fault]) in seen, (case.name, sorted(seen))
    diverged = case.fault == "nan_weight"
    assert {o.code for o in outcomes} == ({77} if diverged else {0}), case.name
    if kind == "incident" and not diverged:
        assert [e["action"] for e in first.incidents] == ["skipped"]
        step = next(s for s in first.steps if (s.epoch, s.step) == case.place)
        assert step.skipped and step.reason == SEEN_AS[case.fault]
    for path in (first.run / "weights").glob("*.pt"):
        assert_clean(first, path.name)
    rows = current(read_results(first.run / "results.csv"))
    assert all(row.finite for row in rows)
    assert len(rows) == (case.place[0] - 1 if diverged else 3)


def assert_clean(outcome: Outcome, name: str) -> None:
    """Nothing non-finite, and nothing laundered: no weight matrix of zeros, nothing at fp16's limit."""
    checkpoint = outcome.checkpoint(name)
    for key, tensor in tensors_of(checkpoint).items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all() and tensor.abs().max() < 65504, (name, key)
            assert tensor.any() or tensor.ndim < 2 or "dfl" in key, (name, key)
    for state in (checkpoint["optimizer"] or {"state": {}})["state"].values():
        assert all(torch.isfinite(v).all() for v in state.values() if isinstance(v, torch.Tensor)), name


@pytest.fixture(scope="module")
def matrix(trainings: Trainings, warm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    matrix = Matrix(trainings, tmp_path_factory.mktemp("matrix"), warm_python)
    matrix.run(pairwise())
    return matrix


@pytest.mark.parametrize("case", pairwise(), ids=lambda case: case.name)
def test_fault(matrix: Matrix, case: Case) -> None:
    check(case, matrix.outcomes[case])


@pytest.fixture(scope="module")
def whole(trainings: Trainings, warm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(trainings, tmp_path_factory.mktemp("whole"), warm_python)


@pytest.mark.soak
@pytest.mark.parametrize("fault", SEEN_AS)
def test_every_combination(whole: Matrix, fault: str) -> None:
    cases = [case for case in everything() if case.fault == fault]
    whole.run(cases)
    wrong = {}
    for case in cases:
        try:
            check(case, whole.outcomes[case])
        except AssertionError as error:
            wrong[case] = str(error).splitlines()[0]
    print(table(cases, wrong))
    assert not wrong


def test_the_matrix_holds_every_pair() -> None:
    columns = [list(FAULTS), list(OPTIMIZERS), [1, 2], ["first", "later", "resumed"]]
    rows = [(c.fault, c.optimizer, c.ranks, c.moment) for c in pairwise()]
    assert len(rows) <= 24
    for a, b in itertools.combinations(range(4), 2):
        wanted = set(itertools.product(columns[a], columns[b]))
        assert {(row[a], row[b]) for row in rows} == wanted
    assert math.prod(map(len, columns)) < len(everything()) == len(SEEN_AS) * 3 * 2 * 3


def test_the_table_says_which_cases_went_wrong() -> None:
    cases = [Case("nan_pixel", "SGD", 1, "first"), Case("nan_pixel", "SGD", 1, "later")]
    lines = table(cases, {cases[1]: "not seen"}).splitlines()
    assert lines[1].split() == ["nan_pixel", "fL-", *["---"] * 5]
    assert lines[2] == "nan_pixel-SGD-1-later: not seen"
