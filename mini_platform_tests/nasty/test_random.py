"""Random weather files in any dialect that a declaration can say, with random bytes spoiled, through the real pipeline.

Whatever the bytes: nothing is raised, every row is accounted for, every reject says why, and every line is somebody's.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from mini_platform import Csv, Dataset, RejectLimit
from mini_platform.rows.readers import ReadLimits
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform_tests.support.bench import Bench
from mini_platform_tests.support.csv_reference import physical_lines, read_reference
from mini_platform_tests.support.examples import weather

NAMES = ("station_id", "date", "temp_c", "precip_mm")

DATASETS: dict[tuple[str, str | None], Dataset] = {
    (delimiter, encoding): replace(
        weather, sources=(Csv(delimiter=delimiter, encoding=encoding),), reject_limit=RejectLimit(rows=1000)
    )
    for delimiter in ",;\t|"
    for encoding in (None, "cp1252")
}
"""What can be declared; nothing is refused for its rejects, so that the lines of every file are in staging."""

cells = st.one_of(
    st.sampled_from(["A", "B", " A ", "007", "NA", "=1+1", 'say "hi"', "a,b;c\td|e", "x\ny", "x" * 65, ""]),
    st.sampled_from(["2024-01-01", "2024-02-30", "now", "1", "-0", "1e309", "nan", "99999", "1,5", "12°"]),
    st.text(st.characters(codec="cp1252", exclude_characters="\0\r\n"), max_size=5),
)
valid = st.tuples(
    st.sampled_from(["A", "B", "é", "x\ny", 'say "hi"', "a,b;c\td|e"]),
    st.sampled_from(["2024-01-01", "2024-01-02", "2024-02-29"]),
    st.sampled_from(["1", "-0", "5e-1", ""]),
    st.sampled_from(["0", "2000", ".5"]),
)
ragged = st.lists(cells, max_size=6).map(tuple)


@dataclass(frozen=True)
class Written:
    """A file, and how it was written."""

    data: bytes
    delimiter: str
    codec: str
    header: bytes
    spoiled: bool

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.delimiter, "cp1252" if self.codec == "cp1252" else None]


@st.composite
def written(draw: st.DrawFn) -> Written:
    """A file as Python's csv writes it, perhaps with some bytes replaced, taken out or put in."""
    delimiter, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    codec = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    out = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(NAMES)
    header = out.getvalue().encode(codec)
    writer.writerows(draw(st.lists(st.one_of(valid, valid, st.tuples(*[cells] * 4), ragged), max_size=12)))
    content = bytearray(out.getvalue().encode(codec))
    spoils = st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["replace", "insert", "delete"]),
        st.one_of(st.sampled_from(list(b'",\r\n\0;\t \xff\x80')), st.integers(0, 255)),
    )
    for where, how, byte in (chosen := draw(st.lists(spoils, max_size=4))):
        at = int(where * len(content))
        content[at : at + (how != "insert")] = b"" if how == "delete" else bytes([byte])
    return Written(bytes(content), delimiter, codec, header, bool(chosen))


def lines_of(file: Written) -> set[int] | None:
    """The lines on which records begin, by another reader; None where the header is not what it was."""
    text, header = file.data.decode(file.codec), file.header.decode(file.codec).rstrip("\r\n")
    first, *rest = physical_lines(text)
    if first.text != header:
        return None
    body = "".join(line.text + line.end for line in rest)
    rows, malformed = read_reference(body, NAMES, Csv(delimiter=file.delimiter), ReadLimits())
    return {line for line, *_ in (*rows, *malformed)}


@pytest.mark.timeout(240)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(arriving=st.lists(written(), min_size=1, max_size=4))
def test_any_file(bench: Bench, arriving: list[Written]) -> None:
    bench.clear()
    for number, file in enumerate(arriving):
        bench.drop((f"{number}.csv", file.data))
        outcomes = bench.run(file.dataset)
        assert bench.wrong() == []
        for got in outcomes:
            check_lines(bench, file, got.name)


def check_lines(bench: Bench, file: Written, name: str) -> None:
    """Check the lines that the ledger and staging have of a file that was just loaded."""
    staging = dataset_tables(file.dataset).staging
    with bench.engine.connect() as conn:
        row = conn.execute(select(files).where(files.c.name == name)).one()
        line_numbers = list(conn.execute(select(staging.c._line).where(staging.c._file_id == row.file_id)).scalars())
    if row.status == "refused":
        assert file.spoiled
        assert row.error.endswith((".", "?"))
        return
    assert row.status == "loaded"
    assert row.rows_read == len(line_numbers) == len(set(line_numbers))
    expected = lines_of(file)
    if expected is not None:
        assert set(line_numbers) == expected
