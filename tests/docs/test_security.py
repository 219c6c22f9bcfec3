"""What docs/security.md promises: connections, Ultralytics' own switches, what a training inherits."""

import ast
import os
from pathlib import Path

import nantui
from nantui.run.spec import kept_environment
from nantui.supervisor.helper_process import worker_environment

PACKAGE = Path(nantui.__file__).parent
SPEAKS = {"socket", "urllib", "http", "ssl", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "apprise"}
MAY = {
    "supervisor/notify/delivery.py": {"urllib", "http", "apprise"},
    "supervisor/hosts/leader.py": {"socket"},
    "supervisor/hosts/endpoint.py": {"socket"},
    "commands/web.py": {"socket", "aiohttp"},  # listens, on this machine unless told otherwise
    "machine/waiting_process.py": {"socket"},  # a pair between parent and child, without an address
    "worker/waiting.py": {"socket"},  # the child's end of it
    "machine/process_identity.py": {"socket"},  # the host's own name
}
STAY_OFFLINE = {"worker/check_arguments.py", "worker/checkpoints/rebase.py"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def imported(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_only_notifications_and_hosts_open_connections():
    found = {name: set(imported(text)) & SPEAKS for name, text in modules()}
    assert {name: speaks for name, speaks in found.items() if speaks} == MAY


def changes_settings(text):
    """Tell whether a module takes Ultralytics' SETTINGS and does more with it than to look something up."""
    tree = ast.parse(text)
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "SETTINGS"]
    looked_up = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and node.value in named and isinstance(node.ctx, ast.Load)
    ]
    taken = any(
        alias.name == "SETTINGS"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )
    return taken and len(looked_up) < len(named)


def test_only_helpers_switch_ultralytics_offline_and_nobody_changes_its_settings():
    assert {name for name, text in modules() if "YOLO_OFFLINE" in text} == {"worker/torchrun_env.py"}
    assert {name for name, text in modules() if "environ.update(OFFLINE)" in text} == STAY_OFFLINE
    assert {name for name, text in modules() if "import OFFLINE" in text} == STAY_OFFLINE
    assert [name for name, text in modules() if changes_settings(text)] == []
    assert changes_settings("from ultralytics.utils import SETTINGS\nSETTINGS.update(sync=False)")
    assert changes_settings("from ultralytics.utils import SETTINGS\nSETTINGS['sync'] = False")


def test_a_training_inherits_the_environment_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "as the user set it")
    inherited = worker_environment()
    assert {name for name, value in inherited.items() if os.environ.get(name) != value} <= {"PYTHONPATH"}
    assert set(os.environ) - set(inherited) <= {"NANTUI_ATTEMPT"}


def test_secrets_of_the_environment_are_not_kept(monkeypatch):
    names = ("WANDB_API_KEY", "HF_TOKEN", "DB_PASSWORD", "AWS_ACCESS_KEY_ID", "MYSQL_PWD", "SLACK_WEBHOOK")
    for name in names:
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy:3128")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PWD", "/where/it/runs")
    kept = kept_environment()
    assert [name for name, value in kept.items() if "hush" in value] == []
    assert kept["OMP_NUM_THREADS"] == "1"
    assert kept["PWD"] == "/where/it/runs"
