import io
from base64 import b64decode

import pytest
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.plotting.page import Html, chart, element, joined, page, picture, table, tiles
from tests.helpers.web_pages import Page

NAMES = ["<script>alert(1)</script>", "a & b", '"q\'uote"', "\u87ba\u6bcd", "&lt;", "</td>"]


def embedded(source):
    kind, _, content = source.partition(";base64,")
    return kind, Image.open(io.BytesIO(b64decode(content)))


def test_text_of_users_is_text(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    parts = [element("p", name) for name in NAMES]
    parts += [table(NAMES, [NAMES]), picture(str(tmp_path / "a.png"), NAMES[2])]
    seen = Page(page(NAMES[0], Html(), {name: joined(parts) for name in NAMES}))
    assert "script" not in seen.tags
    assert {text.strip() for text in seen.texts} == set(NAMES)
    assert seen.tags.count("td") == 5 * len(NAMES) and seen.tags.count("img") == len(NAMES)


def test_characters_that_would_change_the_page_are_escaped():
    shown = element("p", "\u202eevil\x1b\udcff\nend")
    assert shown == r"<p>\u202eevil\x1b\udcff\nend</p>"
    shown.encode()  # no lone surrogates


def test_numbers_of_tables_and_tiles():
    text = table(["class", "objects", "AP"], [["nut", 1200, float("nan")], ["bolt", 3, 41.26]])
    nut, bolt = ["nut", "1,200", "\u2013"], ["bolt", "3", "41.3"]
    assert Page(text).texts == ["class", "objects", "AP", *nut, *bolt]
    assert text.count('class="number"') == 2 + 4  # titles are aligned like their numbers
    assert "thead" not in table((), [("Seed", "1")])
    assert table(["class", "AP"], []).count("<th>") == 2
    assert Page(tiles({"AP": 41.26})).texts == ["AP", "41.3"]


def test_a_page_loads_nothing():
    seen = Page(page("Run", Html(), {"First": element("p", "1"), "Second": element("p", "2")}))
    assert seen.sources == ["#s1", "#s2"]
    assert seen.texts == ["Run", "Run", "First", "Second", "First", "1", "Second", "2"]


def test_pictures_are_small_jpegs(tmp_path):
    Image.new("RGBA", (4000, 40), "red").save(tmp_path / "a.png")
    (source,) = Page(picture(str(tmp_path / "a.png"), "red")).sources
    kind, image = embedded(source)
    assert kind == "data:image/jpeg" and image.format == "JPEG" and image.size == (1600, 16)
    for damaged in (b"", (tmp_path / "a.png").read_bytes()[:60], b"text"):
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"missing or damaged: .*b\.png"):
            picture(str(tmp_path / "b.png"), "damaged")


def test_a_chart_has_one_legend_below_its_axes():
    axes = []

    def draw(panel):
        panel.plot([1, 2], label="a $5 class")
        panel.legend()
        panel.set_title("in the caption")
        axes.append(panel)

    (source,) = Page(chart(draw, "a line")).sources
    kind, image = embedded(source)
    assert kind == "data:image/png" and image.size == (800, 640)
    assert axes[0].get_legend() is None and axes[0].get_title() == ""
    assert len(axes[0].figure.legends) == 1
    chart(lambda panel: axes.append(panel), "nothing")
    assert not axes[1].figure.legends
