"""The core knows no dataset: nothing outside `mini_platform/datasets/` stands for one that comes along, or for a column of one.

What is looked for comes from the registry. Words that mean something without the datasets are free, and so are sentences with
the plain words that three of the datasets are called by.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from mini_platform.datasets import all_datasets
from mini_platform_tests.support.repository import PROJECT

CORE = PROJECT / "mini_platform"
PLAIN = frozenset(
    (
        *(
            "category",
            "city",
            "created_at",
            "customers",
            "data",
            "date",
            "day",
            "description",
            "email",
            "first_name",
            "index",
        ),
        *(
            "last_name",
            "max",
            "mean",
            "measurements",
            "min",
            "month",
            "n",
            "name",
            "orders",
            "pieces",
            "products",
            "profit",
        ),
        *(
            "quarter",
            "rank",
            "records",
            "revenue",
            "rows",
            "signals",
            "source",
            "source_file",
            "stations",
            "summary",
            "title",
        ),
        *("value", "week", "weekday", "year"),
    )
)
"""What datasets, their tables and columns are called, and other things are, too."""
PLAIN_DATASETS = ("customers", "records", "signals")
OTHER_RECORDS = {
    "dagster/metadata.py",  # `DataFrame.to_dict("records")`
    "cli/forgetting.py",  # a column of what was erased: how many of a person
    "operations/dropped_files.py",
}
FILES = [
    path.relative_to(CORE).as_posix()
    for path in sorted(CORE.rglob("*"))
    if path.suffix in {".py", ".html", ".js", ".css", ".yml", ".yaml", ".json"}
    and not path.is_relative_to(CORE / "datasets")
    and not path.is_relative_to(CORE / "web" / "help")  # the documentation, which is built and shows examples
]


def telling_names() -> set[str]:
    """Return the names of the datasets, their tables and columns that nothing else has."""
    names = set()
    for dataset in all_datasets().values():
        names |= {dataset.name, dataset.table, *(column.name for column in dataset.columns)}
        names |= {name for item in dataset.computed for name in (item.name, *item.columns, *item.extra_columns)}
    return names - PLAIN


def words_of(file: str) -> tuple[list[str], list[str]]:
    """Return the identifiers and strings of a Python file; of another one its text, as a string."""
    text = (CORE / file).read_text()
    if not file.endswith(".py"):
        return [], [text]
    names: list[str] = []
    strings: list[str] = []
    for node in ast.walk(ast.parse(text)):
        for _, value in ast.iter_fields(node):
            words = [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]
            (strings if isinstance(node, ast.Constant) else names).extend(words)
    return names, strings


def offences(file: str) -> Iterator[str]:
    names, strings = words_of(file)
    one_of = "|".join(sorted(map(re.escape, telling_names())))
    telling = re.compile(rf"(?<![a-z0-9])(?:{one_of})(?![a-z0-9])")
    for word in (*names, *strings):
        yield from telling.findall(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower())
    dataset = rf"(?:{'|'.join(PLAIN_DATASETS)})"
    # As nothing but a dataset is spoken of: alone, as a path, after a colon or a schema, after the word.
    plain = re.compile(
        rf"^/?{dataset}$|\b(?:datasets?[ /:]`?|(?:read|write):|(?:production|staging)\.|[\"'(=]/){dataset}\b"
    )
    for word in strings:
        yield from plain.findall(word)


def test_the_core_names_no_dataset() -> None:
    offending = {file: set(offences(file)) - ({"records"} if file in OTHER_RECORDS else set()) for file in FILES}
    assert {file: words for file, words in offending.items() if words} == {}


def test_names_of_datasets_are_detected() -> None:
    """The datasets' own files are full of them."""
    for name, words in {"weather": {"temp_c", "weather", "station_id"}, "signals": {"signals", "std_dev"}}.items():
        assert set(offences(f"datasets/{name}/__init__.py")) >= words
    assert {"customers"} <= set(offences("datasets/customers/routes.py"))


def takes_an_example(node: ast.AST) -> bool:
    """True for `from mini_platform.datasets.x import y` and `all_datasets()["x"]`."""
    match node:
        case ast.ImportFrom(module=str(module)):
            return module.startswith("mini_platform.datasets.")
        case ast.Subscript(value=ast.Call(func=ast.Name("all_datasets")), slice=ast.Constant()):
            return True
    return False


def test_no_test_needs_them_to_be_imported() -> None:
    """`mini_platform_tests/support/examples.py` skips a test whose example is not declared; benchmarks are no tests."""
    imports = []
    for path in sorted(PROJECT.glob("mini_platform_tests/**/*.py")):
        for statement in ast.parse(path.read_text()).body if "benchmarks" not in path.parts else ():
            run_later = isinstance(statement, ast.FunctionDef | ast.ClassDef)
            if not run_later and any(map(takes_an_example, ast.walk(statement))):
                imports.append(f"{path.relative_to(PROJECT)}:{statement.lineno}")
    assert imports == []
