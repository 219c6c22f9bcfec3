"""Files that others can write, parsed within bounds: size, depth, count, aliases; the rest is refused.

A document that is within them cannot fill the memory, take minutes, or be too deep for what walks it later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST_TEXT, LARGEST_JSON, LARGEST_YAML = 1 << 27, 1 << 25, 1 << 19
"""Bytes of a journal or a table, of one JSON document, and of one YAML file."""
DEEPEST, MOST_NODES, MOST_ALIASES = 64, 1 << 19, 16


class OutOfBounds(ValueError):
    """A document is larger or deeper than any that is meant."""


def parse_json(text: str | bytes) -> Any:
    """Return the JSON value in `text`. Raises ValueError where it is none, or out of bounds."""
    if len(text) > LARGEST_JSON:
        raise OutOfBounds(f"larger than {LARGEST_JSON >> 20} MiB")
    try:
        value = json.loads(text)
    except RecursionError:
        raise OutOfBounds(f"deeper than {DEEPEST} levels") from None
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > DEEPEST:  # type: ignore[arg-type]
        refuse_deep(value)
    return value


def parse_yaml(text: str) -> Any:
    """Return the YAML document in `text` as plain values. Raises ValueError (also for what is no YAML)."""
    import yaml

    if len(text) > LARGEST_YAML:
        raise OutOfBounds(f"larger than {LARGEST_YAML >> 10} KiB")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = aliases = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > DEEPEST or aliases > MOST_ALIASES:
                raise OutOfBounds(f"deeper than {DEEPEST} levels, or more than {MOST_ALIASES} aliases")
        value = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no YAML: {str(error).partition(chr(10))[0]}") from error
    refuse_deep(value)
    return value


def refuse_deep(value: object) -> None:
    """Raise OutOfBounds for a value with too many levels or parts; what is there twice counts twice."""
    level: list[object] = [value]
    for _ in range(DEEPEST):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return
        if len(level) > MOST_NODES:
            break
    raise OutOfBounds(f"deeper than {DEEPEST} levels, or more than {MOST_NODES} parts")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()
