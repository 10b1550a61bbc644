"""A drafted dataset as the text of a Python module, formatted as the project's linter wants it."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from mini_platform.declare.sources import Csv, Json
from mini_platform.operations.drafting.columns import Draft

WIDTH, LONGEST = 120, 128
"""Characters of a line: that the formatter keeps to, and that the linter allows where it cannot be broken."""
TYPES: dict[Any, str] = {
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
    Decimal: "Decimal",
    dt.date: "dt.date",
    dt.datetime: "dt.datetime",
    list[float]: "list[float]",
}
NUMBER = '''

def number(text: str, decimal: str) -> Callable[[Callable[[str], pl.Expr]], pl.Expr]:
    """The number that a column writes with this decimal mark, and with the other one between thousands."""
    between = "." if decimal == "," else ","
    return lambda col: col(text).str.replace_all(between, "", literal=True).str.replace(decimal, ".", literal=True)
'''
DAY = '''

def day(text: str, form: str) -> Callable[[Callable[[str], pl.Expr]], pl.Expr]:
    """The day that a column writes in this form."""
    return lambda col: col(text).str.to_date(form, strict=False)
'''


@dataclass(frozen=True)
class Drafted:
    """A dataset that was drafted from a sample.

    Attributes:
        name: of the dataset.
        table: of its table.
        sample: name of the sample's file.
        rows: that were looked at.
        source: the format.
        columns: in the order of the sample.
        key: names of columns; none if no columns tell the rows apart, then file and line do.
        file_and_line: names of these two.
    """

    name: str
    table: str
    sample: str
    rows: int
    source: Csv | Json
    columns: tuple[Draft, ...]
    key: tuple[str, ...]
    file_and_line: tuple[str, str]


def literal(text: str) -> str:
    """A text as a Python literal in the quotes that the formatter chooses."""
    body = "".join(_escaped(char) for char in text)
    if body.count('"') > body.count("'"):
        return "'" + body.replace("'", "\\'") + "'"
    return '"' + body.replace('"', '\\"') + '"'


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    # Directions and joiners would make a line look like another one; marks without a letter are not seen.
    plain = char.isprintable() and unicodedata.category(char)[0] not in "CM"
    return char if plain else char.encode("unicode_escape").decode()


def width(line: str) -> int:
    """Columns of a terminal that the line takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def module(drafted: Drafted) -> str:
    """The text of the module."""
    body = "\n\n".join((_rows(drafted), _dataset(drafted)))
    helpers = [text for text, mark in ((NUMBER, "number("), (DAY, "day(")) if f"derived={mark}" in body]
    text = _head(drafted, body) + "".join(helpers) + "\n\n" + body
    too_wide = any(
        width(line) > LONGEST and len(line.split()) > 1 for line in text.splitlines()
    )  # One word may be longer.
    return ("# ruff: noqa: E501\n" if too_wide else "") + text


def _words(text: str, most: int = 60) -> str:
    """A text for a docstring or comment: letters, digits and escape_formula signs."""
    plain = "".join(c if c.isalnum() or c in " .,_-/()%+°" else " " for c in unicodedata.normalize("NFC", text))
    plain = " ".join(plain.split())
    return plain if width(plain) <= most else plain[: most // 2].rstrip() + "…"


def _head(drafted: Drafted, body: str) -> str:
    derived = "derived=" in body
    lines = [
        f'"""{_words(drafted.name.replace("_", " ")).capitalize()}: drafted from the sample {_words(drafted.sample)}.',
        "",
        f"Drafted by `mini-platform new` from {drafted.rows:,} rows. What a sample cannot tell is for you to say:",
        "descriptions, the key, and the checks, of which some are suggested in comments.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    standard = ["import datetime as dt"] if "dt.date" in body else []
    standard += ["from collections.abc import Callable"] if derived else []
    standard += ["from decimal import Decimal"] if ": Decimal" in body else []
    standard += ["from typing import TYPE_CHECKING"] if derived else []
    names = ["Dataset", "Field", "RowModel", type(drafted.source).__name__, *(["rule"] if "@rule(" in body else [])]
    ordered = sorted(names, key=lambda name: (name.islower(), name))
    lines += [*standard, ""] if standard else []
    lines.append(f"from mini_platform import {', '.join(ordered)}")
    lines += ["", "if TYPE_CHECKING:", "    import polars as pl"] if derived else []
    return "\n".join(lines) + "\n"


def _rows(drafted: Drafted) -> str:
    what = f"A row of {_words(drafted.name.replace('_', ' '))}."
    parts = [f'class {_model(drafted)}(RowModel):\n    """{what}"""\n']
    parts += [_column(column) for column in drafted.columns]
    if not drafted.key:
        file, line = drafted.file_and_line
        parts.append(
            "    # No columns tell the rows of the sample apart, so a row is known by its place: declare a key that does.\n"
            f'    {file}: str = Field("File that the row came in", system="file")\n'
            f'    {line}: int = Field("Line on which it starts", system="line")'
        )
    parts += [_rule(column) for column in drafted.columns if column.form]
    return "\n".join(parts) + "\n"


def _model(drafted: Drafted) -> str:
    return "".join(word.capitalize() for word in drafted.table.split("_")) + "Row"


def _column(column: Draft) -> str:
    header = literal(_described(column))
    if not column.form:
        return _field(column.name, column.type, column.nullable, header, _options(column))
    form = "decimal comma" if column.form == "," else "commas between thousands" if column.form == "." else column.form
    text = [*_options(column, of_text=True), "stored=False"]
    raw = _field(column.text_name, str, column.nullable, literal(f"{_described(column, 40)}, as written: {form}"), text)
    call = "number" if column.type is float else "day"
    value = [*([f"unit={literal(column.unit)}"] if column.unit else [])]
    value.append(f"derived={call}({literal(column.text_name)}, {literal(column.form)})")
    return raw + "\n" + _field(column.name, column.type, column.nullable, header, [*value, *_comments(column)])


def _described(column: Draft, most: int = 60) -> str:
    return _words(column.header, most) or column.name


def _options(column: Draft, *, of_text: bool = False) -> list[str]:
    """What is said of a column besides its description; lines of comment begin with #."""
    said = []
    if column.unit and not of_text:
        said.append(f"unit={literal(column.unit)}")
    if column.alias is not None:
        said.append(f"aliases=({literal(column.alias)},)")
    if column.null_tokens:
        listed = ", ".join(map(literal, column.null_tokens))
        said.append(f"null_tokens=({listed}{',' if len(column.null_tokens) == 1 else ''})")
    if column.type is Decimal and column.decimals != 2:
        said.append(f"decimals={column.decimals}")
    if column.email:
        said.append("email=True")
    if column.personal:
        said.append(
            "# About people, it seems: hidden wherever rows are shown. hash, last4 and redact keep it out of the tables."
        )
        said.append('personal="mask"')
    return said if of_text else [*said, *_comments(column)]


def _comments(column: Draft) -> list[str]:
    return [f"# {hint}" for hint in column.hints]


def _field(name: str, kind: Any, nullable: bool, description: str, options: Iterable[str]) -> str:
    annotation = TYPES[kind] + (" | None" if nullable else "")
    options = list(options)
    one_line = f"    {name}: {annotation} = Field({', '.join([description, *options])})"
    if not any(option.startswith("#") for option in options) and width(one_line) <= WIDTH and len(options) < 2:
        return one_line
    lines = [f"    {name}: {annotation} = Field(", f"        {description},"]
    for option in options:
        line = f"        {option}" if option.startswith("#") else f"        {option},"
        lines += [line] if option.startswith("#") or width(line) <= WIDTH else _broken(option)
    return "\n".join([*lines, "    )"])


def _broken(option: str) -> list[str]:
    """A tuple of one long text, as the formatter breaks it."""
    name, _, rest = option.partition("=(")
    return [f"        {name}=(", f"            {rest.removesuffix(',)')},", "        ),"]


def _rule(column: Draft) -> str:
    form = "number" if column.type is float else "day"
    written = {",": "with a decimal comma", ".": "with commas between thousands"}.get(
        column.form or "", f"of the form {column.form}"
    )
    empty, read = f"col({literal(column.text_name)}).is_null()", f"col({literal(column.name)}).is_not_null()"
    answer = f"        return {empty} | {read}"
    if len(answer) > WIDTH:
        answer = f"        return (\n            {empty}\n            | {read}\n        )"
    return (
        f"\n    @rule({literal(f'is not a {form} {written}')}, column={literal(column.text_name)})\n"
        f"    def {column.name}_is_read(col: Callable[[str], pl.Expr]) -> pl.Expr:\n"
        f'        """What is written can be read."""\n'
        f"{answer}"
    )


def _dataset(drafted: Drafted) -> str:
    key = drafted.key or drafted.file_and_line
    title = _words(drafted.name.replace("_", " ")).capitalize()
    lines = [
        "dataset = Dataset(",
        f"    name={literal(drafted.name)},",
        f"    table={literal(drafted.table)},",
        f"    description={literal(f'{title}, drafted from {_words(drafted.sample)}.')},",
        f"    rows={_model(drafted)},",
        f"    key=({', '.join(map(literal, key))}{',' if len(key) == 1 else ''}),",
        f"    sources=({_source(drafted.source)},),",
        '    # owners=["team:name"], unexpected_columns="refuse", freshness=…, aggregates=…: see `mini_platform.Dataset`.',
        ")",
    ]
    return "\n".join(lines) + "\n"


def _source(source: Csv | Json) -> str:
    said = []
    for item in fields(source):
        value = getattr(source, item.name)
        if value != item.default:
            said.append(f"{item.name}={_plain(value)}")
    return f"{type(source).__name__}({', '.join(said)})"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, Sequence):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    return re.sub(r"\s+", " ", repr(value))
