"""Preparations of `up` before anything runs, without the processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mini_platform.cli.supervisor.preflight import drop_samples
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform_tests.support.examples import weather


def test_sample_data_of_all_datasets_but_one_whose_function_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> dict[str, str]:
        raise KeyError("no such city")

    monkeypatch.setitem(vars(weather), "realistic", broken)
    data: Path = platform.settings.data
    (data / "samples").mkdir(parents=True)
    lines: list[str] = []
    drop_samples(platform, lambda _, line: lines.append(line))
    others = [name for name in all_datasets() if name != "weather"]
    assert {path.name for path in data.iterdir()} == {*all_datasets(), "samples"}, "every dataset has its drop folder"
    assert lines == [
        "no sample data of weather: its function realistic failed, 'no such city'",
        f"put sample data of {', '.join(others)} into {data}; without {data / 'samples'} it starts empty",
    ]
    assert sorted(path.parent.name for path in data.glob("*/sample.*")) == others
