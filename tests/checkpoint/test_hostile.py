"""Nothing in a file may run, hang, or take memory: every file gets an answer, and the name is told.

The tripwire is armed for everything a pickle could do: calls and imports that the interpreter reports
(`sys.addaudithook`), in a process of its own for each corpus, because a hook cannot be taken out again.
"""

import pickle
import textwrap

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a
from tests.checkpoint.editing import edited
from tests.checkpoint.hostile import CLEAN, CONV_2D, DATA, PICKLE, Reduce, os_system, output_of


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


@pytest.mark.parametrize("body", RUNS_CODE.values(), ids=RUNS_CODE.keys())
def test_a_pickle_that_would_run_code_is_unsafe(body, tmp_path):
    verdict = scan(a.write(tmp_path / "evil.pt", body, DATA))
    assert verdict.badge == "unreadable" and not verdict.resumable and not verdict.usable
    assert verdict.findings[0].kind == "unsafe"


@pytest.mark.parametrize(
    ("body", "names"),
    [(RUNS_CODE["os.system"], "posix.system"), (RUNS_CODE["STACK_GLOBAL from memo"], "os.system"),
     (RUNS_CODE["eval"], "builtins.eval"), (RUNS_CODE["named only"], "os.system"),
     (RUNS_CODE["known package, unknown function"], "ultralytics.utils.downloads.safe_download"),
     (RUNS_CODE["cuts off after the call"], "os.system")],
)  # fmt: skip
def test_the_name_is_told(body, names, tmp_path):
    verdict = scan(a.write(tmp_path / "evil.pt", body, DATA))
    assert names in {finding.where for finding in verdict.findings}
    assert names in verdict.names_to_allow


def test_nothing_runs(tmp_path):
    """All of them in a process that reports every call, import, open file, socket and new process."""
    for index, body in enumerate(RUNS_CODE.values()):
        a.write(tmp_path / f"{index}.pt", body, DATA)
    (tmp_path / "legacy.pt").write_bytes(os_system())
    (tmp_path / "warm").mkdir()
    a.write(tmp_path / "warm" / "clean.pt", PICKLE, DATA)
    program = textwrap.dedent(
        """
        import sys, json, pathlib
        from nantui.checkpoint.scan import scan
        folder = pathlib.Path(sys.argv[1])
        paths = sorted(folder.glob("*.pt"))
        scan(folder / "warm" / "clean.pt")  # what is imported late is imported now
        modules, events, armed = set(sys.modules), [], True
        def hook(event, arguments):
            quiet = event == "open" and str(arguments[0]).startswith(str(folder))
            if armed and not quiet and event not in ("builtins.id", "time.sleep"):
                events.append([event, str(arguments)[:200]])
        sys.addaudithook(hook)
        badges = [scan(path).badge for path in paths]
        armed = False
        print(json.dumps({"badges": badges, "events": events, "new": sorted(set(sys.modules) - modules)}))
        """
    )
    told = output_of(program, tmp_path)
    assert set(told["badges"]) == {"unreadable"} and len(told["badges"]) == len(RUNS_CODE) + 1
    assert told["events"] == [] and told["new"] == []


class Attention(torch.nn.Module):
    """Somebody's own block."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(4, 4)
        torch.nn.init.zeros_(self.gate.weight)


class Setting:
    """Somebody's own class that is no module."""

    def __init__(self):
        self.value = 1


def with_attention(checkpoint):
    checkpoint["ema"].attention = Attention()


def with_setting(checkpoint):
    checkpoint["ema"].setting = Setting()


def test_a_module_class_of_ones_own_is_a_note(healthy, tmp_path):
    copy = edited(healthy, tmp_path / "copy.pt", with_attention)
    verdict = scan(copy)
    assert verdict.badge == "clean" and verdict.resumable
    (finding,) = verdict.findings
    assert finding.kind == "unknown-class" and finding.where.endswith(".Attention")
    assert verdict.names_to_allow == (finding.where,)
    assert scan(copy, allowed=verdict.names_to_allow).findings == ()


def test_any_other_class_is_unsafe_until_allowed(healthy, tmp_path):
    copy = edited(healthy, tmp_path / "copy.pt", with_setting)
    verdict = scan(copy)
    assert verdict.badge == "unreadable" and verdict.findings[0].where.endswith(".Setting")
    assert scan(copy, allowed=verdict.names_to_allow).badge == "clean"


def test_allowing_a_name_allows_no_other_trick(tmp_path):
    body = a.pickled(a.call("my", "thing") + b"(tR")
    assert scan(a.write(tmp_path / "x.pt", body, DATA), allowed=["my.thing"]).badge == "unreadable"


def test_names_cannot_steer_the_terminal(tmp_path):
    body = a.pickled(a.call("os\x1b[2J", "sys\x07tem", a.text("x")))
    verdict = scan(a.write(tmp_path / "x.pt", body, DATA))
    assert verdict.badge == "unreadable"
    for finding in verdict.findings:
        assert finding.where.isprintable() and finding.detail.isprintable()


# -- tensors that lie -----------------------------------------------------------------------------------

LIES = {
    "a shape of terabytes": a.tensor((1 << 40, 4), (4, 1)),
    "a stride beyond the record": a.tensor((2,), (1 << 40,)),
    "an offset beyond the record": a.tensor((4,), (1,), offset=1),
    "a storage of terabytes": a.tensor(of=a.storage(numel=1 << 44)),
    "a storage smaller than its record": a.tensor((2,), (1,), of=a.storage(numel=2)),
    "a record that is not there": a.tensor(of=a.storage(key="9")),
    "a record outside": a.tensor(of=a.storage(key="../../data.pkl")),
    "a negative size": a.tensor((-1,), (1,)),
    "a negative stride": a.tensor((2,), (-1,)),
    "more strides than sizes": a.tensor((4,), (1, 1)),
    "a thousand dimensions": a.tensor((1,) * 1000, (1,) * 1000),
    "the same bytes over and over": a.tensor((3, 3), (1, 1)) ,
    "one record as two storages": a.dictionary(x=a.tensor(), y=a.tensor(of=a.storage(kind="ShortStorage"))),
    "an unknown storage": a.tensor(of=a.storage(kind="QUInt8Storage")),
    "a storage of no type": a.tensor(
        of=b"(" + a.text("storage") + a.text("x") + a.text("0") + a.text("cpu") + b"K\x04tQ"
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_a_tensor_that_lies_is_unreadable(body, tmp_path):
    verdict = scan(a.write(tmp_path / "lie.pt", a.pickled(a.dictionary(model=body)), DATA))
    assert verdict.badge == "unreadable"
    assert {finding.kind for finding in verdict.findings} & {"unsafe", "torn", "cannot-read"}


def test_the_same_tensor_told_truly_is_clean(tmp_path):
    body = a.pickled(a.dictionary(model=a.tensor((2, 2), (2, 1))))
    assert scan(a.write(tmp_path / "true.pt", body, DATA), crc=True).badge == "clean"
