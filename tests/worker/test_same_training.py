"""A user's best.pt is lost where a resume trains something else in its place: that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nantui.run.attempts import FAILED
from tests.worker.runs import draw_data_set

EPOCHS = {"epochs": 2, "save_period": 1}
RESUME = {"mode": "resume"}


def kept(run: Path) -> dict[str, bytes]:
    """Return what a resume must not touch."""
    names = ("args.yaml", "results.csv", "weights/best.pt", "weights/last.pt", "weights/epoch0.pt")
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture
def own_data(tmp_path):
    """A data set whose YAML a person may edit."""
    return draw_data_set(tmp_path / "data", images=8)


def test_a_stripped_checkpoint_never_begins_a_new_training_in_the_run(trainings, tmp_path):
    run = tmp_path / "run"
    assert trainings(run, train=EPOCHS).code == 0
    before = kept(run)
    again = trainings(run, 2, checkpoint="weights/last.pt", **RESUME)
    assert again.exit.outcome == FAILED and "recover the run instead" in again.exit.text
    assert kept(run) == before


def test_another_number_of_classes_is_said_before_the_first_epoch(trainings, tmp_path, own_data):
    run = tmp_path / "run"
    assert trainings(run, train={**EPOCHS, "data": str(own_data)}).code == 0
    before = kept(run)
    described = json.loads(own_data.read_text())
    own_data.write_text(json.dumps({**described, "names": {**described["names"], "3": "d"}}))
    again = trainings(run, 2, checkpoint="weights/epoch0.pt", **RESUME)
    assert again.exit.outcome == FAILED and again.steps == []
    assert "4 classes, the checkpoint 3" in again.exit.text
    assert f"nantui train model={run}/weights/epoch0.pt" in again.exit.text
    assert {name: data for name, data in kept(run).items() if name != "args.yaml"} == {
        name: data for name, data in before.items() if name != "args.yaml"
    }


def test_another_data_set_is_trained_on_only_where_it_was_asked_for(trainings, tmp_path, own_data):
    run = tmp_path / "run"
    assert trainings(run, train=EPOCHS).code == 0
    arguments = (run / "args.yaml").read_text()
    said = next(line for line in arguments.splitlines() if line.startswith("data:"))
    (run / "args.yaml").write_text(arguments.replace(said, f"data: {own_data}"))
    refused = trainings(run, 2, checkpoint="weights/epoch0.pt", **RESUME)
    assert refused.exit.outcome == FAILED and "data would become" in refused.exit.text
    was = said.partition(": ")[2]
    asked = trainings(run, 3, checkpoint="weights/epoch0.pt", asked={"data": was}, **RESUME)
    assert asked.code == 0
