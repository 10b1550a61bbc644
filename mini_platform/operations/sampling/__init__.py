"""Sample files for any dataset: any number of valid rows, and an exact number of rows that fail a rule.

Here: the generator behind `mini-platform sample`. `rows` generates valid rows, `dirt` makes some of them invalid, and `formats`
writes them as CSV or JSON. All of it is derived from the declaration, so a new dataset needs no code for its invalid rows. Not
here: validating rows (`rows/validation.py`), reading files (`rows/readers/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mini_platform.declare.dataset import Dataset
from mini_platform.operations.sampling.dirt import SPECIMENS, Dirt
from mini_platform.operations.sampling.formats import FORMS, Form, form_of, suffix_of, writer_of
from mini_platform.operations.sampling.rows import clean_rows, generator, yesterday

__all__ = ["FORMS", "Form", "SampleSummary", "form_of", "suffix_of", "write_sample"]

CHUNK_ROWS = 10_000
"""Rows generated, encoded and written at a time: less than 1 MB for four short columns; larger chunks are not faster."""


@dataclass(frozen=True)
class SampleSummary:
    """The row counts of a sample.

    Attributes:
        rows: number of data rows written, including the invalid ones.
        dirty: number of invalid rows by kind of dirt. A kind is the name of the failed rule and, if there are several ways to
            fail it, a colon and the way: `date_required`, `height_m_in_range:above`, `row_quotes_closed:unclosed`. Kinds
            are in the order of use: the first invalid row is of the first kind, the next one of the second.
    """

    rows: int
    dirty: dict[str, int]


def write_sample(
    dataset: Dataset,
    out: Path | IO[bytes],
    rows: int | range,
    dirty: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    form: Form | None = None,
) -> SampleSummary:
    """Write a file of valid rows, some of them made invalid; the same arguments give the same bytes, on the same day (UTC).

    Dates reach until yesterday.

    Exactly `round(rows * dirty)` rows are made invalid, at random places, by each kind of dirt in turn. The other rows do
    not depend on `dirty`. Each record is on a line of its own. Memory use does not depend on the number of rows.

    Args:
        dataset: dataset of the rows; valid ones come from `dataset.realistic`, else from the declared types and checks.
        out: a path, at which the file appears only once it is complete, or an open binary file.
        rows: number of data rows to write, without the header; or their row numbers, of which each has its own key.
        dirty: fraction of invalid rows, 0 to 1.
        seed: seed of all randomness.
        progress: called after each chunk with the number of rows written so far.
        form: format of the file; by default that of the dataset's first source, JSON as lines.

    Raises:
        ValueError: a number is out of its range, the dataset has no files of this format or only in a special dialect, or
            valid rows cannot be drawn without `realistic`.
    """
    numbers = range(rows) if isinstance(rows, int) else rows
    if (isinstance(rows, int) and rows < 0) or not 0 <= dirty <= 1:
        raise ValueError(f"rows must be 0 or more and dirty between 0 and 1, not {rows} and {dirty}")
    writer, last_day = writer_of(dataset, form), yesterday()
    generate = clean_rows(dataset, generator(seed, "rows"), last_day)
    spoiled = round(len(numbers) * dirty)
    specimens = clean_rows(dataset, generator(seed, "specimens"), last_day)(numbers[: SPECIMENS if spoiled else 0])
    dirt = Dirt(dataset, writer, specimens, len(numbers), spoiled, seed)
    with _open(out) as file:
        text = writer.start()
        for start in range(0, len(numbers), CHUNK_ROWS):
            chunk = generate(numbers[start : start + CHUNK_ROWS])
            records = (dirt.applied(position, cells) for position, cells in enumerate(chunk, start))
            file.write(writer.encode(text + writer.records(records, first=not start)))
            text = ""
            if progress:
                progress(start + len(chunk))
        file.write(writer.encode(text + writer.end()))
    return SampleSummary(len(numbers), {kind: count for kind, count in dirt.counts.items() if count})


@contextmanager
def _open(out: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a file for writing; it is renamed into place when complete, as a sensor may watch its folder."""
    if not isinstance(out, Path):
        yield out
    elif out.is_symlink() or (out.exists() and not out.is_file()):
        with out.open("wb") as file:  # /dev/stdout or a pipe must not be replaced by a file.
            yield file
    else:
        part = out.with_name(f".{out.name}.part")
        try:
            with part.open("wb") as file:
                yield file
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
