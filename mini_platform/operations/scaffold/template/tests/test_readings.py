"""The sample with wrong rows through the real pipeline: raw store, checks, quarantine, Postgres."""

from mini_platform.testing import PlatformForTests


def test_wrong_rows_are_rejected_and_the_others_loaded(platform: PlatformForTests) -> None:
    (file,) = platform.load("readings", "data/samples/readings/dirty.csv")
    assert (file["rows_inserted"], file["rows_rejected"]) == (2, 4)
    assert list(platform.table("readings")["meter"]) == ["M001", "M004"]
    assert list(platform.rejects("readings")["_line"]) == [3, 4, 6, 7]
