"""The tour shows each frame for its seconds, one after the other, and is an SVG."""

import re
from xml.etree import ElementTree

from devtools.gallery import MACHINE, SCENES
from devtools.moving_picture import TOUR, moving

FRAME = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>{0}</text></svg>\n'


def test_each_frame_has_its_time():
    svg = moving([(FRAME.format("one"), 1.0), (FRAME.format("two"), 3.0)])
    root = ElementTree.fromstring(svg)
    assert [group.get("id") for group in root if group.tag.endswith("}g")] == ["f0", "f1"]
    spans = re.findall(r"([\d.]+)%\{visibility:visible\}([\d.]+)%\{visibility:hidden\}", svg)
    assert spans == [("0.00", "25.00"), ("25.00", "100.00")] and "4s step-end infinite" in svg


def test_the_tour_is_half_a_minute_of_scenes_that_there_are():
    assert {name for name, _, _ in TOUR} <= {scene.name for scene in (*SCENES, MACHINE)}
    assert 25 <= sum(seconds for _, _, seconds in TOUR) <= 35
