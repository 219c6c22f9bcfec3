"""Plans: several trainings one after another, each from the weights of the one before, shown as one run.

A plan is a YAML file with `phases`, each a title and settings (configs/progressive.yaml is the guide's).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from nantui.errors import UserError
from nantui.paths import configs_dir, user_config_dir
from nantui.run.plan import PlanPhase
from nantui.settings.schema import Schema

FIXED = ("model", "save_dir", "project", "name", "resume", "exist_ok")
"""What a phase cannot choose: it begins with the weights of the one before, in the same directory."""


def read_phases(plan: str, schema: Schema) -> list[PlanPhase]:
    """Return the phases of a plan: a file, or the name of one of the user's or the shipped plans.

    Raises UserError naming the file when it is wrong.
    """
    path = find_plan(plan)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = document["phases"]
        phases = [PlanPhase(str(one.get("title") or ""), checked(one["settings"], schema)) for one in listed]
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


def checked(settings: Mapping[str, object], schema: Schema) -> dict[str, object]:
    """Return a phase's settings, checked. Raises UserError for a wrong one, or one that is not a phase's."""
    for name in FIXED:
        if name in settings:
            raise UserError(f"{name}: a phase cannot set it; it goes on from the weights of the one before")
    return schema.check(settings)
