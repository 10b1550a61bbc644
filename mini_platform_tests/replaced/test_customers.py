"""The claims of the customers system, and its documented requests, rows and files, replayed."""

from __future__ import annotations

from mini_platform_tests.support.claims import Claim

CLAIMS: list[Claim] = []
