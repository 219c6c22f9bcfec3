"""The other side: trainings that go wrong with finite numbers. How long until somebody is told?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.healthy.cases import BASE, CPU, Case
from benchmarks.healthy.measure import outcome, results_table, rounded, signs, steps_of
from benchmarks.healthy.records import Record
from nantui.run.events import Incident, Warned
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord

LEARNED = 20
"""Epochs that a training learns before it is broken; those of `FROM_THE_START` are broken at once."""
EPOCHS = 45


@dataclass(frozen=True)
class Broken:
    """A training that is broken from the start of epoch `since` (from 1) on."""

    name: str
    how: str
    case: Case
    since: int

    def install(self, trainer: Any) -> None:
        """Break it from then on; called once the trainer is set up."""
        how = HOW.get(self.how)
        if how is not None:
            how(trainer, self.since)


def wrong_labels(trainer: Any, since: int) -> None:
    """Give every box another's place and class: nothing can be learned any more."""
    own = trainer.preprocess_batch

    def shuffled(batch: dict[str, Any]) -> dict[str, Any]:
        batch = own(batch)
        if trainer.epoch + 1 >= since:
            import torch

            count = len(batch["cls"])
            batch["bboxes"] = torch.rand(count, 4, device=batch["bboxes"].device) * 0.5 + 0.25
            batch["cls"] = torch.randint_like(batch["cls"], 0, 3)
        return batch

    trainer.preprocess_batch = shuffled


def drifting_weights(trainer: Any, since: int) -> None:
    """Let the weights of the head wander off by two percent a step."""

    def drift(trainer: Any) -> None:
        if trainer.epoch + 1 >= since:
            import torch

            with torch.no_grad():
                for weight in trainer.model.model[-1].parameters():
                    weight.mul_(1.02)

    trainer.add_callback("on_train_batch_start", drift)


def noisy_weights(trainer: Any, since: int) -> None:
    """Add noise of a twentieth of their size to all weights, once a step."""

    def disturb(trainer: Any) -> None:
        if trainer.epoch + 1 >= since:
            import torch

            with torch.no_grad():
                for weight in trainer.model.parameters():
                    if weight.ndim > 1:
                        weight.add_(torch.randn_like(weight) * weight.std() / 20)

    trainer.add_callback("on_train_batch_start", disturb)


def rate_raised(trainer: Any, since: int) -> None:
    """Raise the learning rate a hundred times."""

    def raise_it(trainer: Any) -> None:
        if trainer.epoch + 1 == since:
            for group in trainer.optimizer.param_groups:
                group["lr"] *= 100
                group["initial_lr"] = group.get("initial_lr", group["lr"]) * 100
            trainer.scheduler.base_lrs = [rate * 100 for rate in trainer.scheduler.base_lrs]

    trainer.add_callback("on_train_epoch_start", raise_it)


HOW = {
    "wrong labels": wrong_labels,
    "weights of the head drift": drifting_weights,
    "noise on all weights": noisy_weights,
    "rate raised a hundred times": rate_raised,
}
FROM_THE_START = {
    "SGD, rate 1": ("SGD", 1.0),
    "AdamW, rate 0.3": ("AdamW", 0.3),
    "MuSGD, rate 1": ("MuSGD", 1.0),
}


def _table() -> list[Broken]:
    found = []
    for seed in range(2):
        for how in HOW:
            found.append(_broken(how, seed, {"optimizer": "AdamW", "lr0": 0.001}, LEARNED + 1))
        for how, (optimizer, rate) in FROM_THE_START.items():
            found.append(_broken(how, seed, {"optimizer": optimizer, "lr0": rate}, 1))
    return found


def _broken(how: str, seed: int, train: dict[str, Any], since: int) -> Broken:
    settings = {
        **BASE,
        "device": "cpu",
        "epochs": EPOCHS,
        "seed": seed,
        "close_mosaic": 0,
        "mosaic": 0.0,
        **train,
    }
    case = Case(f"broken {how}, seed {seed}", CPU, "yolov8", "detect", "thin", "usual", seed, settings, {})
    return Broken(case.name, how, replace(case), since)


BROKEN = _table()


def broken_record(one: Broken, run: Path) -> Record:
    """Return what is kept of it: when it was said, in epochs since it was broken, and its curve."""
    layout = RunLayout(run)
    events = AttemptRecord(layout, 1).events()
    said = [
        (event.epoch, event.incident if isinstance(event, Incident) else event.warning, event.kind)
        for event in events
        if isinstance(event, (Incident, Warned)) and event.epoch
    ]
    after = [list(found) for found in said if found[0] >= one.since]
    table = results_table(run)
    return {
        "name": one.name, "part": "broken", "how": one.how, "since": one.since, "outcome": outcome(layout),
        "said": after[:20], "said_before": len(said) - len(after), "steps": len(steps_of(layout, 1)),
        "signs": signs(run), "results": rounded(table),
    }  # fmt: skip
