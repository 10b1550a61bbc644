"""Personal data: how it is replaced before it is staged, and how it is masked where rows are shown. Pure but for the key file.

Which columns hold it, and what is done with each, is declared (`dataset.Personal`).

https://www.rfc-editor.org/rfc/rfc2104 (HMAC)
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_platform.declare.columns import Column
from mini_platform.declare.dataset import Dataset

if TYPE_CHECKING:
    import polars as pl

MASK = "***"
REDACTED = "[redacted]"
SHOWN_DIGITS = 4
NOBODYS = (
    r"\s*(?:[+-]?[0-9]{1,6}(?:\.[0-9]{1,3})?"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,6})?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
    r"|[Tt]rue|TRUE|[Ff]alse|FALSE|[Yy]es|YES|[Nn]o|NO|[TtFfYyNn])\s*"
)
"""Texts that say of nobody who it is: numbers that are too short for a telephone's, days, times, yes and no. These are
regular expressions as Python, polars and Postgres read them alike."""
LETTER, DIGIT = r"[A-Za-z]|[^ -~]", r"[0-9]"
SHAPE_CHARACTERS = 200
BLOCK = 64
"""Bytes that SHA-256 takes at a time."""
KNOWN_HASHES = 200_000
"""Hashes that are remembered, about 60 MB: the customers of a file come back."""


@dataclass(frozen=True)
class HashKey:
    """A secret for hashes; its id stands before each of them, so that keys can be exchanged."""

    id: str
    secret: bytes
    _known: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _states(self) -> tuple[hashlib._Hash, hashlib._Hash]:
        """The inner and the outer hash once they have read the secret: to copy them halves the time of an HMAC."""
        block = hashlib.sha256(self.secret).digest() if len(self.secret) > BLOCK else self.secret
        padded = block.ljust(BLOCK, b"\0")
        inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
        return inner, outer

    def digest(self, text: str) -> str:
        """HMAC-SHA-256 of a normalized text, as `<key id>:<64 hexadecimal digits>`."""
        first, second = self._states
        inner, outer = first.copy(), second.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return f"{self.id}:{outer.hexdigest()}"

    def digests(self, texts: pl.Series) -> pl.Series:
        """The same of a column: each distinct text is hashed once, and those seen lately are known."""
        import polars as pl

        distinct = texts.drop_nulls().unique()
        asked, known = distinct.to_list(), self._known
        known.update((text, self.digest(text)) for text in asked if text not in known)
        hashes = pl.DataFrame({"text": distinct, "hash": pl.Series([known[text] for text in asked], dtype=pl.String)})
        if len(known) > KNOWN_HASHES:
            known.clear()
        column = pl.DataFrame({"text": texts}).join(hashes, on="text", how="left", maintain_order="left")
        return column["hash"].alias(texts.name)


@dataclass(frozen=True)
class Keyring:
    """The keys: the first one hashes what arrives, the others are known to find again what they once hashed."""

    keys: tuple[HashKey, ...]

    @classmethod
    def from_text(cls, text: str) -> Keyring:
        """Read `id:secret,id:secret`.

        Raises:
            ValueError: an id or a secret is missing, an id stands twice or a secret is shorter than 16 characters.
        """
        keys = []
        for part in text.split(","):
            name, _, secret = part.strip().partition(":")
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", name) or len(secret) < 16:
                raise ValueError(
                    "MINI_PLATFORM_PII_KEYS is not of the form id:secret,id:secret with secrets of 16 or more characters"
                )
            keys.append(HashKey(name, secret.encode()))
        if len({key.id for key in keys}) < len(keys):
            raise ValueError("MINI_PLATFORM_PII_KEYS names an id twice")
        return cls(tuple(keys))

    @classmethod
    def from_file(cls, path: Path) -> Keyring:
        """Read the key file; the first one to ask makes it, with a random key, readable by its owner only."""
        return cls.from_text(kept_secret(path, f"local:{secrets.token_hex(32)}"))

    def digests(self, text: str) -> list[str]:
        """What a text may stand as in the tables: its hash by each key."""
        return [key.digest(normalized(text)) for key in self.keys]


def kept_secret(path: Path, new: str) -> str:
    """The secret in a file that its owner alone may read; the first process to ask makes it, of what is given as new."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new)
        try:
            os.link(made, path)  # Fails where another process was first; a rename would replace its key.
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_text().strip()


def normalized(text: str) -> str:
    """A text without what makes no other person of it: case, how its characters are composed, how much space stands where."""
    import polars as pl

    only: str = plain(pl.Series([text], dtype=pl.String))[0]
    return only


def plain(cells: pl.Series) -> pl.Series:
    """The same of a column."""
    if cells.str.len_bytes().sum() == cells.str.len_chars().sum():
        cells = cells.str.to_lowercase()
    else:  # Lower case has composed characters that upper case lacks, such as 'ǰ'.
        cells = cells.str.normalize("NFC").str.to_lowercase().str.normalize("NFC")
    # Most texts are well spaced, and to see that is quicker than to replace.
    if cells.str.contains(r"\s\s|[^\S ]|^\s|\s$").any():
        cells = cells.str.replace_all(r"\s+", " ").str.strip_chars()
    return cells


def _hashed(cells: pl.Series, keyring: Keyring) -> pl.Series:
    return keyring.keys[0].digests(plain(cells))


def _last4(cells: pl.Series, _: Keyring) -> pl.Series:
    import polars as pl

    digits = cells.str.replace_all(r"\D", "")
    frame = pl.DataFrame({"cell": cells, "digits": digits})
    enough = pl.col("digits").str.len_bytes() > SHOWN_DIGITS
    shown = pl.when(enough).then(pl.format("***-***-{}", pl.col("digits").str.tail(SHOWN_DIGITS)))
    return frame.select(pl.when(pl.col("cell").is_not_null()).then(shown.otherwise(pl.lit("***-***-****")))).to_series()


def _redacted(cells: pl.Series, _: Keyring) -> pl.Series:
    return cells.set(cells.is_not_null(), REDACTED)


PROTECTIONS: Mapping[str, Callable[[pl.Series, Keyring], pl.Series]] = {
    "hash": _hashed,
    "last4": _last4,
    "redact": _redacted,
}

STORED: Mapping[str, re.Pattern[str]] = {
    "hash": re.compile(r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}"),
    "last4": re.compile(r"\*{3}-\*{3}-(?:[0-9]{4}|\*{4})"),
    "redact": re.compile(re.escape(REDACTED)),
}
"""What is stored looks like this."""


def protect(dataset: Dataset, rows: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
    """Replace the personal data in validated rows, as the columns declare it; a rejected row has shapes in its other columns.

    Nobody knows what stands where in a rejected row: one comma too many moves an address to where the title should be.

    Args:
        dataset: whose rows.
        rows: n rows of text with the columns of staging; `_rules` is null for a valid one.
        keyring: whose first key hashes.
    """
    replaced = {c.name: protected(c, rows[c.name], keyring) for c in dataset.staged_columns if c.is_protected}
    rejected = rows["_rules"].is_not_null().arg_true()
    for name in sorted(dataset.shaped_columns) if len(rejected) else ():
        replaced[name] = rows[name].scatter(rejected, shapes(rows[name].gather(rejected)))
    return rows.with_columns(**replaced)


def protected(column: Column, cells: pl.Series, keyring: Keyring) -> pl.Series:
    """Cleaned texts of a protected column as they are stored."""
    return PROTECTIONS[str(column.personal)](cells, keyring).alias(cells.name)


def stored_as(column: Column, text: str, keyring: Keyring) -> list[str]:
    """Return what a text may stand as in a protected column: by each key, or as it is where it was copied from a table."""
    import polars as pl

    if STORED[str(column.personal)].fullmatch(text):
        return [text]
    if column.personal == "hash":
        return keyring.digests(text)
    return protected(column, pl.Series([text], dtype=pl.String), keyring).to_list()


def shape(text: str) -> str:
    """What a text looks like: `ada@example.org` is `aaa@aaaaaaa.aaa`; `NOBODYS` and its like stand as they are."""
    if re.fullmatch(NOBODYS, text):
        return text
    return re.sub(DIGIT, "9", re.sub(LETTER, "a", text[:SHAPE_CHARACTERS]))


def shapes(cells: pl.Series) -> pl.Series:
    """The same of a column."""
    shaped = cells.str.slice(0, SHAPE_CHARACTERS).str.replace_all(LETTER, "a").str.replace_all(DIGIT, "9")
    return cells.zip_with(cells.str.contains(f"^(?:{NOBODYS})$"), shaped)


def masked(hidden: Container[str], values: Mapping[Any, Any], shaped: Container[str] = ()) -> dict[str, Any]:
    """Values by column name, as they may be shown: those of hidden columns masked, texts of shaped ones by their shape."""

    def seen(name: Any, value: Any) -> Any:
        if value is None:
            return None
        if name in hidden:
            return MASK
        return shape(value) if name in shaped else value

    return {name: seen(name, value) for name, value in values.items()}
