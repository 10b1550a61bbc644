"""Cells that spreadsheet programs may open: text that one would run as a formula is made escape_formula.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How cells begin that spreadsheet programs take for a formula; and such as were escaped, so that all can be undone."""
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def escape_formula(value: Any) -> Any:
    """A value as a spreadsheet program shows it; plain numbers, and what is not text, stay as they are."""
    if isinstance(value, str) and FORMULA.match(value) and not PLAIN_NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def restored(texts: pl.Expr) -> pl.Expr:
    """Texts as they were before they were made escape_formula."""
    return texts.str.replace(f"^'({FORMULA.pattern})", "${1}")
