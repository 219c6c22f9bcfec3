"""Started by torchrun: carries several attempts out one after the other, so that imports are paid once."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def main(cases: Path) -> None:
    import torch

    from nantui.worker import __main__ as worker
    from nantui.worker import telemetry
    from nantui.worker.process_end import leave

    torch.set_num_threads(1)
    codes = {}
    for case in json.loads(cases.read_text()):
        telemetry.STALLED_AFTER = case.get("stalled_after", telemetry.STALLED_AFTER)
        with _precision(case), _spied(case), _scaled(case), _asking(case):
            codes[case["run"]] = worker.main([case["run"], f"{case['number']:03d}"])
    cases.with_suffix(f".rank{os.environ['RANK']}").write_text(json.dumps(codes))
    leave(0)


def _spied(case: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Return what keeps the end of a training, and stops it where a case says so."""
    from tests.worker.equality import spied

    if "spy" not in case:
        return contextlib.nullcontext()
    return spied(Path(case["spy"]["end"]), case["spy"].get("stop_at"), case["spy"]["workers"])


@contextlib.contextmanager
def _scaled(case: dict[str, Any]) -> Iterator[None]:
    """Have a GradScaler at work where a case says so: there is no fp16 on the CPU."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        if case.get("scaled"):
            stock = torch.amp.GradScaler
            patch.setattr(torch.amp, "GradScaler", lambda *a, **o: stock("cpu", init_scale=8.0))
        yield


@contextlib.contextmanager
def _asking(case: dict[str, Any]) -> Iterator[None]:
    """Give both ranks a callback that asks the other one something, where a case says so."""
    import torch
    from ultralytics.utils.callbacks import base

    def ask(trainer: Any) -> None:
        ranks = torch.tensor([float(os.environ["RANK"])])
        torch.distributed.all_reduce(ranks)
        assert ranks.tolist() == [1.0]

    callbacks = base.default_callbacks["on_train_batch_end"]
    if case.get("asking"):
        callbacks.append(ask)
    yield
    if case.get("asking"):
        callbacks.remove(ask)


def _precision(case: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Return half precision in validations, where a case names the epochs in which that overflows."""
    from tests.worker.half import half_precision

    if "overflows" not in case:
        return contextlib.nullcontext()
    return half_precision(case["overflows"], bool(case.get("at_the_end")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
