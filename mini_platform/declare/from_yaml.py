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
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mini_platform.declare.columns import DeclarationError, nearest
from mini_platform.declare.computed import Aggregate
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import Page
from mini_platform.declare.pandera_models import description_of
from mini_platform.declare.places import Place
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.sources import Csv, Json

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")
TYPE = "mini_platform.components.Dataset"
OTHER_KEYS = {"template_vars_module", "requirements", "post_processing"}
"""Further keys of such a file, which Dagster reads."""
_FORBID = ConfigDict(extra="forbid", frozen=True)


class YamlError(DeclarationError):
    """A file does not declare a valid dataset.

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


Places = Callable[[str], Place]
"""A function that takes the name of an attribute, and returns its place in the file."""


def dataset_of(attributes: Attributes, places: Places) -> Dataset:
    """Return the dataset that attributes declare.

    Args:
        attributes: values of the file, as pydantic has read them.
        places: function that returns the place of an attribute, for the message.

    Raises:
        YamlError: the attributes contradict each other or the model, or name something that does not exist.
    """
    model = _import_path(attributes.model, places("model"))
    sources = tuple(_to_declaration(source) for source in (attributes.csv, attributes.json_) if source is not None)
    freshness = None if attributes.freshness_hours is None else dt.timedelta(hours=attributes.freshness_hours)
    duplicates = attributes.duplicates
    aggregates = tuple(_import_instance(path, places("aggregates"), Aggregate) for path in attributes.aggregates)
    page = None if attributes.page is None else _import_instance(attributes.page, places("page"), Page)
    try:
        dataset = Dataset(
            name=attributes.name,
            table=attributes.table or attributes.name,
            rows=model,
            key=tuple(attributes.key),
            description=attributes.description or description_of(model) or attributes.name,
            owners=tuple(attributes.owners),
            indexes=tuple(attributes.indexes),
            search=None if attributes.search is None else tuple(attributes.search),
            sources=sources or (Csv(),),
            unexpected_columns=attributes.unexpected_columns,
            duplicates=KeepHighest(duplicates.highest) if isinstance(duplicates, KeepHighestOptions) else duplicates,
            freshness=freshness,
            warn_limit=_to_declaration(attributes.warn_limit),
            reject_limit=_to_declaration(attributes.reject_limit),
            aggregates=aggregates,
            page=page,
        )
    except DeclarationError as error:
        # A sentence about an option begins with the dataset and the option.
        options = (name for name in type(attributes).model_fields if re.match(rf"[^:]*: {name}\b", error.sentence))
        raise YamlError(error.sentence, error.place or places(next(options, "model"))) from error
    vars(dataset)["place"] = places("name")
    return dataset


def _to_declaration(options: Any) -> Any:
    """Return the declaration for the options of YAML: an object of the base class with the same values."""
    kind = type(options).__mro__[1]
    return kind(**{item.name: getattr(options, item.name) for item in fields(kind)})


def _import_path(path: str, place: Place) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        raise YamlError(f"{path} is not a dotted path, such as package.module.Model", place)
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise YamlError(f"{module} has no {name}", place) from error
    except DeclarationError as error:
        raise YamlError(error.sentence, error.place or place) from error
    except Exception as error:  # A module of a user may raise anything when it is imported.
        raise YamlError(f"{module} cannot be imported: {type(error).__name__}: {error}", place) from error


def _import_instance(path: str, place: Place, kind: type[T]) -> T:
    value = _import_path(path, place)
    if not isinstance(value, kind):
        raise YamlError(f"{path} is not an instance of {kind.__name__}", place)
    return value


# Files


def read_each(path: Path) -> Iterator[Dataset | YamlError]:
    """Yield the datasets that a file declares, and for each document that declares an invalid one its error."""
    import yaml

    try:
        documents = list(yaml.compose_all(path.read_text(encoding="utf-8"), yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = error.strerror if isinstance(error, OSError) else getattr(error, "problem", None)
        yield YamlError(str(reason or error), Place(str(path), mark.line + 1 if mark else None))
        return
    for document in documents:
        try:
            dataset = _declared(document, path)
        except Exception as error:  # What a document names may raise anything.
            reason = f"{type(error).__name__}: {error}"
            invalid = error if isinstance(error, YamlError) else YamlError(reason, _place_of(document, path))
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
        raise YamlError(f"{unknown[0]} is not known here", _place_of(content[unknown[0]], path))
    if "attributes" not in content:
        raise YamlError("attributes are missing", _place_of(document, path))
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
    def places(attribute: str) -> Place:
        return _place_of(members.get(attribute, node), path)

    members = _members_of(node, path)
    try:
        attributes = Attributes.model_validate(_value_of(node, path))
    except ValidationError as error:
        raise YamlError("\n".join(_describe_errors(error, node, path))) from error
    except RecursionError as error:
        raise YamlError("the value contains itself", _place_of(node, path)) from error
    return dataset_of(attributes, places)


def _describe_errors(error: ValidationError, node: yaml.Node, path: Path) -> Iterator[str]:
    for item in error.errors(include_url=False):
        nearest_node = _node_at(node, item["loc"], path)
        where = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ").lower()
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            message = f"is not known here{nearest(str(item['loc'][-1]), _words(*item['loc'][:-1]))}"
        yield f"{_place_of(nearest_node, path)}: {where}: {message}"


def _words(attribute: str | int = "", *_: str | int) -> Iterable[str]:
    """Return the words that an attribute takes, or the names of all attributes."""
    kinds = {"csv": Csv, "json": Json, "warn_limit": RejectLimit, "reject_limit": RejectLimit}
    if attribute in kinds:
        return (item.name for item in fields(kinds[str(attribute)]))
    return Attributes.model_json_schema()["properties"] if not attribute else KeepHighestOptions.model_fields


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
        raise YamlError("names with values are expected", _place_of(node, path))
    members: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if str(key.value) in members:
            raise YamlError(f"{key.value} appears a second time", _place_of(key, path))
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
        raise YamlError(str(message), _place_of(node, path)) from error


def _place_of(node: yaml.Node, path: Path) -> Place:
    return Place(str(path), node.start_mark.line + 1)
