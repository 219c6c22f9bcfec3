"""docs/keys.md says what the bindings say, and no key does two things on one screen."""

from collections import Counter
from pathlib import Path

from devtools import keys_page
from nantui.ui.actions import APP_ACTIONS, RUN_ACTIONS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "keys.md"


def test_the_list_of_keys_is_up_to_date():
    wanted = "\n".join(keys_page.lines()) + "\n"
    assert DOCUMENT.read_text() == wanted, "python -m devtools.keys_page > docs/keys.md"


def test_no_key_does_two_things_on_the_run_screen():
    keys = Counter(key for action in (*RUN_ACTIONS, *APP_ACTIONS) for key in action.keys.split(","))
    assert [key for key, count in keys.items() if count > 1] == []


def test_every_action_of_the_run_screen_is_carried_out_by_a_method():
    from nantui.ui.app import CockpitApp
    from nantui.ui.screens.run import PAGES, RunScreen

    others = [action.name for action in RUN_ACTIONS if action.name not in PAGES]
    assert [name for name in others if not hasattr(RunScreen, f"do_{name}")] == []
    assert [action.name for action in APP_ACTIONS if not hasattr(CockpitApp, f"do_{action.name}")] == []
