"""Nothing in a file may run, hang, or take memory: every file gets an answer, and the name is told.

The tripwire is armed for everything a pickle could do: calls and imports that the interpreter reports
(`sys.addaudithook`), in a process of its own for each corpus, because a hook cannot be taken out again.
"""

import json
import pickle
import struct
import subprocess
import sys
import textwrap
import zlib

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a
from tests.checkpoint.editing import edited

CLEAN = a.tensor()
CONV_2D = a.name("torch.nn.modules.conv", "Conv2d")
DATA = {"data/0": struct.pack("<4e", 1, 2, 3, 4)}


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


def output_of(program, folder):
    """Run a program in a Python of its own on a folder of files; it prints JSON."""
    command = [sys.executable, "-c", program, str(folder)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


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


# -- zips that lie --------------------------------------------------------------------------------------

PICKLE = a.pickled(a.dictionary(model=CLEAN))
GOOD = [(b"archive/data.pkl", PICKLE), (b"archive/data/0", DATA["data/0"]), (b"archive/version", b"3\n")]


def polyglot():
    """A legacy pickle in front, a whole zip behind: torch would run the pickle."""
    return os_system() + a.raw_zip(GOOD)


def with_comment():
    data = bytearray(a.raw_zip(GOOD))
    data[-2:] = struct.pack("<H", 22)
    return bytes(data) + a.end(0, 0, 0)


ZIPS = {
    "a second data.pkl": a.raw_zip([*GOOD, (b"archive/data.pkl", os_system())]),
    "a second data.pkl in capitals": a.raw_zip([*GOOD, (b"archive/DATA.PKL", os_system())]),
    "a name that climbs": a.raw_zip([*GOOD, (b"archive/../../x", b"x")]),
    "a name of another archive": a.raw_zip([*GOOD, (b"other/data.pkl", os_system())]),
    "an absolute name": a.raw_zip([*GOOD, (b"/etc/passwd", b"x")]),
    "a name of another system": a.raw_zip([*GOOD, (b"archive/..\\x", b"x")]),
    "a size of terabytes": a.raw_zip(GOOD, {1: 0xFFFFFFF0}),
    "a size that swallows the next record": a.raw_zip(GOOD, {1: len(DATA["data/0"]) + 40}),
    "a size too small": a.raw_zip(GOOD, {1: 6}),
    "a legacy pickle in front": polyglot(),
    "two end records": with_comment(),
    "code of TorchScript": a.raw_zip([*GOOD, (b"archive/constants.pkl", b"\x80\x02).")]),
    "no data.pkl": a.raw_zip(GOOD[1:]),
    "no records": a.raw_zip([]),
    "another zip": a.raw_zip([(b"readme.txt", b"x")]),
    "big-endian": a.raw_zip([*GOOD, (b"archive/byteorder", b"big")]),
}  # fmt: skip


@pytest.mark.parametrize("data", ZIPS.values(), ids=ZIPS.keys())
def test_a_zip_that_two_readers_could_read_differently(data, tmp_path):
    (tmp_path / "x.pt").write_bytes(data)
    assert scan(tmp_path / "x.pt").badge == "unreadable"


def test_the_same_zip_told_truly_is_clean(tmp_path):
    (tmp_path / "x.pt").write_bytes(a.raw_zip(GOOD))
    assert scan(tmp_path / "x.pt", crc=True).badge == "clean"


def test_records_that_share_bytes(tmp_path):
    """The heart of a zip bomb: every entry points at the same bytes."""
    body = b"".join(a.local(name, data) for name, data in GOOD)
    at = len(a.local(*GOOD[0]))
    directory = a.central(*GOOD[0], 0)
    directory += b"".join(
        a.central(f"archive/data/{index}".encode(), DATA["data/0"], at) for index in range(9)
    )
    (tmp_path / "x.pt").write_bytes(body + directory + a.end(10, len(directory), len(body)))
    verdict = scan(tmp_path / "x.pt")
    assert verdict.badge == "unreadable" and "shares bytes" in verdict.findings[0].detail


def test_a_header_that_disagrees_with_the_directory(tmp_path):
    data = bytearray(a.raw_zip(GOOD))
    at = data.index(b"archive/data/0")
    data[at : at + 14] = b"archive/data/7"
    (tmp_path / "x.pt").write_bytes(bytes(data))
    assert scan(tmp_path / "x.pt").badge == "unreadable"


def test_compressed_records_are_not_what_torch_writes(healthy, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", PICKLE)
    verdict = scan(tmp_path / "x.pt")
    assert verdict.badge == "unreadable" and "compressed" in verdict.findings[0].detail


# -- bombs: an answer within bounds ---------------------------------------------------------------------


def wide_memo():
    return a.pickled(
        b"".join(b"Nr" + struct.pack("<I", 0xFFFFFFFF - index) + b"0" for index in range(1000)) + b"N"
    )


def laughs():
    """Twenty-six tuples of tuples: 2**26 leaves if anybody walks them one by one."""
    return a.pickled(b"K\x01" + b"2\x86" * 60)


def deep(opening, closing, levels=300_000):
    return a.pickled(opening * levels + b"N" + closing * levels)


def colliding_keys(count=100_000):
    step = (1 << 61) - 1
    keys = b"".join(b"\x8a\x0a" + (step * index).to_bytes(10, "little") + b"N" for index in range(count))
    return a.pickled(b"}(" + keys + b"u")


def hashed_laughs():
    return a.pickled(b"}(" + b"K\x01" + b"2\x86" * 60 + b"Nu")


def copies(call, times=100_000):
    """One large value, and a call that copies it, over and over."""
    return a.pickled(b"](" + b"N" * 300_000 + b"eq\x000" + call + b"q\x010" + b"h\x01h\x00\x85R" * times)


def copies_of_text(times=100_000):
    encode = a.name("_codecs", "encode") + b"q\x010" + a.text("latin1") + b"q\x020"
    return a.pickled(a.text("x" * (4 << 20)) + b"q\x000" + encode + b"h\x01h\x00h\x02\x86R" * times)


def shared_state(times=100_000):
    """A hundred thousand modules that all have the same large state."""
    entries = b"".join(a.text(f"{index:06}") + b"N" for index in range(100_000))
    module = CONV_2D + b"q\x010"
    return a.pickled(b"}(" + entries + b"uq\x000" + module + b"](" + b"h\x01)\x81h\x00b" * times + b"e")


def many_names(count=300_000):
    return a.pickled(b"".join(b"cm\n%x\n0" % index for index in range(count)) + b"N")


def repeated_text(times=200_000):
    """Arguments that all say the same long text."""
    text = a.text("x" * 4096) + b"q\x000"
    return a.pickled(text + a.dictionary(model=CLEAN, train_args=b"](" + b"h\x00" * times + b"e"))


def cycle():
    return a.pickled(b"]q\x00h\x00a" + b"}q\x01(" + a.text("model") + b"h\x01" + a.text("x") + b"h\x00u")


def module_laughs():
    """Modules within modules, each child twice."""
    make = a.name("torch.nn.modules.container", "Sequential") + b")\x81"
    inner = b"N"
    body = b""
    for index in range(40):
        children = b"}(" + a.text("a") + inner + a.text("b") + inner + b"u"
        state = (
            b"}(" + a.text("_modules") + children + a.text("_parameters") + b"}" + a.text("_buffers") + b"}u"
        )
        body += make + state + b"b" + b"r" + struct.pack("<I", index) + b"0"
        inner = b"j" + struct.pack("<I", index)
    return a.pickled(body + a.dictionary(ema=inner, model=CLEAN))


BOMBS = {
    "wide memo": wide_memo(),
    "billion laughs": laughs(),
    "billion laughs as a key": hashed_laughs(),
    "billion laughs of modules": module_laughs(),
    "deep tuples": deep(b"", b"\x85"),
    "deep lists": deep(b"(", b"l"),
    "deep marks": a.pickled(b"(" * 900_000),
    "empty dictionaries": a.pickled(b"}" * 900_000),
    "empty sets": a.pickled(b"\x8f" * 900_000),
    "a full memo": a.pickled(b"".join(b"]r" + struct.pack("<I", index) for index in range(450_000))),
    "endless": a.pickled(b"N0" * 3_000_000),
    "colliding keys": colliding_keys(),
    "copies of a list as sets": copies(a.name("builtins", "set")),
    "copies of a list as shapes": copies(a.name("torch", "Size")),
    "copies of a list as dictionaries": copies(a.name("collections", "OrderedDict")),
    "copies of a text": copies_of_text(),
    "a shared state": shared_state(),
    "many names": many_names(),
    "repeated text": repeated_text(),
    "a cycle": cycle(),
    "a string of gigabytes": a.pickled(b"X" + struct.pack("<I", 0xFFFFFFFF)),
    "a string of exabytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".",
    "bytes of exabytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
    "a frame of exabytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b".",
    "a number of megabytes": a.pickled(b"\x8b" + struct.pack("<i", 8 << 20) + b"\x7f" * (8 << 20)),
    "a number of negative length": a.pickled(b"\x8b" + struct.pack("<i", -5)),
    "a million digits": a.pickled(b"I" + b"9" * 1_000_000 + b"\n"),
    "wide text": a.pickled(a.text("\U0001f600" + "x" * (8 << 20))),
    "a huge pickle": a.pickled(b"C\x01x0" * (6 << 20)),
    "only stop": b".",
    "nothing": b"",
    "no stop": b"\x80\x02N",
    "text of another kind": b"hello world, this is no pickle",
    "pops on an empty stack": a.pickled(b"0000"),
    "builds on nothing": a.pickled(b"b"),
}  # fmt: skip


HARMLESS = {"large", "billion laughs of modules", "repeated text"}  # large, and answered all the same


def test_bombs_get_an_answer_within_bounds(tmp_path):
    """Each in under a few seconds, all in one process that stays below 200 MB."""
    for index, body in enumerate(BOMBS.values()):
        a.write(tmp_path / f"{index:03}.pt", body, DATA)
    with open(tmp_path / "sparse.pt", "wb") as sparse:
        sparse.write(b"PK\x03\x04")
        sparse.truncate(1 << 40)
    _huge_directory(tmp_path / "directory.pt")
    _large_records(tmp_path / "large.pt")
    program = textwrap.dedent(
        """
        import sys, json, time, pathlib, re
        from nantui.checkpoint.scan import scan
        def peak():  # ru_maxrss would count what the parent had when it forked
            return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
        told = {}
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pt")):
            started = time.process_time()
            badge = scan(path, crc=True).badge
            told[path.stem] = [badge, time.process_time() - started, peak()]
        print(json.dumps(told))
        """
    )
    told = output_of(program, tmp_path)
    names = dict(zip((f"{index:03}" for index in range(len(BOMBS))), BOMBS, strict=True))
    for stem, (badge, seconds, peak) in told.items():
        name = names.get(stem, stem)
        assert badge == ("clean" if name in HARMLESS else "unreadable"), name
        assert seconds < 30 and peak < 200 << 10, (name, seconds, peak)
    assert len(told) == len(BOMBS) + 3


def _huge_directory(path):
    """A directory that claims a hundred thousand million records, in a sparse file that has the room."""
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04")
        size, length = 1 << 38, 1 << 37
        file.seek(size - 98)
        file.write(
            struct.pack(
                "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1 << 36, 1 << 36, length, size - 98 - length
            )
        )
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, size - 98, 1))
        file.write(a.end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF))


def _large_records(path):
    """One record of 400 MB, as a matrix, strided in three ways, and a row of it per value."""
    size = 400 << 20
    values = size // 2
    chunk = struct.pack("<512e", *([0.5] * 512))
    whole = a.storage(numel=values)
    body = a.dictionary(
        model=a.tensor((values // 1024, 1024), (1024, 1), of=whole),
        thin=a.tensor((values // 2, 2), (2, 1), of=whole),
        long=a.tensor((2, values // 2), (values // 2, 1), of=whole),
    )
    pickle_ = a.pickled(body)
    crc, written = 0, 0
    name = b"archive/data/0"
    with open(path, "wb") as file:
        file.write(a.local(b"archive/data.pkl", pickle_))
        at = file.tell()
        header = bytearray(a.local(name, b"", size))
        file.write(header)
        while written < size:
            block = chunk * 1024
            crc = zlib.crc32(block, crc)
            file.write(block)
            written += len(block)
        end_at = file.tell()
        header[14:18] = struct.pack("<L", crc)
        file.seek(at)
        file.write(header)
        file.seek(end_at)
        entry = bytearray(a.central(name, b"", at, size))
        entry[16:20] = struct.pack("<L", crc)
        directory = a.central(b"archive/data.pkl", pickle_, 0) + bytes(entry)
        file.write(directory + a.end(2, len(directory), end_at))
