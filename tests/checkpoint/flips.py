"""One bit of a checkpoint is another: what nantui says of it, held against what torch loads from it."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from nantui.checkpoint.scan import scan
from nantui.checkpoint.verdict import Verdict

LONG_AGO = 1_000_000_000


def small_checkpoint(path: Path) -> bytes:
    """Write a checkpoint as Ultralytics does, of a network of two layers, and return its bytes."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2)).half()
    optimizer = {
        "state": {0: {"momentum_buffer": torch.ones(2)}},
        "param_groups": [{"lr": 0.01, "params": [0]}],
    }
    said = {
        "train_args": {"epochs": 3},
        "train_metrics": {"fitness": 0.1},
        "date": "2026",
        "version": "8.4.0",
    }
    torch.save({"epoch": 0, "ema": model, "updates": 3, "optimizer": optimizer, **said}, path)
    return path.read_bytes()


def loaded(data: bytes) -> dict[str, object]:
    """Return everything that torch loads, by where it stands."""
    return dict(_flat(torch.load(io.BytesIO(data), map_location="cpu", weights_only=False), ""))


def _flat(value: object, where: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        yield where, (value.dtype, tuple(value.shape), raw)
    elif isinstance(value, torch.nn.Module):
        for name, module in value.named_modules():
            own = {key: part for key, part in vars(module).items() if not key.startswith("_")}
            yield f"{where}.{name}", (repr(module), sorted(own.items(), key=str))
        yield from _flat(value.state_dict(), where)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _flat(part, f"{where}[{index}]")
    else:
        yield where, repr(value)


@functools.lru_cache(maxsize=1)
def _whole(data: bytes) -> dict[str, object]:
    return loaded(data)


def flip_one(data: bytes, bit: int, folder: Path) -> Verdict:
    """Flip a bit and judge the file with its CRCs; fails where a wrong file is called clean."""
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    path = folder / "flipped.pt"
    path.write_bytes(flipped)
    os.utime(path, (LONG_AGO, LONG_AGO))
    verdict = scan(path, crc=True)
    assert not any("please report" in finding.detail for finding in verdict.findings), (bit, verdict.findings)
    if verdict.badge == "clean":
        assert loaded(bytes(flipped)) == _whole(data), f"bit {bit} of {8 * len(data)}: false clean"
    return verdict
