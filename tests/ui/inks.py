"""What colours a screen has, as the names that the theme gives them: a row is runs of cells.

`muted 6 | foreground+bold/cursor 2` says: six muted cells, then two bold ones under the cursor. A colour
that no name stands for is `mixed`: what lies behind a dialog.
"""

from itertools import groupby

from nantui.paths import styles_dir
from nantui.ui.textual_internals import screen_rows
from nantui.ui.theme import NAMES, load_theme

GROUNDS = ("background", "surface", "panel", "cursor", "chosen", "alarm")
PLAIN = ("background", "surface", "panel")


def plain(line):
    """Return only the text of a line of spans."""
    return "".join(text for text, _ in line)


def screen_inks(app):
    """Return the colours of the screen, one line a row."""
    names = colour_names()
    return "\n".join(row_inks(row, names) for row in screen_rows(app))


def colour_names():
    """Return hex -> name, for text and for grounds; of names that share a colour the first one counts."""
    variables = load_theme(styles_dir() / "themes" / f"{NAMES[0]}.tcss").variables
    found = {}
    for name, value in variables.items():
        if value.startswith("#"):
            found.setdefault((name in GROUNDS, value.lower()), name)
            found.setdefault((True, value.lower()), name)
    return found


def row_inks(row, names):
    cells = [(ink(segment, names), len(segment.text)) for segment in row if segment.text]
    runs = [(name, sum(count for _, count in run)) for name, run in groupby(cells, key=lambda cell: cell[0])]
    return " | ".join(f"{name} {count}" for name, count in runs)


def ink(segment, names):
    style = segment.style
    ground = colour(style.bgcolor, True, names)
    on = "" if ground in PLAIN else f"/{ground}"
    if not segment.text.strip():
        return f"blank{on}"
    marks = "".join(f"+{mark}" for mark in ("bold", "underline", "reverse", "dim") if getattr(style, mark))
    return f"{colour(style.color, False, names)}{marks}{on}"


def colour(value, ground, names):
    if value is None or value.is_default:
        return "default"
    return names.get((ground, value.get_truecolor().hex.lower()), "mixed")
