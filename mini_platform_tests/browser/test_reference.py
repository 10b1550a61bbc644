"""The reference of the API in a browser, under the policy of all pages: no other host, no error, and it works."""

from __future__ import annotations

from mini_platform_tests.support.chromium import Look


def test_reference_shows_operations_and_tries_one(web: str, look: Look) -> None:
    watched = look(web)
    page = watched.page
    page.goto(f"{web}/api/docs")
    page.wait_for_selector("body[data-ready=true]")
    operation = page.locator(".opblock", has_text="/api/health/").first
    operation.locator(".opblock-summary").click()
    operation.locator("button.execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    assert "200" in answer.inner_text()
