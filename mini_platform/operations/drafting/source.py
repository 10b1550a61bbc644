"""Writer of a drafted dataset as the source code of a Python module, formatted as the project's linter requires."""

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
"""Characters of a line: the limit of the formatter, and the limit of the linter for lines that cannot be broken."""
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
    """Return the number of a text with this decimal mark, and the other one between thousands."""
    between = "." if decimal == "," else ","
    return lambda col: col(text).str.replace_all(between, "", literal=True).str.replace(decimal, ".", literal=True)
'''
DAY = '''

def day(text: str, form: str) -> Callable[[Callable[[str], pl.Expr]], pl.Expr]:
    """Return the date of a text in this format."""
    return lambda col: col(text).str.to_date(form, strict=False)
'''


@dataclass(frozen=True)
class Drafted:
    """A dataset that was drafted from a sample.

    Attributes:
        name: name of the dataset.
        table: name of its table.
        sample: name of the sample file.
        rows: number of rows that were read.
        source: the file format.
        columns: drafts of the columns, in the order of the sample.
        key: names of the key columns; empty if no columns identify a row, so that file and line are the key.
        file_and_line: names of the columns for file and line.
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
    """Return a text as a Python literal, in the quotes that the formatter chooses."""
    body = "".join(_escaped(char) for char in text)
    if body.count('"') > body.count("'"):
        return "'" + body.replace("'", "\\'") + "'"
    return '"' + body.replace('"', '\\"') + '"'


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    # Direction marks and joiners would make a line look like another one; combining marks without a letter are invisible.
    plain = char.isprintable() and unicodedata.category(char)[0] not in "CM"
    return char if plain else char.encode("unicode_escape").decode()


def width(line: str) -> int:
    """Return the number of terminal columns that a line takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def module(drafted: Drafted) -> str:
    """Return the source code of the module."""
    body = "\n\n".join((_rows(drafted), _dataset(drafted)))
    helpers = [text for text, mark in ((NUMBER, "number("), (DAY, "day(")) if f"derived={mark}" in body]
    text = _head(drafted, body) + "".join(helpers) + "\n\n" + body
    too_wide = any(
        width(line) > LONGEST and len(line.split()) > 1 for line in text.splitlines()
    )  # One word may be longer.
    return ("# ruff: noqa: E501\n" if too_wide else "") + text


def _words(text: str, most: int = 60) -> str:
    """Return a text for a docstring or comment: letters, digits and harmless punctuation."""
    plain = "".join(c if c.isalnum() or c in " .,_-/()%+°" else " " for c in unicodedata.normalize("NFC", text))
    plain = " ".join(plain.split())
    return plain if width(plain) <= most else plain[: most // 2].rstrip() + "…"


def _head(drafted: Drafted, body: str) -> str:
    derived = "derived=" in body
    lines = [
        f'"""{_words(drafted.name.replace("_", " ")).capitalize()}: drafted from the sample {_words(drafted.sample)}.',
        "",
        f"Drafted by `mini-platform new` from {drafted.rows:,} rows. Complete what a sample does not show:",
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
    description = f"A row of {_words(drafted.name.replace('_', ' '))}."
    parts = [f'class {_model(drafted)}(RowModel):\n    """{description}"""\n']
    parts += [_column(column) for column in drafted.columns]
    if not drafted.key:
        file, line = drafted.file_and_line
        parts.append(
            "    # No columns identify the rows of the sample, so the key is file and line: declare a key that does.\n"
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
    """Return the options of a column besides its description; comment lines begin with #."""
    options = []
    if column.unit and not of_text:
        options.append(f"unit={literal(column.unit)}")
    if column.alias is not None:
        options.append(f"aliases=({literal(column.alias)},)")
    if column.null_tokens:
        tokens = ", ".join(map(literal, column.null_tokens))
        options.append(f"null_tokens=({tokens}{',' if len(column.null_tokens) == 1 else ''})")
    if column.type is Decimal and column.decimals != 2:
        options.append(f"decimals={column.decimals}")
    if column.email:
        options.append("email=True")
    if column.personal:
        options.append(
            "# Probably personal data: masked wherever rows are shown. hash, last4 and redact keep it out of the tables."
        )
        options.append('personal="mask"')
    return options if of_text else [*options, *_comments(column)]


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
        lines += [line] if option.startswith("#") or width(line) <= WIDTH else _broken_lines(option)
    return "\n".join([*lines, "    )"])


def _broken_lines(option: str) -> list[str]:
    """Return a tuple of one long text in lines, as the formatter breaks it."""
    name, _, rest = option.partition("=(")
    return [f"        {name}=(", f"            {rest.removesuffix(',)')},", "        ),"]


def _rule(column: Draft) -> str:
    form = "number" if column.type is float else "day"
    described = {",": "with a decimal comma", ".": "with commas between thousands"}.get(
        column.form or "", f"of the form {column.form}"
    )
    is_empty, is_parsed = f"col({literal(column.text_name)}).is_null()", f"col({literal(column.name)}).is_not_null()"
    statement = f"        return {is_empty} | {is_parsed}"
    if len(statement) > WIDTH:
        statement = f"        return (\n            {is_empty}\n            | {is_parsed}\n        )"
    return (
        f"\n    @rule({literal(f'is not a {form} {described}')}, column={literal(column.text_name)})\n"
        f"    def {column.name}_is_read(col: Callable[[str], pl.Expr]) -> pl.Expr:\n"
        f'        """The text can be parsed."""\n'
        f"{statement}"
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
    arguments = []
    for item in fields(source):
        value = getattr(source, item.name)
        if value != item.default:
            arguments.append(f"{item.name}={_plain(value)}")
    return f"{type(source).__name__}({', '.join(arguments)})"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, Sequence):
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    return re.sub(r"\s+", " ", repr(value))
