"""One small function per opcode, for all that the machine's loop does not handle itself.

Each does to the stack what CPython's unpickler does (Modules/_pickle.c), with inert values.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from nantui.checkpoint import opcodes as op
from nantui.checkpoint.symbols import Group, Pairs, Refused

if TYPE_CHECKING:
    from nantui.checkpoint.machine import Machine

_MOST_DIGITS = 1000

_FLOAT = struct.Struct(">d")
_INT2 = struct.Struct("<H")
_INT4 = struct.Struct("<i")
_UINT4 = struct.Struct("<I")
_UINT8 = struct.Struct("<Q")


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _int_line(m: Machine) -> None:
    text = m.line()
    m.push({"00": False, "01": True}[text] if text in ("00", "01") else _decimal(text))


def _long_line(m: Machine) -> None:
    m.push(_decimal(m.line().removesuffix("L")))


def _decimal(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError
    return int(text, 0)


def _long(m: Machine, count: int) -> None:
    m.push(int.from_bytes(m.take(count), "little", signed=True))


def _text(m: Machine, count: int) -> None:
    m.push(str(m.take(count), "utf-8", "surrogatepass"))


def _string_line(m: Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'" or "\\" in text:
        raise ValueError
    m.push(text[1:-1])


def _tuple(m: Machine, count: int) -> None:
    if len(m.stack) < count:
        raise IndexError
    items = tuple(m.stack[-count:])
    del m.stack[-count:]
    m.push(items)


def _put(m: Machine, index: int) -> None:
    if not 0 <= index < 1 << 32:
        raise ValueError
    m.memo[index] = m.stack[-1]


def _make(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.make(m.stack[-1], args)


def _make_with_keywords(m: Machine) -> None:
    m.stack.pop()
    m.remark("data.pkl", "it passes keyword arguments to a constructor")
    _make(m)


def _build(m: Machine) -> None:
    state = m.stack.pop()
    m.build(m.stack[-1], state)


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.put_items(m.stack[-1], [key, value])


def _set_items(m: Machine) -> None:
    items = m.pop_mark()
    m.put_items(m.stack[-1], items)


def _append(m: Machine) -> None:
    item = m.stack.pop()
    m.append(m.stack[-1], [item])


def _append_all(m: Machine) -> None:
    items = m.pop_mark()
    m.append(m.stack[-1], items)


def _add_items(m: Machine) -> None:
    items = m.pop_mark()
    if type(m.stack[-1]) is not Group:
        raise TypeError
    m.stack[-1].extend(items)


def _global(m: Machine) -> None:
    module = m.line()
    m.push(m.name(module, m.line()))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    m.push(m.name(module, name))


def _instantiate_line(m: Machine) -> None:
    module = m.line()
    name = m.name(module, m.line())
    m.push(m.call(name, tuple(m.pop_mark())))


def _instantiate(m: Machine) -> None:
    items = m.pop_mark()
    m.push(m.call(items[0], tuple(items[1:])))


def _extension(m: Machine, count: int) -> None:
    code = int.from_bytes(m.take(count), "little")
    m.remark(f"extension {code}", "it uses Python's extension registry to name something")
    m.push(m.name("copyreg", f"extension_{code}"))


def _persistent(m: Machine) -> None:
    m.push(m.storage(m.stack.pop()))


def _persistent_line(m: Machine) -> None:
    m.push(m.storage(m.line()))


def _protocol(m: Machine) -> None:
    if m.take(1)[0] > 5:
        raise ValueError


def _frame(m: Machine) -> None:
    if m.number(_UINT8) > len(m.data) - m.position:
        raise IndexError


def _dict(m: Machine) -> None:
    items = m.pop_mark()
    if len(items) % 2:
        raise ValueError
    m.push(Pairs(items))


def _out_of_band(m: Machine) -> None:
    raise Refused("unsafe", "data.pkl", "it uses out-of-band buffers, which torch.save never writes")


def _unknown(m: Machine) -> None:
    raise ValueError


def _table() -> list[Any]:
    """Return the handlers of all opcodes that `Machine._run` does not handle itself.

    Longer than forty lines because there are as many opcodes, a line each.
    """
    table: list[Any] = [_unknown] * 256
    table[op.POP] = _pop
    table[op.POP_MARK] = lambda m: m.pop_mark()
    table[op.DUP] = lambda m: m.push(m.stack[-1])
    table[op.FLOAT] = lambda m: m.push(float(m.line()))
    table[op.BINFLOAT] = lambda m: m.push(m.number(_FLOAT))
    table[op.INT], table[op.LONG] = _int_line, _long_line
    table[op.BININT] = lambda m: m.push(m.number(_INT4))
    table[op.BININT2] = lambda m: m.push(m.number(_INT2))
    table[op.LONG1] = lambda m: _long(m, m.take(1)[0])
    table[op.LONG4] = lambda m: _long(m, m.number(_INT4))
    table[op.NONE] = lambda m: m.push(None)
    table[op.NEWTRUE] = lambda m: m.push(True)
    table[op.STRING] = _string_line
    table[op.UNICODE] = lambda m: m.push(m.line().encode("latin-1").decode("raw-unicode-escape"))
    table[op.BINSTRING] = lambda m: _text(m, m.number(_INT4))
    table[op.SHORT_BINSTRING] = table[op.SHORT_BINUNICODE] = lambda m: _text(m, m.take(1)[0])
    table[op.BINUNICODE8] = lambda m: _text(m, m.number(_UINT8))
    table[op.BINBYTES] = lambda m: m.push(m.take(m.number(_UINT4)))
    table[op.SHORT_BINBYTES] = lambda m: m.push(m.take(m.take(1)[0]))
    table[op.BINBYTES8] = table[op.BYTEARRAY8] = lambda m: m.push(m.take(m.number(_UINT8)))
    table[op.EMPTY_LIST] = lambda m: m.push([])
    table[op.EMPTY_SET] = lambda m: m.push(Group())
    table[op.DICT] = _dict
    table[op.LIST] = lambda m: m.push(m.pop_mark())
    table[op.FROZENSET] = lambda m: m.push(Group(m.pop_mark()))
    table[op.TUPLE2] = lambda m: _tuple(m, 2)
    table[op.TUPLE3] = lambda m: _tuple(m, 3)
    table[op.SETITEM], table[op.SETITEMS] = _set_item, _set_items
    table[op.APPEND], table[op.APPENDS], table[op.ADDITEMS] = _append, _append_all, _add_items
    table[op.GET] = lambda m: m.push(m.memo[_decimal(m.line())])
    table[op.LONG_BINGET] = lambda m: m.push(m.memo[m.number(_UINT4)])
    table[op.PUT] = lambda m: _put(m, _decimal(m.line()))
    table[op.BINPUT] = lambda m: _put(m, m.take(1)[0])
    table[op.MEMOIZE] = lambda m: _put(m, len(m.memo))
    table[op.GLOBAL], table[op.STACK_GLOBAL] = _global, _stack_global
    table[op.INST], table[op.OBJ] = _instantiate_line, _instantiate
    table[op.NEWOBJ], table[op.NEWOBJ_EX] = _make, _make_with_keywords
    table[op.BUILD] = _build
    table[op.EXT1] = lambda m: _extension(m, 1)
    table[op.EXT2] = lambda m: _extension(m, 2)
    table[op.EXT4] = lambda m: _extension(m, 4)
    table[op.BINPERSID], table[op.PERSID] = _persistent, _persistent_line
    table[op.PROTO], table[op.FRAME] = _protocol, _frame
    table[op.NEXT_BUFFER] = table[op.READONLY_BUFFER] = _out_of_band
    return table


TABLE = _table()
