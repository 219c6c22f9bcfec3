"""The architecture inside a checkpoint, which a resume builds its model from, is code in part.

`parse_model` in Ultralytics' nn/tasks.py evaluates the text under `activation`, and looks layers up by name
among everything that module has imported; a `yaml` that is no dictionary is a path or an address that it
fetches first. Ultralytics itself refuses such values when it is asked for a restricted load (`_SafeLoad`),
which a resume does not ask for. So only what architectures really say passes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from nantui.checkpoint.symbols import items_of
from nantui.checkpoint.verdict import Finding

_ACTIVATION = re.compile(r"(torch\.)?nn\.[A-Z]\w*\([\w\s=.,+-]*\)")
_LAYER = re.compile(r"(torch\.)?nn\.[A-Z]\w*|torchvision\.ops\.[A-Z]\w*|[A-Z]\w*")
_LONGEST = 200
_MOST_FINDINGS = 20


def judge(recipes: Iterable[tuple[str, Any]]) -> list[Finding]:
    """Return an `unsafe` finding for each value that building the model would run, fetch or look up."""
    found: list[Finding] = []
    for where, recipe in recipes:
        for detail in _oddities(recipe):
            found.append(Finding("unsafe", where, detail))
            if len(found) >= _MOST_FINDINGS:
                return found
    return found


def _oddities(recipe: Any) -> Iterator[str]:
    if recipe is None:
        return
    items = items_of(recipe)
    if items is None:
        yield "it is not an architecture but something that building the model would fetch"
        return
    said = items.named()
    activation = said.get("activation")
    if activation is not None and not _is(activation, _ACTIVATION):
        yield f"building the model would evaluate its activation: {_shown(activation)}"
    for part in ("backbone", "head"):
        for layer in _list(said.get(part)):
            kind = next(iter(_list(layer)[2:3]), None)
            if kind is not None and not _is(kind, _LAYER):
                yield f"building the model would call {_shown(kind)}, which is no layer"


def _list(value: Any) -> Any:
    return value if type(value) in (list, tuple) else ()


def _is(value: Any, pattern: re.Pattern[str]) -> bool:
    return type(value) is str and len(value) <= _LONGEST and pattern.fullmatch(value) is not None


def _shown(value: Any) -> str:
    return repr(value[:80]) if type(value) is str else f"a {type(value).__name__.lower()}"
