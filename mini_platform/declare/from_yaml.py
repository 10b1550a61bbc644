"""Datasets declared in YAML: `defs.yaml` -> `Dataset`, with errors that name the file and the line.

    type: mini_platform.components.Dataset
    attributes:
      name: meters
      model: my_package.models.Meter
      key: meter_id

Here: the attributes of such a file, and their meaning. Not here: Dagster, whose component (`dagster/components.py`) has the
same attributes, nor the translation of Pandera models (`pandera_models.py`). The platform also reads these files itself, so
that tables and commands know the same datasets as Dagster.
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
from mini_platform.declare.pandera_models import ModelError, TranslatedModel, translate_model
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.sources import Csv, Json

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")
TYPE = "mini_platform.components.Dataset"
OTHER_KEYS = {"template_vars_module", "requirements", "post_processing"}
"""Further keys of such a file, which Dagster reads."""
_FORBID = ConfigDict(extra="forbid", frozen=True)


class YamlError(ValueError):
    """A file does not declare a valid dataset; the message begins with its name and the line.

    Attributes:
        name: name of the dataset, if it is known.
    """

    name: str | None = None


@dataclass(frozen=True)
class CsvOptions(Csv):
    """`Csv` as it is read from YAML: unknown options are errors."""

    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class JsonOptions(Json):
    """`Json` as it is read from YAML: unknown options are errors."""

    __pydantic_config__ = _FORBID


@dataclass(frozen=True)
class RejectLimitOptions(RejectLimit):
    """`RejectLimit` as it is read from YAML: unknown options are errors."""

    __pydantic_config__ = _FORBID


class KeepHighestOptions(BaseModel):
    """`KeepHighest` as it is read from YAML: `highest` is its column."""

    model_config = _FORBID
    highest: str


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class Attributes(BaseModel):
    """The attributes of a dataset in YAML; they have the meaning of the options of `mini_platform.Dataset`."""

    model_config = _FORBID

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Name of the dataset, of its asset group and drop folder."
    )
    table: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Name of its table; by default that of the dataset."
    )
    model: str = Field(description="Dotted path of the Pandera model of a row: a RowModel or a DataFrameModel.")
    key: Names = Field(min_length=1, description="Columns that identify a row.")
    description: str | None = Field(None, description="What a row represents; by default the model's docstring.")
    owners: Names = Field(default=[], description="E-mail addresses, or team:name.")
    indexes: Names = Field(default=[], description="Columns with an index of their own.")
    search: Names | None = Field(None, description="Text columns that the search covers; by default all.")
    csv: CsvOptions | None = Field(
        None, description="Format of its CSV files; the default format if json is not given."
    )
    json_: JsonOptions | None = Field(None, alias="json", description="Format of its JSON files.")
    unexpected_columns: UnexpectedColumns | None = Field(
        None, description="What happens to columns that are not declared."
    )
    duplicates: Literal["last", "first", "reject"] | KeepHighestOptions | None = Field(
        None, description="Which of several rows of one key is loaded; by default last, or reject for a unique key."
    )
    freshness_hours: float | None = Field(None, gt=0, description="Maximum age of the newest load.")
    warn_limit: RejectLimitOptions = RejectLimitOptions(rows=0)
    reject_limit: RejectLimitOptions = RejectLimitOptions(share=0.5)
    aggregates: Names = Field(default=[], description="Dotted paths of Aggregates.")
    page: str | None = Field(None, description="Dotted path of its Page.")


Place = Callable[[str], str]
"""A function that takes the name of an attribute, and returns its file and line."""


def dataset_of(attributes: Attributes, place: Place) -> Dataset:
    """Return the dataset that attributes declare.

    Args:
        attributes: values of the file, as pydantic has read them.
        place: function that returns the file and the line of an attribute, for the message.

    Raises:
        YamlError: the attributes contradict each other or the model, or name something that does not exist.
    """
    try:
        model = translate_model(_import_path(attributes.model, place("model")))
    except (ModelError, DeclarationError) as error:
        raise YamlError(f"{place('model')}: {error}") from error
    key = tuple(attributes.key)
    for columns in model.unique:
        if columns != set(key):
            raise YamlError(
                f"{place('key')}: {attributes.model} declares {', '.join(sorted(columns))} unique; only the key can be."
            )
    missing = [name for name in key if not isinstance(getattr(model.rows, name, None), FieldSpec)]
    if missing:
        raise YamlError(f"{place('key')}: {attributes.model} has no column {', '.join(missing)}.")
    sources = tuple(_to_declaration(source) for source in (attributes.csv, attributes.json_) if source is not None)
    freshness = None if attributes.freshness_hours is None else dt.timedelta(hours=attributes.freshness_hours)
    # Pandera rejects all rows with the same value in a unique column.
    duplicates = attributes.duplicates or ("reject" if model.unique else "last")
    aggregates = tuple(_import_instance(path, place("aggregates"), Aggregate) for path in attributes.aggregates)
    page = None if attributes.page is None else _import_instance(attributes.page, place("page"), Page)
    try:
        return Dataset(
            name=attributes.name,
            table=attributes.table or attributes.name,
            rows=model.rows,
            key=key,
            description=_description(attributes, model),
            owners=tuple(attributes.owners),
            indexes=tuple(attributes.indexes),
            search=None if attributes.search is None else tuple(attributes.search),
            sources=sources or (Csv(),),
            unexpected_columns=attributes.unexpected_columns or model.unexpected_columns or "keep",
            duplicates=KeepHighest(duplicates.highest) if isinstance(duplicates, KeepHighestOptions) else duplicates,
            freshness=freshness,
            warn_limit=_to_declaration(attributes.warn_limit),
            reject_limit=_to_declaration(attributes.reject_limit),
            aggregates=aggregates,
            page=page,
        )
    except (ValueError, TypeError) as error:
        attribute = next(
            (
                attribute
                for attribute in ("key", "indexes", "search", "duplicates", "page")
                if f": {attribute}" in str(error)
            ),
            "model",
        )
        raise YamlError(f"{place(attribute)}: {error}.") from error


def _description(attributes: Attributes, model: TranslatedModel) -> str:
    return attributes.description or model.description or attributes.name


def _to_declaration(options: Any) -> Any:
    """Return the declaration for the options of YAML: an object of the base class with the same values."""
    kind = type(options).__mro__[1]
    return kind(**{item.name: getattr(options, item.name) for item in fields(kind)})


def _import_path(path: str, place: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise YamlError(f"{place}: {path} is not a dotted path, such as package.module.Model.")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise YamlError(f"{place}: {module} has no {name}.") from error
    except Exception as error:  # A module of a user may raise anything when it is imported.
        raise YamlError(f"{place}: {module} cannot be imported: {type(error).__name__}: {error}") from error


def _import_instance(path: str, place: str, kind: type[T]) -> T:
    value = _import_path(path, place)
    if not isinstance(value, kind):
        raise YamlError(f"{place}: {path} is not an instance of {kind.__name__}.")
    return value


# Files


def read_yaml(path: Path) -> list[Dataset]:
    """Return the datasets that a file declares; its documents of other types are left to Dagster.

    Raises:
        YamlError: the file cannot be read, or declares an invalid dataset.
    """
    datasets = []
    for item in read_each(path):
        if isinstance(item, YamlError):
            raise item
        datasets.append(item)
    return datasets


def read_each(path: Path) -> Iterator[Dataset | YamlError]:
    """Yield the datasets that a file declares, and for each document that declares an invalid one its error."""
    import yaml

    try:
        documents = list(yaml.compose_all(path.read_text(encoding="utf-8"), yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = error.strerror if isinstance(error, OSError) else getattr(error, "problem", None)
        yield YamlError(f"{path}{line}: {reason or error}")
        return
    for document in documents:
        try:
            dataset = _declared(document, path)
        except Exception as error:  # What a document names may raise anything.
            reason = f"{path}, line {_line_of(document)}: {type(error).__name__}: {error}"
            invalid = error if isinstance(error, YamlError) else YamlError(reason)
            invalid.name = _name_in(document)
            yield invalid
        else:
            if dataset is not None:
                yield dataset


def _declared(document: yaml.Node, path: Path) -> Dataset | None:
    """Return the dataset that a document declares; None if it declares something else."""
    import yaml

    content = _members_of(document, path) if isinstance(document, yaml.MappingNode) else {}
    if "type" not in content or content["type"].value != TYPE:
        return None
    if unknown := [name for name in content if name not in {"type", "attributes", *OTHER_KEYS}]:
        raise YamlError(f"{path}, line {_line_of(content[unknown[0]])}: {unknown[0]} is not known here.")
    if "attributes" not in content:
        raise YamlError(f"{path}, line {_line_of(document)}: attributes are missing.")
    return _dataset(content["attributes"], path)


def _name_in(document: yaml.Node) -> str | None:
    """Return the name of the dataset that a document declares, if it has one."""
    members: Any = document
    for step in ("attributes", "name"):
        value = members.value if isinstance(getattr(members, "value", None), list) else []
        members = next((item[1] for item in value if isinstance(item, tuple) and item[0].value == step), None)
    name = getattr(members, "value", None)
    return name if isinstance(name, str) and name else None


def _dataset(node: yaml.Node, path: Path) -> Dataset:
    def place(attribute: str) -> str:
        return f"{path}, line {_line_of(members.get(attribute, node))}"

    members = _members_of(node, path)
    try:
        attributes = Attributes.model_validate(_value_of(node, path))
    except ValidationError as error:
        raise YamlError("\n".join(_describe_errors(error, node, path))) from error
    except RecursionError as error:
        raise YamlError(f"{path}, line {_line_of(node)}: the value contains itself.") from error
    return dataset_of(attributes, place)


def _describe_errors(error: ValidationError, node: yaml.Node, path: Path) -> Iterator[str]:
    for item in error.errors(include_url=False):
        nearest_node = _node_at(node, item["loc"], path)
        where = ".".join(map(str, item["loc"]))
        message = {"extra_forbidden": "is not known here", "unexpected_keyword_argument": "is not known here"}.get(
            item["type"], item["msg"].removeprefix("Value error, ").lower()
        )
        yield f"{path}, line {_line_of(nearest_node)}: {where}: {message}."


def _node_at(node: yaml.Node, location: Sequence[str | int], path: Path) -> yaml.Node:
    """Return the node of a location, or the nearest one above it."""
    import yaml

    for step in location:
        if isinstance(node, yaml.MappingNode) and step in (members := _members_of(node, path)):
            node = members[str(step)]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
    return node


def _members_of(node: yaml.Node, path: Path) -> dict[str, yaml.Node]:
    """Return the values of a mapping by name."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise YamlError(f"{path}, line {_line_of(node)}: names with values are expected.")
    members: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if str(key.value) in members:
            raise YamlError(f"{path}, line {_line_of(key)}: {key.value} appears a second time.")
        members[str(key.value)] = value
    return members


def _value_of(node: yaml.Node, path: Path) -> Any:
    """Return the value of a node in Python's types; refuse a mapping with a name twice."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {name: _value_of(value, path) for name, value in _members_of(node, path).items()}
    if isinstance(node, yaml.SequenceNode):
        return [_value_of(item, path) for item in node.value]
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        message = getattr(error, "problem", None) or error
        raise YamlError(f"{path}, line {_line_of(node)}: {message}.") from error


def _line_of(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1
