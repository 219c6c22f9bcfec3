"""The replay of a run that nobody watched: it happens again under the guard, or it does not."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch

from benchmarks import diagnosis_ways as ways
from benchmarks.diagnosis_table import quiet_train
from nantui.checkpoint.scan import scan
from nantui.cli import main
from nantui.diagnosis.causes import diagnose
from nantui.diagnosis.evidence import CHECKPOINT
from nantui.diagnosis.replay import not_again, plan_replay, replay
from nantui.errors import UserError
from nantui.run.attempts import STOPPED, read_exits
from nantui.run.layout import RunLayout


@pytest.fixture(scope="session")
def unwatched(tmp_path_factory):
    """Return a run as plain Ultralytics leaves it: NaN in epoch 3, and the clean epoch1.pt before it.

    The cause, an image whose .npy holds NaN, is put there afterwards: what matters is what a replay meets.
    """
    import numpy as np
    import torch

    torch.set_num_threads(1)
    case = ways.broken_cache(random.Random(1), 7)
    bad, case.cache = next(iter(case.cache)), {}
    case.train |= {"save_period": 1, "epochs": 3}
    run = quiet_train(case, tmp_path_factory.mktemp("unwatched") / "case", "cpu")
    shutil.rmtree(run / "nantui")
    lines = (run / "results.csv").read_text().splitlines()
    cells = lines[3].split(",")
    (run / "results.csv").write_text(
        "\n".join([*lines[:3], ",".join([*cells[:2], *["nan"] * len(cells[2:])])]) + "\n"
    )
    image = run.parent / "data" / "images" / "train" / f"{bad}.npy"
    np.save(image, np.full((64, 64, 3), np.nan, np.float32))
    return run, image


def test_it_happens_again_and_the_image_is_named(unwatched, capsys, warm_python):
    run, image = unwatched
    before = sorted(path.name for path in run.rglob("*"))
    assert main(["diagnose", str(run), "--replay", "--yes", "--json", "--python", warm_python]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["causes"][0]["cause"] == "data"
    assert document["advice"][0]["images"] == [str(image.with_suffix(".png"))]
    # What it says is about the run, not about the directory in which it was repeated.
    assert document["run"] == str(run) and not document["watched"]
    assert document["advice"][0]["cost"].startswith("costs: epoch 3 to train again, ")
    assert sorted(path.name for path in run.rglob("*")) == before


def test_what_would_be_repeated_is_said_first(unwatched, capsys):
    run, _ = unwatched
    assert main(["diagnose", str(run), "--replay", "--dry-run"]) == 0
    assert "repeat epoch 3 from epoch1.pt" in capsys.readouterr().err


def copied(run, place, change):
    """Return a copy of the run in whose epoch1.pt something was changed; its settings still name `run`."""
    import torch

    shutil.copytree(run, place)
    path = place / "weights" / "epoch1.pt"
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    change(checkpoint)
    checkpoint["train_args"]["save_dir"] = str(place)
    torch.save(checkpoint, path)
    return place


class Attention(torch.nn.Module):
    """Somebody's own block."""


def test_code_of_ones_own_is_loaded_only_when_it_is_allowed(unwatched, tmp_path):
    def own_class(checkpoint):
        checkpoint["ema"].attention = Attention()

    run = copied(unwatched[0], tmp_path / "run", own_class)
    with pytest.raises(UserError, match="runs code of .*Attention; allow it") as refused:
        plan_replay(run)
    name = str(refused.value).split()[-1]
    assert plan_replay(run, [name]).checkpoint.name == "epoch1.pt"


def test_it_does_not_happen_again_from_a_checkpoint_that_needs_a_repair(unwatched, tmp_path):
    from nantui.worker.replay import replay as helper

    def nan_momentum(checkpoint):
        for state in checkpoint["optimizer"]["state"].values():
            state["momentum_buffer"].fill_(float("nan"))

    image = unwatched[1]
    run = copied(unwatched[0], tmp_path / "copy", nan_momentum)
    plan = plan_replay(run)
    assert not scan(plan.checkpoint).resumable
    aside = image.rename(tmp_path / "aside.npy")
    try:
        code = helper(str(plan.checkpoint), str(tmp_path / "run"), plan.until, plan.train)
    finally:
        aside.rename(image)
    (ending,) = read_exits(RunLayout(tmp_path / "run"), 1)
    assert (code, ending.outcome, ending.epoch) == (70, STOPPED, 3)
    evidence = not_again(plan, ending)
    said = {cause.cause: cause for cause in diagnose(run, more=[evidence]).causes}
    assert evidence in said[CHECKPOINT].evidence


def test_a_helper_that_cannot_train_is_one_line(unwatched, tmp_path):
    run, _ = unwatched
    plan = plan_replay(run)
    with pytest.raises(UserError, match="the replay failed") as error:
        replay(plan, tmp_path / "place", python="/bin/false")
    assert "\n" not in str(error.value)


@pytest.fixture
def broken_off(unwatched, tmp_path):
    """Return a run that Ultralytics gave up in its third epoch: it has left no row of it."""
    run = tmp_path / "run"
    shutil.copytree(unwatched[0], run)
    lines = (run / "results.csv").read_text().splitlines()
    (run / "results.csv").write_text("\n".join(lines[:3]) + "\n")
    for name in ("last.pt", "best.pt", "epoch2.pt"):
        (run / "weights" / name).unlink(missing_ok=True)
    return run


def test_the_epoch_in_which_a_run_broke_off_can_be_repeated(broken_off):
    found = diagnose(broken_off)
    assert found.replay and found.incident is None and not found.causes
    assert "it ends before epoch 3 of 3" in found.unknown[0]
    plan = plan_replay(broken_off)
    assert (plan.checkpoint.name, plan.done, plan.until) == ("epoch1.pt", 2, 3)


def test_nothing_to_repeat_without_trouble(broken_off):
    args = broken_off / "args.yaml"
    args.write_text(args.read_text().replace("epochs: 3", "epochs: 2"))
    assert not diagnose(broken_off).replay
    with pytest.raises(UserError):
        plan_replay(broken_off)
