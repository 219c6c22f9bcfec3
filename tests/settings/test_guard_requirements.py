"""Each place that the guard stands on is missed when it is gone, and found in the installed Ultralytics."""

import argparse
import json

import pytest

from nantui.commands import doctor
from nantui.errors import UserError
from nantui.settings.guard_requirements import (
    CALLS,
    POINTS,
    REPLACED,
    lacking_for_points,
    missing,
    read_hooks,
)
from nantui.settings.schema import find_ultralytics
from nantui.supervisor.host_checks import BAD

GONE = {
    "self.tloss =": ("self.tloss", "self.mean_loss"),
    "self.loss =": ("self.loss ", "self.sum "),
    "self.loss_items =": ("self.loss_items", "self.items"),
}


@pytest.fixture(scope="module")
def source():
    return (find_ultralytics(None) / "engine" / "trainer.py").read_text(encoding="utf-8")


def written(source, folder):
    (folder / "engine").mkdir()
    (folder / "engine" / "trainer.py").write_text(source)
    return folder


def test_the_installed_ultralytics_has_them_all():
    hooks = read_hooks(find_ultralytics(None))
    assert len(hooks) == len(CALLS) + len(REPLACED) and missing(hooks) == []


@pytest.mark.parametrize(("file", "place"), [(file, place) for file in POINTS for place in POINTS[file]])
def test_what_step_points_lack_is_told_by_its_place(file, place, tmp_path):
    package = find_ultralytics(None)
    assert lacking_for_points(package) == []
    for name in POINTS:
        text = (package / name).read_text(encoding="utf-8")
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text.replace(place, "elsewhere") if name == file else text)
    assert lacking_for_points(tmp_path) == [f"{place} in {file}"]


@pytest.mark.parametrize(("where", "what"), [(where, what) for where, what, _ in CALLS])
def test_a_loop_without_one_of_the_calls_is_told(where, what, source, tmp_path):
    was, now = GONE.get(what, (what.rstrip(")"), what.rstrip(")").replace("(", "_elsewhere(", 1)))
    assert was in source
    assert missing(read_hooks(written(source.replace(was, now), tmp_path))) == [f"{what} in {where}"]


@pytest.mark.parametrize(("name", "needed"), [(name, needed) for name, _, needed in REPLACED])
def test_a_method_that_is_gone_is_told_where_it_is_needed(name, needed, source, tmp_path):
    assert f"def {name}(" in source
    hooks = read_hooks(written(source.replace(f"def {name}(", f"def {name}_elsewhere("), tmp_path))
    assert missing(hooks) == ([name] if needed else [])
    assert [hook.name for hook in hooks if not hook.held] == [name]


@pytest.mark.parametrize(
    "text", ["", "class BaseTrainer: pass", "class Trainer:\n    def _do_train(self): pass"]
)
def test_another_file_has_none_of_them(text, tmp_path):
    assert len(missing(read_hooks(written(text, tmp_path)))) == len(CALLS) + 3


@pytest.mark.parametrize("text", ["def (", "\0"])
def test_a_broken_source_is_said(text, tmp_path):
    with pytest.raises(UserError, match="is this Ultralytics whole"):
        read_hooks(written(text, tmp_path))


def test_doctor_names_what_is_missing(source, tmp_path, monkeypatch, capsys):
    package = written(source.replace("self.optimizer_step()", "self.step_somehow()"), tmp_path)
    monkeypatch.setattr("nantui.commands.doctor.find_ultralytics", lambda python: package)
    arguments = argparse.Namespace(directory=tmp_path, python=None, json=True)
    assert doctor.run(arguments) == 1
    hooks = [check for check in json.loads(capsys.readouterr().out)["checks"] if check["name"] == "hook"]
    (bad,) = [check for check in hooks if check["verdict"] == BAD]
    assert bad["text"].startswith("self.optimizer_step() in _do_train is missing")
    assert "unguarded" in bad["do"] and len(hooks) == len(CALLS) + len(REPLACED)
