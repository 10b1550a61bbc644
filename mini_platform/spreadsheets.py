"""Cells that spreadsheet programs may open: text that one would run as a formula is made harmless.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make spreadsheet programs take a cell for a formula."""
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def harmless(value: Any) -> Any:
    """A value as a spreadsheet program shows it; plain numbers, and what is not text, stay as they are."""
    if isinstance(value, str) and value.startswith(FORMULA) and not PLAIN_NUMBER.fullmatch(value):
        return f"'{value}"
    return value
