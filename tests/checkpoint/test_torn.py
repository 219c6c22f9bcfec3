"""Files that are not whole, still being written, or rotten: an honest word, and never a dead reader."""

import os
import random
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest

from nantui.checkpoint import scan as scanning
from nantui.checkpoint.scan import scan
from tests.checkpoint import editing

LONG_AGO = time.time() - 3600


def old(path):
    """Make a file old enough that nobody can still be writing it."""
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def kinds(verdict):
    return {finding.kind for finding in verdict.findings}


def cuts():
    return [1, 3, 4, 21, 22, 30, 100, 5000, 112_000, 0.3, 0.5, 0.97, 0.995, 0.9999]


@pytest.mark.parametrize("cut", cuts())
def test_truncated(cut, healthy, tmp_path):
    data = healthy.read_bytes()
    size = cut if isinstance(cut, int) else int(len(data) * cut)
    (tmp_path / "x.pt").write_bytes(data[:size])
    verdict = scan(old(tmp_path / "x.pt"))
    assert verdict.badge == "unreadable" and kinds(verdict) == {"torn"} and not verdict.resumable


def test_truncated_by_each_of_the_last_bytes(healthy, tmp_path):
    data = healthy.read_bytes()
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    for missing in range(1, 120):
        os.truncate(path, len(data) - missing)
        assert scan(old(path)).badge == "unreadable", missing


def test_empty(tmp_path):
    (tmp_path / "x.pt").touch()
    verdict = scan(old(tmp_path / "x.pt"))
    assert verdict.badge == "unreadable" and "empty" in verdict.findings[0].detail


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_zero_filled_tail(share, healthy, tmp_path):
    """Ext4 after a power cut: the size is there, the bytes are not."""
    data = bytearray(healthy.read_bytes())
    start = int(len(data) * share)
    data[start:] = bytes(len(data) - start)
    (tmp_path / "x.pt").write_bytes(data)
    assert kinds(scan(old(tmp_path / "x.pt"))) == {"torn"}


@pytest.mark.parametrize("size", [4096, 65536])
def test_a_hole_of_zeros_in_the_middle(size, healthy, tmp_path):
    """The directory at the end is whole; a block in the middle never reached the disk."""
    data = bytearray(healthy.read_bytes())
    start = len(data) // 2 // 4096 * 4096
    data[start : start + size] = bytes(size)
    (tmp_path / "x.pt").write_bytes(data)
    verdict = scan(old(tmp_path / "x.pt"), crc=True)
    assert verdict.badge == "unreadable" and kinds(verdict) & {"torn", "crc"}


@pytest.mark.parametrize(
    "data", [b"hello", b"\x89PNG\r\n", b"PK\x03\x04", b"\0" * 5000, b"PK\x05\x06" + bytes(18)]
)
def test_no_zip(data, tmp_path):
    (tmp_path / "x.pt").write_bytes(data)
    assert scan(old(tmp_path / "x.pt")).badge == "unreadable"


def test_the_legacy_format_is_told(tmp_path):
    import torch

    torch.save({"model": torch.zeros(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    verdict = scan(tmp_path / "x.pt")
    assert verdict.badge == "unreadable" and "legacy" in verdict.findings[0].detail


def test_what_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("missing.pt", "fifo.pt", "folder.pt", "x" * 300 + ".pt", "nul\0.pt"):
        verdict = scan(tmp_path / name)
        assert verdict.badge == "unreadable" and kinds(verdict) == {"cannot-read"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(healthy, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(healthy.read_bytes())
    path.chmod(0)
    assert "Permission denied" in scan(path).findings[0].detail


def position_of(path, record):
    with zipfile.ZipFile(path) as archive:
        (info,) = [info for info in archive.infolist() if info.filename.endswith(f"/{record}")]
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    sizes = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return info.header_offset + 30 + sizes


def flipped(healthy, target, record, offset, bit):
    data = bytearray(healthy.read_bytes())
    data[position_of(healthy, record) + offset] ^= 1 << bit
    target.write_bytes(data)
    return old(target)


@pytest.mark.parametrize("record", ["data/0", "data/100", "data/540", "version"])
def test_one_flipped_bit_is_found_by_crc(record, healthy, tmp_path):
    verdict = scan(flipped(healthy, tmp_path / "x.pt", record, 0, 0), crc=True)
    assert verdict.badge == "unreadable"
    assert [finding.where for finding in verdict.findings] == [record]
    # A version that PyTorch does not write is no checkpoint of its, whatever its CRC says.
    assert kinds(verdict) == ({"cannot-read"} if record == "version" else {"crc"})


def test_a_rotten_pickle_is_found_always(healthy, tmp_path):
    verdict = scan(flipped(healthy, tmp_path / "x.pt", "data.pkl", 60_000, 3))
    assert verdict.badge == "unreadable" and "crc" in kinds(verdict)


def test_a_nan_by_rot_is_told_from_a_nan_that_was_saved(healthy, tmp_path):
    copy = editing.edited(healthy, tmp_path / "y.pt", lambda checkpoint: checkpoint["ema"].float() and None)
    data = bytearray(copy.read_bytes())
    start = position_of(copy, "data/0")
    data[start : start + 4] = b"\xff\xff\xff\x7f"
    copy.write_bytes(data)
    verdict = scan(old(copy))
    assert verdict.badge == "unreadable" and kinds(verdict) == {"crc", "nan"}


def test_a_whole_file_passes(healthy):
    assert scan(healthy, crc=True).badge == "clean"


def test_files_without_crc_are_not_called_rotten(healthy, tmp_path):
    """torch can be told to leave CRCs out; then there is nothing to compare with."""
    import torch

    checkpoint = editing.load(healthy)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(checkpoint, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert scan(tmp_path / "x.pt").badge == "clean"
    verdict = scan(tmp_path / "x.pt", crc=True)
    assert verdict.badge == "clean" and kinds(verdict) == {"unchecked"}


# -- a file that is being written -----------------------------------------------------------------------


def test_a_young_torn_file_that_grows_is_busy(healthy, tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    data = healthy.read_bytes()
    path.write_bytes(data[:-1000])

    def while_waiting(seconds):
        with open(path, "ab") as file:
            file.write(data[-1000:-500])

    monkeypatch.setattr(scanning.time, "sleep", while_waiting)
    verdict = scan(path)
    assert verdict.badge == "busy" and not verdict.resumable and not verdict.usable
    path.write_bytes(data)
    assert scan(path).badge == "clean"


def test_a_young_torn_file_that_rests_is_torn(healthy, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(scanning.time, "sleep", waited.append)
    (tmp_path / "x.pt").write_bytes(healthy.read_bytes()[:-1])
    assert scan(tmp_path / "x.pt").badge == "unreadable"
    assert waited == [scanning.SETTLE]


def test_a_file_that_changes_during_the_look_is_busy(healthy, tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(healthy.read_bytes())
    real = scanning.walk

    def and_meanwhile(root):
        found = real(root)
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(scanning, "walk", and_meanwhile)
    assert scan(path).badge == "busy"


def test_a_file_that_is_replaced_during_the_look_is_busy(healthy, tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    path.write_bytes(healthy.read_bytes())
    real = scanning.walk

    def and_meanwhile(root):
        found = real(root)
        (tmp_path / "new.pt").write_bytes(b"new")
        os.replace(tmp_path / "new.pt", path)
        return found

    monkeypatch.setattr(scanning, "walk", and_meanwhile)
    assert scan(path).badge == "busy"


def test_a_reader_survives_a_writer_that_truncates(healthy, tmp_path):
    """Plain Ultralytics overwrites in place: truncate, then write. A memory map would die of SIGBUS."""
    path = tmp_path / "last.pt"
    path.write_bytes(healthy.read_bytes())
    writer = textwrap.dedent(
        """
        import sys, pathlib, itertools
        data = pathlib.Path(sys.argv[2]).read_bytes()
        print("writing", flush=True)
        for _ in itertools.count():
            pathlib.Path(sys.argv[1]).write_bytes(data)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", writer, path, healthy], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        badges = {scan(path, crc=bool(index % 2)).badge for index in range(25)}
    finally:
        process.kill()
        process.wait()
    assert badges <= {"clean", "busy", "unreadable"}
    path.write_bytes(healthy.read_bytes())
    assert scan(path).badge == "clean"


def test_torn_within_any_record(healthy, tmp_path):
    """Bytes lost from the middle: everything behind has moved, the directory points beside it."""
    data = healthy.read_bytes()
    chosen = random.Random(5)
    for _ in range(20):
        start = chosen.randrange(4, len(data) - 200)
        (tmp_path / "x.pt").write_bytes(data[:start] + data[start + chosen.choice([1, 64, 4096]) :])
        assert scan(old(tmp_path / "x.pt"), crc=True).badge == "unreadable", start
