"""What files say: parsed within bounds, and each value as the type that a field has for it.

Whatever came out of a file that others can write may hold anything. A document within the bounds of size,
depth, count and aliases cannot fill the memory, take minutes, or be too deep for what walks it later; the
rest is refused. A value is an `object` until somebody has looked at it. What another version, or somebody who
means no good, has put in place of another type counts as not told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from nantui.paths import configs_dir

LARGEST_TEXT, LARGEST_JSON, LARGEST_YAML = 1 << 27, 1 << 25, 1 << 19
"""Bytes of a journal or a table, of one JSON document, and of one YAML file."""
DEEPEST, MOST_NODES, MOST_ALIASES = 64, 1 << 19, 16


def parse_json(text: str | bytes) -> Any:
    """Return the JSON value in `text`. Raises ValueError where it is none, or out of bounds."""
    if len(text) > LARGEST_JSON:
        raise ValueError(f"larger than {LARGEST_JSON >> 20} MiB")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"deeper than {DEEPEST} levels") from None
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > DEEPEST:  # type: ignore[arg-type]
        refuse_deep(value)
    return value


def parse_yaml(text: str) -> Any:
    """Return the YAML document in `text` as plain values. Raises ValueError (also for what is no YAML)."""
    import yaml

    if len(text) > LARGEST_YAML:
        raise ValueError(f"larger than {LARGEST_YAML >> 10} KiB")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = aliases = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > DEEPEST or aliases > MOST_ALIASES:
                raise ValueError(f"deeper than {DEEPEST} levels, or more than {MOST_ALIASES} aliases")
        value = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no YAML: {str(error).partition(chr(10))[0]}") from error
    refuse_deep(value)
    return value


def table(name: str) -> dict[str, Any]:
    """Return configs/tables/NAME.json, what nantui itself knows of things by their names, without `about`,
    which says what the table is. JSON: some are read before the first frame, and to import yaml takes 20 ms.
    """
    found = json.loads((configs_dir() / "tables" / f"{name}.json").read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key != "about"}


def refuse_deep(value: object) -> None:
    """Raise ValueError for a value with too many levels or parts; what is there twice counts twice."""
    level: list[object] = [value]
    for _ in range(DEEPEST):
        level = [part for one in level for part in _parts(one)]
        if not level:
            return
        if len(level) > MOST_NODES:
            break
    raise ValueError(f"deeper than {DEEPEST} levels, or more than {MOST_NODES} parts")


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple, set)) else ()


Setting: TypeAlias = object
"""One value as Ultralytics or nantui takes it: True, 64, 0.01, "auto", None, a list of class numbers."""
Settings: TypeAlias = Mapping[str, Setting]
Document: TypeAlias = dict[str, object]
"""A JSON or YAML object."""
JsonObject: TypeAlias = dict[str, Any]
"""A JSON object in a shape of our own: a request, an answer, a plan. Whoever reads one from a file says what
happens when it has another."""
Large: TypeAlias = Annotated[int, "large"]
"""A size, a time or a count of clock ticks."""
LARGEST_INT = 10**9
"""No epoch, step, rank or pid is larger: a larger number is nonsense, and whoever counts up to it hangs."""
NOT_TOLD = object()
TypeTree: TypeAlias = tuple[Any, tuple["TypeTree", ...]]
"""What a type is made of: `int | None` is (UnionType, ((int, ()), (NoneType, ())))."""
Kind = TypeVar("Kind")


def known_fields(kind: Callable[..., Kind], document: JsonObject | None) -> Kind | None:
    """Return the dataclass `kind` as a document tells it, without the fields of a newer format or of another
    type; None where there is no document, or fields are missing.
    """
    try:
        return kind(**fields_of(kind, document)) if document is not None else None
    except TypeError:
        return None


def fields_of(kind: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the dataclass `kind` that a document tells in the type that it has for them.

    A list is told as a whole; of a tuple the items of another type are left out. What is no object tells
    nothing.
    """
    types, found = types_of(kind), {}
    for name, value in document.items() if isinstance(document, Mapping) else ():
        if name in types and (told := _as_type(types[name], value)) is not NOT_TOLD:
            found[name] = told
    return found


@cache
def types_of(kind: Any) -> Mapping[str, TypeTree]:
    """Return, by name, the type of each field of a dataclass or an event, taken apart."""
    return {name: _taken_apart(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}


def _taken_apart(hint: Any) -> TypeTree:
    return get_origin(hint) or hint, tuple(map(_taken_apart, get_args(hint)))


def _as_type(wanted: TypeTree, value: object) -> object:
    """Return a value as the type `wanted`, `NOT_TOLD` where it is of another."""
    kind, inner = wanted
    if kind is UnionType:
        for one in inner:
            if (told := _as_type(one, value)) is not NOT_TOLD:
                return told
        return NOT_TOLD
    if kind is float:
        return _number(value)
    if kind is int or kind is Annotated:
        if not isinstance(value, int) or isinstance(value, bool):
            return NOT_TOLD
        return value if kind is Annotated or abs(value) <= LARGEST_INT else NOT_TOLD
    if kind is list or kind is tuple:
        if not isinstance(value, (list, tuple)):
            return NOT_TOLD
        known = [told for one in value if (told := _as_type(inner[0], one)) is not NOT_TOLD]
        if kind is tuple:
            return tuple(known)
        return known if len(known) == len(value) else NOT_TOLD
    if kind is dict or kind is Mapping:
        return value if isinstance(value, dict) and all(isinstance(name, str) for name in value) else NOT_TOLD
    if kind is Any or isinstance(value, kind):
        return value
    nested = is_dataclass(kind)
    found = known_fields(kind, value) if nested and isinstance(value, dict) else None
    return NOT_TOLD if found is None else found


def _number(value: object) -> object:
    """JSON has no literal for a number that is not finite: those are written by name."""
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("nan", "inf", "-inf")):
        return NOT_TOLD
    try:
        return float(value) if isinstance(value, (int, float, str)) else NOT_TOLD
    except OverflowError:
        return NOT_TOLD
