"""The types of what files say: JSON, YAML, and settings by name.

Whatever came out of a file may hold anything: a value is an `object` until somebody has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Setting: TypeAlias = object
"""One value as Ultralytics or nantui takes it: True, 64, 0.01, "auto", None, a list of class numbers."""
Settings: TypeAlias = Mapping[str, Setting]
Document: TypeAlias = dict[str, object]
"""A JSON or YAML object."""
