"""Datasets declared in YAML: `defs.yaml` -> `Dataset`, with errors that name the file and the line.

    type: mini_platform.components.Dataset
    attributes:
      name: meters
      model: my_package.models.Meter
      key: meter_id

Here: the words of such a file, and what they mean. Not here: Dagster, whose component (`dagster/components.py`) has the same
words, nor the translation of Pandera models (`pandera_models.py`). The platform reads these files itself too, so that tables
and commands know what Dagster knows.
"""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mini_platform.declare.columns import DeclarationError, FieldSpec
from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import Page
from mini_platform.declare.pandera_models import ModelError, Translated, translated
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.sources import Csv, Json

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")
TYPE = "mini_platform.components.Dataset"
OTHER_KEYS = {"template_vars_module", "requirements", "post_processing"}
"""Keys of such a file besides `type` and `attributes` that Dagster reads."""
_FORBID = ConfigDict(extra="forbid", frozen=True)


class YamlError(ValueError):
    """A file that declares no dataset; the message begins with its name and the line."""


@dataclass(frozen=True)
class CsvOptions(Csv):
    """`Csv`, to be read from YAML: unknown options are errors."""

    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class JsonOptions(Json):
    """`Json`, likewise."""

    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class RejectLimitOptions(RejectLimit):
    """`RejectLimit`, likewise."""

    __pydantic_config__ = _FORBID


class KeepHighestOptions(BaseModel):
    """`KeepHighest`, likewise."""

    model_config = _FORBID
    highest: str


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


class Attributes(BaseModel):
    """What can be said of a dataset in YAML; the words mean what they mean in `mini_platform.Dataset`."""

    model_config = _FORBID

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Name of the dataset, of its asset group and drop folder."
    )
    table: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Name of its table; else the dataset's."
    )
    model: str = Field(description="Dotted path of the Pandera model of a row: a RowModel or a DataFrameModel.")
    key: Names = Field(min_length=1, description="Columns that tell its rows apart.")
    description: str | None = Field(None, description="What a row is about; else the model's docstring.")
    owners: Names = Field(default=[], description="E-mail addresses, or team:name.")
    indexes: Names = Field(default=[], description="Columns with an index of their own.")
    search: Names | None = Field(None, description="Text columns that a search looks in; else all of them.")
    csv: CsvOptions | None = Field(
        None, description="How its CSV files are written; said by default if there is no json."
    )
    json_: JsonOptions | None = Field(None, alias="json", description="How its JSON files are written.")
    unexpected_columns: UnexpectedColumns | None = Field(
        None, description="What becomes of columns that are not declared."
    )
    duplicates: Literal["last", "first", "reject"] | KeepHighestOptions | None = Field(
        None, description="Which of several rows of one key counts; said by default is last, or reject of a unique key."
    )
    freshness_hours: float | None = Field(None, gt=0, description="How old the newest load may be.")
    warn_limit: RejectLimitOptions = RejectLimitOptions(share=0)
    reject_limit: RejectLimitOptions = RejectLimitOptions(share=0.5)
    aggregates: Names = Field(default=[], description="Dotted paths of Aggregates.")
    page: str | None = Field(None, description="Dotted path of its Page.")


Place = Callable[[str], str]
"""Takes an attribute, returns the file and the line where it stands."""


def dataset_of(said: Attributes, place: Place) -> Dataset:
    """The dataset that attributes declare.

    Raises:
        YamlError: they contradict each other or the model, or name what is not there.
    """
    try:
        model = translated(_imported(said.model, place("model")))
    except (ModelError, DeclarationError) as error:
        raise YamlError(f"{place('model')}: {error}") from error
    key = tuple(said.key)
    for columns in model.unique:
        if columns != set(key):
            raise YamlError(
                f"{place('key')}: {said.model} declares {', '.join(sorted(columns))} unique; only the key can be."
            )
    lacking = [name for name in key if not isinstance(getattr(model.rows, name, None), FieldSpec)]
    if lacking:
        raise YamlError(f"{place('key')}: {said.model} has no column {', '.join(lacking)}.")
    sources = tuple(_plain(source) for source in (said.csv, said.json_) if source is not None)
    freshness = None if said.freshness_hours is None else dt.timedelta(hours=said.freshness_hours)
    # What is unique in a model of Pandera makes it reject all rows that have a value twice.
    duplicates = said.duplicates or ("reject" if model.unique else "last")
    aggregates = tuple(_declared(path, place("aggregates"), Aggregate) for path in said.aggregates)
    page = None if said.page is None else _declared(said.page, place("page"), Page)
    try:
        return Dataset(
            name=said.name,
            table=said.table or said.name,
            rows=model.rows,
            key=key,
            description=_sentence(said, model),
            owners=tuple(said.owners),
            indexes=tuple(said.indexes),
            search=None if said.search is None else tuple(said.search),
            sources=sources or (Csv(),),
            unexpected_columns=said.unexpected_columns or model.unexpected_columns or "keep",
            duplicates=KeepHighest(duplicates.highest) if isinstance(duplicates, KeepHighestOptions) else duplicates,
            freshness=freshness,
            warn_limit=_plain(said.warn_limit),
            reject_limit=_plain(said.reject_limit),
            aggregates=aggregates,
            page=page,
        )
    except (ValueError, TypeError) as error:
        about = next(
            (word for word in ("key", "indexes", "search", "duplicates", "page") if f": {word}" in str(error)), "model"
        )
        raise YamlError(f"{place(about)}: {error}.") from error


def _sentence(said: Attributes, model: Translated) -> str:
    return said.description or model.description or said.name


def _plain(words: Any) -> Any:
    """The declaration that the words of YAML stand for."""
    kind = type(words).__mro__[1]
    return kind(**{item.name: getattr(words, item.name) for item in fields(kind)})


def _imported(path: str, place: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise YamlError(f"{place}: {path} is no dotted path, such as package.module.Model.")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise YamlError(f"{place}: {module} has no {name}.") from error
    except Exception as error:  # What a module does when it is imported is its own; its error is told with the line.
        raise YamlError(f"{place}: {module} cannot be imported: {type(error).__name__}: {error}") from error


def _declared(path: str, place: str, kind: type[T]) -> T:
    found = _imported(path, place)
    if not isinstance(found, kind):
        raise YamlError(f"{place}: {path} is no {kind.__name__}.")
    return found


# Files


def read_yaml(path: Path) -> list[Dataset]:
    """The datasets that a file declares; its documents of other types are left to Dagster.

    Raises:
        YamlError: it cannot be read, or declares none.
    """
    import yaml

    try:
        documents = list(yaml.compose_all(path.read_text(encoding="utf-8"), yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise YamlError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from error
    found = []
    for document in documents:
        content = _members(document, path) if isinstance(document, yaml.MappingNode) else {}
        if "type" not in content or content["type"].value != TYPE:
            continue
        if unknown := [name for name in content if name not in {"type", "attributes", *OTHER_KEYS}]:
            raise YamlError(f"{path}, line {_line(content[unknown[0]])}: {unknown[0]} is not known here.")
        if "attributes" not in content:
            raise YamlError(f"{path}, line {_line(document)}: attributes are missing.")
        found.append(_dataset(content["attributes"], path))
    return found


def _dataset(node: yaml.Node, path: Path) -> Dataset:
    def place(attribute: str) -> str:
        return f"{path}, line {_line(members.get(attribute, node))}"

    members = _members(node, path)
    try:
        said = Attributes.model_validate(_value(node, path))
    except ValidationError as error:
        raise YamlError("\n".join(_problems(error, node, path))) from error
    except RecursionError as error:
        raise YamlError(f"{path}, line {_line(node)}: what stands here contains itself.") from error
    return dataset_of(said, place)


def _problems(error: ValidationError, node: yaml.Node, path: Path) -> Iterator[str]:
    for item in error.errors(include_url=False):
        at = _at(node, item["loc"], path)
        where = ".".join(map(str, item["loc"]))
        what = {"extra_forbidden": "is not known here", "unexpected_keyword_argument": "is not known here"}.get(
            item["type"], item["msg"].removeprefix("Value error, ").lower()
        )
        yield f"{path}, line {_line(at)}: {where}: {what}."


def _at(node: yaml.Node, location: Sequence[str | int], path: Path) -> yaml.Node:
    """The node of a location, or the nearest one above it."""
    import yaml

    for step in location:
        if isinstance(node, yaml.MappingNode) and step in (members := _members(node, path)):
            node = members[str(step)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
    return node


def _members(node: yaml.Node, path: Path) -> dict[str, yaml.Node]:
    """The values of a mapping by name."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise YamlError(f"{path}, line {_line(node)}: names with values are expected.")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if str(key.value) in found:
            raise YamlError(f"{path}, line {_line(key)}: {key.value} stands here a second time.")
        found[str(key.value)] = value
    return found


def _value(node: yaml.Node, path: Path) -> Any:
    """What a node says, in Python's types; no name stands twice in a mapping."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {name: _value(value, path) for name, value in _members(node, path).items()}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path) for item in node.value]
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        what = getattr(error, "problem", None) or error
        raise YamlError(f"{path}, line {_line(node)}: {what}.") from error


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
