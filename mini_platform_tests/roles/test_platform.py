"""The whole platform with separate roles: loaded as the loader, served as the readers, changed by the owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pandas as pd
import pytest
from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.exc import ProgrammingError
from typer.testing import Result

from mini_platform import Dataset, Field, RowModel
from mini_platform.datasets import all_datasets
from mini_platform.operations.doctor import CheckResult, examine
from mini_platform.operations.frames import store_frame
from mini_platform.operations.landing import land_files, named_file
from mini_platform.operations.processing import process
from mini_platform.operations.sampling import write_sample
from mini_platform.platform import Platform as Opened
from mini_platform.warehouse import frames
from mini_platform.warehouse.connection import engine as engine_of
from mini_platform.warehouse.frame_columns import FrameError, frame_columns
from mini_platform.warehouse.granted import excess_privileges, missing_privileges
from mini_platform.warehouse.load import BULK_ROWS
from mini_platform.warehouse.migrations import MIGRATIONS, NEWEST, migrate
from mini_platform.warehouse.migrations.migration import Migration
from mini_platform.warehouse.roles import RolesError
from mini_platform.warehouse.schema import all_tables, create_all
from mini_platform.warehouse.tables import dataset_tables, migrations
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.command import cli, here
from mini_platform_tests.support.roles import PATIENCE, SAMPLES, RolesPlatform
from mini_platform_tests.support.web import serving


class Spot(RowModel):
    spot_id: str = Field("Identifier", str_length={"min_value": 1, "max_value": 64})
    owner_name: str = Field("Whose it is", personal="mask")
    height_m: float | None = Field("Height", unit="m")


SPOTS = Dataset("spots", "spots", Spot, ("spot_id",), "Spots")


def loaded(platform: Opened, dataset: Dataset, path: Path) -> None:
    """Landed and processed, without Dagster."""
    assert len(list(land_files(platform, dataset, [named_file(path)], "test"))) == 1
    process(platform, dataset, run_id="test")


@pytest.fixture
def loader(as_loader: RolesPlatform) -> Iterator[Opened]:
    platform = Opened()
    yield platform
    platform.engine.dispose()


@pytest.fixture
def owner(roles: RolesPlatform) -> Iterator[Engine]:
    engine = engine_of(roles.urls["owner"])
    yield engine
    engine.dispose()


def test_the_loader_fills_the_tables_of_own_assets_that_the_owner_created(loader: Opened, owner: Engine) -> None:
    first, second = pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [2, 3]})
    with owner.begin() as conn:
        frames.store_frame(conn, "own/prices", frame_columns(first))
    stored = store_frame(loader, "own/prices", second)
    assert (stored.inserted, stored.unchanged, stored.deleted) == (1, 1, 1)
    for asset, frame in {"own/others": first, "own/prices": first.assign(y=1)}.items():
        with pytest.raises(FrameError, match="materialize the asset once with a DATABASE_URL of the owner"):
            store_frame(loader, asset, frame)
    with owner.begin() as conn:
        conn.execute(text("DROP TABLE analytics.prices"))


def test_the_loader_loads_every_sample_and_more_than_fits_a_merge(
    loaded_samples: None, loader: Opened, owner: Engine, tmp_path: Path
) -> None:
    with loader.engine.connect() as conn:
        for dataset in all_datasets().values():
            assert conn.scalar(select(func.count()).select_from(dataset_tables(dataset).production)), dataset.name
        assert conn.scalar(text("SELECT count(*) FROM dagster.runs WHERE status = 'SUCCESS'")) == 1
    with owner.begin() as conn:  # Empty tables are filled in bulk by who owns them, and row by row by who does not.
        conn.execute(text("DELETE FROM analytics.fact_sales"))
        conn.execute(text("DELETE FROM production.orders"))
    path = tmp_path / "many.csv"
    write_sample(all_datasets()["sales"], path, BULK_ROWS + 1000, 0, 1)
    loaded(loader, all_datasets()["sales"], path)
    with loader.engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM analytics.fact_sales")) == BULK_ROWS + 1000
        keys = text(
            "SELECT count(*) FROM pg_constraint WHERE conrelid = 'analytics.fact_sales'::regclass AND contype = 'f'"
        )
        assert conn.scalar(keys) == 4
    result = here("verify")
    assert result.exit_code == 0, result.stdout


def test_the_loader_takes_over_numbers(loaded_samples: None, loader: Opened, tmp_path: Path) -> None:
    """Rows of an adopted table have numbers, and the next ones follow them."""
    assert loaded_samples is None
    dataset = all_datasets()["records"]
    (tmp_path / "old.ndjson").write_text('{"record_id": 900000, "source": "old", "source_id": "1", "name": "old"}\n')
    adopted, later = named_file(tmp_path / "old.ndjson"), tmp_path / "later.csv"
    later.write_text("source,id,name\nold,2,later\n")
    list(land_files(loader, dataset, [adopted], "adopt"))
    process(loader, dataset, run_id="test")
    loaded(loader, dataset, later)
    with loader.engine.connect() as conn:
        numbers = conn.scalars(
            text("SELECT record_id FROM production.records WHERE source = 'old' ORDER BY source_id")
        ).all()
    assert numbers == [900_000, 900_001]


PAGES = [
    *("/", "/weather", "/customers", "/signals", "/records", "/sales", "/files", "/quality", "/runs", "/datasets/customers"),
    *("/api/customers/", "/api/customers/?search=a", "/api/datasets/", "/api/quality/", "/metrics", "/data"),
    *(f"/api/datasets/{name}/{what}" for name in SAMPLES for what in ("", "rows/", "rows.csv", "rejects/", "files/")),
    *("/quality?dataset=customers&column=email", "/quality?dataset=sales&column=quantity"),
    "/api/datasets/sales/analytics/dim_customer/", "/api/datasets/customers/analytics/customers_by_country.csv",
]  # fmt: skip


def test_the_api_reads_as_reader_and_takes_on_more_for_personal_data_alone(
    loaded_samples: None, loader: Opened
) -> None:
    site = Site(loader)
    with site.read() as conn:
        pages = [
            *PAGES,
            *(f"/files/{file_id}" for file_id in conn.scalars(text("SELECT file_id FROM ops.files LIMIT 3"))),
        ]
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=60) as client:
        wrong = {page: answer.text[:200] for page in pages if (answer := client.get(page)).status_code != 200}
        assert wrong == {}
        assert "@example." in client.get("/api/customers/?personal=true").text
        sent = client.post("/api/datasets/weather/upload/?wait=0", files={"file": ("up.csv", b"station_id,date\n")})
        assert sent.status_code < 500, sent.text
    email = text("SELECT max(email) FROM production.customers")
    with site.read() as conn:
        assert str(conn.scalar(text("SELECT session_user"))).startswith("mini_platform_reader_")
        with pytest.raises(ProgrammingError, match="permission denied"):
            conn.execute(email)
    with site.read(personal=True) as conn:
        assert "@" in conn.execute(email).scalar_one()
    site.close()


def test_a_dataset_that_is_declared_later_is_made_by_the_owner_and_loaded_by_the_loader(
    as_loader: RolesPlatform, roles: RolesPlatform, owner: Engine, tmp_path: Path
) -> None:
    datasets = {"spots": SPOTS}
    with pytest.raises(RolesError, match="run `mini-platform db init`"):
        _ = Opened(datasets).engine
    create_all(owner, [SPOTS])
    platform = Opened(datasets)
    path = tmp_path / "spots.csv"
    path.write_text("spot_id,owner_name,height_m\na,Ada,1\nb,Ben,2\n")
    loaded(platform, SPOTS, path)
    platform.engine.dispose()
    tables = all_tables([SPOTS])
    with owner.connect() as conn:
        assert [*excess_privileges(conn, tables), *missing_privileges(conn, tables)] == []
        assert conn.scalar(
            text("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'production.spots'::regclass")
        ) == ("mini_platform_owner")
    bi = engine_of(roles.urls["bi"])
    with bi.connect() as conn:
        assert conn.scalar(text("SELECT sum(height_m) FROM production.spots")) == 3
        with pytest.raises(ProgrammingError, match="permission denied"):
            conn.execute(text("SELECT owner_name FROM production.spots"))
    bi.dispose()


def test_a_column_that_becomes_personal_is_taken_from_those_who_read(owner: Engine) -> None:
    class Named(Spot):
        spot_id: str = Field("Identifier", str_length={"min_value": 1, "max_value": 64})
        owner_name: str = Field("Whose it is")

    def readable() -> bool | None:
        query = "SELECT has_column_privilege('mini_platform_bi', 'production.named', 'owner_name', 'SELECT')"
        with owner.connect() as conn:
            return conn.scalar(text(query))

    create_all(owner, [Dataset("named", "named", Named, ("spot_id",), "Spots")])
    assert readable() is True
    create_all(owner, [Dataset("named", "named", Spot, ("spot_id",), "Spots")])
    assert readable() is False


def init(url: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        return here("db", "init")


def findings(level: str) -> list[CheckResult]:
    return [finding for finding in examine() if (finding.check, finding.level) == ("roles", level)]


def test_changed_tables_are_a_sentence_for_the_loader_and_are_made_by_the_owner_without_an_administrator(
    as_loader: RolesPlatform, roles: RolesPlatform, owner: Engine
) -> None:
    with owner.begin() as conn:
        conn.execute(text("UPDATE ops.fingerprints SET sha256 = 'other' WHERE name = 'weather'"))
    result = here("files")
    assert (result.exit_code, "run `mini-platform db init`" in result.stderr) == (1, True)
    assert init(roles.urls["loader"]).exit_code == 1
    result = init(roles.urls["owner"])
    assert (result.exit_code, result.stderr[:9]) == (0, "Create lo")
    assert here("files").exit_code == 0
    with owner.connect() as conn:
        tables = all_tables(all_datasets().values())
        assert [*excess_privileges(conn, tables), *missing_privileges(conn, tables)] == []


def test_a_migration_is_made_by_who_is_the_owner_and_what_it_makes_is_theirs(loader: Opened, owner: Engine) -> None:
    """Migrations of the platform's own tables are nothing that the loader may do."""
    later = Migration(NEWEST + 1, "a further table", "CREATE TABLE ops.further (number integer)")
    whose = text("SELECT relowner::regrole::text FROM pg_class WHERE oid = to_regclass('ops.further')")
    with pytest.raises(ProgrammingError, match="permission denied"):
        migrate(loader.engine, (*MIGRATIONS, later))
    try:
        migrate(owner, (*MIGRATIONS, later))
        with owner.connect() as conn:
            assert conn.scalar(whose) == "mini_platform_owner"
            assert conn.scalar(select(func.max(migrations.c.number))) == NEWEST + 1
    finally:
        with owner.begin() as conn:
            conn.execute(text("DROP TABLE IF EXISTS ops.further"))
            conn.execute(delete(migrations).where(migrations.c.number > NEWEST))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["admin", "--role", "bi"], "it is not a login of mini_platform_bi"),
        (["the_owner", "--role", "bi"], "it is not a login of mini_platform_bi"),
        (["mini_platform_bi", "--role", "bi"], "it is not a login of mini_platform_bi"),
        (["short", "--role", "bi", "--password-file", "{file}"], "at least 16 characters"),
    ],
)
def test_a_login_that_cannot_be_made_is_a_sentence(
    roles: RolesPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", roles.urls["admin"])
    (tmp_path / "file").write_text("too short")
    result = here("db", "login", *[argument.format(file=tmp_path / "file") for argument in arguments])
    assert (result.exit_code, message in result.stderr) == (1, True), result.stderr


def test_a_login_is_given_a_new_password(roles: RolesPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", roles.urls["admin"])
    first, second = (here("db", "login", "changing", "--role", "reader").stdout.strip() for _ in range(2))
    url = roles.server.url("changing", second, "separated")
    engine = engine_of(url)
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) >= 0 FROM ops.files"))
    engine.dispose()
    with pytest.raises(ConnectionError, match="password authentication failed"):
        engine_of(roles.server.url("changing", first, "separated")).connect()


def test_the_doctor_says_who_runs_the_platform_and_which_role_may_too_much_or_too_little(
    as_loader: RolesPlatform, roles: RolesPlatform, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reading,) = findings("ok")
    assert "the API reads on logins of its own: mini_platform_reader_" in reading.message
    assert findings("problem") + findings("warning") == []
    with owner.begin() as conn:
        conn.execute(text("GRANT SELECT (email) ON production.customers TO mini_platform_bi"))
        conn.execute(text("GRANT DELETE ON ops.files TO mini_platform_reader"))
        conn.execute(text("GRANT CREATE ON SCHEMA staging TO mini_platform_loader"))
        conn.execute(text("REVOKE INSERT ON ops.files FROM mini_platform_loader"))
    roles.server.execute("ALTER ROLE mini_platform_bi CREATEDB")
    roles.server.execute("GRANT pg_read_all_data TO mini_platform_reader")
    assert {finding.message for finding in findings("problem")} >= {
        "mini_platform_bi may SELECT (email) production.customers",
        "mini_platform_reader may DELETE ops.files",
        "mini_platform_loader may create tables in the schema staging",
        "mini_platform_bi is more than a group: it may log in, create roles or databases, replicate, or bypass grants",
        "mini_platform_reader is a member of pg_read_all_data",
    }
    assert [finding.message for finding in findings("warning")] == ["mini_platform_loader may not INSERT ops.files"]
    roles.server.execute("ALTER ROLE mini_platform_bi NOCREATEDB")
    roles.server.execute("REVOKE pg_read_all_data FROM mini_platform_reader")
    with owner.begin() as conn:
        conn.execute(text("REVOKE CREATE ON SCHEMA staging FROM mini_platform_loader"))
    assert init(roles.urls["owner"]).exit_code == 0
    assert findings("problem") + findings("warning") == []
    monkeypatch.setenv("DATABASE_URL", roles.urls["owner"])
    assert ["runs as the_owner, who may change tables" in finding.message for finding in findings("warning")] == [True]


def test_a_restored_platform_has_its_roles_again(
    loaded_samples: None, as_loader: RolesPlatform, roles: RolesPlatform, owner: Engine, tmp_path: Path
) -> None:
    result = cli("backup", tmp_path, timeout=PATIENCE, DATABASE_URL=roles.urls["owner"])
    assert result.returncode == 0, result.stderr
    owner.dispose()
    result = cli("restore", tmp_path, "--replace", timeout=PATIENCE, DATABASE_URL=roles.urls["owner"])
    assert result.returncode == 0, result.stderr
    with owner.connect() as conn:
        tables = all_tables(all_datasets().values())
        assert [*excess_privileges(conn, tables), *missing_privileges(conn, tables)] == []
    assert here("files").exit_code == 0
