"""Text that others wrote, made safe to print: the one place that decides what may reach a terminal.

File names, log lines, args.yaml, what is inside a checkpoint: each may hold escape sequences that move the
cursor, set the title or the clipboard, characters that turn the direction of what follows, and characters
that nobody sees. Escape sequences go whole (ECMA-48: CSI, OSC, DCS and their like, also in their 8-bit
forms), what cannot be seen goes, and what has no meaning of its own becomes U+FFFD. All else stays as it is.
"""

from __future__ import annotations

import json
import re

_SEQUENCE = (
    # OSC, DCS, SOS, PM, APC: up to BEL or ST; without an end they take their line, not the lines behind it
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\r\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_END = "\r\n|[\n\v\f\r\x85\u2028\u2029]"
_HIDDEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Letters and marks that nobody sees: `str.isprintable` lets them pass."""
_DROPPED = (
    "\x00-\x08\x0a-\x1f\x7f-\x9f"  # C0 but the tab, and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: marks, embeddings, overrides, isolates
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph, interlinear notes
    # Default_Ignorable_Code_Point of Unicode 15.0 (DerivedCoreProperties.txt): zero width, fillers, tags
    "\u00ad\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\U00013430-\U0001343f"  # joiners of hieroglyphs
) + _HIDDEN
_REPLACED = "\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff"
"""Private use, and surrogates: how Python spells the bytes of a file name that are not UTF-8."""
_HARMFUL_IN_A_LINE = f"(?!\n)[{_DROPPED}{_REPLACED}]"
_HAS_HIDDEN = re.compile(f"[{_HIDDEN}]").search


def printable(text: object, limit: int = 2000, cut: str = "", mark: str = "") -> str:
    """Return `text` as one line of at most `limit` characters that steers no terminal.

    A longer one ends with `cut`. `mark` stands for each sequence and each character that is taken out: for
    names that are compared, where leaving something out would make another name of it.
    """
    line = _one_line(str(text)[: limit * 4], mark).replace("\t", " ")
    return line if len(line) <= limit else (line[: max(0, limit - len(cut))] + cut)[:limit]


def printable_lines(text: str) -> str:
    """Return `text` the same way, its lines and tabs kept."""
    return "\n".join(map(_one_line, text.replace("\r\n", "\n").split("\n")))


def is_printable(text: str) -> bool:
    """Tell whether `text` is one line that `printable` would leave as it is."""
    return "\t" not in text and _one_line(text) == text


def without_sequences(text: str) -> str:
    """Return `text` without escape sequences, all else kept (for parsing logs)."""
    return re.sub(_SEQUENCE, "", text)


def escaped_json(document: str) -> str:
    """Return the same JSON document with \\u escapes where a terminal would be steered: it reads the same."""
    return re.sub(_HARMFUL_IN_A_LINE, lambda found: _in_json(found[0]), document)


def escaped(text: str) -> str:
    """Return `text` with backslash escapes for what would be taken out: for tables that programs read."""
    return re.sub(_HARMFUL_IN_A_LINE, lambda found: found[0].encode("unicode_escape").decode(), text)


def _in_json(character: str) -> str:
    return r"\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def _one_line(text: str, mark: str = "") -> str:
    """Return `text` on one line, its tabs kept."""
    if text.isprintable() and (text.isascii() or not _HAS_HIDDEN(text)):
        return text
    text = re.sub(_LINE_END, " ", re.sub(_SEQUENCE, mark, text))
    return re.sub(f"[{_REPLACED}]", mark or "\N{REPLACEMENT CHARACTER}", re.sub(f"[{_DROPPED}]", mark, text))
