"""Every theme can be read with whatever colours a terminal has: true colour, 256, 16, none, light and dark.

What is on real screens is measured as the terminal shows it: colours brought down to what it has, the
sixteen as xterm and as the Linux console mix them, WCAG contrast 4.5 for text and 3 for curves and edges.
"""

from functools import cache

import pytest
from rich.color import Color, ColorSystem
from rich.terminal_theme import TerminalTheme

from nantui.ui.textual_internals import screen_rows
from nantui.ui.theme import NAMES
from nantui.ui.widgets.line_widget import contrast
from tests.ui.fakes import FakeBackend, make_plan

TEXT, GRAPHICS = 4.5, 3.0
CURVES = ("train", "val", "extra", "old")
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
XTERM = "000000 cd0000 00cd00 cdcd00 0000ee cd00cd 00cdcd e5e5e5 7f7f7f ff0000 00ff00 ffff00 5c5cff ff00ff"
CONSOLE = "000000 aa0000 00aa00 aa5500 0000aa aa00aa 00aaaa aaaaaa 555555 ff5555 55ff55 ffff55 5555ff ff55ff"
MIXES = [
    [tuple(bytes.fromhex(colour)) for colour in f"{mix} {cyan} ffffff".split()]
    for mix, cyan in ((XTERM, "00ffff"), (CONSOLE, "55ffff"))
]
ENVIRONMENTS = {
    "true": {"COLORTERM": "truecolor"},
    "256": {"COLORTERM": ""},
    "16": {"COLORTERM": "", "TERM": "xterm"},
    "none": {"NO_COLOR": "1"},
}
SCREENS = {"": "ALARM", "R": "restore point", "c": "optimizer", "question_mark": "Keys", "d": "causes"}
SYSTEMS = {"true": ColorSystem.TRUECOLOR, "256": ColorSystem.EIGHT_BIT}


@cache
def terminals(colours):
    """The terminals that show these colours: what they make of a default ground and of the sixteen."""
    mixed = [TerminalTheme(ground, text, mix[:8], mix[8:])
             for ground, text in ((BLACK, WHITE), (WHITE, BLACK)) for mix in MIXES]  # fmt: skip
    return mixed if colours in ("16", "none") else mixed[:1]


@cache
def shown(style, colours, terminal):
    """The text's and the ground's colour as this terminal shows a style."""

    def seen(colour, foreground):
        system = SYSTEMS.get(colours, ColorSystem.STANDARD)
        colour = colour or Color.default()
        return Color.from_triplet(colour.downgrade(system).get_truecolor(terminal, foreground))

    pair = seen(style.color, True), seen(style.bgcolor, False)
    return pair[::-1] if style.reverse else pair


def wanted(text):
    """The contrast that a piece of the screen needs; None for the faint dots of a grid and for spaces."""
    letters = text.strip(" ⠄")
    if not letters:
        return None
    return GRAPHICS if all(0x2800 <= ord(letter) < 0x2900 or letter in " ╌╎" for letter in letters) else TEXT


def illegible(app, colours):
    """What of the screen cannot be read; below a dialog, only the dialog counts."""
    dialog = app.screen.query(".dialog")
    region = dialog.first().region if dialog else app.screen.region
    found = []
    for strip in screen_rows(app)[region.y : region.bottom]:
        for segment in strip.crop(region.x, region.right):
            least = wanted(segment.text)
            for terminal in terminals(colours) if least else ():
                text, ground = shown(segment.style, colours, terminal)
                if contrast(text, ground) < least:
                    found.append((segment.text.strip(), str(segment.style), round(contrast(text, ground), 2)))
    return sorted(set(found))


@pytest.mark.parametrize("colours", ENVIRONMENTS)
async def test_every_theme_is_legible(cockpit, monkeypatch, colours):
    for name, value in ENVIRONMENTS[colours].items():
        monkeypatch.setenv(name, value)
    async with cockpit(nan_from=7, backend=FakeBackend(plan=make_plan())) as driver:
        for key, word in SCREENS.items():
            await driver.press(*([key] if key else []))
            await driver.until(word)
            for name in NAMES:
                driver.app.theme = name
                await driver.pilot.pause()
                assert not illegible(driver.app, colours), (name, word)
            await driver.press("escape")
            await driver.until("box")


@pytest.mark.parametrize("colours", ENVIRONMENTS)
async def test_panels_stand_off_the_ground_and_curves_apart(cockpit, monkeypatch, colours):
    """A panel's edge is the rule of its title; curves differ by colour, or by being broken and dim."""
    for name, value in ENVIRONMENTS[colours].items():
        monkeypatch.setenv(name, value)
    async with cockpit() as driver:
        app = driver.app
        for name in NAMES:
            app.theme = name
            await driver.pilot.pause()
            for terminal in terminals(colours):
                grounds = [app.screen.rich_style, *(one.rich_style for one in app.screen.query(".panel"))]
                for ground in grounds:
                    edge, behind = shown(ground + app.inks["rule"], colours, terminal)
                    assert contrast(edge, behind) >= GRAPHICS, (name, "rule")
                if colours != "none" and name != "sixteen":
                    seen = {shown(grounds[1] + app.inks[ink], colours, terminal)[0] for ink in CURVES}
                    assert len(seen) == len(CURVES), (name, "curves")
            bars = [app.screen.query_one(f"#{bar}").rich_style for bar in ("header", "keybar")]
            assert all(bar.reverse or bar.bgcolor != app.screen.rich_style.bgcolor for bar in bars), name
            if colours == "none" or name == "sixteen":
                assert app.inks["old"].dim and not app.inks["train"].dim
        charts = [chart.picture for chart in app.screen.query("Chart")]
        broken = {curve.name: curve.dashed for picture in charts for curve in picture.curves}
        assert broken["val"] and not broken["train"]
