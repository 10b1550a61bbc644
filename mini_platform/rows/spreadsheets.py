"""Cells for spreadsheet programs: text that such a program would run as a formula is escaped.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""Start of a cell that spreadsheet programs take for a formula, or of one that was escaped, so that all can be undone."""
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def escape_formula(value: Any) -> Any:
    """Return a value that a spreadsheet program shows as it is; plain numbers, and values that are not text, are unchanged."""
    if isinstance(value, str) and FORMULA.match(value) and not PLAIN_NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescape_formula(texts: pl.Expr) -> pl.Expr:
    """Return texts as they were before `escape_formula`."""
    return texts.str.replace(f"^'({FORMULA.pattern})", "${1}")
