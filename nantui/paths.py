"""Where styles/ and configs/ are: at the top of a checkout, inside the package in a wheel.

Both kinds of installation are asked in one place, so that nothing else needs to know which one it is in.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def data_directory(name: str) -> Path:
    """Return the directory `name` ("configs" or "styles") that was shipped with this installation.

    Raises FileNotFoundError when neither place has it: the installation is broken.
    """
    places = (PACKAGE / "_data" / name, PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(map(str, places))
    raise FileNotFoundError(f"nantui's own {name}/ is missing (looked in {looked}); reinstall nantui")


def configs_dir() -> Path:
    """Return the directory with presets/, plans and thresholds."""
    return data_directory("configs")


def styles_dir() -> Path:
    """Return the directory with the .tcss files."""
    return data_directory("styles")


def user_config_dir() -> Path:
    """Return the user's own configuration directory (it need not exist)."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "nantui"
