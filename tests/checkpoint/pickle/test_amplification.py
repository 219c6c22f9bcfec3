"""Amplification: small files that would have us copy or read far more than they hold, by sharing it."""

import json
import resource
import struct
import subprocess
import sys
import textwrap

from tests.checkpoint import archives as a
from tests.checkpoint.modules import DATA, GOOD, NAN, convolution, get, put


def numbered(count):
    return b"}(" + b"".join(b"J" + struct.pack("<i", index) + b"N" for index in range(count)) + b"u"


def whole(**values):
    return a.dictionary(ema=convolution(GOOD), epoch=b"K\x01", **values)


def shared_argument(count=60_000):
    """A dictionary whose entries are all left out, in every argument."""
    every = b"".join(a.text(f"{index:05}") + get(1) for index in range(count))
    return a.pickled(numbered(count) + put(1) + b"0" + whole(train_args=b"}(" + every + b"u"))


def shared_path(count=100_000):
    path = a.call("pathlib", "PosixPath", a.text("x" * (2 << 20)))
    every = b"".join(a.text(f"{index:05}") + get(1) for index in range(count))
    return a.pickled(path + put(1) + b"0" + whole(train_args=b"}(" + every + b"u"))


def shared_group(group, count=800_000):
    groups = a.dictionary(param_groups=b"](" + get(1) * count + b"e")
    return a.pickled(group + put(1) + b"0" + whole(optimizer=groups))


def shared_tensor(tensor, count=900_000):
    return a.pickled(tensor + put(1) + b"0" + a.dictionary(**{"k" * 280: b"](" + get(1) * count + b"e"}))


def scalar_of(dtype):
    made = a.call("numpy", "dtype", dtype)
    return a.pickled(a.dictionary(w=GOOD, x=a.call("numpy.core.multiarray", "scalar", made, b"C\x04abcd")))


def array_of(count):
    arguments = a.name("numpy", "ndarray"), b"(" + a.number(count) + b"t", a.text("b")
    return a.pickled(a.dictionary(w=GOOD, x=a.call("numpy.core.multiarray", "_reconstruct", *arguments)))


def numbered_key(length):
    return a.pickled(b"}(\x8b" + struct.pack("<i", length) + b"\x7f" * length + GOOD + b"u")


def ordered_dictionaries(count=990_000):
    made = b"".join(b"h\x00)Rr" + struct.pack("<I", index + 1) for index in range(count))
    return a.pickled(a.name("collections", "OrderedDict") + b"q\x000" + made + b"N")


def all_amplified():
    """Made by the process that tests them: they are large."""
    return {
        "an argument shared": ("clean", shared_argument()),
        "a path shared": ("clean", shared_path()),
        "a parameter group shared": ("unreadable", shared_group(numbered(60_000))),
        "NaN groups": ("unreadable", shared_group(a.dictionary(lr=b"G" + struct.pack(">d", float("nan"))))),
        "a tensor shared": ("unreadable", shared_tensor(GOOD)),
        "a NaN tensor shared": ("unreadable", shared_tensor(NAN)),
        "a dtype of a billion laughs": ("unreadable", scalar_of(b"K\x01" + b"2\x86" * 60)),
        "a dtype in a million brackets": ("unreadable", scalar_of(b"N" + b"\x85" * 300_000)),
        "an array of terabytes": ("unreadable", array_of(1 << 42)),
        "a key of ten thousand digits": ("clean", numbered_key(4_000)),
        "a key of millions of digits": ("clean", numbered_key(8 << 20)),
        "ordered dictionaries": ("unreadable", ordered_dictionaries()),
    }


def test_amplification_is_bounded(tmp_path):
    """One process with 200 MB of room for what it reads; a hang ends it, and fails."""
    amplified = all_amplified()
    for name, (_, body) in amplified.items():
        a.write(tmp_path / f"{name}.pt", body, DATA)
    zero_rows(tmp_path / "zero rows.pt", 100, 1 << 18)
    zero_rows(tmp_path / "zero rows of many tensors.pt", 3000, 1 << 13)
    program = textwrap.dedent(
        """
        import sys, json, pathlib, re
        from nantui.checkpoint.scan import scan
        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
        print(json.dumps({
            path.stem: [scan(path).badge, peak()] for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pt"))
        }))
        """
    )
    room = 3 << 30
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)),
    )  # fmt: skip
    told = json.loads(done.stdout)
    expected = {name: badge for name, (badge, _) in amplified.items()}
    expected |= {"zero rows": "corrupt", "zero rows of many tensors": "corrupt"}
    assert {name: badge for name, (badge, _) in told.items()} == expected
    assert all(peak < 200 << 10 for _, peak in told.values()), told


def zero_rows(path, count, rows, length=4):
    """Matrices of short rows, all zero, in a file that is one hole: it takes no room on the disk."""
    values = rows * length
    whole_storage = a.storage(numel=values * count)
    every = b"".join(
        a.text(f"{index}") + a.tensor((rows, length), (length, 1), offset=index * values, of=whole_storage)
        for index in range(count)
    )
    body, size, name = a.pickled(b"}(" + every + b"u"), 2 * values * count, b"archive/data/0"
    with open(path, "wb") as file:
        file.write(a.local(b"archive/data.pkl", body))
        at = file.tell()
        file.write(without_crc(a.local(name, b"", size), 14))
        end = file.tell() + size
        file.truncate(end)
        file.seek(end)
        entries = without_crc(a.central(b"archive/data.pkl", body, 0), 16)
        entries += without_crc(a.central(name, b"", at, size), 16)
        entries += without_crc(a.central(b"archive/version", b"3\n", end), 16)
        file.write(without_crc(a.local(b"archive/version", b"3\n"), 14))
        file.write(entries + a.end(3, len(entries), file.tell()))
        file.seek(0)
        file.write(without_crc(a.local(b"archive/data.pkl", b"", len(body)), 14))


def without_crc(header, at):
    return header[:at] + bytes(4) + header[at + 4 :]
