"""The stride from a model's YAML, held against models that the installed Ultralytics has built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nantui.settings.stride import stride_of
from nantui.settings.ultralytics_args import find_ultralytics


def test_the_stride_is_that_of_the_built_model(ultralytics_says: dict[str, Any]) -> None:
    package, built = find_ultralytics(), ultralytics_says["strides"]
    assert {name: stride_of(name, package) for name in built} == built
    assert set(built.values()) == {32, 64}


@pytest.mark.parametrize(
    ("model", "stride"),
    [
        ("yolov5n6u.pt", 64),
        ("yolov8n.pt", 32),
        ("runs/train/weights/best.pt", None),
        (None, None),
        ("", None),
    ],
)
def test_weights_are_known_by_name_only_where_ultralytics_has_their_architecture(
    model: str | None, stride: int | None
) -> None:
    assert stride_of(model, find_ultralytics()) == stride


def test_somebodys_own_layer_makes_the_stride_unknown(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    text = "backbone:\n- [-1, 1, {}, [16, 3, 2]]\nhead:\n- [[0], 1, Detect, [nc]]\n"
    own.write_text(text.format("Conv"))
    assert stride_of(str(own), tmp_path) == 32
    own = tmp_path / "other.yaml"
    own.write_text(text.format("Mine"))
    assert stride_of(str(own), tmp_path) is None
    own = tmp_path / "broken.yaml"
    own.write_text("backbone: [[1]]\nhead: 3\n")
    assert stride_of(str(own), tmp_path) is None
