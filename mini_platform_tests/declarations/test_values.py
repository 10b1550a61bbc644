"""Values: what a cell, a derived column and a rule come to, whatever the type; and limits by share."""

from __future__ import annotations

import unicodedata
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_platform.dataset import Above, Column, Dataset, Field, RowModel
from mini_platform.explain import KeyTextError, parse_key
from mini_platform.protection import normalized
from mini_platform.validation import clean


def column(**said: Any) -> Column:
    return Column(**({"name": "x", "type": str, "nullable": True, "description": "x"} | said))


def cleaned(cell: str, **said: Any) -> str | None:
    text: str | None = clean(column(**said), pl.Series("x", [cell], pl.String))[0]
    return text


def dataset(rows: type[RowModel], key: tuple[str, ...] = ("id",), **said: Any) -> Dataset:
    return Dataset(**({"name": "val", "table": "val", "description": "x", "rows": rows, "key": key} | said))


# Cleaning


@pytest.mark.parametrize(
    ("cell", "said", "expected"),
    [
        ("NA", {"null_tokens": ("NA",), "case": "lower"}, None),
        (" NA\u00a0", {"null_tokens": ("NA",), "case": "lower"}, None),
        ("na", {"null_tokens": ("NA",), "case": "lower"}, "na"),  # As written there.
        ("NA", {"null_tokens": ("na",), "case": "lower"}, None),  # What is stored is no token either.
        ("n/a", {"null_tokens": ("n/a",), "case": "upper"}, None),
        ("Red", {"null_tokens": ("NA",), "case": "lower"}, "red"),
        ("na", {"null_tokens": ("NA",)}, "na"),
        ("not known", {"null_tokens": (" not known ",)}, None),
        (" - ", {"null_tokens": (" - ",), "trim": False}, None),
        ("-", {"null_tokens": (" - ",), "trim": False}, "-"),
        (" ", {"trim": False}, " "),
        ("ne\u0301ant", {"null_tokens": ("n\u00e9ant",)}, None),
        ("n\u00e9ant", {"null_tokens": ("ne\u0301ant",)}, None),
        ("n\u00e9ant", {"null_tokens": ("ne\u0301ant",), "type": float}, None),
        *(("NA", {"null_tokens": ("NA",), "type": kind}, None) for kind in (int, float, bool, list[float])),
        ("[ ]", {"type": list[float]}, None),
        ("\u0390", {"case": "upper"}, "\u03aa\u0301"),
        ("\u01f0", {"case": "upper"}, "J\u030c"),
        ("J\u030c", {"case": "lower"}, "\u01f0"),
        ("\u0149", {"case": "upper"}, "\u02bcN"),
        ("\u00df", {"case": "upper"}, "SS"),
        ("\u0130", {"case": "lower"}, "i\u0307"),
    ],
)
def test_blanks_then_normal_form_then_null_tokens_then_case(
    cell: str, said: dict[str, Any], expected: str | None
) -> None:
    assert cleaned(cell, **said) == expected


TEXTS = st.one_of(
    st.text(max_size=6),
    st.text(
        st.sampled_from("aA\u00e9E\u0301\u0390\u01f0J\u030c\u0149\u00df\u0130\u0345\u1fbc \u00a0\u03a3\u212a-"),
        max_size=4,
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    cell=TEXTS,
    case=st.sampled_from((None, "lower", "upper")),
    tokens=st.lists(TEXTS, max_size=2),
    trim=st.booleans(),
)
def test_what_was_cleaned_is_clean(cell: str, case: Any, tokens: list[str], trim: bool) -> None:
    said = {"case": case, "null_tokens": tuple(tokens), "trim": trim}
    once = cleaned(cell, **said)
    if once is None:
        return
    assert cleaned(once, **said) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once == (once.strip() if trim and once.isprintable() else once)
    assert normalized(normalized(once)) == normalized(once)
    assert normalized(unicodedata.normalize("NFD", once)) == normalized(once)


def test_a_key_that_is_asked_for_is_cleaned_as_a_cell() -> None:
    class Rows(RowModel):
        id: str = Field("Id", case="upper", null_tokens=("none",))

    asked = dataset(Rows)
    assert parse_key(asked, [" \u0390 "]) == {"id": "\u03aa\u0301"}
    for text in ("none", "", " "):
        with pytest.raises(KeyTextError, match="is empty"):
            parse_key(asked, [text])


# Limits


@pytest.mark.parametrize("share", [0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57, 0.58, 1e-05, 0, 1])
def test_a_limit_by_share_is_compared_exactly(share: float) -> None:
    read = 10_000_000
    limit = Above(share=share)
    most = round(share * read)
    assert not limit.exceeded(most, read)
    assert limit.exceeded(most + 1, read)


@pytest.mark.parametrize(
    ("share", "words"), [(0.29, "29%"), (0.5, "50%"), (1e-05, "0.001%"), (0.123456789, "12.3456789%")]
)
def test_a_limit_is_shown_as_it_was_declared(share: float, words: str) -> None:
    assert str(Above(share=share)) == words
