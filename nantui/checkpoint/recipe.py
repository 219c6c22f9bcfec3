"""The architecture inside a checkpoint, which a resume builds its model from, is code in part.

`parse_model` in Ultralytics' nn/tasks.py evaluates the text under `activation`, and looks layers up by name
among everything that module has imported; a `yaml` that is no dictionary is a path or an address that it
fetches first. Ultralytics itself refuses such values when it is asked for a restricted load (`_SafeLoad`),
which a resume does not ask for. So only what architectures really say passes here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nantui.checkpoint.symbols import items_of
from nantui.checkpoint.verdict import Finding

_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z]\w*\([\w\s=.,+-]*\)")
_LAYER = re.compile(r"(torch\.)?nn\.[A-Z]\w*|torchvision\.ops\.[A-Z]\w*|[A-Z]\w*")
_LONGEST = 200
_MOST_FINDINGS = 20


def judge(
    recipes: Iterable[tuple[str, Any]], classes: Collection[str], allowed: Collection[str]
) -> list[Finding]:
    """Return an `unsafe` finding for each value that building the model would run, fetch or look up.

    `classes` are the names of the classes of which the file holds instances, judged elsewhere: somebody's
    own layer is among them, whatever it is called. `allowed` are texts that the user trusts.
    """
    found: list[Finding] = []
    for where, recipe in recipes:
        for said, detail in _oddities(recipe, classes):
            if said not in allowed:
                found.append(Finding("unsafe", said or where, detail))
            if len(found) >= _MOST_FINDINGS:
                return found
    return found


def _oddities(recipe: Any, classes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (what it says, "" where that is no short text; what is wrong with it)."""
    if recipe is None:
        return
    items = items_of(recipe)
    if items is None:
        yield "", "its architecture is none, but something that building the model would fetch"
        return
    said = items.named()
    activation = said.get("activation")
    if activation is not None and not _is(activation, _ACTIVATION):
        yield _text(activation), "building the model would evaluate this activation, which is no plain one"
    for part in ("backbone", "head"):
        for layer in _list(said.get(part)):
            kind = next(iter(_list(layer)[2:3]), None)
            if kind is not None and not (_is(kind, _LAYER) or _text(kind) in classes):
                yield _text(kind), "building the model would call it as a layer, and it is none"


def _list(value: Any) -> Any:
    return value if type(value) in (list, tuple) else ()


def _is(value: Any, pattern: re.Pattern[str]) -> bool:
    return type(value) is str and len(value) <= _LONGEST and pattern.fullmatch(value) is not None


def _text(value: Any) -> str:
    return value if type(value) is str and len(value) <= _LONGEST else ""
