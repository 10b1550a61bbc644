"""Checking declarations: what is otherwise found by the first file is tried on a few drawn rows, and on none. No database.

The command is `mini-platform check`; a project's own test says `assert check_project() == []`.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import Column, DeclarationError, placed, reported
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.sampling.dirt import MISTYPED
from mini_platform.operations.sampling.rows import clean_rows, generator, yesterday

if TYPE_CHECKING:
    import polars as pl

    from mini_platform.declare.registry import Registry

ROWS = 200
"""Number of rows on which rules and derived columns are tried, and of those that the sample would have."""
EXAMPLES: Mapping[Any, tuple[str, ...]] = {
    str: ("a", "B 2", "ä€", "2024-01-31", "12.5"),
    float: ("0", "-1.5", "1e300", "0.1"),
    int: ("0", "-7", "12", str(2**63 - 1)),
    Decimal: ("0", "-7", "12"),
    dt.date: ("2024-02-29", "0001-01-01", "9999-12-31"),
    dt.datetime: ("2024-02-29T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    bool: ("true", "no"),
    list[float]: ("[1, 2.5]", "[0]"),
}
"""Type of a column -> texts of it, ordinary ones and the extremes."""


def check_project() -> list[str]:
    """Return what is wrong with the declarations of this project, a sentence each; empty if nothing is.

    Raises:
        RegistryError: the package or folder of the datasets cannot be used.
    """
    from mini_platform.declare.registry import configured

    return [fault for faults in check_all(configured()).values() for fault in faults]


def check_all(registry: Registry) -> dict[str, list[str]]:
    """Return what is wrong with each dataset of a registry by name, also with those that are invalid."""
    faults = {name: check(dataset) for name, dataset in registry.datasets.items()}
    for invalid in registry.invalid:
        faults.setdefault(invalid.name, []).append(invalid.message)
    return faults


def check(dataset: Dataset) -> list[str]:
    """Return what is wrong with a declaration, a sentence each with file and line; empty if nothing is.

    Tried are the selects of its aggregates and views, its page, its derived columns and rules, and the rows of its sample.
    """
    from mini_platform.rows.validation import expression_faults

    faults = [*_faults(dataset, _refuse_tables), *expression_faults(dataset)]
    if not faults:  # A row is only tried where each expression can be one.
        faults += [*_faults(dataset, _refuse_rows), *_faults(dataset, _refuse_sample)]
    return [str(fault) for fault in faults]


def _faults(dataset: Dataset, refuse: Callable[[Dataset], None]) -> Iterator[DeclarationError]:
    try:
        with placed(dataset), reported(f"dataset {dataset.name}"):
            refuse(dataset)
    except DeclarationError as error:
        yield error


def _refuse_tables(dataset: Dataset) -> None:
    """Make the tables of a dataset, and the SQL of what is computed."""
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.exc import SQLAlchemyError

    from mini_platform.warehouse.tables import dataset_tables

    tables = dataset_tables(dataset)
    for computed in dataset.computed:
        with placed(computed):
            try:
                tables.rows(computed).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
            except SQLAlchemyError as error:
                reason = str(error).splitlines()[0]
                raise DeclarationError(
                    f"{dataset.name}.{computed.name}: it cannot be written as SQL: {reason}"
                ) from error


def _refuse_rows(dataset: Dataset) -> None:
    """Validate no row, and rows of all kinds of values."""
    from mini_platform.rows.validation import validate

    rows = _drawn(dataset, generator(0, "check"))
    for some in (rows.clear(), rows):
        validate(dataset, some)


def _drawn(dataset: Dataset, rng: random.Random) -> pl.DataFrame:
    """Return rows of texts, right and wrong ones, with what the platform fills in."""
    import polars as pl

    filled = {"file": ["sample.csv"] * ROWS, "source": [dataset.sources[0].name] * ROWS, "record": ["1"] * ROWS}
    filled["line"] = [str(number + 2) for number in range(ROWS)]
    return pl.DataFrame(
        {
            column.name: filled[column.system] if column.system else rng.choices(_texts(column), k=ROWS)
            for column in dataset.staged_columns
            if not column.derived
        },
        schema_overrides={column.name: pl.String for column in dataset.staged_columns},
    )


def _texts(column: Column) -> list[str]:
    options = [str(value) for value in column.checks.get("isin", ())]
    return [*(EXAMPLES[column.type] + tuple(options)) * 3, *MISTYPED.get(column.type, ()), ""]


def _refuse_sample(dataset: Dataset) -> None:
    """Draw the rows of its sample: `realistic` gives valid ones, with every column that is read."""
    if dataset.realistic is None:
        return
    import polars as pl

    from mini_platform.rows.validation import validate

    where = f"dataset {dataset.name}: realistic"
    try:
        cells = clean_rows(dataset, generator(0, "rows"), yesterday())(range(ROWS))
    except KeyError as error:
        raise DeclarationError(f"{where} lacks the column {error.args[0]}") from error
    except Exception as error:  # A function of a user may raise anything.
        raise DeclarationError(f"{where} fails with {type(error).__name__}: {error}") from error
    read = [column.name for column in dataset.read_columns]
    rows = _drawn(dataset, generator(0, "check")).with_columns(
        pl.DataFrame(cells, schema=dict.fromkeys(read, pl.String), orient="row").get_columns()
    )
    results = validate(dataset, rows)
    if broken := [rule for rule, _ in results.broken if rule.severity == "error"]:
        raise DeclarationError(f"{where} gives rows that are not valid: {broken[0].message}")
