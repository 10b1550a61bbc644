"""Rules that no column declares: about the structure of a record, and about several rows of a file."""

from __future__ import annotations

from collections.abc import Mapping

from mini_platform.declare.columns import Rule

STRUCTURE_RULES: Mapping[str, Rule] = {
    structural.name: structural
    for structural in (
        Rule("row_has_header_fields", None, "the row has more or fewer fields than the header"),
        Rule("row_quotes_closed", None, "a quote is opened and never closed, or text follows a closing quote"),
        Rule("row_without_nul", None, "the row contains a NUL byte"),
        Rule("row_not_header", None, "the row repeats the header"),
        Rule("row_fields_bounded", None, "a field of the row is too long"),
        Rule("row_is_json", None, "the row is not strict JSON"),
        Rule("row_is_object", None, "the row is not a JSON object"),
        Rule("row_names_once", None, "the row names a column twice"),
        Rule("row_names_bounded", None, "the row has too many unknown names, or too long ones"),
    )
}
"""Rules about the structure of a record, by name. A row that breaks one has no columns, only its raw text. Each format has some
of them."""

LINE_ONCE = "line_once"
"""Name of the rule of datasets whose rows are identified by their line, if a format may have several records on one line."""
KEY_ONCE = "key_once"
"""Name of the rule of datasets that reject all rows of a file with the same key."""
