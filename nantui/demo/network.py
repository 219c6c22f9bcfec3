"""Write the network that the demo trains: a YOLOv8 with fewer layers.

It is quick enough on a CPU for some hundreds of small steps. BatchNorm statistics need about fifty of them
(the momentum is 0.03) until what is validated is what was trained.
"""

from __future__ import annotations

from pathlib import Path

LAYERS = """\
# YOLOv8's own modules, down to a stride of 16.
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C2f, [64, True]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2f, [128, True]]
head:
  - [[4, 6], 1, Detect, [nc]]
"""


def write_network(directory: Path, classes: int) -> Path:
    """Write `small-yolov8.yaml` below `directory`, which exists; returns its path."""
    path = directory / "small-yolov8.yaml"
    path.write_text(f"nc: {classes}\n{LAYERS}", encoding="utf-8")
    return path
