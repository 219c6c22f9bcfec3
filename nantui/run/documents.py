"""The types of what files say: JSON, YAML, and settings by name.

Whatever came out of a file may hold anything: a value is an `object` until somebody has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Setting: TypeAlias = object
"""One value as Ultralytics or nantui takes it: True, 64, 0.01, "auto", None, a list of class numbers."""
Settings: TypeAlias = Mapping[str, Setting]
Document: TypeAlias = dict[str, object]
"""A JSON or YAML object."""
JsonObject: TypeAlias = dict[str, Any]
"""A JSON object in a shape of our own: a request, an answer, a plan. Whoever reads one from a file says what
happens when it has another."""
