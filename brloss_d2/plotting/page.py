"""Web pages of one file: text, tables and pictures, without scripts and without a network."""

import base64
import html
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from matplotlib.axes import Axes
from PIL import Image

from brloss_d2.errors import InputError
from brloss_d2.plotting.figures import new_figure, save_figure
from brloss_d2.utils.text import printable

_CHART_SIZE = (5.0, 4.0)  # inches: letters can be read on the screen of a phone
_CHART_DPI = 160
_MOST_PIXELS = 1600  # longer side of a picture
_QUALITY = 85  # of JPEG
_SHORT_LABEL = 22  # characters of a legend in two columns
_STYLE = """
:root { color-scheme: light dark; --text: #1b2430; --faint: #5c6675; --line: #d8dee7;
  --back: #ffffff; --card: #f4f6f9; --link: #0b5fa5; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e3e7ed; --faint: #9aa5b4; --line: #363f4b; --back: #14181e; --card: #1d232b;
    --link: #79b8f2; }
  img.chart { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; color: var(--text);
  background: var(--back); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.75rem; padding-top: 0.5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p { margin: 0.5rem 0; max-width: 48rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
.faint { color: var(--faint); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: 0.6rem;
  margin: 1rem 0; }
.tile { background: var(--card); border-radius: 0.5rem; padding: 0.5rem 0.75rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; }
.table { overflow: auto; border: 1px solid var(--line); border-radius: 0.4rem;
  width: fit-content; max-width: 100%; margin: 0.75rem 0; }
.list { max-height: 34rem; overflow-wrap: break-word; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.92rem; }
th, td { padding: 0.3rem 0.7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); unicode-bidi: isolate; }
tr:last-child > * { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--card); white-space: nowrap; }
tbody th { font-weight: normal; min-width: 6rem; }
.list th, .list td { max-width: 18rem; }
.facts th { min-width: 8.5rem; color: var(--faint); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--card); border-radius: 0.4rem; padding: 0.6rem 0.8rem; margin: 0.5rem 0;
  white-space: pre-wrap; font-size: 0.88rem; }
.pictures { display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; min-width: 0; }
img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border-radius: 0.3rem; }
.scroll { overflow-x: auto; }
.scroll img { max-width: max(100%, 44rem); }
figcaption { font-size: 0.88rem; margin-top: 0.3rem; }
@media (max-width: 30rem) {
  .list th, .list td { padding: 0.3rem 0.4rem; max-width: 9rem; }
  .list tbody th { min-width: 4rem; }
}
"""


class Html(str):
    """Text that is HTML already; any other text is escaped."""

    __slots__ = ()


def element(tag: str, *content: object, **attributes: str) -> Html:
    """Return an element with its content, which is escaped unless it is `Html`.

    Args:
        tag: name of the element.
        *content: text of users, HTML or numbers, one after the other.
        **attributes: attributes; one named like a word of Python ends in an underscore.
    """
    pairs = (f' {name.rstrip("_")}="{_escaped(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{''.join(pairs)}>{''.join(map(_escaped, content))}</{tag}>")


def joined(parts: Iterable[object]) -> Html:
    """Return pieces of HTML, one after the other."""
    return Html("\n".join(map(_escaped, parts)))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table that scrolls within the page if it is long or wide.

    Args:
        headers: titles of the columns; none for a table of names and values.
        rows: cells; the first one names the row. Fractions get one digit, and NaN a dash.
    """
    rows = list(rows)
    # The title of a column is where its numbers are.
    example = (*rows[:1], headers)[0]
    head = [_cell("th", title, like) for title, like in zip(headers, example, strict=False)]
    body = [
        element("tr", element("th", name, scope="row"), *(_cell("td", v, v) for v in values))
        for name, *values in rows
    ]
    inside = [element("thead", element("tr", *head)), element("tbody", joined(body))]
    kind = "list" if headers else "facts"
    return element("div", element("table", *inside[not headers :]), class_=f"table {kind}")


def tiles(values: Mapping[str, float]) -> Html:
    """Return the most important numbers, in percent, large."""
    cells = (
        element("div", name, element("b", _number(value)), class_="tile")
        for name, value in values.items()
    )
    return element("div", joined(cells), class_="tiles")


def picture(file: str, alt: str, **attributes: str) -> Html:
    """Return a picture that is part of the page, as JPEG of at most 1600 pixels.

    Args:
        file: path of the picture.
        alt: what it shows.
        **attributes: attributes of the element, as those of `element`.

    Raises:
        InputError: the file is missing or damaged.
    """
    content = io.BytesIO()
    try:
        with Image.open(file) as image:
            smaller = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"Picture missing or damaged: {file}.") from error
    smaller.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    smaller.save(content, format="jpeg", quality=_QUALITY)
    return _embedded(content.getvalue(), "jpeg", smaller.size, alt=alt, **attributes)


def chart(draw: Callable[[Axes], object], alt: str) -> Html:
    """Return a chart with one pair of axes that is part of the page.

    Args:
        draw: function that draws on the axes; their legend comes below them, and no title.
        alt: what the chart shows.
    """
    figure = new_figure(*_CHART_SIZE, dpi=_CHART_DPI)
    axes = figure.subplots()
    draw(axes)
    axes.set_title("")
    handles, labels = axes.get_legend_handles_labels()
    if (inside := axes.get_legend()) is not None:
        inside.remove()
    if handles:
        columns = 2 if max(map(len, labels)) <= _SHORT_LABEL else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)
    with TemporaryDirectory() as folder:
        file = os.path.join(folder, "chart.png")
        save_figure(figure, file)
        with open(file, "rb") as opened, Image.open(file) as image:
            return _embedded(opened.read(), "png", image.size, alt=alt, class_="chart")


def page(title: str, introduction: Html, sections: Mapping[str, Html]) -> str:
    """Return a whole page.

    Args:
        title: title of the page.
        introduction: what comes before the first section.
        sections: title -> content, in order; links to them are at the top.
    """
    numbered = [(f"s{i}", *section) for i, section in enumerate(sections.items(), 1)]
    links = (element("a", name, href=f"#{id_}") for id_, name, _ in numbered)
    parts = (joined([element("h2", name, id=id_), content]) for id_, name, content in numbered)
    body = [element("h1", title), introduction, element("nav", joined(links)), *parts]
    head = [
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(_STYLE)),
    ]
    inside = joined([element("head", joined(head)), element("body", joined(body))])
    return f"<!DOCTYPE html>\n{element('html', inside, lang='en')}\n"


def _escaped(value: object) -> str:
    return value if isinstance(value, Html) else html.escape(printable(value))


def _cell(tag: str, value: object, like: object) -> Html:
    """Return a cell of a table, aligned like a value of its column."""
    if isinstance(like, str):
        return element(tag, value)
    return element(tag, value if isinstance(value, str) else _number(value), class_="number")


def _number(value: Any) -> str:
    whole = isinstance(value, int)
    return "\u2013" if math.isnan(value) else f"{value:,}" if whole else f"{value:.1f}"


def _embedded(content: bytes, kind: str, size: tuple[int, int], **attributes: str) -> Html:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    width, height = map(str, size)
    image = element("img", src=source, width=width, height=height, **attributes)
    return Html(image.removesuffix("</img>"))
