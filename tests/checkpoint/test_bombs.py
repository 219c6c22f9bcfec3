"""Bombs: whatever a file claims or repeats, there is an answer within seconds and below 200 MB."""

import struct
import textwrap
import zlib

from tests.checkpoint import archives as a
from tests.checkpoint.hostile import CLEAN, CONV_2D, DATA, output_of


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


def all_bombs():
    """Made by the process that tests them: they are large."""
    return {
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


VERSION = (b"archive/version", b"3\n")
HARMLESS = {"large", "billion laughs of modules", "repeated text"}  # large, and answered all the same


def test_bombs_get_an_answer_within_bounds(tmp_path):
    """Each in under a few seconds, all in one process that stays below 200 MB."""
    bombs = all_bombs()
    for index, body in enumerate(bombs.values()):
        a.write(tmp_path / f"{index:03}.pt", body, DATA)
    with open(tmp_path / "sparse.pt", "wb") as sparse:
        sparse.write(b"PK\x03\x04")
        sparse.truncate(1 << 40)
    _huge_directory(tmp_path / "directory.pt")
    _large_records(tmp_path / "large.pt")
    program = textwrap.dedent(
        """
        import sys, json, time, pathlib, re, resource
        from nantui.checkpoint.scan import scan
        def peak():  # ru_maxrss would count what the parent had when it forked
            here = int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
            return max(here, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        told = {}
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pt")):
            started = time.process_time()
            badge = scan(path, crc=True).badge
            told[path.stem] = [badge, time.process_time() - started, peak()]
        print(json.dumps(told))
        """
    )
    told = output_of(program, tmp_path)
    names = dict(zip((f"{index:03}" for index in range(len(bombs))), bombs, strict=True))
    for stem, (badge, seconds, peak) in told.items():
        name = names.get(stem, stem)
        assert badge == ("clean" if name in HARMLESS else "unreadable"), name
        assert seconds < 30 and peak < 200 << 10, (name, seconds, peak)
    assert len(told) == len(bombs) + 3


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
        file.write(a.local(*VERSION))
        directory = a.central(b"archive/data.pkl", pickle_, 0) + bytes(entry) + a.central(*VERSION, end_at)
        file.write(directory + a.end(3, len(directory), end_at + len(a.local(*VERSION))))
