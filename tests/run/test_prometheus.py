"""Runs as Prometheus text, read back by Prometheus' own client library."""

from __future__ import annotations

import math
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from nantui.cli import main
from nantui.run.status import RUNNING, STATES, RunStatus, as_prometheus

ODD = 'runs/a "b"\\c\nd'
STATUS = RunStatus(Path(ODD), RUNNING, epoch=3, epochs=10, losses={"box_loss": math.nan, "cls_loss": 0.5})


def test_what_is_told_is_read_back_whatever_the_run_is_called():
    families = {one.name: one.samples for one in text_string_to_metric_families(as_prometheus([STATUS]))}
    assert {sample.labels["run"] for samples in families.values() for sample in samples} == {ODD}
    states = {sample.labels["state"]: sample.value for sample in families["nantui_run_state"]}
    assert states == {state: float(state == RUNNING) for state in STATES}
    assert families["nantui_run_epoch"][0].value == 3 and "nantui_run_step" not in families
    losses = {sample.labels["loss"]: sample.value for sample in families["nantui_run_loss"]}
    assert losses["cls_loss"] == 0.5 and math.isnan(losses["box_loss"])


def test_a_name_that_is_no_utf8_does_not_keep_the_other_runs_from_being_told(tmp_path):
    odd = RunStatus(Path("runs/n\udcffb"), RUNNING, epoch=1, epochs=2)
    (tmp_path / "told").write_text(as_prometheus([odd, STATUS]), encoding="utf-8")
    assert 'run="runs/n?b"' in (tmp_path / "told").read_text(encoding="utf-8")


def test_a_file_is_written_whole_or_refused_in_a_line(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.csv").write_text("epoch,time,train/box_loss\n1,2.0,3.0\n")
    target = tmp_path / "metrics" / "nantui.prom"
    assert main(["status", str(tmp_path), "--metrics", str(target)]) == 3
    assert "cannot write" in capsys.readouterr().err
    target.parent.mkdir()
    assert main(["status", str(tmp_path), "--metrics", str(target)]) == 0
    names = {one.name for one in text_string_to_metric_families(target.read_text())}
    assert {"nantui_run_state", "nantui_run_epoch"} <= names and not capsys.readouterr().out
    assert [path.name for path in target.parent.iterdir()] == ["nantui.prom"]
