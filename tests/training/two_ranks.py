"""Started by torchrun: carries several attempts out one after the other, so that imports are paid once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(cases: Path) -> None:
    import torch

    from nantui.training import telemetry, worker
    from nantui.training.leave import leave

    torch.set_num_threads(1)
    codes = {}
    for case in json.loads(cases.read_text()):
        telemetry.STALLED_AFTER = case.get("stalled_after", telemetry.STALLED_AFTER)
        codes[case["run"]] = worker.main([case["run"], f"{case['number']:03d}"])
    cases.with_suffix(f".rank{os.environ['RANK']}").write_text(json.dumps(codes))
    leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
