"""What of a trainer is not Ultralytics' own: what `--into` names as lost with our runner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def test_a_scripts_own_classes_and_callbacks_are_told_from_ultralytics_own() -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils.callbacks.base import default_callbacks

    from nantui.worker.effective_settings import parts_of_the_script

    def tell(trainer: Any) -> None:
        pass

    stock = SimpleNamespace(train_loader=SimpleNamespace(dataset=None), callbacks=default_callbacks)
    assert parts_of_the_script(like(DetectionTrainer, stock)) == []
    mine = type("Mine", (DetectionTrainer,), {"__module__": "train"})
    guarded = type("Guarded", (mine,), {"__module__": "nantui.worker.trainer"})
    tell.__module__, tell.__qualname__ = "train", "tell"
    callbacks = {**default_callbacks, "on_train_end": [*default_callbacks["on_train_end"], tell]}
    found = parts_of_the_script(like(guarded, SimpleNamespace(**{**vars(stock), "callbacks": callbacks})))
    assert found == ["trainer class train.Mine", "callback on_train_end: train.tell"]


def like(kind: type, fields: SimpleNamespace) -> Any:
    """Return a trainer of a class with nothing but the fields given."""
    trainer = kind.__new__(kind)
    trainer.__dict__.update(vars(fields))
    return trainer
