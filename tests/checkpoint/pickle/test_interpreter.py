"""The pickle machine against CPython's unpickler: what ours describes is what a load would make."""

import collections
import pickle
import pickletools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nantui.checkpoint.pickle.interpreter import HANDLERS, Interpreter
from nantui.checkpoint.pickle.interpreter import NEVER_WRITTEN as NEVER_WRITTEN_CODES
from nantui.checkpoint.pickle.stand_ins import Group, Pairs, Refused

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def as_python(value):
    """Turn our inert values back into the Python values they describe."""
    if isinstance(value, Pairs):
        return {as_python(key): as_python(item) for key, item in value.entries()}
    if isinstance(value, Group):
        return frozenset(map(as_python, value))
    if type(value) is list:
        return [as_python(item) for item in value]
    return tuple(map(as_python, value)) if type(value) is tuple else value


def frozen(value):
    """CPython's result with sets made comparable."""
    if isinstance(value, dict):
        return {frozen(key): frozen(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return frozenset(map(frozen, value))
    if type(value) is list:
        return [frozen(item) for item in value]
    if type(value) is bytearray:
        return bytes(value)
    return tuple(map(frozen, value)) if type(value) is tuple else value


keys = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.binary(max_size=3))
plain = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20),
        st.binary(max_size=20), st.frozensets(st.integers(), max_size=4),
        st.builds(bytearray, st.binary(max_size=9)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.tuples(inner, inner, inner, inner),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict),
    ),
    max_leaves=20,
)  # fmt: skip


@given(plain, st.sampled_from([0, 1, 2, 3, 4]))
@SLOW
def test_plain_values_in_every_protocol(value, protocol):
    try:
        data = pickle.dumps(value, protocol)
    except ValueError:
        return  # protocol 0 cannot hold a huge integer's digits on some Pythons
    try:
        described = Interpreter(data).run()
    except Refused as refused:
        assert protocol < 2 or isinstance(value, bytearray) or "bytearray" in repr(value), refused
        return
    assert as_python(described) == frozen(value)


def simple_opcodes():
    """Opcodes with small arguments that name nothing, for random programs."""
    return st.sampled_from(
        [b"N", b"\x88", b"\x89", b"K\x07", b"M\x01\x02", b"J\xff\xff\xff\xff", b"G" + struct.pack(">d", 1.5),
         b"X\x01\x00\x00\x00a", b"\x8c\x01b", b"C\x01c", b"]", b"}", b")", b"(", b"t", b"l", b"d", b"a", b"e",
         b"s", b"u", b"\x85", b"\x86", b"\x87", b"0", b"1", b"2", b"q\x00", b"q\x01", b"h\x00", b"h\x01",
         b"\x94", b"\x8f", b"\x90", b"\x91", b"\x8a\x01\x05", b"I5\n", b"I01\n", b"F2.5\n", b"g0\n",
         b"p1\n", b"L9L\n",
         b"\x80\x02", b"b", b"\x81", b"R"]
    )  # fmt: skip


@given(st.lists(simple_opcodes(), max_size=25))
@settings(max_examples=1500, deadline=None)
def test_random_programs_agree_with_cpython(program):
    """Where CPython makes a value, we describe the same one or refuse; we may be stricter, never laxer."""
    data = b"\x80\x04" + b"".join(program) + b"."
    interpreter = Interpreter(data)
    try:
        described = interpreter.run()
    except Refused:
        return
    if interpreter.remarks:
        return
    try:
        expected = pickle.loads(data)
    except TypeError as error:
        assert "unhashable" in str(error)  # we never hash a key, so we cannot mind
        return
    try:
        assert as_python(described) == frozen(expected)
    except (RecursionError, TypeError):
        assert b"h" in data or b"g" in data  # a container put into itself


OPCODES = {one.code.encode("latin-1"): one.name for one in pickletools.opcodes}
NEVER_WRITTEN = {code: name for code, name in OPCODES.items() if code in NEVER_WRITTEN_CODES}


def test_every_opcode_of_cpythons_is_known():
    elsewhere = {name for code, name in OPCODES.items() if code not in HANDLERS | NEVER_WRITTEN}
    assert elsewhere == {
        "BINGET", "LONG_BINPUT", "BININT1", "EMPTY_TUPLE", "MARK", "TUPLE", "REDUCE", "EMPTY_DICT",
        "NEWFALSE", "TUPLE1", "BINUNICODE", "STOP",
    }, "those in the interpreter's own loop"  # fmt: skip
    assert len(NEVER_WRITTEN) == len(NEVER_WRITTEN_CODES) and HANDLERS.keys() <= OPCODES.keys()


@pytest.mark.parametrize("code", NEVER_WRITTEN, ids=NEVER_WRITTEN.values())
def test_an_opcode_that_torch_never_writes_is_unsafe(code):
    with pytest.raises(Refused) as refused:
        Interpreter(b"\x80\x02]" + code + bytes(9)).run()
    assert refused.value.kind == "unsafe"


@pytest.mark.parametrize("size", range(0, 400, 7))
def test_a_pickle_cut_anywhere_is_refused(size):
    data = pickle.dumps({"a": [1, 2.5, "x" * 50, (None, True)], "b": {"c": list(range(50))}}, 2)
    if size < len(data) - 1:
        with pytest.raises(Refused):
            Interpreter(data[:size]).run()
