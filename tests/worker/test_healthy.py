"""Never wrong about a training that is well: a dozen of them here, and what hundreds of them recorded.

`make healthy` trains the hundreds; their curves are in tests/data/healthy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.healthy.cases import Case, sample
from benchmarks.healthy.measure import record_of
from benchmarks.healthy.misses import counts, misses
from benchmarks.healthy.records import Record, read_corpus
from benchmarks.healthy.training import GUARDED, OFF, Place, train
from nantui.recovery.trouble import first_trouble
from nantui.run.incidents import ENDED
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import OURS_DEFAULTS
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.guard.incident_policy import IncidentPolicy
from nantui.worker.incident import Incident, TrainingDiverged
from nantui.worker.options import read_options

SAMPLE = sample()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("healthy")


@pytest.mark.training
@pytest.mark.parametrize("case", SAMPLE, ids=[case.name for case in SAMPLE])
def test_the_guard_leaves_a_healthy_training_alone(case: Case, shared: Path, tmp_path: Path) -> None:
    for mode in (GUARDED, OFF):
        train(case, Place(shared, tmp_path / mode), mode)
    record = record_of(case, tmp_path / GUARDED, tmp_path / OFF, None)
    assert record["steps"] and record["outcome"] == record["control_outcome"] == record["expected"]
    assert len(record["results"]) == case.train["epochs"] + 1
    assert misses([record]) == []


CORPUS = [record for record in read_corpus().values() if record["part"] != "broken" and counts(record)]


def test_there_is_a_corpus_of_both_parts() -> None:
    parts = [record["part"] for record in CORPUS]
    assert parts.count("cpu") >= 200 and parts.count("gpu") >= 60


def test_no_epoch_of_a_healthy_training_is_a_sign_of_trouble(tmp_path: Path) -> None:
    """As results.csv stood after each epoch: a rollback would go back to the newest one."""
    found = [(record["name"], count, sign) for record in CORPUS for count, sign in signs(record, tmp_path)]
    assert found == []


def signs(record: Record, place: Path) -> list[tuple[int, object]]:
    layout, table = RunLayout(place), record["results"]
    lines = [",".join(["epoch", "time", *table[0][1:]])]
    lines += [",".join(str(cell) for cell in [row[0], 1.0, *row[1:]]) for row in table[1:]]
    found = []
    for count in range(1, len(lines)):
        layout.results_csv.write_text("\n".join(lines[: count + 1]) + "\n")
        if sign := first_trouble(RunRecord(layout)):
            found.append((count, sign))
    return found


def test_no_step_of_a_healthy_training_ends_it() -> None:
    """Every recorded loss, gradient norm and loss scale goes through the judge once more."""
    found = [(record["name"], incident) for record in CORPUS for incident in judged(record)]
    assert found == []


def judged(record: Record) -> list[Incident]:
    """Return the incidents that the judge of today makes of the recorded steps."""
    incidents: list[Incident] = []
    incident_policy = IncidentPolicy(
        read_options(OURS_DEFAULTS), incidents.append, lambda *said, **evidence: None
    )
    for epoch, step, loss, norm, scale, skipped in record["rows"]:
        if skipped:
            continue
        try:
            incident_policy.healthy_batch(seen(loss, norm, scale), epoch, step)
        except TrainingDiverged as ending:
            assert ending.incident.action == ENDED
            break
    return incidents


def seen(loss: float, norm: float | None, scale: float | None) -> BatchProbe:
    loss, norm = float(loss), None if norm is None else float(norm)
    return BatchProbe(("loss",), (loss,), loss, loss == 0, norm, scale, *[False] * 6)
