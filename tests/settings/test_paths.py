"""Where configs/ and styles/ are found: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui import paths


def test_a_checkout_has_them_at_the_top() -> None:
    assert (paths.configs_dir() / "presets" / "nan-safe.yaml").is_file()


def test_a_wheel_has_them_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "nantui" / "_data" / "styles"
    inside.mkdir(parents=True)
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "nantui")
    assert paths.styles_dir() == inside
    with pytest.raises(FileNotFoundError, match="reinstall nantui"):
        paths.configs_dir()


def test_the_users_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert paths.user_config_dir() == tmp_path / "nantui"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert paths.user_config_dir() == Path.home() / ".config" / "nantui"
