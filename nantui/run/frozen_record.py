"""Frozen classes of keyword fields that cost next to nothing to define.

`dataclass(frozen=True)` compiles six functions for each class: for the kinds of events 45 ms at every start
of the cockpit, of a command and of a supervisor (Python 3.11), a tenth of the first frame. One set of
functions serves all of them; they stay dataclasses to `fields` and `replace`, and to a type checker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, FrozenInstanceError, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**options):
        return lambda decorator: decorator


Kind = TypeVar("Kind", bound="type[FrozenRecord]")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def frozen_record(kind: Kind) -> Kind:
    """Make a subclass of FrozenRecord a dataclass of keyword fields."""
    dataclass(init=False, eq=False, repr=False, kw_only=True)(kind)
    return kind


class FrozenRecord:
    """What a `frozen_record` inherits: it is made by keywords, compared by its fields, and never changed."""

    def __init__(self, **given: Any) -> None:
        kind: Any = type(self)
        defaults, made, needed = _beginnings(kind)
        if wrong := (needed - given.keys()) or (given.keys() - defaults.keys() - made.keys() - needed):
            raise TypeError(f"{type(self).__name__}: {', '.join(sorted(wrong))} missing or unknown")
        values = self.__dict__
        values.update(defaults)
        values.update((name, make()) for name, make in made.items() if name not in given)
        values.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        told = (f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)  # type: ignore[arg-type]
        return f"{type(self).__qualname__}({', '.join(told)})"


@cache
def _beginnings(kind: Any) -> tuple[Mapping[str, Any], Mapping[str, Callable[[], Any]], frozenset[str]]:
    """Return the fields' defaults, what makes the others', and the names that have to be given."""
    own = fields(kind)
    defaults = {one.name: one.default for one in own if one.default is not MISSING}
    made = {one.name: one.default_factory for one in own if one.default_factory is not MISSING}
    return defaults, made, frozenset(one.name for one in own) - defaults.keys() - made.keys()
