"""Pages as trees of elements, and the content of elements that are marked as figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from mini_platform_tests.support.figures import Read
from mini_platform_tests.support.pages import VOID


@dataclass
class Node:
    """An element of a page, with its children."""

    tag: str
    attrs: Mapping[str, str | None]
    up: Node | None
    parts: list[Node | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Node]:
        """Yield all elements within this one, itself first."""
        yield self
        for part in self.parts:
            if isinstance(part, Node):
                yield from part

    @property
    def words(self) -> str:
        """Return the text of the element; of a picture its label, of a time its timestamp."""
        if self.tag == "svg":
            return self.attrs.get("aria-label") or ""
        if self.tag == "time":
            return str(self.attrs["datetime"])
        return " ".join(part.words if isinstance(part, Node) else part for part in self.parts)

    def all(self, *tags: str) -> list[Node]:
        return [node for node in self if node.tag in tags]

    @property
    def figure(self) -> Node | None:
        """Return the nearest element that is marked as a figure: this one or a parent."""
        return self if "data-figure" in self.attrs else self.up.figure if self.up else None


class Tree(HTMLParser):
    """Reads a page as elements in each other."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self._at = Node("", {}, None)
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self._at)
        self._at.parts.append(node)
        if tag not in VOID:
            self._at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at.parts.append(Node(tag, dict(attrs), self._at))

    def handle_endtag(self, tag: str) -> None:
        self._at = self._at.up or self._at  # What closes nothing is told by `Page`.

    def handle_data(self, data: str) -> None:
        self._at.parts.append(data)


def squeezed(words: Any) -> str:
    return "".join(str(words).split())


def read(node: Node) -> Read:
    """Return the content of a figure: the cells of a table or list, or a text."""
    if node.tag == "table":
        (body,) = node.all("tbody")
        return [[squeezed(cell.words) for cell in row.all("th", "td")] for row in body.all("tr")]
    if node.tag == "dl":
        return [[squeezed(cell.words) for cell in row.all("dt", "dd")] for row in node.all("div")]
    if node.tag == "ul":
        return [[squeezed(item.words)] for item in node.all("li")]
    return squeezed(node.words)


def squeezed_all(figure: Read) -> Any:
    return squeezed(figure) if isinstance(figure, str) else [[squeezed(cell) for cell in row] for row in figure]


def download_links(node: Node) -> Iterator[str]:
    """Yield where the rows of a table are as data: the download links below it."""
    around = node.up
    while around is not None and around.tag not in ("section", "figure", "main"):
        around = around.up
    for paragraph in around.all("p") if around and around.tag == "section" else ():
        if paragraph.attrs.get("class") == "alternates" and "Download" in paragraph.words:
            yield from (str(link.attrs["href"]) for link in paragraph.all("a"))


def difference(actual: Any, expected: Any) -> str:
    """Return the first difference of two results."""
    if isinstance(actual, list) and isinstance(expected, list):
        if len(actual) != len(expected):
            return f"{len(actual)} rows, not {len(expected)}"
        for a, b in zip(actual, expected, strict=True):
            if a != b:
                parts = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
                return f"{len(a)} cells, not {len(b)}: {parts[:2]}"
    return f"{str(actual)[:300]!r}, not {str(expected)[:300]!r}"
