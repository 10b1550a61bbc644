"""A drawn declaration by its other channels: as YAML, and as models of Pandera, polars and pandas.

Each says the same dataset as Python does, or is refused as it is; and Pandera's own `validate(lazy=True)` says of every row of
the files what the model says. What a channel has no word for is left out of the declaration before (`expressible`):

- YAML: views, api_sources, a second source of one kind.
- Pandera: columns that are derived, given or not stored; `@rule`s; a warning of some checks of a column and not of all; bases
  that are no models; `list[float]`, in pandas.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pandera.pandas as pap
import polars as pl
import yaml
from pandera.errors import SchemaErrors

from mini_platform import Column, DeclarationError
from mini_platform.declare.from_yaml import YamlError
from mini_platform.rows.validation import validate
from mini_platform_tests.declarations import draw
from mini_platform_tests.declarations.cells import Record, Written
from mini_platform_tests.declarations.draw import SHORT, Col, Plan
from mini_platform_tests.declarations.model import Row, cleaned, parsed, validated
from mini_platform_tests.support.yaml_files import read_yaml

Library = Literal["polars", "pandas"]
MODULE, OF_PANDERA = "drawn_declaration", "drawn_model"
PREAMBLE = """\
from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Annotated, Optional

import numpy as np
import pandas as pd
import pandera.{library} as pa
import polars as pl
from pandera.engines import pandas_engine
from pandera.typing.{library} import Series
"""
SPELLED: Mapping[Library, Mapping[str, Sequence[str]]] = {
    "polars": {
        "str": ("str", "pl.String", "pl.Utf8"),
        "int": ("int", "pl.Int64"),
        "float": ("float", "pl.Float64"),
        "bool": ("bool", "pl.Boolean"),
        "dt.date": ("pl.Date", "datetime.date"),
        "dt.datetime": ('Annotated[pl.Datetime, "us", "UTC"]', 'pl.Datetime("us", "UTC")'),
        "Decimal": ("Annotated[pl.Decimal, {digits}, {decimals}]", "pl.Decimal({digits}, {decimals})"),
        "list[float]": ("pl.List(pl.Float64())",),
    },
    "pandas": {
        "str": ("str", "Series[str]", "pd.StringDtype"),
        "int": ("int", "Series[int]", "np.int64"),
        "int | None": ("pd.Int64Dtype", "Series[pd.Int64Dtype]"),
        "float": ("float", "Series[float]", "np.float64"),
        "bool": ("bool", "Series[bool]"),
        "bool | None": ("pd.BooleanDtype",),
        "dt.date": ("pandas_engine.Date",),
        "dt.datetime": ('Annotated[pd.DatetimeTZDtype, "us", "UTC"]',),
        "Decimal": ("Annotated[pandas_engine.Decimal, {digits}, {decimals}, None]",),
    },
}
"""Types as each library has them, every one in several ways; for what may be empty others where there are some."""
DTYPES: Mapping[str, Any] = {
    "str": pl.String(), "int": pl.Int64(), "float": pl.Float64(), "bool": pl.Boolean(), "dt.date": pl.Date(),
    "dt.datetime": pl.Datetime("us", "UTC"), "list[float]": pl.List(pl.Float64()),
}  # fmt: skip
IN_METADATA = ("aliases", "null_tokens", "trim", "case", "personal")
STRICT = {"refuse": True, "ignore": "filter", "keep": False}


def differences(plan: Plan, files: Sequence[Written], folder: Path, rng: random.Random) -> Iterator[str]:
    """In what the channels of a declaration are not one, as sentences.

    Args:
        plan: the declaration.
        files: with rows to be validated.
        folder: for a file of YAML.
        rng: draws what can be expressed in several ways.
    """
    channels: tuple[Library | None, ...] = (None, "polars", "pandas")
    for library in channels:
        if narrowed := expressible(plan, library):
            model = model_source(narrowed, library, rng) if library else ""
            mismatches = list(_same(library or "YAML", narrowed, model, folder, rng))
            if library and not mismatches:
                mismatches = list(_verdicts(library, narrowed, files, folder, rng))
            yield from (f"{wrong}\n{model}" for wrong in mismatches)


# What a channel has words for


def expressible(plan: Plan, library: Library | None = None) -> Plan | None:
    """Return the part of a declaration that a channel can express: YAML, or a model of a library; None if nothing is left."""
    formats = {one.kind: one for one in reversed(plan.formats)}
    plan = replace(plan, views=(), formats=tuple(formats[kind] for kind in ("Csv", "Json") if kind in formats))
    if library is None:
        return plan
    columns = tuple(_plain(c, library) for c in plan.read if c.is_stored and c.type in SPELLED[library])
    columns = tuple(c for c in columns if library == "polars" or _digits(c) > c.decimals + (c.decimals > 6))
    names = {c.name for c in columns}
    key = tuple(n for n in plan.key if n in names) or tuple(c.name for c in columns if not c.nullable)[:1]
    if not key:
        return None
    base = replace(plan.base, is_model=True) if plan.base else None
    plan = replace(plan, columns=columns, rules=(), key=key, aggregates=(), base=base)
    indexes = tuple(n for n in plan.indexes if n in names)
    return replace(plan, indexes=indexes, duplicates="last" if plan.highest not in {None, *names} else plan.duplicates)


def _plain(column: Col, library: Library) -> Col:
    """A column with its checks by their first names, of which all warn or none, and with what its digits leave of them."""
    checks = {SHORT.get(name, name): argument for name, argument in column.checks.items()}
    options = {**column.options, **({"warn": tuple(checks)} if column.options.get("warn") else {})}
    if column.type == "Decimal":
        digits = _digits(column)
        high = 10 ** (digits - column.decimals)
        # In a frame of pandas a minus sign counts as a digit.
        low = -high if library == "polars" else -(high // 10) if high > 10 else 0
        if library == "pandas" or digits < 18:
            checks["between"] = {"min_value": low, "max_value": high, "include_min": not low, "include_max": False}
    return replace(column, checks=checks, options=options)


def _digits(column: Col) -> int:
    """Return how many digits a model of Pandera gives a Decimal: it has a word for them."""
    return min(18, column.decimals + len(column.name)) if column.type == "Decimal" else 18


# As they are written


def model_source(plan: Plan, library: Library, rng: random.Random) -> str:
    """The row model as one of Pandera's, called `Rows`."""
    fields = [_field(c, plan, library, rng) for c in plan.columns]
    config = ["    class Config:", f"        strict = {STRICT[plan.unexpected_columns]!r}"]
    if plan.duplicates == "reject" and len(plan.key) > 1:
        config.append(f"        unique = {list(plan.key)!r}")
    above = []
    if base := plan.base:
        first, fields = fields[: base.columns], fields[base.columns :]
        if base.anew:
            fields.append(first[0])
            first[0] = f'    {plan.columns[0].name}: str = pa.Field(description="another", isin=["a"])'
        above = ["class Parent(pa.DataFrameModel):", *first]
    rows = [f"class Rows({'Parent' if base else 'pa.DataFrameModel'}):", '    """x"""', *fields, *config]
    return "\n".join([PREAMBLE.format(library=library), *above, *rows]) + "\n"


def _field(column: Col, plan: Plan, library: Library, rng: random.Random) -> str:
    spelled = SPELLED[library]
    kinds = spelled.get(f"{column.type} | None", spelled[column.type]) if column.nullable else spelled[column.type]
    kind = rng.choice(kinds).format(digits=_digits(column), decimals=column.decimals)
    words: dict[str, Any] = {"description": "x", **{n: _typed(column, a) for n, a in column.checks.items()}}
    words.pop("between", None)
    if column.nullable:
        words["nullable"] = True
    if column.options.get("optional"):
        if kind.startswith("Series") and rng.random() < 0.5:
            kind = f"Optional[{kind}]"
        else:
            words["required"] = False
    if column.options.get("warn"):
        words["raise_warning"] = True
    if metadata := {name: column.options[name] for name in IN_METADATA if name in column.options}:
        words["metadata"] = metadata
    if plan.duplicates == "reject" and plan.key == (column.name,):
        words["unique"] = True
    by_keyword = {long: short for short, long in SHORT.items() if short != "between"}
    arguments = ", ".join(f"{by_keyword.get(name, name)}={value!r}" for name, value in words.items())
    return f"    {column.name}: {kind} = pa.Field({arguments})"


def _typed(column: Col, argument: Any) -> Any:
    """Lists of numbers as the column's own type, as polars finds no other ones."""
    kind = {"float": float, "Decimal": Decimal}.get(column.type)
    return [kind(number) for number in argument] if kind and isinstance(argument, list) else argument


def _yaml(plan: Plan, rng: random.Random, *, by_pandera: bool) -> str:
    words: dict[str, Any] = {
        "name": plan.name,
        "model": f"{OF_PANDERA if by_pandera else MODULE}.Rows",
        "key": plan.key[0] if len(plan.key) == 1 and rng.random() < 0.5 else list(plan.key),
        "warn_limit": {"share": float(plan.warn_share), "min_rows": plan.min_rows},
        "reject_limit": {
            "share": None if plan.share == "None" else float(plan.share or 0),
            "rows": plan.most_rows,
            "min_rows": plan.min_rows,
        },
    }
    if rng.random() < 0.5 or not by_pandera:  # Else it is what the model says.
        words |= {"description": "x", "table": plan.name, "unexpected_columns": plan.unexpected_columns}
    if plan.highest:
        words["duplicates"] = {"highest": plan.highest}
    elif plan.duplicates == "first" or rng.random() < 0.5 or (plan.duplicates == "reject" and not by_pandera):
        words["duplicates"] = plan.duplicates
    if plan.indexes:
        words["indexes"] = list(plan.indexes)
    for one in plan.formats:
        words[one.kind.lower()] = {"suffixes": [one.suffix], "name": one.suffix[1:], **one.options}
    if plan.aggregates:
        words["aggregates"] = [f"{MODULE}.{a.name.upper()}" for a in plan.aggregates]
    document = {"type": "mini_platform.components.Dataset", "attributes": words}
    text: str = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=rng.choice([None, False])
    )
    return text


# What they say


def _same(channel: str, plan: Plan, model: str, folder: Path, rng: random.Random) -> Iterator[str]:
    """Yield how a file of YAML differs from Python, by the row model itself or by one of Pandera."""
    path = folder / "defs.yaml"
    path.write_text(_yaml(plan, rng, by_pandera=bool(model)), encoding="utf-8")
    refused = right = loaded = None
    try:
        right = draw.declare(plan.source, MODULE)
    except DeclarationError as error:
        refused = str(error)
    if model:
        draw.executed(model, OF_PANDERA)
    try:
        (loaded,) = read_yaml(path)
    except YamlError as error:
        if not str(error).startswith(f"{path}, line "):
            yield f"the channel {channel} refuses without a line: {error}"
        if right:
            yield f"the channel {channel} refuses what Python takes: {error}\n{path.read_text()}"
        return
    except Exception as error:
        yield f"the channel {channel} ends in {type(error).__name__}: {error}\n{path.read_text()}"
        return
    if right is None:
        yield f"the channel {channel} takes what Python refuses: {refused}\n{path.read_text()}"
        return
    for word in {f.name for f in fields(right)} - {"rows"}:
        if getattr(loaded, word) != getattr(right, word):
            yield f"the channel {channel} says another {word}: {getattr(loaded, word)}, not {getattr(right, word)}"
    for mine, its in zip_longest(map(_shown, right.columns), map(_shown, loaded.columns)):
        if mine != its:
            yield f"the channel {channel} says another column: {its}, not {mine}"
    if set(loaded.rules) != set(right.rules):
        yield f"the channel {channel} says other rules: {set(loaded.rules) ^ set(right.rules)}"


def _shown(column: Column) -> dict[str, Any]:
    """A column's words; checks have no order, and a pattern of pandas is compiled, as Python is asked then."""
    checks = {n: a.pattern if isinstance(a, re.Pattern) else a for n, a in column.checks.items()}
    return {**vars(column), "checks": checks, "warn": set(column.warn)}


def _verdicts(
    channel: Library, plan: Plan, files: Sequence[Written], folder: Path, rng: random.Random
) -> Iterator[str]:
    """Yield the rows that the platform, by the file of YAML, or Pandera validates otherwise than the model."""
    records = [(file, record) for file in files for record in file.records if not record.malformed]
    rows = [validated(plan, record, file.name, "") for file, record in records]
    try:
        (dataset,) = read_yaml(folder / "defs.yaml")
    except YamlError:
        return
    texts = {c.name: [record.cells.get(c.name, "") for _, record in records] for c in plan.columns}
    results = validate(dataset, pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))).rows["_rules"].is_null()
    for (_, record), row, is_valid in zip(records, rows, results, strict=True):
        if is_valid == bool(row.errors):
            yield f"the channel {channel} validates a row otherwise: {record.cells}, not {row.errors}"
    # No frame of polars has a number of more digits. In pandas a column with a missing value is of another type.
    foreign = {f"{c.name}_{'between' if channel == 'polars' else 'required'}" for c in plan.columns}
    named = draw.executed(model_source(replace(plan, duplicates="last"), channel, rng), "drawn_and_asked").Rows
    compared = [
        i for i, row in enumerate(rows) if not row.errors & foreign and all(_is_read(c, row) for c in plan.columns)
    ]
    values = [{c.name: _value(c, records[i][1]) for c in plan.columns} for i in compared]
    digits = {c.name: _digits(c) if channel == "polars" else 18 for c in plan.columns}
    schema = {c.name: DTYPES.get(c.type, pl.Decimal(digits[c.name], c.decimals)) for c in plan.columns}
    try:
        refused = refused_by_pandera(named, pl.DataFrame(values, schema=schema))
    except Exception as error:
        yield f"the channel {channel}: Pandera ends in {type(error).__name__}: {error}"
        return
    for place, i in enumerate(compared):
        errors = {
            rule for rule in rows[i].errors if not rule.endswith("_indexable")
        }  # Of indexes Pandera knows nothing.
        if (place in refused) != bool(errors):
            yield f"the channel {channel}: Pandera says otherwise of a row: {values[place]}, not {errors}"


def _is_read(column: Col, row: Row) -> bool:
    return row.text[column.name] is None or row.values[column.name] is not None


def _value(column: Col, record: Record) -> Any:
    """The typed value of a cell, also of one that is protected."""
    text = cleaned(column, record.cells.get(column.name, ""))
    return None if text is None else parsed(column, text)


def refused_by_pandera(model: Any, frame: pl.DataFrame) -> set[int]:
    """Places of the rows of which Pandera's own validation complains."""
    of_pandas = issubclass(model, pap.DataFrameModel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.validate(as_pandas(model, frame) if of_pandas else frame, lazy=True)
        except SchemaErrors as errors:
            return {int(case) for case in errors.failure_cases["index"].to_list()}
    return set()


def as_pandas(model: Any, frame: pl.DataFrame) -> pd.DataFrame:
    """The same rows as the types of a model of pandas have them."""
    columns = {}
    for name, column in model.to_schema().columns.items():
        kind = str(column.dtype)
        as_objects = kind in ("str", "date") or kind.startswith("Decimal")
        columns[name] = pd.Series(frame[name].to_list(), dtype=object if as_objects else kind)
    return pd.DataFrame(columns)
