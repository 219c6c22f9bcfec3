"""What files say: parsed within bounds, and each value as the type that a field has for it.

Whatever came out of a file that others can write may hold anything. A document within the bounds of size,
depth, count and aliases cannot fill the memory, take minutes, or be too deep for what walks it later; the
rest is refused. A value is an `object` until somebody has looked at it. What another version, or somebody who
means no good, has put in place of another type counts as not told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Protocol,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

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
Reader: TypeAlias = Callable[[object], object]
"""Returns a value as one type, `NOT_TOLD` where it is of another."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Kind = TypeVar("Kind", bound=_Dataclass)


def known_fields(kind: type[Kind], document: JsonObject | None) -> Kind | None:
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
    readers, found = readers_of(kind), {}
    for name, value in document.items() if isinstance(document, Mapping) else ():
        read = readers.get(name)
        if read is not None and (told := read(value)) is not NOT_TOLD:
            found[name] = told
    return found


@cache
def readers_of(kind: Any) -> Mapping[str, Reader]:
    """Return, by name, what reads each field of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return {one.name: _reader_of(hints[one.name]) for one in fields(kind)}


def _reader_of(hint: Any) -> Reader:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _first_of([_reader_of(one) for one in inner])
    if origin is list:
        return _list_of(_reader_of(inner[0]))
    if origin is tuple:
        return _tuple_of(_reader_of(inner[0]))
    if is_dataclass(hint):
        return lambda value: _record(hint, value)
    known = _PLAIN.get(origin if origin in _PLAIN else hint)
    return known or (lambda value: value if isinstance(value, hint) else NOT_TOLD)


def _first_of(readers: list[Reader]) -> Reader:
    return lambda value: next((told for read in readers if (told := read(value)) is not NOT_TOLD), NOT_TOLD)


def _list_of(read: Reader) -> Reader:
    def whole(value: object) -> object:
        told = [read(one) for one in value] if isinstance(value, (list, tuple)) else [NOT_TOLD]
        return NOT_TOLD if any(one is NOT_TOLD for one in told) else told

    return whole


def _tuple_of(read: Reader) -> Reader:
    def every(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            return NOT_TOLD
        return tuple(one for one in map(read, value) if one is not NOT_TOLD)

    return every


def _record(kind: Any, value: object) -> object:
    if isinstance(value, kind):
        return value
    found = known_fields(kind, value) if isinstance(value, dict) else None
    return NOT_TOLD if found is None else found


def _whole(value: object) -> object:
    return value if isinstance(value, int) and not isinstance(value, bool) else NOT_TOLD


def _countable(value: object) -> object:
    found = _whole(value)
    return found if isinstance(found, int) and abs(found) <= LARGEST_INT else NOT_TOLD


def _number(value: object) -> object:
    """JSON has no literal for a number that is not finite: those are written by name."""
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("nan", "inf", "-inf")):
        return NOT_TOLD
    try:
        return float(value) if isinstance(value, (int, float, str)) else NOT_TOLD
    except OverflowError:
        return NOT_TOLD


def _mapping(value: object) -> object:
    return value if isinstance(value, dict) and all(isinstance(name, str) for name in value) else NOT_TOLD


_PLAIN: Mapping[Any, Reader] = {
    int: _countable, Large: _whole, float: _number, dict: _mapping, Mapping: _mapping,
    Any: lambda value: value,
}  # fmt: skip
