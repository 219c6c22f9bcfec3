"""Whatever a name, a log or a file holds: what is printed steers no terminal, and reads as it did."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nantui
from nantui.checkpoint.verdict import Finding, printable_finding
from nantui.commands.common import emit, say
from nantui.labels.report import Issue, LabelReport, write_csv, write_json
from nantui.terminal_text import (
    escaped,
    escaped_json,
    is_printable,
    printable,
    printable_lines,
    without_sequences,
)
from nantui.ui.format import clean

PACKAGE = Path(nantui.__file__).parent
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Number signs of Arabic, Syriac and Kaithi: format characters by category, yet they are drawn."""

CASES = {
    # what is foreign, and what is printed of it
    "plain": ("exp3/weights/best.pt", "exp3/weights/best.pt"),
    "other alphabets": ("žluťoučký 訓練 обучение תוצאות نتائج", "žluťoučký 訓練 обучение תוצאות نتائج"),
    "combining marks": ("e\u0301 ก็ हिन्दी", "e\u0301 ก็ हिन्दी"),
    "emoji": ("done \U0001f389", "done \U0001f389"),
    "wide spaces": ("a\u00a0b\u2007c\u3000d", "a\u00a0b\u2007c\u3000d"),
    "braille": ("\u28ff\u2800\u28ff", "\u28ff\u2800\u28ff"),
    "brackets": ("[red]loss[/red]", "[red]loss[/red]"),
    "CSI: colour": ("\x1b[31mred\x1b[0m", "red"),
    "CSI: many parameters": ("\x1b[38;2;1;2;3mx", "x"),
    "CSI: clear the screen": ("a\x1b[2Jb", "ab"),
    "CSI: private mode": ("a\x1b[?1049hb", "ab"),
    "CSI: with intermediate": ("a\x1b[0 qb", "ab"),
    "CSI: 8-bit": ("a\x9b31mb", "ab"),
    "CSI: without an end": ("a\x1b[31", "a"),
    "CSI: broken off by another": ("a\x1b[3\x1b[0mb", "ab"),
    "OSC: title, ended by BEL": ("a\x1b]0;owned\x07b", "ab"),
    "OSC: title, ended by ST": ("a\x1b]2;owned\x1b\\b", "ab"),
    "OSC: clipboard": ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
    "OSC: link": ("\x1b]8;;http://evil\x1b\\text\x1b]8;;\x1b\\", "text"),
    "OSC: 8-bit": ("a\x9d0;owned\x9cb", "ab"),
    "OSC: without an end": ("a\x1b]0;never ends", "a"),
    "OSC: hides no other line": ("a\x1b]0;never ends\nb", "a b"),
    "DCS: sixel": ("a\x1bPq#0;2;0;0;0\x1b\\b", "ab"),
    "DCS: 8-bit": ("a\x90q#0\x9cb", "ab"),
    "APC": ("a\x1b_Gi=1;AAAA\x1b\\b", "ab"),
    "PM": ("a\x1b^private\x1b\\b", "ab"),
    "SOS": ("a\x1bXstring\x1b\\b", "ab"),
    "single: reset": ("a\x1bcb", "ab"),
    "single: save and restore": ("a\x1b7b\x1b8c", "abc"),
    "single: character set": ("a\x1b(0b", "ab"),
    "single: index": ("a\x1bDb\x1bMc", "abc"),
    "escape alone": ("a\x1b", "a"),
    "escape twice": ("a\x1b\x1b[31mb", "ab"),
    "sequence inside a sequence": ("a\x1b[\x1b[0m31mb", "a31mb"),
    "bell and backspace": ("a\x07\x08b", "ab"),
    "NUL and DEL": ("a\x00b\x7fc", "abc"),
    "shift out": ("a\x0eb\x0fc", "abc"),
    "C1": ("a\x84b\x8ec", "abc"),
    "line end": ("a\nb", "a b"),
    "line end of Windows": ("a\r\nb", "a b"),
    "carriage return": ("good\rbad", "good bad"),
    "tab": ("a\tb", "a b"),
    "vertical tab, form feed, next line": ("a\vb\fc\x85d", "a b c d"),
    "line and paragraph separator": ("a\u2028b\u2029c", "a b c"),
    "bidi: override": ("gpj.\u202eexe", "gpj.exe"),
    "bidi: embeddings": ("\u202aa\u202bb\u202cc\u202d", "abc"),
    "bidi: isolates": ("\u2066a\u2067b\u2068c\u2069", "abc"),
    "bidi: marks": ("\u200ea\u200fb\u061cc", "abc"),
    "zero width": ("be\u200bst\u200c\u200d\u2060.pt\ufeff", "best.pt"),
    "soft hyphen and joiner": ("be\u00adst\u034f", "best"),
    "variation selectors": ("a\ufe0fb\U000e0101", "ab"),
    "invisible letters": ("a\u3164b\uffa0c\u115fd\u1160", "abcd"),
    "tags": ("a\U000e0041\U000e007fb", "ab"),
    "deprecated format characters": ("a\u206ab\u206f", "ab"),
    "interlinear notes": ("a\ufff9b\ufffac\ufffb", "abc"),
    "musical format characters": ("a\U0001d173b", "ab"),
    "private use": ("a\ue0b0b\uf8ffc", "a\ufffdb\ufffdc"),
    "private use, further planes": ("a\U000f0000b\U0010fffdc", "a\ufffdb\ufffdc"),
    "a byte that is not UTF-8": ("caf\udce9.jpg", "caf\ufffd.jpg"),
    "lone surrogates": ("\ud83d and \ude00", "\ufffd and \ufffd"),
    "nothing": ("", ""),
}
cases = pytest.mark.parametrize(("foreign", "printed"), CASES.values(), ids=list(CASES))


@cases
def test_what_is_printed(foreign, printed):
    assert printable(foreign) == printed
    assert clean(foreign) == (printed if "\t" not in foreign else "a    b")
    assert is_printable(foreign) == (foreign == printed)


@cases
def test_lines_are_cleaned_alike_and_stay_lines(foreign, printed):
    text = f"{foreign}\n\tbehind it"
    assert printable_lines(text).split("\n")[-1] == "\tbehind it"
    assert " ".join(printable_lines(text).split()) == " ".join(f"{printed} behind it".split())


anything = st.text(max_size=60) | st.text(
    st.sampled_from("\x1b[]P\\;0m\x07\x9b\x9c\x9d\u202e\u200b\ud800\ue000\t\r\n ab?\u2028"), max_size=40
)


@given(anything)
@example("".join(map(chr, range(0x110000))))
def test_nothing_that_steers_or_hides_survives(text):
    printed = printable(text, limit=0x110000)
    left = {letter for letter in printed if unicodedata.category(letter) in INVISIBLE}
    assert {ord(letter) for letter in left} <= SEEN
    assert not re.search("[\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]", printed)
    assert is_printable(printed)


@given(anything, st.integers(0, 50), st.sampled_from(["", ".."]), st.sampled_from(["", "?"]))
def test_cleaned_twice_is_cleaned_once_and_no_longer_than_asked(text, limit, cut, mark):
    once = printable(text, limit, cut, mark)
    assert len(once) <= limit and printable(once, limit, cut, mark) == once
    assert printable_lines(printable_lines(text)) == printable_lines(text)


@given(
    st.text(
        st.characters(exclude_categories=[*INVISIBLE, "Cn", "Mn", "Lo"]) | st.sampled_from("é訓обتहก"),
        max_size=60,
    )
)
def test_printable_text_stays_as_it_is(text):
    assert printable(text) == printable_lines(text) == clean(text) == without_sequences(text) == text


def test_a_long_text_is_cut_where_it_was_asked():
    assert printable("a" * 30, 10) == "a" * 10
    assert printable("a" * 30, 10, cut="..") == clean("a" * 30, 10) == "a" * 8 + ".."
    assert printable("a" * 10, 10, cut="..") == "a" * 10


def test_a_name_with_something_hidden_does_not_become_another_name():
    assert printable("os\u200b.system", mark="?") == "os?.system"
    assert printable_finding(Finding("unsafe", "os\x1b[2J", "be\u202est")) == Finding(
        "unsafe", "os?", "be?st"
    )


def test_logs_are_read_without_sequences_line_by_line():
    assert without_sequences("\r\x1b[K 1/3\x1b[0m\n\x1b]0;x\n 2/3") == "\r 1/3\n\n 2/3"


# -- for programs: nothing is lost, and the terminal is safe all the same ------------------------------


@given(st.dictionaries(anything, anything, max_size=3))
def test_json_reads_the_same(document):
    for indent in (None, 2):
        written = escaped_json(json.dumps(document, ensure_ascii=False, indent=indent))
        assert json.loads(written) == document
        assert all(is_printable(line) for line in written.split("\n"))


def test_no_command_prints_what_steers(capsys):
    name = "x\x1b[2J\x9b31m\u202e\x7f\U000e0041"
    emit({"path": name})
    say(f"{name}\n{name}")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"path": name}
    assert printed.err == "x\nx\n"


def test_label_findings_stay_machine_readable():
    name, kind = "im\x1b[2J\u202e\udce9\rages/1.txt", "outside"
    report = LabelReport("data.yaml", "detect", issues=[Issue(name, 3, kind, f"class {name}")])
    told = io.StringIO()
    write_json(report, told)
    (issue,) = json.loads(told.getvalue())["issues"]
    assert issue["file"] == name and told.getvalue().isascii()
    table = io.StringIO()
    write_csv(report, table)
    _, row = csv.reader(table.getvalue().splitlines())
    assert row[0] == escaped(name) == r"im\x1b[2J\u202e\udce9\rages/1.txt" and row[1:3] == ["3", kind]
    assert all(is_printable(line) for line in table.getvalue().splitlines())


# -- one place ------------------------------------------------------------------------------------------

READ_MARKUP = {
    "Static", "Label", "Button", "Checkbox", "RadioButton", "OptionList", "Option", "Collapsible", "Markdown",
    "from_markup", "notify", "render_markup",
}  # fmt: skip


def called(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_nobody_uses_what_reads_markup():
    for path in sorted(PACKAGE.glob("ui/**/*.py")):
        found = READ_MARKUP & set(called(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, f"{path.relative_to(PACKAGE)} uses {found}: foreign text would be read as markup"


def test_nobody_else_decides_what_is_printable():
    mine = re.compile(r"isprintable|unicodedata|u202[a-e]|backslashreplace")
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "terminal_text.py"]
    found = {path.relative_to(PACKAGE).as_posix() for path in paths if mine.search(path.read_text("utf-8"))}
    # A path in JSON: bytes that are not UTF-8, spelled out; what a stream's encoding has no byte for.
    assert found == {"checkpoint/verdict.py", "machine/patient_output.py"}
