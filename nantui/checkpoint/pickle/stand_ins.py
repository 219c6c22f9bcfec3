"""What a pickle describes, as inert values: names are kept as names, calls as notes, nothing is made.

Each of the few calls that torch.save writes takes the argument tuple as pickled and returns the inert value,
or refuses what torch.save does not write: a hostile shape, a `bytearray` of a terabyte, a codec other than
latin-1.

Dictionaries become flat lists of keys and values (`Pairs`): a hostile pickle then cannot make us hash
colliding or deeply nested keys, and shared references cost nothing.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_STORAGE = re.compile(r"torch(?:\.storage)?\.([A-Za-z0-9]+)Storage")
_STORAGE_DTYPES = {
    "Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64",
    "Half": "float16", "Float": "float32", "Double": "float64", "BFloat16": "bfloat16",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip
_DTYPE_ALIASES = {"half": "float16", "float": "float32", "double": "float64", "long": "int64", "int": "int32"}
_MOST_DIMENSIONS = 64  # as in PyTorch
_LARGEST = 1 << 62
_NUMPY_SCALARS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B"}
_NUMPY_SCALARS |= {"u2": "H", "u4": "I", "u8": "Q", "b1": "?"}


class Refused(Exception):
    """The file is not what a checkpoint of `torch.save` looks like; carries the finding to report."""

    def __init__(self, kind: str, where: str, detail: str) -> None:
        super().__init__(kind, where, detail)
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


def storage_of(pid: object) -> Storage:
    """Return the storage that a persistent id names: `("storage", type, key, location, numel)`."""
    if type(pid) is not tuple or len(pid) != 5 or pid[0] != "storage" or type(pid[1]) is not Name:
        raise _odd("a persistent id that is not a storage")
    dtype = _storage_dtype(pid[1].text)
    if dtype is None or type(pid[2]) is not str or not _size(pid[4]):
        raise _odd("a storage of an unknown type")
    return Storage(pid[2], dtype, pid[4])


@functools.lru_cache(maxsize=64)
def _storage_dtype(text: str) -> str | None:
    match = _STORAGE.fullmatch(text)
    return _STORAGE_DTYPES.get(match[1]) if match else None


def tensor(args: tuple[object, ...]) -> Tensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)` and its elder sister."""
    if len(args) < 4 or type(args[0]) is not Storage:
        raise _odd("a tensor without a storage")
    return _view(args[0], args[0].dtype, args[1], args[2], args[3])


def tensor_v3(args: tuple[object, ...]) -> Tensor:
    """`torch._utils._rebuild_tensor_v3`: the dtype is an argument, the storage is untyped."""
    if len(args) < 7 or type(args[0]) is not Storage or type(args[6]) is not Name:
        raise _odd("a tensor without a storage or dtype")
    dtype = args[6].name
    return _view(args[0], _DTYPE_ALIASES.get(dtype, dtype), args[1], args[2], args[3])


def _view(storage: Storage, dtype: str, offset: Any, shape: object, stride: object) -> Tensor:
    if type(shape) is not tuple or type(stride) is not tuple or len(shape) != len(stride):
        raise _odd("a tensor whose shape and strides do not fit together")
    numbers = (offset, *shape, *stride)
    if len(shape) > _MOST_DIMENSIONS or not all(map(_size, numbers)):
        raise _odd("a tensor with an impossible shape")
    return Tensor(storage, dtype, offset, shape, stride)


def _size(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _parameter(args: tuple[object, ...]) -> Tensor:
    if not args or type(args[0]) is not Tensor:
        raise _odd("a parameter that is not a tensor")
    return args[0]


def _parameter_with_state(args: tuple[object, ...]) -> Tensor:
    """A parameter with attributes of its own: plain ones only, since setting `data` would swap its values."""
    state = items_of(args[3]) if len(args) > 3 else None
    scalars = (str, int, float, bool, type(None))
    if state is None or not all(type(part) in scalars for part in state):
        raise _odd("a parameter with attributes that are not plain")
    return _parameter(args)


def _group(args: tuple[Any, ...]) -> Group:
    if not args:
        return Group()
    if len(args) != 1 or type(args[0]) not in (list, tuple):
        raise _odd("a set that is not made from a list")
    return Group(args[0])


def _bytes(args: tuple[object, ...]) -> bytes:
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise _odd("bytes in a codec other than latin-1")
    return args[0].encode("latin-1", "replace")


def _no_bytes(args: tuple[object, ...]) -> bytes:
    """`bytes()`, which is how protocols 0 to 2 write an empty one; with a number it would be a bomb."""
    if args:
        raise _odd("bytes made from something")
    return b""


def _bytearray(args: tuple[object, ...]) -> bytes:
    if not args:
        return b""
    return args[0] if type(args[0]) is bytes else _bytes(args)


def _shape(args: tuple[Any, ...]) -> tuple[object, ...]:
    if len(args) != 1 or type(args[0]) not in (list, tuple) or len(args[0]) > _MOST_DIMENSIONS:
        raise _odd("a torch.Size that is not made from a few numbers")
    if not all(map(_size, args[0])):
        raise _odd("a torch.Size that is not made from numbers")
    return tuple(args[0])


def _scalar(args: tuple[Any, ...]) -> object:
    """`numpy.core.multiarray.scalar(dtype, bytes)` as a Python number; object dtypes would unpickle."""
    dtype = args[0] if args else None
    if type(dtype) is not Instance or dtype.cls.text != "numpy.dtype" or type(args[-1]) is not bytes:
        raise _odd("a numpy scalar of an unknown dtype")
    code = dtype.args[0].lstrip("<>=|")
    if code not in _NUMPY_SCALARS:
        raise _odd(f"a numpy scalar of dtype {code[:20]!r}")
    big = type(dtype.state) is tuple and len(dtype.state) > 1 and dtype.state[1] == ">"
    try:
        return struct.unpack((">" if big else "<") + _NUMPY_SCALARS[code], args[-1])[0]
    except struct.error:
        raise _odd("a numpy scalar of the wrong size") from None


def ordered(args: tuple[Any, ...], name: Name) -> Ordered:
    """`OrderedDict()` or `OrderedDict([[key, value], ...])`, and `defaultdict(factory)`."""
    made = Ordered()
    if not args or (name.name == "defaultdict" and (args[0] is None or type(args[0]) is Name)):
        return made
    if len(args) != 1 or type(args[0]) not in (list, tuple):
        raise _odd("a dictionary that is not made from pairs")
    for pair in args[0]:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise _odd("a dictionary that is not made from pairs")
        made += pair
    return made


def plain(args: tuple[object, ...], name: Name) -> Instance:
    """A call whose arguments may only be plain values: paths, dates, devices, numpy's own."""
    simple = (str, bytes, int, float, bool, type(None), tuple, list, Name, Instance)
    expected = _EXPECTED.get(name.text)
    if len(args) > 64 or not all(type(argument) in simple for argument in args):
        raise _odd(f"{name.text} with arguments that are not plain")
    if expected is not None and not expected(args):
        raise _odd(f"{name.text} with arguments that numpy does not write")
    return Instance(name, args, made=False)


def _is_empty_array(args: tuple[object, ...]) -> bool:
    """`_reconstruct(numpy.ndarray, (0,), b"b")`: an array of any other shape would be allocated at once."""
    return len(args) == 3 and type(args[0]) is Name and args[0].text == "numpy.ndarray" and args[1] == (0,)


_EXPECTED: dict[str, Callable[[tuple[object, ...]], bool]] = {
    "numpy.dtype": lambda args: bool(args) and type(args[0]) is str and len(args[0]) <= 32,
    "numpy.core.multiarray._reconstruct": _is_empty_array,
    "numpy._core.multiarray._reconstruct": _is_empty_array,
}
CALLS: dict[str, Callable[[tuple[object, ...]], object]] = {
    "torch._utils._rebuild_tensor": tensor, "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_v3, "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter_with_state, "builtins.set": _group,
    "__builtin__.set": _group, "builtins.frozenset": _group, "__builtin__.frozenset": _group,
    "builtins.bytearray": _bytearray, "__builtin__.bytearray": _bytearray, "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes, "_codecs.encode": _bytes, "torch.Size": _shape,
    "numpy.core.multiarray.scalar": _scalar, "numpy._core.multiarray.scalar": _scalar,
}  # fmt: skip


def _odd(detail: str) -> Refused:
    return Refused("unsafe", "data.pkl", f"it contains {detail}: torch.save writes nothing like it")
