"""What a checkpoint says about itself: epoch, date, version, fitness, arguments, metrics, results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from nantui.checkpoint.pickle.allowlist import is_module
from nantui.checkpoint.pickle.stand_ins import Instance, Pairs, Refused, items_of
from nantui.checkpoint.verdict import Metadata
from nantui.run.points import PART
from nantui.terminal_text import printable

_DEEPEST = 5
_MOST_VALUES = 100_000
_MOST_TEXT = 1 << 20
_LONGEST_TEXT = 4096
_LARGEST = 1 << 63
_RESULT_TOLERANCE = 1e-4  # results.csv keeps six significant digits


def read(root: object) -> Metadata:
    """Return what the root object of the pickle says."""
    top = items_of(root)
    if top is None:
        return Metadata()
    said = top.named()
    weights = said.get("ema"), said.get("model")
    has_module = any(type(value) is Instance and is_module(value) for value in weights)
    metrics, results = _table(said.get("train_metrics")), _table(said.get("train_results"))
    epoch, fitness = said.get("epoch"), cast(Any, metrics.get("fitness"))
    return Metadata(
        ultralytics=has_module and ("train_args" in said or "epoch" in said),
        point=items_of(said.get(PART)) is not None,
        epoch=epoch if type(epoch) is int and 0 <= epoch < _LARGEST else None, date=_line(said.get("date")),
        version=_line(said.get("version")), fitness=float(fitness) if type(fitness) in (int, float) else None,
        updates=_plain(said.get("updates"), 0, [1, 0]) if type(said.get("updates")) is int else None,
        has_optimizer=items_of(said.get("optimizer")) is not None, train_args=_table(said.get("train_args")),
        train_metrics=metrics, results={key: value for key, value in results.items() if type(value) is list},
        bad_state=tuple(_bad_state(said)),
    )  # fmt: skip


def _bad_state(said: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    groups = (items_of(said.get("optimizer")) or Pairs()).named().get("param_groups")
    room = _MOST_VALUES
    for index, group in enumerate(groups if type(groups) is list else ()):
        entries = items_of(group) or Pairs()
        room -= len(entries) + 1
        if room < 0:
            raise Refused("cannot-read", "optimizer", "its parameter groups say more than an optimizer has")
        for key, value in entries.named().items():
            if type(value) is float and not math.isfinite(value):
                yield f"optimizer.param_groups[{index}].{key}"[:100], str(value)
    for key, value in (items_of(said.get("scaler")) or Pairs()).named().items():
        if type(value) is float and (not math.isfinite(value) or (key == "scale" and value <= 0)):
            yield f"scaler.{key}"[:100], str(value)


def own_row(metadata: Metadata) -> dict[str, object]:
    """Return the row of `train_results` that belongs to the checkpoint's own epoch, {} where unknown.

    A stripped file has no epoch, and a stripped `best.pt` carries the results of `last.pt`
    (`final_eval` in Ultralytics' engine/trainer.py), so its row is the one with its own metrics.
    """
    names = [name.strip() for name in metadata.results]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*metadata.results.values(), strict=False)]
    if metadata.epoch is not None:
        own = [row for row in rows if row.get("epoch") == metadata.epoch + 1]
    else:
        own = [row for row in rows if agrees(row, metadata.train_metrics)]
    return own[-1] if own else {}


def not_finite(values: Mapping[str, object]) -> list[str]:
    """Return the keys whose value is a float that is NaN or infinite (or the text of one)."""
    named = ("nan", "inf", "infinity")
    return [
        key
        for key, value in values.items()
        if (type(value) is float and not math.isfinite(value))
        or (type(value) is str and value.strip().lower().lstrip("+-") in named)
    ]


def agrees(row: Mapping[str, object], metrics: Mapping[str, object]) -> bool:
    """Tell whether a row of results has these metrics, as far as both tell."""
    shared = [key for key in metrics if key in row]
    return bool(shared) and all(_close(row[key], metrics[key]) for key in shared)


def _close(one: Any, other: Any) -> bool:
    if not all(type(value) in (int, float) for value in (one, other)):
        return bool(one == other)
    if not (math.isfinite(one) and math.isfinite(other)):
        return str(one) == str(other)
    return math.isclose(one, other, rel_tol=_RESULT_TOLERANCE, abs_tol=_RESULT_TOLERANCE)


def _line(value: object) -> str | None:
    """Return a short printable text; a date or version of a hostile file must not move the cursor."""
    if type(value) is not str:
        return None
    return printable(value, 100, mark="?")


def _table(value: object) -> dict[str, object]:
    items = items_of(value)
    if items is None and type(value) is Instance and type(value.state) is Pairs:
        items = value.state  # a namespace
    if items is None:
        return {}
    budget = [_MOST_VALUES, _MOST_TEXT]
    return {key: _plain(item, _DEEPEST, budget) for key, item in items.named().items()}


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    """Return a value made of plain Python types; what cannot be said plainly, or briefly, becomes None.

    `budget` is what may still be returned: values, and characters of text.
    """
    budget[0] -= 1
    if min(budget) < 0 or depth < 0:
        return None
    if type(value) in (float, bool, type(None)):
        return value
    if type(value) is int:
        return value if abs(value) < _LARGEST else None
    if type(value) is str:
        budget[1] -= min(len(value), _LONGEST_TEXT)
        return value[:_LONGEST_TEXT]
    if type(value) in (list, tuple):
        return [_plain(item, depth - 1, budget) for item in value[: budget[0]]]
    items = items_of(value)
    if items is not None:
        budget[0] -= len(items) // 2  # also the entries that are not kept
        return {key[:100]: _plain(item, depth - 1, budget) for key, item in items.named().items()}
    if type(value) is Instance and value.cls.module.startswith("pathlib"):
        return _path(value, budget)
    return None


def _path(value: Instance, budget: list[int]) -> str:
    parts = [part for part in value.args if type(part) is str] if type(value.args) is tuple else []
    root = "/" if parts[:1] == ["/"] else ""
    said = root + "/".join(part[:_LONGEST_TEXT].strip("/") for part in parts[:64] if part != "/")
    budget[1] -= min(len(said), _LONGEST_TEXT)
    return said[:_LONGEST_TEXT]
