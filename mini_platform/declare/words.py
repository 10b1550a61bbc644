"""All words of a declaration: what `mini_platform` hands on to who declares a dataset."""

from mini_platform.declare.columns import Case, Column, CustomRule, DeclarationError, Field, RowModel, Rule, rule
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.pages import Frequency, Measure, OverTime, Page, Ranked, Recurring
from mini_platform.declare.policies import Above, Drift, Highest
from mini_platform.declare.sources import Csv, Cursor, Json, Linked, Numbered, Pull

# fmt: off
__all__ = [
    "Above", "Aggregate", "Case", "Column", "Csv", "Cursor", "CustomRule", "Dataset", "DeclarationError", "Drift", "Field",
    "Frequency", "Highest", "Json", "Linked", "Measure", "Numbered", "OverTime", "Page", "Pull", "Ranked", "Recurring",
    "RowModel", "Rule", "View", "rule",
]
# fmt: on
