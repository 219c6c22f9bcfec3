"""A training that nantui did not start, without torch: a launcher, a rank below it, and a dataloader.

`python foreign_train.py train project=DIR name=NAME` writes args.yaml and results.csv as Ultralytics does and
prints progress lines.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HEADER = "      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size"


def main() -> None:
    settings = dict(word.partition("=")[::2] for word in sys.argv[2:])
    run = Path(settings["project"]) / settings["name"]
    (run / "weights").mkdir(parents=True, exist_ok=True)
    (run / "args.yaml").write_text("task: detect\nmode: train\nepochs: 9\nlr0: 0.01\n")
    sleep = "import time; time.sleep(600)"
    rank = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{sleep}']); {sleep}"
    subprocess.Popen([sys.executable, "-c", rank])
    (run / "results.csv").write_text("epoch,time,train/box_loss,val/box_loss\n1,2.0,3.5,3.6\n2,4.0,nan,3.1\n")
    print(HEADER)
    for batch in range(1, 1000):
        time.sleep(0.1)
        losses = "2.31G      1.25        nan      inf         12         64"
        print(f"\r\x1b[K        3/9      {losses}: 45% {batch}/1000", end="")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
