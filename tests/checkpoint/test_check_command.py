"""`nantui check`: the table, the JSON of commands.md, the exit status."""

import json
import shutil

import pytest

from nantui.cli import main
from tests.checkpoint.editing import CONV, NAN, both, edited, poison, put, strip

KEYS = ["path", "badge", "resumable", "repairable", "epoch", "date", "version", "fitness", "best",
        "findings", "bytes", "seconds"]  # fmt: skip


@pytest.fixture
def run(run_of, tmp_path):
    shutil.copytree(run_of("detect8") / "weights", tmp_path / "run" / "weights")
    return tmp_path / "run"


def spoil(run):
    edited(run / "weights" / "last.pt", run / "weights" / "last.pt", both(put(NAN), strip))


def test_a_clean_run_exits_0(run, capsys):
    assert main(["check", str(run)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["badge", "resume", "epoch", "fitness", "saved", "size", "file"]
    assert sum(line.startswith("clean ") for line in lines) == 6
    assert any("2 (work of 3)" in line and " yes " in line for line in lines)
    assert any("resume: stripped" in line for line in lines) and err == ""


def test_anything_not_clean_exits_1_and_comes_first(run, capsys):
    spoil(run)
    (run / "weights" / "epoch1.pt").write_bytes(b"PK\x03\x04")
    assert main(["check", str(run)]) == 1
    badges = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert badges == ["badge", "unreadable", "corrupt", "clean", "clean", "clean", "clean"]


def test_what_a_rollback_moved_aside_comes_last_and_does_not_count(run, capsys):
    aside = run / "weights" / "corrupted_backup" / "last_epoch3_corrupted.pt"
    aside.parent.mkdir()
    aside.write_bytes(b"PK\x03\x04")
    assert main(["check", str(run)]) == 0
    *_, head, row = capsys.readouterr().out.splitlines()
    assert head == "moved aside by rollbacks:" and row.startswith("unreadable") and str(aside) in row
    assert main(["check", "--json", str(run)]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoints"][-1]["path"] == str(aside)
    assert main(["check", str(aside)]) == main(["check", str(aside.parent)]) == 1, "asked for by name"


def test_the_columns_stand_under_each_other(run, capsys):
    spoil(run)
    main(["check", str(run)])
    rows = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    column = rows[0].index("file")
    assert all(row[column:].startswith(("file", str(run))) for row in rows)


def test_findings_are_grouped_for_people(run, capsys):
    edited(run / "weights" / "epoch2.pt", run / "weights" / "epoch2.pt", poison(lambda name: True, NAN))
    assert main(["check", str(run / "weights" / "epoch2.pt")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.strip().startswith("laundered: model.") for line in lines) == 2
    assert any("more (--json has all)" in line for line in lines)


def test_json_is_one_document_of_the_agreed_shape(run, capsys):
    spoil(run)
    assert main(["check", "--json", "--crc", str(run)]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert list(document) == ["checkpoints"] and len(document["checkpoints"]) == 6 and err == ""
    for row in document["checkpoints"]:
        assert list(row) == KEYS
        assert row["badge"] in {"clean", "corrupt", "unreadable", "busy"}
        assert isinstance(row["seconds"], float) and isinstance(row["bytes"], int)
    worst = document["checkpoints"][0]
    assert worst["path"].endswith("last.pt") and worst["epoch"] is None
    assert worst["findings"] == [
        {"kind": "nan", "where": CONV, "detail": "1 of 4096 values are NaN"},
    ]  # fmt: skip


def test_a_number_that_is_not_finite_is_a_word(run, capsys):
    def change(checkpoint):
        checkpoint["train_metrics"]["fitness"] = NAN

    path = edited(run / "weights" / "epoch2.pt", run / "weights" / "epoch2.pt", change)
    assert main(["check", "--json", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["checkpoints"][0]["fitness"] == "nan"


@pytest.mark.parametrize("of", ["", "weights", "weights/epoch2.pt"])
def test_a_run_its_weights_or_a_file(of, run, capsys):
    assert main(["check", "--json", str(run / of)]) == 0
    assert len(json.loads(capsys.readouterr().out)["checkpoints"]) == (1 if of.endswith(".pt") else 6)


def test_several_paths(run, capsys):
    paths = [str(run / "weights" / name) for name in ("epoch0.pt", "epoch1.pt")]
    assert main(["check", "--json", *paths]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)["checkpoints"]] == paths


def test_a_file_is_compared_with_its_neighbours(run):
    def change(checkpoint):
        poison(lambda name: name == CONV, NAN, channel=7)(checkpoint)

    path = edited(run / "weights" / "epoch2.pt", run / "weights" / "epoch2.pt", change)
    assert main(["check", str(path)]) == 1
    alone = shutil.move(path, run / "alone.pt")
    assert main(["check", str(alone)]) == 0


@pytest.mark.parametrize(("name", "text"), [("nowhere", "no such file"), ("empty", "no checkpoint")])
def test_wrong_usage_exits_2_with_one_line(name, text, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and text in err and len(err.splitlines()) == 1


def test_hostile_names_cannot_steer_the_terminal(run, capsys):
    (run / "weights" / "x\x1b[2J.pt").write_bytes(b"PK\x03\x04")
    assert main(["check", str(run)]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_name_that_is_no_text(run, capsys):
    import os

    (run / "weights" / os.fsdecode(b"x\xff.pt")).write_bytes(b"PK\x03\x04")
    assert main(["check", "--json", str(run)]) == 1
    rows = json.loads(capsys.readouterr().out)["checkpoints"]
    assert rows[0]["path"].endswith("x\\udcff.pt")
