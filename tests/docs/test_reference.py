"""docs/commands.md and docs/settings.md say what the code takes, and nothing is left without a word."""

import argparse
import itertools
from pathlib import Path

import pytest
import yaml

from devtools import man_page, reference_pages
from nantui.cli import COCKPIT, COMMANDS, _parse, examples, parser_of
from nantui.run.spec import OURS_DEFAULTS
from nantui.supervisor.config import Alerts, Patience, load_config

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_the_generated_pages_are_up_to_date(name):
    wanted = "\n".join(reference_pages.PAGES[name]()) + "\n"
    assert (DOCS / name).read_text(encoding="utf-8") == wanted, "python -m devtools.reference_pages docs"


def test_the_man_page_is_up_to_date_and_holds_no_line_that_roff_takes_for_a_request():
    lines = list(man_page.page())
    wanted = "\n".join(lines) + "\n"
    assert (DOCS / "nantui.1").read_text(encoding="utf-8") == wanted, "make docs"
    requests = {line.split()[0] for line in wanted.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".B", ".br", ".TP", ".PP", ".nf", ".fi"}
    assert all(f".SS nantui {name}" in lines for name in COMMANDS)
    assert man_page.escaped(".x\\-'") == r"\&.x\e\-\(aq"


@pytest.mark.parametrize("name", [COCKPIT, *COMMANDS])
def test_every_command_has_two_examples_that_it_takes(name):
    lines = [line.partition("  #")[0].split()[1:] for line in examples(name).splitlines()[1:]]
    assert len(lines) == 2
    for words in lines:
        words = list(itertools.takewhile(lambda word: word not in (">", ">>", "|"), words))
        assert _parse(parser_of(name), words if name == COCKPIT else words[1:])


@pytest.mark.parametrize("name", [COCKPIT, *COMMANDS])
def test_every_argument_of_a_command_says_what_it_is_for(name):
    parser = parser_of(name)
    silent = [reference_pages.words_of(one) for one in reference_pages.arguments_of(parser) if not one.help]
    assert silent == []
    assert parser.description


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_word_that_help_has(name):
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    section = page.split(f"\n## nantui {name}\n")[1].split("\n## ")[0]
    everywhere = page.split("\n## Options of every command\n")[1]
    actions = [one for one in parser_of(name)._actions if one.help != argparse.SUPPRESS]
    options = [word for action in actions for word in action.option_strings]
    missing = [word for word in options if f"`{word}" not in section + everywhere]
    assert missing == ["-h", "--help"]


def test_an_undocumented_option_is_found():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet", action="store_true")
    assert [one.help for one in reference_pages.arguments_of(parser)] == [None]


@pytest.mark.parametrize("page", ["commands.md", "nantui.1"])
def test_a_default_stands_in_the_page_as_help_prints_it(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "default: 8321" in text and "%(" not in text


def test_every_setting_of_ours_stands_in_the_page_with_its_default():
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    for name, default in OURS_DEFAULTS.items():
        assert f"| `{name}` | {reference_pages.show_value(default)} |" in page


def test_the_contract_of_files_has_the_same_settings_and_defaults():
    contract = (DOCS / "file-formats.md").read_text(encoding="utf-8")
    table = contract.split("## Our settings (`ours`)\n")[1].split("\n## ")[0]
    rows = [[cell.strip(" `") for cell in row.split("|")[1:3]] for row in table.splitlines()[2:] if row]
    assert {name: yaml.safe_load(default) for name, default in rows} == OURS_DEFAULTS


def test_patience_of_the_page_is_what_the_supervisor_has(tmp_path):
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert load_config(tmp_path / "none.yaml").patience == Patience()
    times = [one for one in vars(Alerts()).items() if isinstance(one[1], float)]
    for name, value in [*vars(Patience()).items(), *times]:
        assert f"| `{name}` | {reference_pages.show_value(value)} |" in page
