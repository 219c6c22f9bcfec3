"""Relative paths in a run's settings mean what they meant where the training was started.

Plain Ultralytics writes down `data: ds/d.yaml` and not from where. The places are tried in one order, for
every command and from whatever directory it is asked: what was written down of the process (nantui's own
start, the script's command, a training that was stopped), the directories above `save_dir` in args.yaml,
nearest first, then those above the run where it lies now.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nantui.run.events import Created, newest
from nantui.run.record import RunRecord


def places_of(record: RunRecord) -> list[Path]:
    """Return where the training may have been started, best known first."""
    created, spec = newest(record.journal, Created), record.spec
    told = [created.cwd if created else None, ((spec.exec if spec else None) or {}).get("cwd")]
    run = record.run.resolve()
    above = [*Path(str(record.args.get("save_dir") or run)).parents, *run.parents]
    found = dict.fromkeys([*(Path(place) for place in told if place), *above])
    return [place for place in found if place.is_absolute()]


def started_in(record: RunRecord, name: str) -> Path | None:
    """Return the directory from which the relative path `name` leads to something, None without one."""
    return next((place for place in places_of(record) if (place / name).exists()), None)


def is_relative(name: object) -> bool:
    """Tell whether it depends on a directory what a setting such as data means; a URL does not."""
    return bool(name) and "://" not in str(name) and not Path(str(name)).is_absolute()


def in_full(record: RunRecord, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with `data` by its full path, as it is where it is found nowhere."""
    data = settings.get("data")
    place = started_in(record, str(data)) if is_relative(data) else None
    return {**settings, "data": str(place / str(data))} if place else dict(settings)
