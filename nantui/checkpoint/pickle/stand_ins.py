"""What a pickle describes, as inert values: names are kept as names, calls as notes, nothing is made.

Dictionaries become flat lists of keys and values (`Pairs`): a hostile pickle then cannot make us hash
colliding or deeply nested keys, and shared references cost nothing. The classes are plain and small
because a checkpoint has thousands of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """The file is not what a checkpoint of `torch.save` looks like; carries the finding to report."""

    def __init__(self, kind: str, where: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.where, self.detail = kind, where, detail


class Pairs(list):
    """A pickled dictionary as `[key, value, key, value, ...]`, in the order of the file."""

    __slots__ = ()

    def entries(self) -> Iterator[tuple[object, object]]:
        """Yield (key, value), duplicates included."""
        return zip(self[::2], self[1::2], strict=True)

    def named(self) -> dict[str, object]:
        """Return the entries whose key is a string; of duplicates the last one, as in a dictionary."""
        keys = self[::2]
        if set(map(type, keys)) <= {str}:
            return dict(zip(keys, self[1::2], strict=True))
        return {key: value for key, value in self.entries() if type(key) is str}


class Ordered(Pairs):
    """A pickled OrderedDict or defaultdict: a dictionary that may have attributes, which we leave out."""

    __slots__ = ()


class Group(list):
    """A pickled set or frozenset."""

    __slots__ = ()


class Name:
    """A global the pickle names: `module` and `name` as written, never imported."""

    __slots__ = ("called", "instances", "made", "module", "name", "text")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name, self.text = module, name, f"{module}.{name}"
        self.called = self.made = False
        self.instances: list[Instance] = []  # made of it without a call

    def __repr__(self) -> str:
        return f"<{self.text}>"


class Instance:
    """An object made by NEWOBJ or a call: the name it was made from, its arguments and its state."""

    __slots__ = ("args", "cls", "made", "state")

    def __init__(self, cls: Name, args: Any, made: bool) -> None:
        self.cls, self.args, self.made = cls, args, made
        self.state: Any = None


@dataclass(slots=True)
class Storage:
    """A record of raw bytes: its key in the zip, its dtype and its number of elements as claimed."""

    key: str
    dtype: str
    numel: int


@dataclass(slots=True, eq=False)
class Tensor:
    """A view into a storage; offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements the shape claims."""
        return math.prod(self.shape)


def items_of(value: object) -> Pairs | None:
    """Return a dictionary's entries, plain or ordered; None for anything else."""
    return value if isinstance(value, Pairs) else None
