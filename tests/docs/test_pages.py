"""The two READMEs say the same, every link leads somewhere, every command that is named exists."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from nantui.cli import COMMANDS, parser_of

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def text_of(page):
    return page.read_text(encoding="utf-8")


def headings(page):
    return re.findall(r"^(#+) .+$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)


def pictures(page):
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(page))


def blocks(page):
    """Return what one would type, without the comments beside it, which are in the reader's language."""
    typed = re.findall(r"```\n(.*?)```", text_of(page), re.DOTALL)
    return [[re.sub(r"\s+#.*", "", line) for line in block.splitlines()] for block in typed]


def rows(page):
    return len(re.findall(r"^\|", text_of(page), re.MULTILINE))


@pytest.mark.parametrize("part", [headings, pictures, blocks, rows])
def test_both_readmes_have_the_same(part):
    assert part(ENGLISH)
    assert part(ENGLISH) == part(CHINESE)


def test_both_readmes_name_the_same_commands_keys_and_pages():
    links = r"\]\(([^)]+)\)"
    code = r"`([^`\n]+)`"
    english, chinese = text_of(ENGLISH), text_of(CHINESE)
    assert set(re.findall(links, english)) - {"README.zh-CN.md"} == set(re.findall(links, chinese)) - {
        "README.md"
    }
    assert set(re.findall(code, english)) <= set(re.findall(code, chinese))


@pytest.mark.parametrize(
    ("figure", "page"),
    [
        (r"([\d,]+) random ones", "soak.md"),
        (r"of (\d+) small trainings", "diagnosis-table.md"),
        (r"came first in (\d+)", "diagnosis-table.md"),
        (r"step took ([\d.]+) %", "gpu-results.md"),
        (r"([\d.]+) % more\s+\(yolov8x", "gpu-results.md"),
        (r"([\d.]+) % less\s+\(yolov8m at 1280", "gpu-results.md"),
        (r"([\d.]+) % more at 640", "gpu-results.md"),
        (r"([\d.]+) % more at 1280", "gpu-results.md"),
        (r"next step ([\d.]+) s after", "gpu-results.md"),
        (r"([\d.]+) s from the open dialog", "gpu-results.md"),
        (r"host is ([\d.]+) to", "gpu-results.md"),
        (r"to ([\d.]+) % of a step", "gpu-results.md"),
        (r"H200s: ([\d.]+) to", "gpu-results.md"),
        (r"to ([\d.]+) s from giving up", "gpu-results.md"),
    ],
)
def test_figures_of_the_readmes_are_those_that_were_measured(figure, page):
    measured = re.search(figure, text_of(ENGLISH)).group(1)
    assert measured in text_of(ROOT / "docs" / page), f"{page} has changed: mend both READMEs"
    assert measured in text_of(CHINESE)


@pytest.mark.parametrize(
    ("english", "chinese", "row"),
    [
        (r"judged ([\d.]+) times faster", r"快 ([\d.]+) 倍", r"273 MB: nantui check, .*\| ([\d.]+)x faster"),
        (r"steps opens in\s+([\d.]+) s", r"的训练只要 ([\d.]+) s", r"5,000 epochs: opens \| ([\d.]+) "),
    ],
)
def test_speeds_of_the_readmes_are_those_of_the_benchmarks(english, chinese, row):
    measured = re.search(row, text_of(ROOT / "docs" / "benchmarks.md")).group(1)
    assert re.search(english, text_of(ENGLISH)).group(1) == measured, "benchmarks.md has changed"
    assert re.search(chinese, text_of(CHINESE)).group(1) == measured


def test_remedies_of_the_readmes_are_as_many_as_were_tried():
    with (ROOT / "configs" / "remedies.csv").open(encoding="utf-8", newline="") as file:
        tried = len({row["remedy"] for row in csv.DictReader(file)})
    assert f"causes × {tried} remedies" in text_of(ENGLISH)
    assert f"种原因 × {tried} 种方案" in text_of(CHINESE)


def test_endings_of_the_page_are_those_of_the_file():
    endings = yaml.safe_load((ROOT / "tests" / "data" / "endings.yaml").read_text(encoding="utf-8"))
    held_out = sum("held_out" in one for one in endings)
    caused = sum(one["how"] == "caused" for one in endings)
    page = " ".join(text_of(ROOT / "docs" / "unattended.md").split())
    assert f"has {len(endings)} endings, {held_out} of them kept out" in page
    assert f"{caused} were caused on the CPU" in page


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_link_leads_somewhere(page):
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def commands_named(page):
    """Yield the words behind `nantui` in code, on a page."""
    text = text_of(page)
    code = [
        *"\n".join(re.findall(r"```.*?```", text, re.DOTALL)).splitlines(),
        *re.findall(r"`([^`\n]+)`", text),
    ]
    for line in code:
        words = line.partition("  #")[0].split()
        if words[:1] == ["nantui"] and len(words) > 1 and words[1][0].islower() and "/" not in words[1]:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_command_and_option_named_exists(page):
    for command, *words in commands_named(page):
        assert command in COMMANDS, f"{page.name}: nantui {command}"
        words = words[: words.index("--")] if "--" in words else words
        known = {option for action in parser_of(command)._actions for option in action.option_strings}
        asked = {re.match(r"[-a-z]+", word).group() for word in words if re.match(r"--?[a-z]", word)}
        assert asked <= known, f"{page.name}: nantui {command} {' '.join(words)}"


def test_commands_in_pages_are_found():
    assert ["exec", "--", "python", "train.py"] in list(commands_named(ENGLISH))


def test_every_page_of_the_documentation_is_in_its_index():
    index = text_of(ROOT / "docs" / "README.md")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index]
    assert missing == ["README.md"]
