"""Where styles/ and configs/ are: at the top of a checkout, inside the package in a wheel.

Both kinds of installation are asked in one place, so that nothing else needs to know which one it is in.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


WORK_IN = "NANTUI_WORK_IN"
"""The directory that a process is for. It is started in another one: `-m` and `-c` put the directory in which
Python begins before everything else on the path, so that a `torch.py` in a run or a download would be run."""


def interpreter(python: str, cwd: str = "") -> str:
    """Return an interpreter as any directory can start it; `cwd` is what its path is relative to."""
    return os.path.abspath(os.path.join(cwd, python)) if "/" in python else python


def go_to_work() -> None:
    """Go to the directory that this process is for, once its own modules have been found."""
    if place := os.environ.pop(WORK_IN, ""):
        os.chdir(place)


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
    return _of_user("XDG_CONFIG_HOME", ".config")


def user_state_dir() -> Path:
    """Return the user's own directory for what must last but is no configuration (it need not exist)."""
    return _of_user("XDG_STATE_HOME", ".local/state")


def user_cache_dir() -> Path:
    """Return the user's own directory for what can be made again (it need not exist)."""
    return _of_user("XDG_CACHE_HOME", ".cache")


def _of_user(variable: str, place: str) -> Path:
    """Return our directory where the XDG variable says, or at its usual place in the home."""
    return Path(os.environ.get(variable) or Path.home() / place) / "nantui"
