"""The demo says at each stage what comes, what has happened, and at the end what to try on one's own data."""

import pytest

from nantui.demo import story
from nantui.demo.story import narrate
from nantui.run.events import Incident, RollbackDone
from tests.ui.fakes import FakeBackend
from tests.ui.synthetic import make_run

NAN, SKIP = (
    Incident(kind="incident", t=1.0, action="observed"),
    Incident(kind="incident", t=3.0, action="skipped"),
)
BACK = RollbackDone(kind="rollback_done", t=2.0)


@pytest.mark.parametrize(
    ("state", "journal", "said"),
    [
        ("running", [], story.COMING),
        ("running", [NAN], story.HAPPENED),
        ("running", [NAN, BACK], story.RECOVERED),
        ("running", [NAN, BACK, SKIP], story.SKIPPED),
        ("finished", [NAN, BACK, SKIP], story.END),
        ("finished", [NAN], story.HAPPENED),
    ],
)
def test_each_stage_has_its_words(state, journal, said):
    assert narrate(state, journal) == said


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_cockpit_of_the_demo_says_them_above_its_keys(tmp_path, size):
    from devtools.screen_svg import screen_text
    from nantui.ui.app import CockpitApp

    run = make_run(tmp_path / "demo")
    app = CockpitApp(run, [run], FakeBackend())
    app.narrate = narrate
    async with app.run_test(size=size) as pilot:
        for _ in range(100):
            if "Press R, read the plan" in " ".join(screen_text(app).split()):
                break
            await pilot.pause(0.05)
        lines = screen_text(app).rstrip().split("\n")
        assert "Happened: NaN" in "\n".join(lines[-3:]) and "? help" in lines[-1]
