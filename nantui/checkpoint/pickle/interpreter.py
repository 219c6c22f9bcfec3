"""A pickle interpreter that describes instead of doing: it imports nothing, calls nothing, sets nothing.

It follows CPython's unpickler opcode by opcode (Modules/_pickle.c), so that what it sees is what a load
would do, and refuses the opcodes that torch.save never writes. It is bounded: in bytes, in opcodes and in
what one opcode may allocate. There is no recursion. Where a real load would raise, it stops; what was named
until then still counts, because a load would have run it.
"""

from __future__ import annotations

import pickle as op
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from nantui.checkpoint.pickle.allowlist import CALLABLE, DICTIONARIES
from nantui.checkpoint.pickle.stand_ins import (
    CALLS,
    Group,
    Instance,
    Name,
    Ordered,
    Pairs,
    Refused,
    Storage,
    ordered,
    plain,
    storage_of,
)

_FLOAT = struct.Struct(">d")
_INT2 = struct.Struct("<H")
_INT4 = struct.Struct("<i")
_UINT8 = struct.Struct("<Q")
MOST_OPCODES = 1_000_000  # YOLOv8x with AdamW has about 110,000
MOST_NAMES = 2_000  # a checkpoint names a few dozen
MOST_COPIED = 4 << 20  # characters, bytes and elements that calls may copy: a call can be made repeatedly
Operation: TypeAlias = "Callable[[Interpreter], object]"
"""What one opcode does to the interpreter's stack; what it returns is not looked at."""
_COPIED = frozenset({str, bytes, list, tuple})
_UINT4 = struct.Struct("<I")


class Interpreter:
    """One run over one pickle. After `run`, `names` tells what it mentions, calls and makes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.names: dict[tuple[str, str], Name] = {}
        self.storages: dict[str, Storage] = {}
        self.sealed: set[int] = set()
        self.ordered: object = self  # the name of OrderedDict, once it has come up
        self.copied = 0
        self.remarks: list[tuple[str, str]] = []

    def run(self) -> object:
        """Return the root object. Raises Refused where a load would fail or do something unknown."""
        try:
            return self._run()
        except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
            raise self._broken(type(error).__name__) from None

    def _broken(self, what: str) -> Refused:
        return Refused("torn", "data.pkl", f"the pickle is damaged at byte {self.position} ({what})")

    def _run(self) -> object:
        # Longer than forty lines: a few opcodes are nine tenths of a checkpoint, and handling them here
        # instead of through the table halves the time. So does seeing at once that `OrderedDict()` is
        # written (name from the memo, no arguments, call), which every module has a dozen of.
        data, memo = self.data, self.memo
        stack, position = self.stack, self.position
        table, unpack, ordered = TABLE, _UINT4.unpack_from, self.ordered
        for _ in range(MOST_OPCODES):
            code = data[position]
            position += 1
            if code == 0x68:  # BINGET
                value = memo[data[position]]
                position += 1
                if value is ordered and data[position : position + 3] == b")Rr":
                    value = memo[unpack(data, position + 3)[0]] = Ordered()
                    position += 7
                stack.append(value)
            elif code == 0x72:  # LONG_BINPUT
                memo[unpack(data, position)[0]] = stack[-1]
                position += 4
            elif code == 0x4B:  # BININT1
                stack.append(data[position])
                position += 1
            elif code == 0x29:  # EMPTY_TUPLE
                stack.append(())
            elif code == 0x28:  # MARK
                self.marks.append(stack)
                stack = self.stack = []
            elif code == 0x74:  # TUPLE
                items = tuple(stack)
                stack = self.stack = self.marks.pop()
                stack.append(items)
            elif code == 0x52:  # REDUCE
                args = stack.pop()
                stack[-1] = self.call(stack[-1], args)
            elif code == 0x7D:  # EMPTY_DICT
                stack.append(Pairs())
            elif code == 0x89:  # NEWFALSE
                stack.append(False)
            elif code == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
            elif code == 0x58:  # BINUNICODE
                end = position + 4 + unpack(data, position)[0]
                if end > len(data):
                    raise IndexError
                stack.append(str(data[position + 4 : end], "utf-8", "surrogatepass"))
                position = end
            elif code == 0x2E:  # STOP
                return stack.pop()
            else:
                self.position = position
                table[code](self)
                stack, position, ordered = self.stack, self.position, self.ordered
        raise Refused("cannot-read", "data.pkl", f"it has more than {MOST_OPCODES} opcodes")

    # -- reading arguments -------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise IndexError
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def line(self) -> str:
        end = self.data.index(b"\n", self.position)
        text = self.data[self.position : end]
        self.position = end + 1
        return text.decode("utf-8")

    def number(self, shape: struct.Struct) -> Any:
        return shape.unpack(self.take(shape.size))[0]

    def pop_mark(self) -> list[object]:
        """Return what was pushed since the last MARK, and go back to the stack below it."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def push(self, value: object) -> None:
        self.stack.append(value)

    # -- names and calls ---------------------------------------------------------------------------

    def name(self, module: str, name: str) -> Name:
        """Return the inert stand-in for a global; the same one each time."""
        found = self.names.get((module, name))
        if found is None:
            if len(self.names) >= MOST_NAMES:
                raise Refused("unsafe", "data.pkl", f"it names more than {MOST_NAMES} things")
            found = self.names[(module, name)] = Name(module, name)
            if found.text == "collections.OrderedDict":
                self.ordered = found
                found.called = True
        return found

    def call(self, function: object, args: object) -> object:
        """Note a call, and return what it would describe."""
        if type(args) is not tuple:
            raise TypeError
        if type(function) is not Name:
            self.remark("data.pkl", "it calls the result of another call")
            return None
        function.called = True
        self.copied += sum([len(part) for part in args if type(part) in _COPIED])
        if self.copied > MOST_COPIED:
            raise Refused("cannot-read", "data.pkl", "its calls copy more than a checkpoint holds")
        handler = CALLS.get(function.text)
        if handler is not None:
            return handler(args)
        if function.text in DICTIONARIES:
            return ordered(args, function)
        if function.text in CALLABLE:
            return plain(args, function)
        return Instance(function, args, False)

    def make(self, cls: object, args: object) -> Instance:
        """Note an instantiation without a call (`cls.__new__(cls, *args)`)."""
        if type(args) is not tuple or type(cls) is not Name:
            raise TypeError
        cls.made = True
        if args:
            cls.called = True  # constructor arguments are as good as a call
        instance = Instance(cls, args, made=True)
        cls.instances.append(instance)
        return instance

    def build(self, state: Any) -> None:
        """Note the state of the instance on the stack; once, and only a plain dictionary for a made one."""
        target = self.stack[-1]
        if type(target) is Ordered:  # attributes of a dictionary: a state_dict has one
            if type(state) not in (Pairs, Ordered) or state[::2] != ["_metadata"]:
                self.remark("data.pkl", "it gives a dictionary attributes that would hide its methods")
            return
        if type(target) is not Instance:
            self.remark("data.pkl", f"it changes a {type(target).__name__.lower()} in place")
            return
        plain = type(state) is Pairs or (not target.made and type(state) is tuple)
        if target.state is not None or not plain or id(state) in self.sealed:
            self.remark(target.cls.text, "its state is set in a way torch.save does not write")
            return
        target.state = state
        self.sealed.add(id(state))

    def add(self, kinds: tuple[type, ...], items: list[object], how: str) -> None:
        """Note what the container of these kinds on top of the stack gets."""
        target: Any = self.stack[-1]
        if type(target) in kinds and id(target) not in self.sealed:
            target += items
        elif type(target) is Instance:
            self.remark(target.cls.text, f"{how} it, which runs its code")
        else:
            raise TypeError

    def put_items(self, items: list[object]) -> None:
        """Note entries of the dictionary on top of the stack."""
        if len(items) % 2:
            raise ValueError
        self.add((Pairs, Ordered), items, "items are set on")

    def remark(self, where: str, detail: str) -> None:
        """Remember something that torch.save does not write; the first few are enough."""
        if len(self.remarks) < 20:
            self.remarks.append((where, detail))

    def storage(self, pid: object) -> Storage:
        """Return the storage of a persistent id; the same record cannot be two different ones."""
        wanted = storage_of(pid)
        known = self.storages.setdefault(wanted.key, wanted)
        if known is not wanted and known != wanted:
            raise Refused("unsafe", f"data/{wanted.key}", "one record is claimed as two different storages")
        return known


def _tuple(m: Interpreter, count: int) -> None:
    if len(m.stack) < count:
        raise IndexError
    items = tuple(m.stack[-count:])
    del m.stack[-count:]
    m.push(items)


def _put(m: Interpreter, index: int) -> None:
    m.memo[index] = m.stack[-1]


def _make(m: Interpreter) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.make(m.stack[-1], args)


def _stack_global(m: Interpreter) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    m.push(m.name(module, name))


def _protocol(m: Interpreter) -> None:
    if m.take(1)[0] > 5:
        raise ValueError


def _frame(m: Interpreter) -> None:
    if m.number(_UINT8) > len(m.data) - m.position:
        raise IndexError


def _never_written(m: Interpreter) -> None:
    raise Refused("unsafe", "data.pkl", f"an opcode at byte {m.position - 1} that torch.save never writes")


def _unknown(m: Interpreter) -> None:
    raise ValueError


HANDLERS: dict[bytes, Operation] = {
    op.POP: lambda m: m.stack.pop() if m.stack else m.pop_mark(),
    op.POP_MARK: lambda m: m.pop_mark(),
    op.BINFLOAT: lambda m: m.push(m.number(_FLOAT)),
    op.BININT: lambda m: m.push(m.number(_INT4)),
    op.BININT2: lambda m: m.push(m.number(_INT2)),
    op.LONG1: lambda m: m.push(int.from_bytes(m.take(m.take(1)[0]), "little", signed=True)),
    op.LONG4: lambda m: m.push(int.from_bytes(m.take(m.number(_INT4)), "little", signed=True)),
    op.NONE: lambda m: m.push(None),
    op.NEWTRUE: lambda m: m.push(True),
    op.SHORT_BINUNICODE: lambda m: m.push(str(m.take(m.take(1)[0]), "utf-8", "surrogatepass")),
    op.BINBYTES: lambda m: m.push(m.take(m.number(_UINT4))),
    op.SHORT_BINBYTES: lambda m: m.push(m.take(m.take(1)[0])),
    op.BYTEARRAY8: lambda m: m.push(m.take(m.number(_UINT8))),
    op.EMPTY_LIST: lambda m: m.push([]),
    op.EMPTY_SET: lambda m: m.push(Group()),
    op.FROZENSET: lambda m: m.push(Group(m.pop_mark())),
    op.TUPLE2: lambda m: _tuple(m, 2),
    op.TUPLE3: lambda m: _tuple(m, 3),
    op.SETITEM: lambda m: m.put_items([m.stack.pop(), m.stack.pop()][::-1]),
    op.SETITEMS: lambda m: m.put_items(m.pop_mark()),
    op.APPEND: lambda m: m.add((list,), [m.stack.pop()], "an element is appended to"),
    op.APPENDS: lambda m: m.add((list,), m.pop_mark(), "elements are appended to"),
    op.ADDITEMS: lambda m: m.add((Group,), m.pop_mark(), "elements are added to"),
    op.LONG_BINGET: lambda m: m.push(m.memo[m.number(_UINT4)]),
    op.BINPUT: lambda m: _put(m, m.take(1)[0]),
    op.MEMOIZE: lambda m: _put(m, len(m.memo)),
    op.GLOBAL: lambda m: m.push(m.name(m.line(), m.line())),
    op.STACK_GLOBAL: _stack_global,
    op.NEWOBJ: _make,
    op.BUILD: lambda m: m.build(m.stack.pop()),
    op.BINPERSID: lambda m: m.push(m.storage(m.stack.pop())),
    op.PROTO: _protocol,
    op.FRAME: _frame,
}
"""The opcodes that torch.save writes, in protocols 2 to 5, but those that `_run` handles itself."""
NEVER_WRITTEN = b"2FILSTUVdgilopP" + bytes([0x82, 0x83, 0x84, 0x8D, 0x8E, 0x92, 0x97, 0x98])
"""The rest of Lib/pickletools.py: protocols 0 and 1, texts of gigabytes, and calls by other ways."""
TABLE: list[Operation] = [_never_written if code in NEVER_WRITTEN else _unknown for code in range(256)]
for _code, _handler in HANDLERS.items():
    TABLE[_code[0]] = _handler
