"""Personal data is masked unless a request wants it in clear, and masked rows tell nothing of it, by choice or by order."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from fastapi.testclient import TestClient
from sqlalchemy import Connection, text

from mini_platform import Dataset, Field, Page, RowModel
from mini_platform.declare.reserved import FILTERS
from mini_platform.platform import Platform
from mini_platform.warehouse.schema import create_all
from mini_platform.web.api import relations
from mini_platform.web.api.query import ListQuery, page
from mini_platform.web.api.relations import Relation
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.problems import ProblemError
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import load_files, open_platform
from mini_platform_tests.support.pages import measure
from mini_platform_tests.support.trial import Trial


class Person(RowModel):
    who: str = Field("Name", personal="mask")
    mail: str | None = Field("Address", personal="mask")
    city: str = Field("City")


PEOPLE = Dataset(
    name="people", table="people", description="People", rows=Person, key=("who",), search=("who", "mail", "city"),
    page=Page(),
)  # fmt: skip
OTHERS = text(
    "UPDATE production.people SET"
    " who = CASE city WHEN 'Oslo' THEN 'Zoltan' WHEN 'Rome' THEN 'Yannis' ELSE 'Adrian' END || right(who, 1),"
    " mail = CASE city WHEN 'Oslo' THEN NULL WHEN 'Rome' THEN 'ann@x.org' ELSE 'zoe@x.org' END"
)
"""Other values in the same rows: whoever learns which they are, learns personal data."""
SECRETS = ("Annika", "Bobbie", "Evelyn", "Zoltan", "Yannis", "Adrian", "@x.org")
ATTACKS: dict[str, dict[str, str]] = {
    "the default order": {},
    "sorted": {"ordering": "mail"},
    "sorted down": {"ordering": "-who"},
    "sorted as the second": {"ordering": "_file_id, -mail"},
    "chosen": {"mail": "ann@x.org"},
    **{f"chosen by {by}": {f"mail__{by}": "true" if by == "isnull" else "bob@x.org"} for by in FILTERS},
    "searched": {"search": "ann"},
}
HEADERS = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def people(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("people")
    with open_platform(server, template, folder) as platform:
        assert create_all(platform.engine, [PEOPLE]) == {}
        path = folder / "people.csv"
        persons = ((f"Annika{n},ann@x.org,Oslo", f"Bobbie{n},bob@x.org,Rome", f"Evelyn{n},,Kiev") for n in range(3))
        path.write_text("\n".join(["who,mail,city", *(line for lines in persons for line in lines)]))
        load_files(platform, PEOPLE, path)
        measure(Trial(platform, PEOPLE))
        yield platform


@pytest.fixture
def client(people: Platform) -> Iterator[TestClient]:
    site = Site(people, {PEOPLE.name: PEOPLE})
    with TestClient(create_app(site), base_url="http://127.0.0.1:8000") as client:
        yield client
    site.close()


def listed(conn: Connection, relation: Relation, params: dict[str, str]) -> list[str]:
    """Return the cities that a request lists, page by page, or its refusal."""
    cities, cursor, fernet = [], None, Fernet(Fernet.generate_key())
    while True:
        sent = [*params.items(), ("limit", "1"), ("fields", "city"), *([("cursor", cursor)] if cursor else [])]
        try:
            result = page(conn, relation, ListQuery.parse(relation, sent, cipher=lambda: fernet))
        except ProblemError as error:
            return [f"{error.status} {error}"]
        cities += [row["city"] for row in result.results]
        cursor = result.next
        if cursor is None:
            return cities
        decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("latin-1")
        assert not [one for one in SECRETS if one in decoded]


@pytest.mark.parametrize("attack", ATTACKS)
def test_masked_rows_tell_nothing(people: Platform, attack: str) -> None:
    """With other personal values, the answer is the same; that of clear rows is not, so the attack is one."""
    with people.engine.connect() as conn:
        before, clear_before = (listed(conn, relations.rows(PEOPLE, clear=c), ATTACKS[attack]) for c in (False, True))
        conn.execute(OTHERS)
        after, clear_after = (listed(conn, relations.rows(PEOPLE, clear=c), ATTACKS[attack]) for c in (False, True))
    assert before == after
    assert clear_before != clear_after
    column = next((name for name in ("mail", "who") if name in str(ATTACKS[attack])), None)
    if column:
        assert re.fullmatch(
            rf"403 .*: {column} has .* Add personal=true, which takes the scope read:people\.", before[0]
        )


def test_a_cursor_of_clear_rows_is_none_of_masked_ones(client: TestClient) -> None:
    clear = client.get("/api/datasets/people/rows/?personal=true&limit=1", headers=HEADERS).json()
    assert clear["results"][0]["who"] == "Annika0"
    assert "personal=true" in clear["next"]
    assert client.get(clear["next"]).json()["results"][0]["who"] == "Annika1"
    masked = client.get(clear["next"].replace("personal=true&", ""))
    assert (masked.status_code, masked.json()["parameter"]) == (400, "cursor")


def trail(people: Platform) -> list[Any]:
    with people.engine.connect() as conn:
        rows = conn.execute(
            text("SELECT actor, dataset, subject, details FROM ops.audit WHERE action = 'showed personal data'")
        )
        return [tuple(row) for row in rows]


def test_what_is_shown_in_clear_is_recorded_and_stored_nowhere(client: TestClient, people: Platform) -> None:
    before = trail(people)
    path = "/api/datasets/people/rows.csv"
    assert client.get(path).status_code == 200
    assert trail(people) == before
    for query in ("personal=true", "personal=true&who=Annika0"):
        shown = client.get(f"{path}?{query}")
        assert ("ann@x.org" in shown.text, shown.headers["cache-control"]) == (True, "no-store")
    row = ("anybody on this machine", "people", path)
    assert trail(people) == [*before, (*row, {})], "once a minute for a path, and without values"
    listing = client.get("/api/datasets/people/rows/", headers=HEADERS)
    assert listing.headers["masked-columns"] == "who, mail, _extra"
    for wrong in ("personal=please", "personal=true&personal=please"):
        assert client.get(f"{path}?{wrong}").status_code == 422


def test_what_cannot_be_recorded_is_not_shown(client: TestClient, people: Platform) -> None:
    path = "/people?personal=true"
    with people.engine.begin() as conn:
        conn.execute(
            text("ALTER TABLE ops.audit ADD CONSTRAINT full_disk CHECK (action <> 'showed personal data') NOT VALID")
        )
    try:
        for _ in range(2):
            answer = client.get(path)
            assert (answer.status_code >= 500, "ann@x.org" in answer.text) == (True, False)
    finally:
        with people.engine.begin() as conn:
            conn.execute(text("ALTER TABLE ops.audit DROP CONSTRAINT full_disk"))
    assert "ann@x.org" in client.get(path).text


def test_a_page_shows_it_until_it_is_hidden(client: TestClient) -> None:
    for path in ("/people", "/datasets/people"):
        masked = client.get(path).text
        assert not [one for one in SECRETS if one in masked]
        assert f'href="{path}?personal=true"' in masked
        assert "ordering=who" not in masked
        assert "<option>mail" not in masked
        assert ('data-of="city"' in masked, 'data-of="mail"' in masked) == (True, False), "the most frequent values"
        shown = client.get(f"{path}?personal=true&ordering=-mail&city__contains=o&who=Annika0&limit=1")
        assert ("ann@x.org" in shown.text, shown.headers["cache-control"]) == (True, "no-store")
        assert f'href="{path}?city__contains=o&amp;limit=1">Hide' in shown.text
        assert shown.text.count('name="personal" value="true"') == 2, "forms go on to ask"
        assert "/rows.csv?ordering=-mail&amp;city__contains=o&amp;who=Annika0&amp;personal=true" in shown.text
        assert 'data-of="mail"' not in client.get(f"{path}?personal=true").text
        refused = client.get(f"{path}?who=Annika")
        assert (refused.status_code, "personal=true" in refused.text) == (403, True)


def test_a_session_asks_and_a_key_has_to_have_the_scope(
    people: Platform, monkeypatch: pytest.MonkeyPatch, client: httpx.Client
) -> None:
    monkeypatch.setattr(people.settings, "api_auth", "always")
    with people.engine.begin() as conn:
        named, wide, admin = (keys.create(conn, "k", [scope]) for scope in ("read:people", "read", "admin"))
    for key, status in ((named, 200), (wide, 403), (admin, 200)):
        headers = {**HEADERS, "x-api-key": key}
        for path in ("/people", "/api/datasets/people/rows/"):
            assert client.get(f"{path}?personal=true", headers=headers).status_code == status, path
            assert "@x" not in client.get(path, headers=headers).text, path
    assert {actor for actor, *_ in trail(people)} >= {f"key {named[:11]}", f"key {admin[:11]}"}
    client.post("/login", data={"key": named})
    assert "@x" not in client.get("/people").text
    assert "ann@x.org" in client.get("/people?personal=true").text
