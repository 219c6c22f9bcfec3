"""One machine plays two hosts: `NANTUI_HOST` tells them apart, each with processes of its own."""

from __future__ import annotations

from tests.supervisor.conftest import make_run, own_home, stub_python

__all__ = ["make_run", "own_home", "stub_python"]
