"""The folder of this repository, which is the project of the tests."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
