"""How a CSV sample is written: its encoding, delimiter, quotes, header and what stands before it, as a `Csv` declaration.

Found out by trying: each dialect takes the first records apart with the platform's own patterns (`readers.dialect`), and the
one under which most records have the same number of fields wins. Readers never guess; this is done once, for a person who
then reads what was found. Not here: what the cells mean (`columns.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mini_platform.declare.columns import normalized
from mini_platform.declare.sources import Csv
from mini_platform.rows.readers import RefusedFileError
from mini_platform.rows.readers.decode import utf8_pieces
from mini_platform.rows.readers.dialect import dialect_of
from mini_platform.rows.readers.unpack import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mini_platform.rows.readers import ReadLimits

HEAD_BYTES = 2**18
"""Text that dialects are tried on."""
HEAD_RECORDS = 500
PIECE = 2**20
DELIMITERS = ("\t", ";", "|", ",")
"""The rarer a character is in texts and numbers, the earlier: where two fit equally well, the first is meant."""
LEGACY = ("cp1252", "latin-1")
"""Tried on what is not UTF-8; latin-1 takes every byte."""
PREAMBLE = 20
"""Lines in front of a header at most."""
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DATUM = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ].*)?")
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class SampleRecord:
    """Fields of a record, and the physical lines (from 0) on which it starts and behind which it ends."""

    fields: tuple[str, ...]
    line: int
    next_line: int


@dataclass(frozen=True)
class Written:
    """How the sample is written.

    Attributes:
        source: the declaration to read it by.
        by_position: the same for a reader that is to give the columns in their order, whatever the header says.
        header: its texts; made up where it has none.
        told: what was found, as sentences.
    """

    source: Csv
    by_position: Csv
    header: tuple[str, ...]
    told: tuple[str, ...]


def find_dialect(path: Path, limits: ReadLimits) -> Written:
    """Find out how a CSV file is written.

    Raises:
        RefusedFileError: it is empty, or cannot be read in any encoding.
    """
    encoding, text, whole = _decoded(path, limits)
    told = [f"It is read as {encoding}: it is not UTF-8. Look at its letters."] if encoding else []
    csv, records = _best(text, whole=whole)
    if not records:
        raise RefusedFileError("The file is empty: there is nothing to learn from it.")
    csv = replace(csv, encoding=encoding)
    if csv.delimiter != ",":
        told.append(f"The delimiter is {csv.delimiter!r}.")
    width = Counter(len(record.fields) for record in records).most_common(1)[0][0]
    first = next(i for i, record in enumerate(records) if len(record.fields) == width)
    rest = [record for record in records[first + 1 :] if len(record.fields) == width]
    ends_so = width > 1 and bool(rest) and not any(record.fields[-1] for record in rest)
    if ends_so and first and len(records[first - 1].fields) == width - 1 and not records[first].fields[-1]:
        first -= 1
    # Spreadsheets fill up a title with empty fields: a header has more names than gaps.
    full = (i for i, r in enumerate(records[first:PREAMBLE], first) if 2 * sum(map(bool, r.fields)) > len(r.fields))
    first = next(full, first) if first < PREAMBLE else 0
    head, rest = records[first], records[first + 1 :]
    begins = head.line if first else 0
    if begins:
        told.append(f"{begins} lines stand before the header.")
    if ends_so and (len(head.fields) == width - 1 or not head.fields[-1].strip()):
        csv = replace(csv, trailing_delimiter=True)
        told.append("Lines end with a delimiter.")
        head = replace(head, fields=head.fields[: width - 1])
        rest = [replace(record, fields=record.fields[: width - 1]) for record in rest]
    texts = tuple(text.strip() for text in head.fields)
    if _is_data(texts, [r.fields for r in rest if len(r.fields) == len(head.fields)]):
        told.append("It has no header: the first line looks like data, so columns go by their position.")
        source = replace(csv, header=False, skip_lines=begins)
        return Written(source, source, tuple(f"column {n}" for n in range(1, len(texts) + 1)), tuple(told))
    by_position = replace(csv, header=False, skip_lines=head.next_line)
    keys = [normalized(text) for text in texts]
    if len(set(keys)) < len(keys) or "" in keys or "\0" in "".join(texts):
        told.append("Its header names columns twice or not at all, so columns go by their position.")
        return Written(by_position, by_position, texts, tuple(told))
    return Written(replace(csv, skip_lines=begins), by_position, texts, tuple(told))


def _decoded(path: Path, limits: ReadLimits) -> tuple[str | None, bytes, bool]:
    """The encoding to declare, the first text as UTF-8, and whether that is all. The whole file is decoded to be sure."""
    with unpacked(path, limits) as raw:
        head = raw.read(HEAD_BYTES)
    encodings: list[str | None] = [None, *LEGACY]
    zeros = head.count(b"\0"), head[1::2].count(b"\0")
    if zeros[0] > len(head) // 4 and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        encodings.insert(0, "utf-16-le" if zeros[1] > zeros[0] // 2 else "utf-16-be")
    refusals: list[RefusedFileError] = []
    for encoding in encodings:
        try:
            with unpacked(path, limits) as raw:
                kept, size = [], 0
                for piece in utf8_pieces(raw, encoding, PIECE):
                    if size < HEAD_BYTES:
                        kept.append(piece)
                    size += len(piece)
        except RefusedFileError as refusal:
            refusals.append(refusal)
        else:
            text = b"".join(kept)[:HEAD_BYTES]
            return encoding, text, size <= HEAD_BYTES
    raise refusals[-1]


def _candidates(text: bytes) -> Iterator[Csv]:
    """Dialects worth trying, the likelier ones first."""
    delimiters = [d for d in DELIMITERS if d.encode() in text]
    if b"||" in text and b"|" not in text.replace(b"||", b""):
        delimiters.insert(0, "||")
    comments = [None, "#"] if re.search(rb"(?:^|[\r\n])#", text) else [None]
    for delimiter in delimiters or [","]:
        for comment in comments:
            plain = Csv(delimiter=delimiter, comment=comment)
            yield plain
            if f'{delimiter} "'.encode() in text and delimiter != " ":
                yield replace(plain, skip_initial_space=True)
            if b'\\"' in text:
                yield replace(plain, escape="\\")
            if b"'" in text:
                yield replace(plain, quote="'")
            if b'"' in text:
                yield replace(plain, quote=None)


def _best(text: bytes, *, whole: bool) -> tuple[Csv, list[SampleRecord]]:
    """The dialect under which most records have one number of fields, and the records."""
    best: tuple[float, Csv, list[SampleRecord]] = (-1.0, Csv(), [])
    for csv in _candidates(text):
        records, bad = _records(text, csv, whole=whole)
        widths = Counter(len(record.fields) for record in records)
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        score = count / (len(records) + bad) if width > 1 else 0.0
        if csv.comment:
            score += 0.01 if len(records) > 1 else -1  # A line of text before the header fits no width anyway.
            score -= 0.02 * _names_columns(text, width, csv)
        if csv.quote == "'":
            score += 0.005 if _stand_in("'", text, csv) else -0.2
        elif csv.skip_initial_space or csv.escape:
            score += 0.005  # Only tried where the text has signs of it.
        if score > best[0] + 0.001:
            best = score, csv, records
    if best[0] <= 0.5:
        single = Csv()
        return single, _records(text, single, whole=whole)[0]
    return best[1], best[2]


def _names_columns(text: bytes, width: int, csv: Csv) -> bool:
    """Whether the last line of comment in front has as many fields as the records: then it is the header."""
    leading = re.match(rb"(?:#[^\r\n]*(?:\r\n|\r|\n))*", text)
    lines = leading[0].splitlines() if leading else []
    return bool(lines) and len(lines[-1].split(csv.delimiter.encode())) == width


def _stand_in(quote: str, text: bytes, csv: Csv) -> bool:
    """Whether these quotes stand around fields, and nowhere else at their start."""
    records, _ = _records(text, replace(csv, quote=None), whole=True)
    fields = [field.strip() for record in records for field in record.fields]
    begun = sum(field.startswith(quote) for field in fields)
    return 0 < begun == sum(field.endswith(quote) for field in fields)


def _records(text: bytes, csv: Csv, *, whole: bool) -> tuple[list[SampleRecord], int]:
    """The first records, and how many lines are none."""
    dialect = dialect_of(csv)
    records: list[SampleRecord] = []
    at = line = bad = 0
    while at < len(text) and len(records) + bad < HEAD_RECORDS:
        if dialect.comment and text.startswith(dialect.comment, at):
            stop, good = at, False
        else:
            found = dialect.record.match(text, at)
            stop = found.end() if found else at
            good = stop == len(text) or text[stop : stop + 1] in (b"\r", b"\n")
            bad += not good
        end = _LINE_END.search(text, stop)
        if end is None and not whole:
            break
        after = end.end() if end else len(text)
        next_line = line + len(_LINE_END.findall(text, at, after))
        if good and text[at:stop].strip():
            fields = tuple(field.decode(errors="replace") for field in dialect.fields(text[at:stop]))
            records.append(SampleRecord(fields, line, next_line))
        at, line = after, next_line
    return records, bad


def _is_data(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is one of the data: it has a number or a date wherever all others have one."""
    if not rest:
        return False
    columns = list(zip(*rest, strict=True))
    data = [i for i, cells in enumerate(columns) if all(_DATUM.fullmatch(c.strip()) for c in cells)]
    if not data or not all(_DATUM.fullmatch(first[i]) for i in data):
        return False
    # Years stand in headers of wide tables.
    return not (len(data) > 1 and all(_YEAR.fullmatch(first[i]) for i in data) and len({first[i] for i in data}) > 1)
