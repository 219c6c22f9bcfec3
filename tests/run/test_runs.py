"""Runs are found below a directory; attempts and specs read back as they were written."""

import errno
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.run.attempts import Attempt, RankExit, read_attempt, read_exits, write_attempt, write_exit
from nantui.run.binding import STRANGE, bind, standing
from nantui.run.layout import RunLayout, find_runs, require_run
from nantui.run.spec import Spec, read_spec, write_spec


def make_run(path):
    (path / "weights").mkdir(parents=True)
    (path / "args.yaml").write_text("epochs: 3\n")
    return path


def test_runs_below_a_directory_without_walking_into_images(tmp_path):
    for name in ("a", "deep/er/b"):
        make_run(tmp_path / name)
    make_run(tmp_path / "images" / "hidden")
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["a", "deep/er/b"]


def test_a_weights_folder_means_its_run(tmp_path):
    run = make_run(tmp_path / "train")
    assert require_run(run / "weights").run == run


def test_a_checkpoint_is_no_run_and_names_its_own(tmp_path):
    run = make_run(tmp_path / "train")
    (run / "weights/last.pt").touch()
    with pytest.raises(UserError, match=f"its run is {run}; .*--to last.pt"):
        require_run(run / "weights/last.pt")


@pytest.mark.parametrize(("name", "says"), [("missing", "no such directory"), ("empty", "not a run")])
def test_what_is_no_run_is_said_in_a_line(tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=says):
        require_run(tmp_path / name)


def test_attempts_and_exits_read_back(tmp_path):
    layout = RunLayout(tmp_path)
    attempt = Attempt(2, "u", 1.0, "resume", "weights/last.pt", {"epochs": 3}, {"guard": "protect"}, "py")
    write_attempt(layout, attempt)
    assert read_attempt(layout, 2) == attempt
    assert layout.attempt_numbers() == [2]
    write_exit(layout, 2, RankExit("diverged", rank=1, pid=5, code=77, t=2.0))
    write_exit(layout, 2, RankExit("diverged", rank=0, pid=4, code=77, t=2.0))
    assert [ending.rank for ending in read_exits(layout, 2)] == [0, 1]
    assert read_attempt(layout, 3) is None


def test_a_record_of_a_newer_format_still_reads(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt(1).write_text(
        '{"attempt": 1, "uuid": "u", "created": 0, "mode": "start", "checkpoint": null, "train": {}, '
        '"ours": {}, "python": "py", "of_the_future": 1}'
    )
    assert read_attempt(layout, 1).uuid == "u"


def test_spec_reads_back(tmp_path):
    spec = Spec(train={"lr0": 0.01}, ours={"guard": "observe"}, python="py", created=1.0)
    write_spec(tmp_path / "nantui" / "spec.yaml", spec)
    bind(tmp_path)
    assert read_spec(tmp_path / "nantui" / "spec.yaml") == spec
    assert read_spec(tmp_path / "none.yaml") is None


@pytest.mark.parametrize("text", ["train: [", "just words", "train: 3", "!!python/object:os.system {}"])
def test_a_broken_spec_is_said_in_a_line(tmp_path, text):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(UserError, match="mend it"):
        read_spec(tmp_path / "spec.yaml")


def test_folders_that_are_only_called_nantui_are_no_runs(tmp_path):
    (tmp_path / "config/nantui").mkdir(parents=True)
    (tmp_path / "config/nantui/supervise.yaml").touch()
    (tmp_path / "checkout/nantui/worker").mkdir(parents=True)
    run = make_run(tmp_path / "checkout/runs/train")
    below = make_run(tmp_path / "nantui/train")  # project=nantui
    begun = tmp_path / "begun"
    write_spec(RunLayout(begun).spec, Spec(train={}, created=1.0))
    assert set(find_runs(tmp_path)) == {run, below, begun}
    with pytest.raises(UserError, match="not a run"):
        require_run(tmp_path / "config")


def test_commands_that_cannot_be_put_aside_are_named_and_nothing_is_bound(tmp_path, monkeypatch):
    run = make_run(tmp_path / "theirs")
    commands = RunLayout(run).commands
    commands.mkdir(parents=True)

    def refuses(path, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(UserError, match=f"{commands} cannot be put aside: Permission denied$"):
        bind(run)
    assert standing(run) == STRANGE
