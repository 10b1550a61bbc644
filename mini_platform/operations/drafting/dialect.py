"""Detection of the CSV dialect of a sample: encoding, delimiter, quotes, header and preamble, as a `Csv` declaration.

It works by trial: each candidate dialect splits the first records with the platform's own patterns (`readers.dialect`), and
the one that gives most records the same number of fields wins. Readers never guess; this is done once, for a person who then
reviews the result. Not here: the meaning of cells (`columns.py`).
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
"""Bytes at the start of the text that dialects are tried on."""
HEAD_RECORDS = 500
PIECE = 2**20
DELIMITERS = ("\t", ";", "|", ",")
"""Ordered by how rare each is in texts and numbers: of two that fit equally well, the first is taken."""
LEGACY = ("cp1252", "latin-1")
"""Encodings to try if the file is not UTF-8; latin-1 decodes every byte."""
PREAMBLE = 20
"""Maximum number of lines before a header."""
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DATUM = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ].*)?")
_YEAR = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True)
class SampleRecord:
    """A record: its fields, the physical line on which it starts, and the one after it, both from 0."""

    fields: tuple[str, ...]
    line: int
    next_line: int


@dataclass(frozen=True)
class CsvDialect:
    """The dialect of a CSV sample.

    Attributes:
        source: the declaration to read the sample with.
        by_position: a declaration that gives the columns in their order, whatever the header says.
        header: texts of the header; made up if there is none.
        notes: findings, as sentences.
    """

    source: Csv
    by_position: Csv
    header: tuple[str, ...]
    notes: tuple[str, ...]


def find_dialect(path: Path, limits: ReadLimits) -> CsvDialect:
    """Detect the dialect of a CSV file.

    Raises:
        RefusedFileError: the file is empty, or cannot be read in any encoding.
    """
    encoding, text, whole = _decode(path, limits)
    notes = [f"The file is not UTF-8 and is read as {encoding}: check its letters."] if encoding else []
    csv, records = _best_dialect(text, whole=whole)
    if not records:
        raise RefusedFileError("The file is empty: nothing can be inferred from it.")
    csv = replace(csv, encoding=encoding)
    if csv.delimiter != ",":
        notes.append(f"The delimiter is {csv.delimiter!r}.")
    # The header is the first record of the usual width (that of most records): shorter ones before it are a preamble. Two cases
    # need care. If every line ends with a delimiter, the last field is always empty and the header may have one field less.
    # And a title line may be padded to the usual width, so records that are mostly empty are skipped, too.
    width = Counter(len(record.fields) for record in records).most_common(1)[0][0]
    first = next(i for i, record in enumerate(records) if len(record.fields) == width)
    rest = [record for record in records[first + 1 :] if len(record.fields) == width]
    ends_with_delimiter = width > 1 and bool(rest) and not any(record.fields[-1] for record in rest)
    if ends_with_delimiter and first and len(records[first - 1].fields) == width - 1 and not records[first].fields[-1]:
        first -= 1
    # Spreadsheets pad a title line with empty fields: a header has more names than empty fields.
    mostly_filled = (
        i for i, r in enumerate(records[first:PREAMBLE], first) if 2 * sum(map(bool, r.fields)) > len(r.fields)
    )
    first = next(mostly_filled, first) if first < PREAMBLE else 0
    head, rest = records[first], records[first + 1 :]
    header_line = head.line if first else 0
    if header_line:
        notes.append(f"{header_line} lines come before the header.")
    if ends_with_delimiter and (len(head.fields) == width - 1 or not head.fields[-1].strip()):
        csv = replace(csv, trailing_delimiter=True)
        notes.append("Lines end with a delimiter.")
        head = replace(head, fields=head.fields[: width - 1])
        rest = [replace(record, fields=record.fields[: width - 1]) for record in rest]
    texts = tuple(text.strip() for text in head.fields)
    if _is_data(texts, [r.fields for r in rest if len(r.fields) == len(head.fields)]):
        notes.append("The file has no header: its first line looks like data, so columns are read by position.")
        source = replace(csv, header=False, skip_lines=header_line)
        return CsvDialect(source, source, tuple(f"column {n}" for n in range(1, len(texts) + 1)), tuple(notes))
    by_position = replace(csv, header=False, skip_lines=head.next_line)
    keys = [normalized(text) for text in texts]
    if len(set(keys)) < len(keys) or "" in keys or "\0" in "".join(texts):
        notes.append("The header has duplicate or empty names, so columns are read by position.")
        return CsvDialect(by_position, by_position, texts, tuple(notes))
    return CsvDialect(replace(csv, skip_lines=header_line), by_position, texts, tuple(notes))


def _decode(path: Path, limits: ReadLimits) -> tuple[str | None, bytes, bool]:
    """Return the encoding to declare, the first text as UTF-8, and whether that is all; decode the whole file to be sure."""
    with unpacked(path, limits) as raw:
        head = raw.read(HEAD_BYTES)
    encodings: list[str | None] = [None, *LEGACY]
    nul_counts = head.count(b"\0"), head[1::2].count(b"\0")
    if nul_counts[0] > len(head) // 4 and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        encodings.insert(0, "utf-16-le" if nul_counts[1] > nul_counts[0] // 2 else "utf-16-be")
    errors: list[RefusedFileError] = []
    for encoding in encodings:
        try:
            with unpacked(path, limits) as raw:
                pieces, size = [], 0
                for piece in utf8_pieces(raw, encoding, PIECE):
                    if size < HEAD_BYTES:
                        pieces.append(piece)
                    size += len(piece)
        except RefusedFileError as error:
            errors.append(error)
        else:
            text = b"".join(pieces)[:HEAD_BYTES]
            return encoding, text, size <= HEAD_BYTES
    raise errors[-1]


def _candidate_dialects(text: bytes) -> Iterator[Csv]:
    """Yield dialects worth trying, the likelier ones first."""
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


def _best_dialect(text: bytes, *, whole: bool) -> tuple[Csv, list[SampleRecord]]:
    """Return the dialect that gives most records the same number of fields, and these records."""
    # The score is the share of records with the most frequent width; a width of 1 counts nothing. Small bonuses and penalties
    # decide between dialects that split equally well: comments, quotes and escapes are preferred only if the text shows signs
    # of them. A later candidate must be better by more than 0.001, so ties go to the likelier dialect. Below a score of 0.5
    # nothing fits, and the file is taken as one column.
    best: tuple[float, Csv, list[SampleRecord]] = (-1.0, Csv(), [])
    for csv in _candidate_dialects(text):
        records, not_records = _split_records(text, csv, whole=whole)
        widths = Counter(len(record.fields) for record in records)
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        score = count / (len(records) + not_records) if width > 1 else 0.0
        if csv.comment:
            score += 0.01 if len(records) > 1 else -1  # A comment line before the header has another width anyway.
            score -= 0.02 * _is_header_comment(text, width, csv)
        if csv.quote == "'":
            score += 0.005 if _encloses_fields("'", text, csv) else -0.2
        elif csv.skip_initial_space or csv.escape:
            score += 0.005  # Such candidates are tried only if the text has signs of it.
        if score > best[0] + 0.001:
            best = score, csv, records
    if best[0] <= 0.5:
        one_column = Csv()
        return one_column, _split_records(text, one_column, whole=whole)[0]
    return best[1], best[2]


def _is_header_comment(text: bytes, width: int, csv: Csv) -> bool:
    """Return True if the last leading comment line has as many fields as the records: then it is the header."""
    leading = re.match(rb"(?:#[^\r\n]*(?:\r\n|\r|\n))*", text)
    lines = leading[0].splitlines() if leading else []
    return bool(lines) and len(lines[-1].split(csv.delimiter.encode())) == width


def _encloses_fields(quote: str, text: bytes, csv: Csv) -> bool:
    """Return True if as many fields start with this quote as end with it, and at least one does."""
    records, _ = _split_records(text, replace(csv, quote=None), whole=True)
    fields = [field.strip() for record in records for field in record.fields]
    opening = sum(field.startswith(quote) for field in fields)
    return 0 < opening == sum(field.endswith(quote) for field in fields)


def _split_records(text: bytes, csv: Csv, *, whole: bool) -> tuple[list[SampleRecord], int]:
    """Return the first records, and the number of lines that are not records."""
    dialect = dialect_of(csv)
    records: list[SampleRecord] = []
    position = line = not_records = 0
    while position < len(text) and len(records) + not_records < HEAD_RECORDS:
        if dialect.comment and text.startswith(dialect.comment, position):
            record_end, is_record = position, False
        else:
            match = dialect.record.match(text, position)
            record_end = match.end() if match else position
            is_record = record_end == len(text) or text[record_end : record_end + 1] in (b"\r", b"\n")
            not_records += not is_record
        line_break = _LINE_END.search(text, record_end)
        if line_break is None and not whole:
            break
        line_end = line_break.end() if line_break else len(text)
        next_line = line + len(_LINE_END.findall(text, position, line_end))
        if is_record and text[position:record_end].strip():
            fields = tuple(field.decode(errors="replace") for field in dialect.fields(text[position:record_end]))
            records.append(SampleRecord(fields, line, next_line))
        position, line = line_end, next_line
    return records, not_records


def _is_data(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Return True if the first record is data: it has a number or a date wherever all others have one."""
    if not rest:
        return False
    columns = list(zip(*rest, strict=True))
    data = [i for i, cells in enumerate(columns) if all(_DATUM.fullmatch(c.strip()) for c in cells)]
    if not data or not all(_DATUM.fullmatch(first[i]) for i in data):
        return False
    # Different years are headers of a wide table.
    return not (len(data) > 1 and all(_YEAR.fullmatch(first[i]) for i in data) and len({first[i] for i in data}) > 1)
