"""What scripts, notebooks and other tools get of a run, and that asking for it changes nothing."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import nantui
from nantui.cli import main
from nantui.errors import UserError
from tests.compat.archive import DATA, new_root, unpack
from tests.compat.recorded import everything


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Path]]:
    """Two runs as they were recorded: one that finished, one that a NaN ended in epoch 3."""
    roots = {name: unpack(DATA / f"{name}.tar.xz", new_root()) for name in ("finished", "diverged")}
    yield {name: root / "runs" / name for name, root in roots.items()}
    for root in roots.values():
        shutil.rmtree(root)


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open() as file:
        return [{name.strip(): cell for name, cell in row.items()} for row in csv.DictReader(file)]


def test_a_notebook_gets_frames_and_the_run_stays_as_it_was(runs):
    before = everything(runs["diverged"])
    run = nantui.open_run(runs["diverged"])
    epochs, steps, incidents, checkpoints = run.epochs(), run.steps(), run.incidents(), run.checkpoints()
    written = rows_of(runs["diverged"])
    assert list(epochs["epoch"]) == [int(row["epoch"]) for row in written] == [1, 2]
    assert list(epochs["val/box_loss"]) == [float(row["val/box_loss"]) for row in written]
    assert {*steps["attempt"]} == {1} and list(steps["epoch"]) == sorted(steps["epoch"])
    skipped = steps[steps["skipped"]]
    assert len(skipped) >= 1 and {*skipped["epoch"]} == {3} and {*skipped["reason"]} == {"nan_loss"}
    assert {*incidents["attempt"]} == {1} and "nan_loss" in set(incidents["incident"])
    assert {"epoch0.pt", "epoch1.pt", "last.pt"} <= {*checkpoints["name"]}
    assert {*checkpoints["badge"]} == {"clean"} and run.status().state == "diverged"
    assert everything(runs["diverged"]) == before


def test_an_attempt_or_a_run_that_is_not_there_is_one_line(runs, tmp_path):
    with pytest.raises(UserError, match="has no attempt 7; there is 1"):
        nantui.open_run(runs["finished"]).steps(attempt=7)
    with pytest.raises(UserError):
        nantui.open_run(tmp_path / "nowhere")


def test_curves_of_several_runs_come_as_chart_csv_and_json(runs, capsys):
    words = [str(runs["finished"]), str(runs["diverged"]), "train/box_loss"]
    assert main(["plot", *words, "--ascii"]) == 0
    chart = capsys.readouterr().out
    assert chart.isascii() and all(
        f"{letter} {word}" in chart for letter, word in zip("ab", words[:2], strict=True)
    )
    assert main(["plot", *words, "--csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    found = [float(row["value"]) for row in table if row["run"] == words[0]]
    assert found == [float(row["train/box_loss"]) for row in rows_of(runs["finished"])]
    assert main(["plot", *words, "--json"]) == 0
    curves = json.loads(capsys.readouterr().out)["curves"]
    assert [(curve["run"], curve["metric"]) for curve in curves] == [(run, words[2]) for run in words[:2]]


def test_a_metric_may_be_named_as_people_say_it(runs, capsys):
    assert main(["plot", str(runs["finished"]), "mAP50-95", "--csv"]) == 0
    assert "metrics/mAP50-95(B)" in capsys.readouterr().out
    assert main(["plot", str(runs["finished"]), "box_loss", "--csv"]) == 0
    assert {row.split(",")[1] for row in capsys.readouterr().out.splitlines()[1:]} == {
        "train/box_loss",
        "val/box_loss",
    }


def test_a_metric_that_is_not_there_is_named_beside_those_that_are(runs, capsys):
    assert main(["plot", str(runs["finished"]), "box_los5"]) == 1
    said = capsys.readouterr().err
    assert "did you mean" in said and "metrics/mAP50-95(B)" in said
    assert main(["plot", "box_loss"]) == 2 and main(["plot", str(runs["finished"])]) == 2


def test_a_table_that_cannot_be_read_is_told_from_one_without_an_epoch(tmp_path, capsys):
    told = {"epoch,time\n": "no epoch has been written yet", "epoch;time\n1;2\n": "no line of it is an epoch"}
    for text, says in told.items():
        (tmp_path / "results.csv").write_text(text)
        assert main(["plot", str(tmp_path), "box_loss"]) > 0 and says in capsys.readouterr().err
    (tmp_path / "results.csv").unlink()
    (tmp_path / "args.yaml").write_text("epochs: 3\n")
    (tmp_path / "results.csv").mkdir()
    assert main(["plot", str(tmp_path), "box_loss"]) > 0 and "it is no file" in capsys.readouterr().err


def test_presets_are_compared_with_a_finished_run_too(runs, capsys):
    before = everything(runs["finished"])
    assert main(["presets", "nan-safe", "--against", str(runs["finished"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["set"]["close_mosaic"] == 50
    assert everything(runs["finished"]) == before


def test_a_path_with_line_ends_stays_on_its_line(runs, tmp_path, capsys, monkeypatch):
    odd = tmp_path / "a\nb\x1b[31m"
    shutil.copytree(runs["finished"], odd)
    for words, held in (
        (["check", str(odd)], "a b/weights/last.pt"),
        (["compare", str(odd), str(runs["diverged"])], "a b  "),
        (["plot", str(odd), "mAP50-95", "--ascii"], f"a {tmp_path}/a b"),
        (["export", str(odd), "--to", "csv", "--out", str(odd / "out")], "a b/out/epochs.csv"),
    ):
        assert main(words) == 0
        assert any(held in line for line in capsys.readouterr().out.split("\n")), words


@pytest.mark.parametrize("form", ["csv", "json"])
def test_an_export_holds_every_epoch_and_is_never_written_over(runs, tmp_path, capsys, form):
    import pandas

    out = tmp_path / "out"
    assert main(["export", str(runs["diverged"]), "--to", form, "--out", str(out)]) == 0
    read = {"csv": pandas.read_csv, "json": pandas.read_json}[form]
    assert list(read(out / f"epochs.{form}")["epoch"]) == [1, 2]
    assert len(read(out / f"steps.{form}")) == len(nantui.open_run(runs["diverged"]).steps())
    before = everything(out)
    assert main(["export", str(runs["diverged"]), "--to", form, "--out", str(out)]) == 3
    assert "not empty" in capsys.readouterr().err and everything(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_events_are_a_line_each_in_the_order_in_which_they_came(runs, capsys):
    assert main(["events", str(runs["diverged"]), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["version"] for event in told} == {1} and {event["run"] for event in told} == {
        str(runs["diverged"])
    }
    times = [event["t"] for event in told]
    kinds = [event["kind"] for event in told]
    assert times == sorted(times) and kinds.index("attempt_started") < kinds.index("incident")
    assert main(["events", str(runs["diverged"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("incident" in line and "epoch 3" in line for line in lines) and len(lines) < len(told)
