"""A chunk of UTF-8 text -> the positions of its physical lines.

Here: line ends (LF, CRLF and CR each end a line) and where text may be cut. Not here: quotes and records (`records.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

LF, CR = 10, 13


@dataclass(frozen=True)
class Lines:
    """The physical lines of a chunk.

    Attributes:
        starts: offset of the start of each line.
        stops: offset of the end of its text, before the line end.
        nexts: offset after its line end.
    """

    starts: Positions
    stops: Positions
    nexts: Positions

    def first(self, count: int) -> Lines:
        """Return the first `count` lines."""
        return Lines(self.starts[:count], self.stops[:count], self.nexts[:count])


def whole_lines(text: bytes, *, final: bool) -> int:
    """Return the length of the whole lines of `text`; all of it at the end of the file.

    A CR that ends the text may be the first half of a CRLF, so it ends no line yet.
    """
    return len(text) if final else max(text.rfind(b"\n"), text.rfind(b"\r", 0, max(0, len(text) - 1))) + 1


def split_lines(text: bytes, cut: int) -> Lines:
    """Return the lines of `text[:cut]`, which must end with a whole line."""
    codes = np.frombuffer(text, np.uint8, cut)
    feeds = codes == LF
    if text.find(b"\r", 0, cut) < 0:
        ends = np.flatnonzero(feeds)
        stops = ends
    else:
        returns = codes == CR
        alone = returns.copy()
        alone[:-1] &= ~feeds[1:]
        ends = np.flatnonzero(feeds | alone)
        after_return = np.zeros(cut, np.bool_)
        after_return[1:] = returns[:-1]
        stops = ends - (feeds & after_return)[ends]
    nexts = ends + 1
    if not len(nexts) or nexts[-1] < cut:
        nexts = np.append(nexts, cut)
        stops = np.append(stops, cut)
    starts = np.empty_like(nexts)
    starts[0] = 0
    starts[1:] = nexts[:-1]
    return Lines(starts, stops, nexts)
