"""All names that a declaration of a dataset uses; `mini_platform` exports them."""

from mini_platform.declare.columns import Case, Column, CustomRule, DeclarationError, Field, RowModel, Rule, rule
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import Frequency, Measure, OverTime, Page, Ranked, Recurring
from mini_platform.declare.policies import KeepHighest, RejectLimit, UnexpectedColumns
from mini_platform.declare.sources import (
    AdoptedTable,
    ApiSource,
    Csv,
    CursorPaginator,
    HeaderLinkPaginator,
    Json,
    PageNumberPaginator,
)

# fmt: off
__all__ = [
    "AdoptedTable",
    "Aggregate",
    "ApiSource",
    "Case",
    "Column",
    "Csv",
    "CursorPaginator",
    "CustomRule",
    "Dataset",
    "DeclarationError",
    "Field",
    "Frequency",
    "HeaderLinkPaginator",
    "Json",
    "KeepHighest",
    "Measure",
    "OverTime",
    "Page",
    "PageNumberPaginator",
    "Ranked",
    "Recurring",
    "RejectLimit",
    "RowModel",
    "Rule",
    "UnexpectedColumns",
    "View",
    "rule",
]
# fmt: on
