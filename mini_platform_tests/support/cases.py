"""The table of nasty files: their content, and the expected results from the drop folder to production.

Most files hold the good row `G,2024-01-01,1,0` beside the nasty thing: it must be there afterwards. What is not said of a
case is the default of `Case`. Here: files of the weather dataset. Not here: polluted files of others (`test_polluted.py`).
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

HEADER = "station_id,date,temp_c,precip_mm"
GOOD, GOOD_ROW = "G,2024-01-01,1,0", "G|2024-01-01|1.0|0.0"
ONE = "loaded: 1 read, 1 inserted"
HALF = "loaded: 2 read, 1 inserted, 1 rejected"
BOTH = "loaded: 2 read, 2 inserted"
NOTHING = "refused: 0 read"
BEGUN = "refused: 1 read"
SOON = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=3)


@dataclass(frozen=True)
class Case:
    """A file and its expected result.

    Attributes:
        name: what is nasty.
        data: its bytes.
        summary: status and accounting in the ledger.
        rejects: `line rule 'value'`, as `mini-platform rejects` must show them.
        rows: the rows of production that name this file.
        error: part of the sentence in the ledger.
        extra: its columns that are not declared.
        file: its name in the drop folder.
        before: files that were loaded before it, one by one.
    """

    name: str
    data: bytes
    summary: str = HALF
    rejects: tuple[str, ...] = ()
    rows: tuple[str, ...] = (GOOD_ROW,)
    error: str = ""
    extra: tuple[str, ...] = ()
    file: str = "nasty.csv"
    before: tuple[bytes, ...] = ()


def text(*lines: str, end: str = "\n", header: str = HEADER) -> str:
    """Return lines below a header."""
    return "".join(line + end for line in (header, *lines))


def data(*lines: str) -> bytes:
    """Return lines below the header, in UTF-8."""
    return text(*lines).encode()


def good_and(**cells: str) -> bytes:
    """Return the good row and one with these cells, as Python's csv writes them."""
    line = io.StringIO()
    row = {"station_id": "A", "date": "2024-01-01", "temp_c": "1", "precip_mm": "0"} | cells
    csv.writer(line, lineterminator="").writerow(row.values())
    return data(GOOD, line.getvalue())


def bad(column: str, cell: str, rule: str) -> Case:
    """Return a case of a rejected cell whose raw value is stored."""
    value = cell[:80] or None  # an empty cell is kept as none
    return Case(f"{column} {ascii(cell)[:40]}", good_and(**{column: cell}), rejects=(f"3 {column}_{rule} {value!r}",))


def fine(column: str, cell: str, row: str) -> Case:
    """Return a case of a cell that looks nasty and is valid."""
    return Case(f"{column} {ascii(cell)[:40]} is a value", good_and(**{column: cell}), BOTH, rows=(GOOD_ROW, row))


def station(cell: str, stored: str) -> Case:
    """Return a case of a station id and its value in production."""
    return fine("station_id", cell, f"{stored}|2024-01-01|1.0|0.0")


def broken(name: str, line: str, rule: str, raw: str | None = None) -> Case:
    """Return a case of a line without columns between two good ones; its text is stored."""
    rejects = (f"3 row_{rule} {(line if raw is None else raw)[:80]!r}",)
    rows = (GOOD_ROW, "H|2024-01-01|2.0|0.0")
    return Case(name, data(GOOD, line, "H,2024-01-01,2,0"), "loaded: 3 read, 2 inserted, 1 rejected", rejects, rows)


def refused(name: str, content: bytes, error: str, summary: str = NOTHING) -> Case:
    """Return a case of a refused file."""
    return Case(name, content, summary, rows=(), error=error)


def zipped(*members: tuple[str, bytes], encrypted: bool = False) -> bytes:
    """Return a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    packed = bytearray(file.getvalue())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        if encrypted:
            packed[packed.index(magic) + flags] |= 1
    return bytes(packed)


def broken_zip() -> bytes:
    """Return a zip file whose checksum is wrong."""
    packed = bytearray(zipped(("x.csv", PLAIN)))
    for magic, checksum in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        struct.pack_into("<L", packed, packed.index(magic) + checksum, 1)
    return bytes(packed)


PLAIN = data(GOOD)
BOMB = PLAIN + b"\n" * 30_000_000
PACKED = gzip.compress(PLAIN, mtime=0)
WIDE = [f"c{number}" for number in range(9_996)]

ENCODINGS = [
    Case("UTF-8 with BOM", b"\xef\xbb\xbf" + PLAIN, ONE),
    Case("UTF-8 with two BOMs", b"\xef\xbb\xbf\xef\xbb\xbf" + PLAIN, NOTHING, rows=(), error="lacks station_id"),
    Case("UTF-16 LE with BOM", b"\xff\xfe" + PLAIN.decode().encode("utf-16-le"), ONE),
    Case("UTF-16 BE with BOM", b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"), ONE),
    refused("UTF-16 LE without BOM", PLAIN.decode().encode("utf-16-le"), "UTF-16 needs a byte order mark"),
    refused("UTF-16 of odd length", b"\xff\xfe" + PLAIN.decode().encode("utf-16-le") + b"x", "at offset 102"),
    refused("latin-1", text("Zürich,2024-01-01,1,0").encode("latin-1"), "the byte 0xFC at offset 34 cannot be decoded"),
    refused("one bad byte after good rows", PLAIN + b"\xff", "the byte 0xFF at offset 50"),
    refused("cut inside a character", PLAIN + "é".encode()[:1], "the byte 0xC3 at offset 50"),
    refused("a surrogate", PLAIN + b"\xed\xa0\x80,2024-01-01,1,0\n", "the byte 0xED at offset 50"),
    refused("NUL by an overlong form", PLAIN + b"\xc0\x80,2024-01-01,1,0\n", "the byte 0xC0 at offset 50"),
    refused("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "the byte 0x89 at offset 0"),
]

LINES = [
    Case("CRLF", text(GOOD, end="\r\n").encode(), ONE),
    Case("CR", text(GOOD, end="\r").encode(), ONE),
    Case("no last line end", PLAIN[:-1], ONE),
    Case("every line end in one file", f"{HEADER}\r\n{GOOD}\rA,2024-01-01,1,0\nB,2024-01-01,1,0".encode(),
         "loaded: 3 read, 3 inserted", rows=("A|2024-01-01|1.0|0.0", "B|2024-01-01|1.0|0.0", GOOD_ROW)),
    Case("blank lines everywhere", b"\n\r\n" + data("", GOOD, "", "") + b"\r\r", ONE),
    Case("quoted newlines", data(GOOD, '"A\nB","2024-01-01",1,0', "C,x,1,0"), "loaded: 3 read, 2 inserted, 1 rejected",
         ("5 date_is_date 'x'",), ("A\nB|2024-01-01|1.0|0.0", GOOD_ROW)),
    Case("a quoted newline around a value", data(GOOD, 'A,"2024-01-01\r\n",1,0'), BOTH,
         rows=("A|2024-01-01|1.0|0.0", GOOD_ROW)),
    Case("line separators that are none", data(GOOD, "A\u2028B\u0085C\x0bD,2024-01-01,1,0"), BOTH,
         rows=("A\u2028B\u0085C\x0bD|2024-01-01|1.0|0.0", GOOD_ROW)),
    Case("the end of a DOS file", PLAIN + b"\x1a", HALF, ("3 row_has_header_fields '\\x1a'",)),
    refused("an empty file", b"", "empty"),
    refused("a BOM alone", b"\xef\xbb\xbf", "empty"),
    refused("only blank lines", b"\n\r\n  \n\t\r\r", "empty"),
    refused("zeros, as a crashed disk leaves", bytes(512), "NUL"),
    Case("a header alone", data(), "loaded: 0 read", rows=()),
    Case("a header alone, without line end", HEADER.encode(), "loaded: 0 read", rows=()),
]  # fmt: skip

PACKING = [
    Case("gzip named .csv", PACKED, ONE),
    Case("gzip named .csv.zip", PACKED, ONE, file="nasty.csv.zip"),
    Case("zip named .csv.gz", zipped(("x", PLAIN)), ONE, file="nasty.csv.gz"),
    Case("plain named .csv.gz", PLAIN, ONE, file="NASTY.CSV.GZ"),
    Case("gzip of two members", gzip.compress(PLAIN[:20]) + gzip.compress(PLAIN[20:]), ONE),
    Case("a zip that climbs", zipped(("../../../../tmp/nasty.csv", PLAIN)), ONE, file="nasty.csv.zip"),
    Case("a zip with an absolute path", zipped(("/etc/passwd", PLAIN)), ONE),
    refused("a gzip bomb", gzip.compress(BOMB), "more than 200 times its own size", BEGUN),
    refused("a zip bomb", zipped(("x.csv", BOMB)), "more than 200 times its own size", BEGUN),
    refused("a bomb in a gzip", gzip.compress(gzip.compress(BOMB)), "packed twice: a gzip"),
    refused("a zip in a zip", zipped(("x.zip", zipped(("x.csv", PLAIN)))), "packed twice: a zip"),
    refused("a truncated gzip", PACKED[:-12], "ends too soon"),
    refused("a gzip without its end", PACKED[:-8], "ends too soon"),
    refused("a gzip with a wrong checksum", PACKED[:-8] + bytes(4) + PACKED[-4:], "damaged"),
    refused("gzip's magic alone", b"\x1f\x8b", "ends too soon"),
    refused("a gzip of nothing", gzip.compress(b""), "empty"),
    refused("a gzip with something behind", PACKED + PLAIN, "something else follows its end"),
    refused("a zip with a wrong checksum", broken_zip(), "damaged or cut off"),
    refused("a truncated zip", zipped(("x.csv", PLAIN))[:-30], "damaged or cut off"),
    refused("an encrypted zip", zipped(("x.csv", PLAIN), encrypted=True), "without a password"),
    refused("a zip of two files", zipped(("a.csv", PLAIN), ("b.csv", PLAIN)), "holds 2 files"),
    refused("an empty zip", zipped(), "holds 0 files"),
    refused("zlib without a header of gzip", zlib.compress(PLAIN), "cannot be decoded"),
]

RECORDS = [
    broken("a short row", "A,2024-01-01,1", "has_header_fields"),
    broken("a long row", "A,2024-01-01,1,0,7", "has_header_fields"),
    broken("a trailing delimiter", "A,2024-01-01,1,0,", "has_header_fields"),
    broken("only delimiters", ",,,,", "has_header_fields"),
    broken("a line of prose", "Total: 17 rows", "has_header_fields"),
    broken("a decimal comma", "A,2024-01-01,1,5,0", "has_header_fields"),
    broken("a line of spaces", "   ", "has_header_fields"),
    broken("another delimiter in one line", "A;2024-01-01;1;0", "has_header_fields"),
    broken("a NUL byte", "A,2024-01-01,1\0,0", "without_nul", "A,2024-01-01,1\u2400,0"),
    broken("an unclosed quote", '"A,2024-01-01,1,0', "quotes_closed"),
    broken("an unclosed quote at the end of a line", 'A,2024-01-01,1,"0', "quotes_closed"),
    broken("text after a quote", '"A"B,2024-01-01,1,0', "quotes_closed"),
    broken("a quote alone", '"', "quotes_closed"),
    broken("the header again", HEADER, "not_header"),
    broken("the header again, in capitals and another order", "station_id,precip_mm,DATE, Temp C ", "not_header"),
    broken("a field over a megabyte", "x" * (2**20 + 1) + ",2024-01-01,1,0", "fields_bounded"),
    broken("a quoted field over a megabyte", '"' + "x" * 2**20 + '""",2024-01-01,1,0', "fields_bounded"),
    broken("a line over eight megabytes", '"' + "x" * (8 * 2**20 + 1), "fields_bounded"),
    Case("quotes on every line that pair up wrongly", data(GOOD, 'A,2024-01-01,1,"0', 'B,2024-01-01,1,"0', GOOD),
         "loaded: 4 read, 1 inserted, 1 superseded, 2 rejected",
         ("3 row_quotes_closed 'A,2024-01-01,1,\"0'", "4 row_quotes_closed 'B,2024-01-01,1,\"0'")),
    Case("a literal quote", data(GOOD, '5" mast,2024-01-01,1,0'), BOTH, rows=('5" mast|2024-01-01|1.0|0.0', GOOD_ROW)),
    Case("a quoted delimiter and quote", data(GOOD, '"A, ""B""",2024-01-01,1,0'), BOTH,
         rows=('A, "B"|2024-01-01|1.0|0.0', GOOD_ROW)),
    Case("both measurements empty", data(GOOD, "A,2024-01-01,,"), HALF, ("3 has_a_measurement 'A,2024-01-01,,'",)),
    Case("both measurements white space", data(GOOD, 'A,2024-01-01," ",\u00a0'), HALF,
         ("3 has_a_measurement 'A,2024-01-01,,'",)),
    Case("one measurement empty", data(GOOD, "A,2024-01-01,,5"), BOTH, rows=("A|2024-01-01||5.0", GOOD_ROW)),
    Case("everything wrong at once", data(GOOD, " ,2024-02-30,warm,-1"), HALF,
         ("3 station_id_required ' '", "3 date_is_date '2024-02-30'", "3 temp_c_is_number 'warm'",
          "3 precip_mm_in_range '-1'")),
    Case("a row without a valid cell", data(GOOD, "a,b,c,d"), HALF,
         ("3 date_is_date 'b'", "3 temp_c_is_number 'c'", "3 precip_mm_is_number 'd'")),
    Case("over the limit", data(*["A,x,1,0"] * 51, *[GOOD] * 49), "refused: 100 read, 51 rejected",
         tuple(f"{line} date_is_date 'x'" for line in range(2, 53)), (),
         "51 of 100 rows are rejected, more than the dataset allows (50% of at least 100 rows); "
         "most often: date_is_date (51 rows)"),
    Case("nothing but rejects", data("A"), "loaded: 1 read, 1 rejected", ("2 row_has_header_fields 'A'",), ()),
]  # fmt: skip

HEADERS = [
    refused("a missing column", text("A,2024-01-01,1", header="station_id,date,temp_c").encode(),
            "The header lacks precip_mm. Expected station_id, date, temp_c, precip_mm; found station_id, date, temp_c."),
    refused("a doubled column", text(GOOD + ",2", header=HEADER + ",Temp-C").encode(), "twice: temp_c and Temp-C"),
    refused("a doubled column that is not declared", text(GOOD + ",1,2", header=HEADER + ",x,x").encode(), "twice: x"),
    refused("no header", f"{GOOD}\n{GOOD}\n".encode(), "found G, 2024-01-01, 1, 0"),
    refused("another delimiter", text(GOOD).replace(",", ";").encode(), "Is another delimiter in use?"),
    refused("a header with an open quote", data(GOOD).replace(b"precip_mm", b'"precip_mm'), "never closed"),
    refused("a header with a NUL", data(GOOD).replace(b"precip_mm", b"precip_mm\0"), "NUL"),
    refused("letters that look alike", text(GOOD, header=HEADER.replace("e", "\u0435")).encode(), "lacks date, temp_c"),
    refused("HTML, as a login page", b"<!DOCTYPE html>\n<html><body>Log in</body></html>\n", "found <!DOCTYPE html>"),
    refused("JSON", b'{"station_id": "A", "date": "2024-01-01", "temp_c": 1, "precip_mm": 0}\n', "lacks station_id"),
    Case("another order, case and spaces", text("0,1,2024-01-01,G", header=" PRECIP MM ,Temp-C,\tDate,Station_ID").encode(),
         ONE),
    Case("a quoted header", text(GOOD, header='"station_id","date","temp_c","precip_mm"').encode(), ONE),
    Case("more columns", text("why,G,2024-01-01,1,0,", header=f"note,{HEADER},").encode(), ONE,
         extra=("note", "column_6")),
    Case("more columns with names that SQL or JSON could trip over",
         text('"\\""\x01\u2028",G,2024-01-01,1,0,{}', header=f'"a""b\\",{HEADER},"\x01\'; --"').encode(), ONE,
         extra=('a"b\\', "\x01'; --")),
    Case("a column called as one of the platform's", text(GOOD + ",7", header=HEADER + ",_file_id").encode(), ONE,
         extra=("_file_id",)),
    Case("10,000 columns", text(GOOD + "," * 9_996, header=",".join([HEADER, *WIDE])).encode(), ONE, extra=tuple(WIDE)),
]  # fmt: skip

DATES = [
    *[
        bad("date", cell, "is_date")
        for cell in (
            "2024-02-30", "2023-02-29", "31/12/2024", "20240101", "2024-001-1", "24-01-01", "now", "today", "yesterday",
            "epoch", "infinity", "-infinity", "0000-01-01", "-0001-01-01", "10000-01-01", "2024-01-01T00:00:00Z",
            "2024-01-01 24:00:00", "2024-01-01 BC", "2024-366", "２０２４-01-01", "NULL", "1704067200", "45292",
            "'2024-01-01'", "2024-01-01; DROP TABLE production.measurements",
        )
    ],
    bad("date", "", "required"),
    bad("date", "\u2003", "required"),
    bad("date", str(SOON), "not_after_tomorrow"),
    bad("date", "9999-12-31", "not_after_tomorrow"),
    fine("date", " 2024-02-29\t", "A|2024-02-29|1.0|0.0"),
    fine("date", "2024-2-9", "A|2024-02-09|1.0|0.0"),
    fine("date", "2024-02-29 00:00:00", "A|2024-02-29|1.0|0.0"),
    fine("date", "0001-01-01", "A|0001-01-01|1.0|0.0"),
]  # fmt: skip

NUMBERS = [
    *[
        bad("temp_c", cell, "is_number")
        for cell in (
            "nan", "NaN", "inf", "-Infinity", "1e309", "1e-400", "1_000", "0x1F", "0b1", "１２", "٣", "12°", "1,5",
            "1.5.2", "--5", "−5", "1e", "NA", "null", "None", "-", "$5", "5%", "1 2", "1'000", "9" * 400, "true", "½",
            "#DIV/0!", "=1+1", "1\u200b", "\\N",
        )
    ],
    bad("temp_c", "-90.1", "in_range"),
    bad("temp_c", "60.00000000000001", "in_range"),
    bad("temp_c", "1e308", "in_range"),
    bad("precip_mm", "-1e-300", "in_range"),
    fine("temp_c", "-0", "A|2024-01-01|-0.0|0.0"),
    fine("temp_c", "+.5", "A|2024-01-01|0.5|0.0"),
    fine("temp_c", "1E1", "A|2024-01-01|10.0|0.0"),
    fine("temp_c", "\u00a05.\u3000", "A|2024-01-01|5.0|0.0"),
    fine("temp_c", "5e-324", "A|2024-01-01|5e-324|0.0"),
    fine("precip_mm", "0.1000000000000000055511151231257827", "A|2024-01-01|1.0|0.1"),
]  # fmt: skip

STATIONS = [
    bad("station_id", "", "required"),
    bad("station_id", "\u00a0 \t", "required"),
    bad("station_id", "x" * 65, "str_length"),
    bad("station_id", "é" * 65, "str_length"),
    station("x" * 64, "x" * 64),
    station("🌡" * 64, "🌡" * 64),
    station("e\u0301" * 64, "é" * 64),
    station("\u00a0A\u2003", "A"),
    station("A\u00a0B", "A\u00a0B"),
    station("\u200bA", "\u200bA"),
    station("\ufeffA", "\ufeffA"),
    station("\u202eA", "\u202eA"),
    station("A\u0300\u0301", "À\u0301"),
    station("007", "007"),
    station("1e5", "1e5"),
    station("NA", "NA"),
    station("NULL", "NULL"),
    station("true", "true"),
    station("\\N", "\\N"),
    station("\\.", "\\."),
    station("{}", "{}"),
    station('"', '"'),
    station("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
    station("@SUM(A1)", "@SUM(A1)"),
    station("'); DROP TABLE production.measurements; --", "'); DROP TABLE production.measurements; --"),
    station("%s %(x)s $1 :name {0} ${HOME}", "%s %(x)s $1 :name {0} ${HOME}"),
    station("<script>alert(1)</script>", "<script>alert(1)</script>"),
    station("\x1b[31m\x07\x08", "\x1b[31m\x07\x08"),
    station("\uffff\U0010ffff", "\uffff\U0010ffff"),
]

KEYS = [
    Case("NFC and NFD are one key", data("é,2024-01-01,1,0", "e\u0301,2024-01-01,2,0"),
         "loaded: 2 read, 1 inserted, 1 superseded", rows=("é|2024-01-01|2.0|0.0",)),
    Case("K and the Kelvin sign are one key", data("K,2024-01-01,1,0", "\u212a,2024-01-01,2,0"),
         "loaded: 2 read, 1 inserted, 1 superseded", rows=("K|2024-01-01|2.0|0.0",)),
    Case("space around a key is no difference", data("A,2024-01-01,1,0", " A\t, 2024-01-01,2,0"),
         "loaded: 2 read, 1 inserted, 1 superseded", rows=("A|2024-01-01|2.0|0.0",)),
    Case("keys that only look alike", data("A,2024-01-01,1,0", "a,2024-01-01,2,0", "А,2024-01-01,3,0", "Ａ,2024-01-01,4,0",
                                            "A\u200b,2024-01-01,5,0"), "loaded: 5 read, 5 inserted",
         rows=("A|2024-01-01|1.0|0.0", "A\u200b|2024-01-01|5.0|0.0", "a|2024-01-01|2.0|0.0", "А|2024-01-01|3.0|0.0",
               "Ａ|2024-01-01|4.0|0.0")),
    Case("exact duplicates", data(GOOD, GOOD, GOOD), "loaded: 3 read, 1 inserted, 2 superseded"),
    Case("duplicates that conflict: the last wins", data("G,2024-01-01,9,9", "G,2024-01-01,,5", GOOD),
         "loaded: 3 read, 1 inserted, 2 superseded"),
    Case("a rejected duplicate does not win", data(GOOD, "G,2024-01-01,99,0"), HALF, ("3 temp_c_in_range '99'",)),
    Case("exact duplicates of another file", data(GOOD, GOOD), "loaded: 2 read, 1 unchanged, 1 superseded", rows=(),
         before=(data(GOOD, "A,2024-01-01,1,0"),)),
    Case("what conflicts with other files", data(GOOD, "B,2024-01-01,1,0"), "loaded: 2 read, 1 inserted, 1 updated",
         rows=("B|2024-01-01|1.0|0.0", GOOD_ROW), before=(data("G,2024-01-01,7,7"), data("G,2024-01-01,8,"))),
    Case("the same in other words", data("G , 2024-01-01 ,1.0e0,-0"), "loaded: 1 read, 1 unchanged", rows=(),
         before=(data(GOOD),)),
    Case("a refused file changes nothing of what another brought", data("G,2024-01-01,5,5", *["x"] * 99),
         "refused: 100 read, 99 rejected", tuple(f"{line} row_has_header_fields 'x'" for line in range(3, 102)), (),
         "99 of 100 rows",
         before=(data(GOOD),)),
]  # fmt: skip

CASES = [*ENCODINGS, *LINES, *PACKING, *RECORDS, *HEADERS, *DATES, *NUMBERS, *STATIONS, *KEYS]
