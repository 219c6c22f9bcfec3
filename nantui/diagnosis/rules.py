"""What a data set's labels must look like: the few facts that the judges need, from data.yaml and the run."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 0.01
"""Ultralytics accepts coordinates up to 1 % outside (`verify_image_label`)."""
EXTREME_ASPECT = 100.0
"""`RandomPerspective.box_candidates(ar_thr=100)`."""


@dataclass(frozen=True)
class Rules:
    """`classes`: how many; `keypoints` and `dimensions`: data.yaml's kpt_shape; `imgsz` in pixels."""

    classes: int
    task: str = "detect"
    keypoints: int = 0
    dimensions: int = 0
    single_class: bool = False
    imgsz: int = 640

    @property
    def pose(self) -> bool:
        return self.task == "pose"

    @property
    def pose_columns(self) -> int:
        """Return how many columns a row with keypoints has; 5 where the data set has none."""
        return 5 + self.keypoints * self.dimensions

    @property
    def columns(self) -> int:
        """Return how many columns a row that is not a polygon has."""
        return self.pose_columns if self.pose else 5
