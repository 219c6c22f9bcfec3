"""The types of what files say: JSON, YAML, and settings by name.

Whatever came out of a file may hold anything: a value is an `object` until somebody has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from nantui.run.json_fields import fields_of

Setting: TypeAlias = object
"""One value as Ultralytics or nantui takes it: True, 64, 0.01, "auto", None, a list of class numbers."""
Settings: TypeAlias = Mapping[str, Setting]
Document: TypeAlias = dict[str, object]
"""A JSON or YAML object."""
JsonObject: TypeAlias = dict[str, Any]
"""A JSON object in a shape of our own: a request, an answer, a plan. Whoever reads one from a file says what
happens when it has another."""


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
