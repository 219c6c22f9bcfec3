"""Random damage to real files: no crash, no hang, and never a clean with a non-finite weight inside.

Hundreds of mutations in `make test`, thousands in `make soak`. The oracle for where a weight lies in the
file is torch's own memory map, not our reader.
"""

import os
import random
import struct
import time
import zipfile
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nantui.checkpoint.scan import scan
from tests.checkpoint.editing import edited, strip

QUICK = settings(
    max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
LONG = settings(QUICK, max_examples=4000, derandomize=False)  # others each time
BITS = {torch.float16: (2, 0x7C00, 10), torch.bfloat16: (2, 0x7F80, 7), torch.float32: (4, 0x7F800000, 23)}
LONG_AGO = time.time() - 3600


class Sample:
    """A real file: its bytes; where its records, its directory's entries and its weights lie."""

    def __init__(self, path):
        self.data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            self.records = archive.infolist()
            self.entries, at = {}, archive.start_dir
            for record in self.records:
                self.entries[record.filename] = at
                at += 46 + sum(struct.unpack("<3H", self.data[at + 28 : at + 34]))
        checkpoint = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
        state = (checkpoint["ema"] or checkpoint["model"]).state_dict()
        tensors = [tensor for tensor in state.values() if tensor.is_floating_point()]
        base = min(tensor.data_ptr() for tensor in tensors)
        first = min(self.begin(record) for record in self.records if "/data/" in record.filename)
        self.weights = [
            (tensor.data_ptr() - base + first, tensor.numel(), tensor.dtype) for tensor in tensors
        ]

    def begin(self, record):
        at = record.header_offset
        name, extra = struct.unpack("<2H", self.data[at + 26 : at + 30])
        return at + 30 + name + extra

    def with_valid_crcs(self, data):
        """Write the CRC of every record anew, as if the damage had been saved like that."""
        for record in self.records:
            begin = self.begin(record)
            crc = struct.pack("<L", zlib.crc32(data[begin : begin + record.file_size]))
            data[record.header_offset + 14 : record.header_offset + 18] = crc
            entry = self.entries[record.filename]
            data[entry + 16 : entry + 20] = crc


@pytest.fixture(scope="session")
def samples(run_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    source = run_of("detect26") / "weights" / "epoch0.pt"

    def cast(dtype):
        return lambda checkpoint: checkpoint["ema"].to(dtype) and None

    paths = [
        edited(source, folder / "half.pt", lambda checkpoint: None),
        edited(source, folder / "single.pt", cast(torch.float32)),
        edited(source, folder / "brain.pt", cast(torch.bfloat16)),
        edited(source, folder / "stripped.pt", strip),
    ]
    return [Sample(path) for path in paths]


def judged(data, folder):
    path = folder / "x.pt"
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    verdict = scan(path)
    assert verdict.badge in {"clean", "corrupt", "unreadable"}
    assert not any("please report" in finding.detail for finding in verdict.findings), verdict.findings
    return verdict


def put_one_non_finite_value(samples, folder, seed):
    chosen = random.Random(seed)
    sample = chosen.choice(samples)
    offset, count, dtype = chosen.choice(sample.weights)
    size, infinity, mantissa = BITS[dtype]
    pattern = (
        infinity
        | chosen.choice([0, 1, chosen.getrandbits(mantissa)])
        | chosen.getrandbits(1) << (8 * size - 1)
    )
    data = bytearray(sample.data)
    at = offset + size * chosen.randrange(count)
    data[at : at + size] = pattern.to_bytes(size, "little")
    if chosen.random() < 0.5:
        sample.with_valid_crcs(data)
    verdict = judged(data, folder)
    assert verdict.badge != "clean"
    assert {finding.kind for finding in verdict.findings} & {"nan", "inf"}
    assert not verdict.usable


DAMAGES = ["flip", "zero", "cut", "insert", "copy", "truncate", "noise"]


def damage(data, chosen, kind):
    at = chosen.randrange(len(data))
    size = chosen.choice([1, 8, 64, 4096])
    if kind == "flip":
        for _ in range(chosen.choice([1, 3, 30])):
            data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    elif kind == "zero":
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif kind == "cut":
        del data[at : at + size]
    elif kind == "insert":
        data[at:at] = chosen.randbytes(size)
    elif kind == "copy":
        data[at : at + size] = data[: len(data[at : at + size])]
    elif kind == "truncate":
        del data[at:]
    else:
        data[at : at + size] = chosen.randbytes(len(data[at : at + size]))


def damage_anything(samples, folder, seed):
    chosen = random.Random(seed)
    data = bytearray(chosen.choice(samples).data)
    for _ in range(chosen.choice([1, 1, 2])):
        damage(data, chosen, chosen.choice(DAMAGES))
    judged(data, folder)


def damage_the_directory(samples, folder, seed):
    chosen = random.Random(seed)
    data = bytearray(chosen.choice(samples).data)
    tail = bytearray(data[-40_000:])
    damage(tail, chosen, chosen.choice(["flip", "zero", "copy", "noise"]))
    data[-40_000:] = tail
    judged(data, folder)


def damage_the_pickle(samples, folder, seed):
    """With a CRC that fits, so that the machine has to run the damaged pickle."""
    chosen = random.Random(seed)
    sample = chosen.choice(samples)
    (record,) = [record for record in sample.records if record.filename.endswith("data.pkl")]
    start = sample.begin(record)
    data = bytearray(sample.data)
    body = data[start : start + record.file_size]
    damage(body, chosen, chosen.choice(["flip", "zero", "copy", "noise"]))
    data[start : start + record.file_size] = body[: record.file_size]
    sample.with_valid_crcs(data)
    judged(data, folder)


MUTATIONS = [put_one_non_finite_value, damage_anything, damage_the_directory, damage_the_pickle]
seeds = st.integers(0, 2**64 - 1)


THOUSANDS = pytest.param(LONG, id="thousands", marks=pytest.mark.soak)


@pytest.mark.parametrize("examples", [pytest.param(QUICK, id="hundreds"), THOUSANDS])
@pytest.mark.parametrize("mutate", MUTATIONS)
def test_mutations(mutate, examples, samples, tmp_path):
    @given(seeds)
    @examples
    def check(seed):
        mutate(samples, tmp_path, seed)

    check()


def test_the_oracle_knows_where_the_weights_are(samples):
    """The file offsets taken from torch's map hold the values that torch shows."""
    for sample in samples:
        assert len(sample.weights) > 300
        for offset, count, dtype in sample.weights:
            size, infinity, _ = BITS[dtype]
            values = sample.data[offset : offset + size * count]
            words = struct.unpack(f"<{count}{'H' if size == 2 else 'L'}", values)
            assert all(word & infinity != infinity for word in words)
