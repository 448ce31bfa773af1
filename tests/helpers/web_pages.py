"""What a reader of a web page sees, and what a browser would load."""

from html.parser import HTMLParser

_EMPTY = {"meta", "img"}  # elements without an end


class Page(HTMLParser):
    """A page whose elements are closed in order; anything else is an error.

    Attributes:
        tags: names of the elements, in order.
        texts: pieces of text without those of the style, in order.
        sources: attributes `src` and `href`, in order.
    """

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open and data.strip():
            self.texts.append(data)
