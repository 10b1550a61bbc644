"""Personal data: its replacement before staging, and its masking where rows are shown. Pure, except for the key file.

The columns that hold it, and their protection, are declared (`dataset.Personal`).

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

from mini_platform.config.home import OWNER_ONLY
from mini_platform.declare.columns import Column
from mini_platform.declare.dataset import Dataset

if TYPE_CHECKING:
    import polars as pl

MASK = "***"
REDACTED = "[redacted]"
SHOWN_DIGITS = 4
NOT_IDENTIFYING = (
    r"\s*(?:[+-]?[0-9]{1,6}(?:\.[0-9]{1,3})?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,6})?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
    r"|[Tt]rue|TRUE|[Ff]alse|FALSE|[Yy]es|YES|[Nn]o|NO|[TtFfYyNn])\s*"
)
"""Texts that identify nobody: numbers that are too short for a telephone number, days, times, yes and no. Python, polars and
Postgres read this regular expression alike."""
LETTER, DIGIT = r"[A-Za-z]|[^ -~]", r"[0-9]"
SHAPE_CHARACTERS = 200
BLOCK = 64
"""Block size of SHA-256, in bytes."""
CACHED_HASHES = 200_000
"""Most cached hashes, about 60 MB: the same customers occur in many files."""


@dataclass(frozen=True)
class HashKey:
    """A secret for hashes; each hash is prefixed with the id of its key, so that keys can be rotated."""

    id: str
    secret: bytes
    _cache: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _states(self) -> tuple[hashlib._Hash, hashlib._Hash]:
        """The inner and the outer hash after reading the secret: copying them halves the time of an HMAC."""
        block = hashlib.sha256(self.secret).digest() if len(self.secret) > BLOCK else self.secret
        padded = block.ljust(BLOCK, b"\0")
        inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
        return inner, outer

    def digest(self, text: str) -> str:
        """Return the HMAC-SHA-256 of a normalized text, as `<key id>:<64 hexadecimal digits>`."""
        first, second = self._states
        inner, outer = first.copy(), second.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return f"{self.id}:{outer.hexdigest()}"

    def digests(self, texts: pl.Series) -> pl.Series:
        """Return the HMACs of a column, as `digest`: each distinct text is hashed once, and recent hashes are cached."""
        import polars as pl

        distinct = texts.drop_nulls().unique()
        needed, cache = distinct.to_list(), self._cache
        cache.update((text, self.digest(text)) for text in needed if text not in cache)
        hashes = pl.DataFrame({"text": distinct, "hash": pl.Series([cache[text] for text in needed], dtype=pl.String)})
        if len(cache) > CACHED_HASHES:
            cache.clear()
        column = pl.DataFrame({"text": texts}).join(hashes, on="text", how="left", maintain_order="left")
        return column["hash"].alias(texts.name)


@dataclass(frozen=True)
class Keyring:
    """The keys: the first one hashes new data, the others find data that they hashed earlier."""

    keys: tuple[HashKey, ...]

    @classmethod
    def from_text(cls, text: str) -> Keyring:
        """Read `id:secret,id:secret`.

        Raises:
            ValueError: an id or a secret is missing, an id occurs twice or a secret is shorter than 16 characters.
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
        """Read the key file; it is created with a random key if it does not exist, readable by its owner only."""
        return cls.from_text(load_or_create_secret(path, f"local:{secrets.token_hex(32)}"))

    def digests(self, text: str) -> list[str]:
        """Return the hashes that may stand for a text in the tables: one by each key."""
        return [key.digest(normalized(text)) for key in self.keys]


def load_or_create_secret(path: Path, new: str) -> str:
    """Return the secret in a file that only its owner may read; the first process to call it creates the file with `new`."""
    if not path.exists():
        path.parent.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new)
        try:
            os.link(temporary, path)  # Fails if another process was first; a rename would replace its key.
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_text().strip()


def normalized(text: str) -> str:
    """Return a text without differences that do not distinguish persons: case, composition of characters, amount of space."""
    import polars as pl

    only: str = plain(pl.Series([text], dtype=pl.String))[0]
    return only


def plain(cells: pl.Series) -> pl.Series:
    """Return the texts of a column, normalized as by `normalized`."""
    if cells.str.len_bytes().sum() == cells.str.len_chars().sum():
        cells = cells.str.to_lowercase()
    else:  # Lower case has composed characters that upper case lacks, such as 'ǰ'.
        cells = cells.str.normalize("NFC").str.to_lowercase().str.normalize("NFC")
    # Most texts have single spaces only, and checking is quicker than replacing.
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
"""Pattern of stored values, by protection."""


def protect(dataset: Dataset, rows: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
    """Replace the personal data in validated rows, as the columns declare it; other columns of rejected rows become shapes.

    The values of a rejected row may be in the wrong columns: one extra comma moves an address into the column of the title.

    Args:
        dataset: dataset of the rows.
        rows: n rows of text with the columns of staging; `_rules` is null for a valid one.
        keyring: keys, of which the first one hashes.
    """
    replaced = {c.name: protected(c, rows[c.name], keyring) for c in dataset.staged_columns if c.is_protected}
    rejected = rows["_rules"].is_not_null().arg_true()
    for name in sorted(dataset.shaped_columns) if len(rejected) else ():
        replaced[name] = rows[name].scatter(rejected, shapes(rows[name].gather(rejected)))
    return rows.with_columns(**replaced)


def protected(column: Column, cells: pl.Series, keyring: Keyring) -> pl.Series:
    """Return cleaned texts of a protected column as they are stored; those that have their stored form are unchanged."""
    replaced = PROTECTIONS[str(column.personal)](cells, keyring).alias(cells.name)
    stored = is_stored(column, cells, keyring)
    return cells.zip_with(stored, replaced) if stored.any() else replaced


def is_stored(column: Column, cells: pl.Series, keyring: Keyring) -> pl.Series:
    """Return True for each text that has the stored form of a protected column; a hash must be by one of the keys."""
    pattern = STORED[str(column.personal)].pattern
    if column.personal == "hash":
        pattern = rf"(?:{'|'.join(re.escape(key.id) for key in keyring.keys)}):[0-9a-f]{{64}}"
    return cells.str.contains(f"^(?:{pattern})$").fill_null(value=False)


def stored_as(column: Column, text: str, keyring: Keyring) -> list[str]:
    """Return the stored forms of a text in a protected column: by each key, or the text itself if copied from a table."""
    import polars as pl

    if STORED[str(column.personal)].fullmatch(text):
        return [text]
    if column.personal == "hash":
        return keyring.digests(text)
    return protected(column, pl.Series([text], dtype=pl.String), keyring).to_list()


def shape(text: str) -> str:
    """Return the shape of a text: `ada@example.org` is `aaa@aaaaaaa.aaa`; texts that match `NOT_IDENTIFYING` are unchanged."""
    if re.fullmatch(NOT_IDENTIFYING, text):
        return text
    return re.sub(DIGIT, "9", re.sub(LETTER, "a", text[:SHAPE_CHARACTERS]))


def shapes(cells: pl.Series) -> pl.Series:
    """Return the shapes of a column, as `shape`."""
    shaped = cells.str.slice(0, SHAPE_CHARACTERS).str.replace_all(LETTER, "a").str.replace_all(DIGIT, "9")
    return cells.zip_with(cells.str.contains(f"^(?:{NOT_IDENTIFYING})$"), shaped)


def masked(hidden: Container[str], values: Mapping[Any, Any], shaped: Container[str] = ()) -> dict[str, Any]:
    """Return values by column name as they may be shown: hidden columns masked, texts of shaped columns as shapes."""

    def visible(name: Any, value: Any) -> Any:
        if value is None:
            return None
        if name in hidden:
            return MASK
        return shape(value) if name in shaped else value

    return {name: visible(name, value) for name, value in values.items()}
