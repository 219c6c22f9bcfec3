"""What the tests of hostile files share: calls to trip over, and a program of its own for each corpus."""

import json
import pickle
import struct
import subprocess
import sys

from tests.checkpoint import archives as a

CLEAN = a.tensor()
DATA = {"data/0": struct.pack("<4e", 1, 2, 3, 4)}
PICKLE = a.pickled(a.dictionary(model=CLEAN))
CONV_2D = a.name("torch.nn.modules.conv", "Conv2d")


class Reduce:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def os_system():
    import os

    return pickle.dumps(Reduce(os.system, "touch /tmp/nantui-tripwire"), 2)


def nested():
    return pickle.dumps(Reduce(pickle.loads, os_system()), 2)


def chained():
    import functools
    import operator

    return pickle.dumps(Reduce(functools.reduce, operator.add, [[1], [2]]), 2)


def stack_global_from_memo():
    """The module name comes from the memo, the attribute from a concatenation-free string, protocol 4."""
    return b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x04true\x85R."


def name_split_over_memo():
    return b"\x80\x04" + b"\x8c\x05posix\x94" + b"0" + b"h\x00\x8c\x06system\x93\x8c\x01x\x85R."


RUNS_CODE = {
    "os.system": os_system(),
    "nested pickle": nested(),
    "chain of calls": chained(),
    "STACK_GLOBAL from memo": stack_global_from_memo(),
    "STACK_GLOBAL half from memo": name_split_over_memo(),
    "eval": a.pickled(a.call("builtins", "eval", a.text("1+1"))),
    "eval of Python 2": a.pickled(a.call("__builtin__", "eval", a.text("1+1"))),
    "exec": a.pickled(a.call("builtins", "exec", a.text("import os"))),
    "getattr": a.pickled(a.call("builtins", "getattr", a.name("os", "path"), a.text("join"))),
    "import": a.pickled(a.call("builtins", "__import__", a.text("os"))),
    "named only": a.pickled(a.dictionary(x=a.name("os", "system"), w=CLEAN)),
    "instance": a.pickled(b"(" + a.text("true") + b"i" + b"os\nsystem\n."),
    "object": a.pickled(b"(" + a.name("os", "system") + a.text("true") + b"o"),
    "popen by NEWOBJ": a.pickled(a.name("subprocess", "Popen") + b"(" + a.text("true") + b"t\x81"),
    "call of a call": a.pickled(a.call("functools", "partial", a.name("os", "system")) + b"(K\x01tR"),
    "extension registry": a.pickled(b"\x82\x01)R"),
    "torch.load": a.pickled(a.call("torch.storage", "_load_from_bytes", b"C\x03abc")),
    "torch.hub": a.pickled(a.call("torch.hub", "load", a.text("a/b"), a.text("c"))),
    "known package, unknown function": a.pickled(
        a.call("ultralytics.utils.downloads", "safe_download", a.text("http://x"))
    ),
    "dotted attribute": b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.fromkeys.__self__\x93)R.",
    "graph module": a.pickled(a.call("torch.fx.graph_module", "reduce_graph_module", b"}", a.text("x"))),
    "behind the root": a.pickled(a.call("os", "system", a.text("x")) + b"0" + a.dictionary(w=CLEAN)),
    "before an error": a.pickled(a.call("os", "system", a.text("x")) + b"\xff"),
    "cuts off after the call": b"\x80\x02" + a.call("os", "system", a.text("x")),
    "items on an object": a.pickled(
        a.name("ultralytics.utils", "SettingsManager") + b")\x81" + a.dictionary(file_path=a.text("/tmp/x"))
        + b"b(" + a.text("k") + a.text("v") + b"u"
    ),
    "state of a class": a.pickled(
        a.name("torch.nn.modules.module", "Module") + b"N" + a.dictionary(forward=a.text("x")) + b"\x86b"
    ),
    "slots of an instance": a.pickled(
        CONV_2D + b")\x81N" + a.dictionary(__class__=a.name("torch.nn.modules.conv", "Conv1d")) + b"\x86b"
    ),
    "state set twice": a.pickled(
        CONV_2D + b")\x81" + a.dictionary(x=b"K\x01") + b"b" + a.dictionary(x=b"K\x02") + b"b"
    ),
    "constructor arguments": a.pickled(CONV_2D + b"(K\x01t\x81"),
    "module class called": a.pickled(a.call("torch.nn.modules.conv", "Conv2d", b"K\x01", b"K\x01", b"K\x01")),
    "codec": a.pickled(a.call("_codecs", "encode", a.text("x"), a.text("zlib"))),
    "gigantic bytearray": a.pickled(a.call("builtins", "bytearray", a.number(1 << 45))),
    "object dtype": a.pickled(
        a.call("numpy", "dtype", a.text("O8"), b"\x89", b"\x88") + b"q\x000"
        + a.name("numpy.core.multiarray", "scalar") + b"(h\x00C\x03abctR"
    ),
    "out of band": b"\x80\x05\x97.",
    "hidden by a jump of the stack": a.pickled(
        b"((" + a.call("os", "system", a.text("x")) + b"10" + a.dictionary(w=CLEAN)
    ),
}  # fmt: skip


def output_of(program, folder):
    """Run a program in a Python of its own on a folder of files; it prints JSON."""
    command = [sys.executable, "-c", program, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
