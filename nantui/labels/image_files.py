"""The images themselves: what Ultralytics' `check_image` would say, without rewriting anything.

Ultralytics *rewrites* a JPEG that lacks its end mark, in place; here it is only told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import numpy as np

from nantui.labels.data_set import IMAGE_SUFFIXES
from nantui.labels.label_files import Array
from nantui.labels.problem_kinds import Found

SMALLEST = 10
"""`check_image` asserts more than 9 pixels on each side."""
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF orientations that swap width and height, which Ultralytics obeys (`exif_size`)."""
_USUAL = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Modes of Pillow's that OpenCV decodes; of others (float32) Ultralytics' own reader has to be asked."""
_END_OF_JPEG = b"\xff\xd9"


def scan_images(paths: Sequence[str]) -> tuple[list[Found], Array]:
    """Return what is wrong with the images in `paths`, by index, and their shapes.

    A shape is width and height as shares of the longer side, float32 (n, 2); 1 by 1 where it is not known.
    """
    found = []
    shapes: Array = np.ones((len(paths), 2), np.float32)
    for index, path in enumerate(paths):
        fault, size = look_into(path)
        if fault is not None:
            found.append(Found(index, 0, *fault))
        if max(size):
            shapes[index] = np.divide(size, max(size))
    return found, shapes


def missing_images(paths: Sequence[str]) -> list[Found]:
    """Return which of `paths` are no files, by index."""
    gone = (index for index, path in enumerate(paths) if not os.path.isfile(path))
    return [Found(index, 0, "image_missing", "no such file") for index in gone]


def look_into(path: str) -> tuple[tuple[str, str] | None, tuple[int, int]]:
    """Return (kind, text) for an image that Ultralytics drops or rewrites, else None; and its size."""
    from PIL import Image

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would block for ever
            return ("image_unreadable", "no regular file, but a pipe, a device or a folder"), (0, 0)
        with Image.open(path) as image:
            image.verify()
            width, height = image.size
            turned = image.format == "JPEG" and image.getexif().get(_ORIENTATION) in _TURNED
            size = (height, width) if turned else (width, height)
            form, mode = (image.format or "").lower(), image.mode
    except FileNotFoundError:
        return ("image_missing", "no such file"), (0, 0)
    except Exception as error:  # Pillow raises nearly anything for a broken file, SyntaxError included
        return ("image_unreadable", _one_line(error)), (0, 0)
    if min(size) < SMALLEST:
        return ("image_small", f"{size[0]} by {size[1]} pixels"), size
    if form not in IMAGE_SUFFIXES | {"jpeg2000"}:
        return ("image_unreadable", f"format {form} is none that Ultralytics takes"), size
    if mode not in _USUAL:
        return ("image_unusual", f"mode {mode}"), size
    return _jpeg_fault(path) if form in ("jpg", "jpeg") else None, size


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
