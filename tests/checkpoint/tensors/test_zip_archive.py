"""Zips that lie: what two readers could read differently is refused, for torch loads what it reads."""

import struct

import pytest

from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a
from tests.checkpoint.hostile import DATA, PICKLE, os_system

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
