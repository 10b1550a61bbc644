"""Every page with data: it renders, asks no other host, complains of nothing, is usable without eyes and on a phone.

The journey goes through a platform that was started as a user starts it.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from mini_platform_tests.support.chromium import SIZES, Look, Watched
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT

PAGES = (
    "/customers?personal=true",
    "/", "/weather", "/weather?station=SEA&from=2014-01-01&to=2014-03-31", "/sales", "/signals", "/customers", "/records",
    "/quality", "/quality?dataset=weather", "/files", "/files?dataset=sales", "/files/1", "/runs",
    "/datasets/sales?limit=10", "/login",
)  # fmt: skip
SERIOUS = ("serious", "critical")
SCREENSHOTS = PROJECT / ".screenshots"


def _name(path: str) -> str:
    return "-".join(part for part in path.translate(str.maketrans("?=&/", "    ")).split()) or "overview"


def _unusable(page: Page, *rules: str) -> list[str]:
    """Return the violations that axe-core finds, by all of its rules or some, and that keep people out."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    if not page.evaluate("'axe' in window"):  # It stays as long as the page does.
        page.evaluate(Axe().axe_script)
    violations = page.evaluate("options => axe.run(options).then(results => results.violations)", options)
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary']}"
        for rule in violations
        if rule["impact"] in SERIOUS
        for node in rule["nodes"]
    ]


@pytest.fixture(scope="module")
def shown(browser: Browser, samples_web: str) -> Iterator[Watched]:
    """A page that shows one path after the other: what it has loaded once, as the charts' program, it keeps."""
    context = browser.new_context()
    yield Watched(context, samples_web)
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_page(shown: Watched, path: str) -> None:
    """Opened on a phone in the dark, then shown on a wide screen, in the dark and in the light."""
    page = shown.page
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(SIZES["phone"])
    shown.open(path)
    expect(page.locator("main h1")).to_have_count(1)
    SCREENSHOTS.mkdir(exist_ok=True)
    for size, scheme, rules in (("phone", "dark", ()), ("wide", "dark", ("color-contrast",)), ("wide", "light", ())):
        page.set_viewport_size(SIZES[size])
        if scheme == "light":
            page.evaluate("document.querySelectorAll('[data-chart]').forEach(plot => delete plot.dataset.drawn)")
            page.emulate_media(color_scheme="light")
        for chart in page.locator("[data-chart]").all():
            expect(chart).to_have_attribute("data-drawn", "true")
            assert chart.locator("svg.main-svg").count()
        page.screenshot(path=SCREENSHOTS / f"{_name(path)}-{size}-{scheme}.png", full_page=True)
        assert _unusable(page, *rules) == [], (size, scheme)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{size}: it scrolls sideways"
    wrong, shown.wrong = shown.wrong, []
    assert wrong == []


def test_every_view_is_a_link(samples_web: str, look: Look) -> None:
    page = look(samples_web).open("/weather")
    page.get_by_role("combobox", name="Station").fill("SEA")
    page.get_by_label("From", exact=True).fill("2014-01-01")
    page.get_by_label("To", exact=True).fill("2014-01-31")
    page.get_by_role("button", name="Show").click()
    page.wait_for_load_state("networkidle")
    heading = page.locator("main").inner_text()
    again = look(samples_web).open(page.url.removeprefix(samples_web))
    assert again.locator("main").inner_text() == heading
    assert "SEA" in heading


def test_keyboard_reaches_everything(samples_web: str, look: Look) -> None:
    """The first stop is a link to the content; no control is left out."""
    page = look(samples_web).open("/files")
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.textContent")
    assert "content" in focused.lower()
    reached, controls = 0, page.locator("a:visible, button:visible, input:visible, select:visible").count()
    for _ in range(2 * controls):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        reached += 1
    assert reached >= controls - 1


def test_colours_follow_the_system_at_once(samples_web: str, look: Look) -> None:
    page = look(samples_web).open("/weather")
    background = "getComputedStyle(document.body).backgroundColor"
    axis = page.locator(".xtick text").first
    light = page.evaluate(background), axis.evaluate("text => getComputedStyle(text).fill")
    page.emulate_media(color_scheme="dark")
    # No wait_for_function: it asks the page itself to evaluate a string, which the page's own policy refuses.
    expect(axis).not_to_have_css("fill", light[1])
    assert page.evaluate(background) != light[0]


def test_page_of_an_error_says_what_to_do(samples_web: str, look: Look) -> None:
    watched = look(samples_web)
    watched.expected = {404}
    page = watched.open("/datasets/nothing")
    expect(page.locator("main")).to_contain_text("There is no dataset")
    assert page.locator("main a").count()


# The journey


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the API of a platform that `mini-platform up` started."""
    folder = tmp_path_factory.mktemp("running")
    port = free_port()
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("MINI_", "DAGSTER", "DATABASE"))
    }
    environment = variables | {
        "MINI_PLATFORM_HOME": str(folder / "home"),
        "MINI_PLATFORM_DATA": str(folder / "data"),
        "MINI_PLATFORM_API_PORT": str(port),
        "MINI_PLATFORM_DAGSTER_PORT": str(free_port()),
    }

    def call(*arguments: str) -> None:
        command = [sys.executable, "-m", "mini_platform.cli", *arguments]
        result = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=250, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr

    call("up", "--detach")
    yield f"http://127.0.0.1:{port}"
    call("down")
    left = [p for p in psutil.process_iter() if _environment(p).get("MINI_PLATFORM_HOME") == str(folder / "home")]
    assert left == []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


HEADER = "station_id,date,temp_c,precip_mm"
GOOD = ["Ω≈ç√,2024-05-01,10,0", "<script>alert(1)</script>,2024-05-01,11,1"]


def _settled(page: Page, name: str) -> str:
    """Upload a chosen file and wait until the page says what became of it."""
    page.get_by_role("button", name="Upload").click()
    row = page.locator("#uploads li", has_text=name).last
    expect(row).to_have_attribute("data-status", "loaded", timeout=90_000)
    return row.inner_text()


@pytest.mark.timeout(400)
def test_a_file_is_dropped_watched_corrected_and_loaded_again(running: str, look: Look, tmp_path: Path) -> None:
    page = look(running).open("/files?dataset=weather")
    path = tmp_path / "field notes & co.csv"
    path.write_text("\n".join([HEADER, *GOOD, "A,2024-05-01,warm,0", "B,2024-05-01,999,0", ""]))
    # As a drop from the desktop: the browser hands the page a list of files.
    handed = page.evaluate_handle(
        """([name, text]) => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([text], name, {type: "text/csv"}));
            return dropped;
        }""",
        [path.name, path.read_text()],
    )
    page.dispatch_event("#upload", "drop", {"dataTransfer": handed})
    row = page.locator("#uploads li", has_text=path.name).last
    expect(row).to_have_attribute("data-status", "loaded", timeout=90_000)
    assert "2 inserted" in row.inner_text()
    assert "2 rejected" in row.inner_text()

    row.get_by_role("link").click()
    rejects = page.locator("#rejects")
    expect(rejects).to_contain_text("temp_c is not a number")
    expect(rejects).to_contain_text("warm")
    expect(rejects).to_contain_text("temp_c is outside -90 to 60")
    with page.expect_download() as download:
        rejects.get_by_role("link", name="CSV").first.click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert {(r["line"], r["column"], r["value"]) for r in rows} == {("4", "temp_c", "warm"), ("5", "temp_c", "999")}

    page.goto(f"{running}/files?dataset=weather", wait_until="networkidle")
    path.write_text("\n".join([HEADER, *GOOD, "A,2024-05-01,12.5,0", "B,2024-05-01,9.9,0", ""]))
    page.set_input_files("#upload-file", path)
    assert "2 inserted, 2 unchanged" in _settled(page, path.name)
    # The table below was brought up to date by itself.
    expect(page.locator("#files")).to_contain_text("version 2")

    page.goto(f"{running}/datasets/weather", wait_until="networkidle")
    expect(page.locator("main")).to_contain_text("<script>alert(1)</script>")
    page.goto(f"{running}/weather?station=Ω≈ç√", wait_until="networkidle")
    expect(page.locator("main")).to_contain_text("10.0 °C")
