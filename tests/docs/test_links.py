"""Links between the documents lead somewhere, to the heading too, and pictures are there."""

import re

import pytest

from tests.docs.reading import DOCUMENTS, ROOT


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document: str) -> None:
    path = ROOT / document
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{document}: there is no {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{document}: no heading for {link}"


def test_anchors_are_those_of_github() -> None:
    text = "# `rs` or `brs`? What (it) changes\n\n```sh\n# no heading\n```\n## [A](b.md) & c-d"
    assert anchors(text) == {"rs-or-brs-what-it-changes", "a--c-d"}
