"""A trainer whose loop goes its own way: the guard installs nothing and says so, everywhere."""

from __future__ import annotations

import importlib.util
import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from nantui.commands.watching import describe
from nantui.run.layout import RunLayout
from nantui.run.status import RUNNING, RunStatus
from nantui.supervisor.attempt_watch import Watch
from nantui.worker import ultralytics_api
from nantui.worker.session import Session
from nantui.worker.trainer import guarded
from tests.worker.runs import Trainings, outcome_of, write_request

OWN_STEP = "self.scaler.step(self.optimizer); self.scaler.update(); self.optimizer.zero_grad()"
PREAMBLE = """
from ultralytics.engine import trainer
from ultralytics.models.yolo.detect import DetectionTrainer
globals().update({k: v for k, v in vars(trainer).items() if not k.startswith("__")})

class Blind(DetectionTrainer):
"""


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> type:
    """A user's trainer that steps within its own loop."""
    loop = textwrap.dedent(inspect.getsource(ultralytics_api.base_trainer()._do_train))  # type: ignore[attr-defined]
    loop = loop.replace("self.optimizer_step()", OWN_STEP)
    path = tmp_path_factory.mktemp("blind") / "blind.py"
    path.write_text(PREAMBLE + textwrap.indent(loop, "    "))
    return load(path)


def load(path: Path) -> type:
    import sys

    spec = importlib.util.spec_from_file_location("blind", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["blind"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type = module.Blind
    return found


def test_a_loop_of_ones_own_counts_and_not_only_ultralytics(blind):
    assert ultralytics_api.missing_hooks(blind) == ["self.optimizer_step() in _do_train"]
    assert ultralytics_api.missing_hooks(blind.__mro__[1]) == []


def test_a_loop_that_cannot_be_read_is_not_trusted(blind):
    typed = type("Typed", (blind.__mro__[1],), {"_do_train": lambda self: None})
    (told,) = ultralytics_api.missing_hooks(typed)
    assert told.startswith("_do_train of Typed")


def test_such_a_training_is_shown_as_unguarded(blind, trainings: Trainings, tmp_path: Path):
    from ultralytics import YOLO

    run = tmp_path / "run"
    arguments = {**trainings.common, "epochs": 1, "save_dir": str(run)}
    write_request(run, 1, arguments)
    session = Session.open(run, 1)
    model = YOLO(arguments.pop("model"))
    model.train(trainer=guarded(blind, session), **arguments)
    session.end("finished")
    assert model.trainer.guard is None

    outcome = outcome_of(run, 1, 0)
    (said,) = outcome.of("in_effect")
    assert said["guarded"] is False and "self.optimizer_step()" in said["notes"][0]
    assert [warning["warning"] for warning in outcome.of("warning")] == ["unguarded"]

    watch = Watch(RunLayout(run), session.attempt)
    watch.read()
    assert watch.guarded is False
    status = RunStatus(run, RUNNING, guarded=watch.guarded)
    assert any(line.strip().startswith("unguarded") for line in describe(status))


def test_the_header_says_it():
    from nantui.ui.widgets.header import _guard

    def shown(told: bool | None) -> list[str]:
        snapshot = SimpleNamespace(guard="protect", status=RunStatus(Path("x"), RUNNING, guarded=told))
        return [text for text, _ in _guard(snapshot)]  # type: ignore[arg-type]

    assert [shown(None), shown(True), shown(False)] == [[], ["guarded"], ["unguarded"]]
