"""Every declaration of this project is tried: columns, rules, aggregates, pages, samples. It needs no database."""

from mini_platform.operations.checking import check_project


def test_all_declarations_are_sound() -> None:
    assert check_project() == []
