"""Plans: several trainings one after another, each from the weights of the one before, shown as one run.

A plan is a YAML file with `phases`, each a title and settings (configs/progressive.yaml is the guide's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.paths import configs_dir, user_config_dir
from nantui.settings.schema import Schema

WEIGHTS = ("weights/best.pt", "weights/last.pt")
"""What the next phase begins with, the first that is there: stock's own choice for a finished training."""


@dataclass(frozen=True)
class Phase:
    """One phase: `settings` on top of the run's own."""

    title: str
    settings: Mapping[str, Any]


def read_phases(plan: str, schema: Schema) -> list[Phase]:
    """Return the phases of a plan: a file, or the name of one of the user's or the shipped plans.

    Raises UserError naming the file when it is wrong.
    """
    path = find_plan(plan)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = document["phases"]
        phases = [Phase(str(one.get("title") or ""), schema.check(one["settings"])) for one in listed]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: not a plan ({why}); it needs `phases:`, each with `settings:`") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not phases:
        raise UserError(f"{path}: a plan needs at least one phase")
    return phases


def find_plan(plan: str) -> Path:
    """Return the file of a plan. Raises UserError when there is none."""
    places = (Path(plan), user_config_dir() / f"{plan}.yaml", configs_dir() / f"{plan}.yaml")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"no plan {plan!r}: give a YAML file, or `progressive`")
    return found


def train_of(phases: list[Phase], index: int, base: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the settings of phase `index` (from 0), which begins with the weights of the one before.

    Raises UserError when the phase before has left no weights.
    """
    settings = {**base, **phases[index].settings}
    if index == 0:
        return settings
    weights = next((run / name for name in WEIGHTS if (run / name).is_file()), None)
    if weights is None:
        raise UserError(f"phase {index} of {run.name} has left no weights to go on from")
    return {**settings, "model": str(weights), "pretrained": True}
