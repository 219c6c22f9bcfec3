"""Is the batch itself sound: pixels finite and in range, labels finite, inside the image, of a known kind."""

from __future__ import annotations

from typing import Any

import torch

SLACK = 0.01  # Ultralytics' own tolerance for coordinates beyond the edge


def broken_images(batch: dict[str, Any], normalized: bool) -> list[tuple[int, str]]:
    """Return (index, why) of images with a non-finite pixel or, where `normalized`, one outside 0..1."""
    images = batch["img"].detach().float().flatten(1)
    finite = torch.isfinite(images).all(1)
    inside = ((images >= -1e-3) & (images <= 1 + 1e-3)).all(1) if normalized else finite
    reasons = []
    for index, (is_finite, is_inside) in enumerate(zip(finite.tolist(), inside.tolist(), strict=True)):
        if not is_finite:
            values = images[index]
            reasons.append((index, f"{int((~torch.isfinite(values)).sum())} pixels are not finite"))
        elif not is_inside:
            reasons.append((index, f"pixels from {images[index].min():.4g} to {images[index].max():.4g}"))
    return reasons


def broken_labels(batch: dict[str, Any]) -> list[tuple[int, str]]:
    """Return (index of the image, why) of targets that are not finite or lie outside the image."""
    owners = batch.get("batch_idx")
    if owners is None:
        return []
    found: dict[int, str] = {}
    for name in ("bboxes", "keypoints", "cls"):
        target = batch.get(name)
        if isinstance(target, torch.Tensor) and len(target) == len(owners) and len(target):
            for row, why in _broken_rows(name, target.detach().float().flatten(1)):
                found.setdefault(int(owners[row]), why)
    return sorted(found.items())


def _broken_rows(name: str, target: torch.Tensor) -> list[tuple[int, str]]:
    finite = torch.isfinite(target).all(1)
    rows = [(int(row), f"{name} not finite") for row in (~finite).nonzero().flatten()]
    if name == "bboxes":
        box = target[:, :4]
        outside = finite & ((box < -SLACK) | (box > 1 + SLACK)).any(1)
        rows += [(int(row), "a box lies outside the image") for row in outside.nonzero().flatten()]
    return rows
