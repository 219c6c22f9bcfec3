"""The images themselves: what Ultralytics' `check_image` would say, without rewriting anything.

Ultralytics *rewrites* a JPEG that lacks its end mark, in place; here it is only told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from nantui.diagnosis.dataset import IMAGE_SUFFIXES
from nantui.diagnosis.judge_rows import Found

SMALLEST = 10
"""`check_image` asserts more than 9 pixels on each side."""
_END_OF_JPEG = b"\xff\xd9"


def scan_images(paths: Sequence[str]) -> list[Found]:
    """Return what is wrong with the images in `paths`, by index."""
    found = []
    for index, path in enumerate(paths):
        fault = image_fault(path)
        if fault is not None:
            found.append(Found(index, 0, *fault))
    return found


def missing_images(paths: Sequence[str]) -> list[Found]:
    """Return which of `paths` are no files, by index."""
    return [
        Found(index, 0, "image_missing", "no such file")
        for index, path in enumerate(paths)
        if not os.path.isfile(path)
    ]


def image_fault(path: str) -> tuple[str, str] | None:
    """Return (kind, text) for an image that Ultralytics drops or rewrites, else None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
            width, height = image.size
            form = (image.format or "").lower()
    except FileNotFoundError:
        return "image_missing", "no such file"
    except Exception as error:  # Pillow raises nearly anything for a broken file, SyntaxError included
        return "image_unreadable", _one_line(error)
    if min(width, height) < SMALLEST:
        return "image_small", f"{width} by {height} pixels"
    if form not in IMAGE_SUFFIXES | {"jpeg2000"}:
        return "image_unreadable", f"format {form} is none that Ultralytics takes"
    return _jpeg_fault(path) if form in ("jpg", "jpeg") else None


def _jpeg_fault(path: str) -> tuple[str, str] | None:
    with open(path, "rb") as file:
        file.seek(-2, os.SEEK_END)
        if file.read() == _END_OF_JPEG:
            return None
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:
        return "image_truncated", _one_line(error)
    return "image_tail", "the file does not end with FF D9"


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
