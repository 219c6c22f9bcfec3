"""Text from files and processes, made safe for a terminal.

A hostile file name, log line or args.yaml may hold escape sequences that move the cursor, set the title or
the clipboard. Everything that is printed or kept goes through here first.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: title, clipboard, links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]?"
)
_BIDI_AND_INVISIBLE = "\u200e\u200f\u2028\u2029" + "".join(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
_DROP = {code: None for code in (*range(0x20), *range(0x7F, 0xA0), *map(ord, _BIDI_AND_INVISIBLE))}
_BROKEN = {code: "\N{REPLACEMENT CHARACTER}" for code in range(0xD800, 0xE000)}
"""How Python spells the bytes of a file name that are not UTF-8; no terminal can be sent them."""
_SPACE = {ord("\t"): " ", ord("\n"): " ", ord("\r"): " "}
_TABLE = {**_DROP, **_BROKEN, **_SPACE}


def printable(text: object, limit: int = 2000) -> str:
    """Return `text` as one line without escape sequences, control or direction characters."""
    whole = _SEQUENCE.sub("", str(text)[: limit * 4])
    return whole.translate(_TABLE)[:limit]


def without_sequences(text: str) -> str:
    """Return `text` without escape sequences, its line ends kept (for parsing logs)."""
    return _SEQUENCE.sub("", text)
