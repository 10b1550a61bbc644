"""Round trips: an export with nothing withheld loads again and changes nothing, from API, dashboard and CLI."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Row, select, text

from mini_platform import Csv, Dataset, Json
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import audit, dataset_tables, files
from mini_platform_tests.support.command import here
from mini_platform_tests.support.databases import load_files, set_environment
from mini_platform_tests.support.pages import Page

DATASETS = all_datasets()
PERSONAL = [name for name, dataset in DATASETS.items() if dataset.is_personal]


def loadable(dataset: Dataset) -> Iterator[str]:
    """The formats of exports that a dataset reads."""
    kinds = set(map(type, dataset.sources))
    yield from ("csv",) if Csv in kinds else ()
    yield from ("json", "ndjson") if Json in kinds else ()


FORMS = [(name, form) for name, dataset in DATASETS.items() for form in loadable(dataset)]


@dataclass
class Exporting:
    """A platform with the samples of every dataset, and a client of its web process."""

    platform: Platform
    client: httpx.Client
    folder: Path
    number: int = 0

    def get(self, path: str, **options: object) -> bytes:
        return self.client.get(path, **options).raise_for_status().content  # type: ignore[arg-type]

    def table(self, name: str) -> list[str]:
        """Return the rows of production as text, with those columns that are not declared."""
        production = dataset_tables(DATASETS[name]).production.fullname
        with self.platform.engine.connect() as conn:
            return list(conn.scalars(text(f"SELECT t::text FROM {production} t ORDER BY 1")))  # noqa: S608

    def load(self, name: str, content: bytes, form: str) -> Row[tuple[object, ...]]:
        self.number += 1
        path = self.folder / f"export {self.number}.{form}"
        path.write_bytes(content)
        load_files(self.platform, DATASETS[name], path)
        with self.platform.engine.connect() as conn:
            return conn.execute(select(files).where(files.c.name == path.name)).one()


@pytest.fixture(scope="module")
def exporting(samples_platform: Platform, samples_web: str) -> Iterator[Exporting]:
    folder, url = samples_platform.settings.home.parent, samples_platform.engine.url
    with pytest.MonkeyPatch.context() as patch, httpx.Client(base_url=samples_web, timeout=60) as client:
        set_environment(patch, url.render_as_string(hide_password=False), folder)
        yield Exporting(samples_platform, client, folder)


def unchanged(exporting: Exporting, name: str, content: bytes, form: str) -> None:
    before = exporting.table(name)
    assert before
    loaded = exporting.load(name, content, form)
    counts = (loaded.rows_rejected, loaded.rows_inserted, loaded.rows_updated, loaded.rows_unchanged)
    assert (loaded.status, loaded.error, *counts) == ("loaded", None, 0, 0, 0, len(before)), loaded.rule_counts
    assert (loaded.unexpected_columns, loaded.missing_columns) == ([], [])
    assert exporting.table(name) == before


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_an_export_loads_again_and_changes_nothing(exporting: Exporting, name: str, form: str) -> None:
    """The CLI and the dashboard give the bytes of the API; a page offers CSV with what it shows."""
    content = exporting.get(f"/api/datasets/{name}/rows.{form}?personal=true")
    run = here("export", name, "--out", exporting.folder / "out", "--format", form, "--personal")
    assert (run.exit_code, run.stderr, (exporting.folder / "out").read_bytes() == content) == (0, "", True)
    with exporting.platform.engine.connect() as conn:
        recorded = conn.scalars(select(audit.c.dataset).where(audit.c.subject == "export", audit.c.dataset == name))
        assert bool(recorded.all()) == (name in PERSONAL)
    if form == "csv":
        page = Page(exporting.get(f"/datasets/{name}{'?personal=true' if name in PERSONAL else ''}").decode())
        (link,) = [one for one in page.links if "/rows.csv" in one]
        assert link.endswith("?personal=true") == (name in PERSONAL)
        assert exporting.get(link) == content
    unchanged(exporting, name, content, form)


def test_customers_under_their_old_path_load_again(exporting: Exporting) -> None:
    content = exporting.get("/api/customers/?personal=true", headers={"Accept": "text/csv"})
    unchanged(exporting, "customers", content, "csv")


@pytest.mark.parametrize(("name", "form"), [one for one in FORMS if one[0] in PERSONAL])
def test_an_export_without_personal_data_names_its_columns_and_is_refused(
    exporting: Exporting, name: str, form: str
) -> None:
    before = exporting.table(name)
    content = exporting.get(f"/api/datasets/{name}/rows.{form}")
    withheld = {
        "customers": "first_name last_name phone_1 phone_2 email website _extra",
        "sales": "customer_name customer_email",
    }
    assert withheld[name].encode() in content.replace(b'"_extra"', b"")
    assert b"***," not in content
    loaded = exporting.load(name, content, form)
    assert loaded.status == "refused"
    assert withheld[name].split()[0] in loaded.error
    assert loaded.error.endswith("with personal=true, by a key that has the scope for it")
    assert exporting.table(name) == before


def test_rows_that_show_masks_never_replace_what_they_mask(exporting: Exporting) -> None:
    before = exporting.table("customers")
    listed = json.loads(exporting.get("/api/datasets/customers/rows/"))["results"]
    loaded = exporting.load("customers", json.dumps(listed).encode(), "json")
    assert (loaded.status, "masked (first_name, last_name" in loaded.error) == ("refused", True)
    assert exporting.table("customers") == before


def test_a_corrected_export_changes_what_was_corrected(exporting: Exporting) -> None:
    """An e-mail address in clear is hashed, and what is derived is computed again; the rest is as it was."""
    content = exporting.get("/api/datasets/sales/rows.csv?personal=true&limit=2").decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    before = exporting.table("sales")
    rows[0] |= {"customer_email": "new@example.org", "quantity": "1", "total_profit": "wrong"}
    changed = io.StringIO(newline="")
    writer = csv.DictWriter(changed, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    loaded = exporting.load("sales", changed.getvalue().encode(), "csv")
    assert (loaded.rows_updated, loaded.rows_unchanged, loaded.rows_rejected) == (1, 1, 0)
    (row,) = json.loads(exporting.get(f"/api/datasets/sales/rows.json?personal=true&order_id={rows[0]['order_id']}"))
    assert row["customer_email"] in exporting.platform.keyring.digests("new@example.org")
    assert row["total_profit"] == row["profit_per_unit"] == rows[0]["profit_per_unit"]
    assert row["customer_phone"] == rows[0]["customer_phone"]
    assert len(set(exporting.table("sales")) - set(before)) == 1
