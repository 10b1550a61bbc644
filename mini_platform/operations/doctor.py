"""Doctor: check what the platform depends on, and say what to do about problems.

It changes nothing and starts nothing. Each check yields results and raises no exceptions.
"""

from __future__ import annotations

import difflib
import os
import shlex
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from pydantic import AliasChoices, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from mini_platform.config.project import VARIABLE, project
from mini_platform.config.running import running
from mini_platform.config.setting_sources import SourceError, dotenv_variables, local
from mini_platform.config.settings import PREFIX, Settings, invalid, is_set, load_settings, sources
from mini_platform.config.vault import VaultSettings
from mini_platform.declare.columns import DeclarationError
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.registry import SETTING as DATASETS_SETTING
from mini_platform.declare.registry import InvalidDeclaration
from mini_platform.operations import archive, channels, https, lock
from mini_platform.operations.answering import api_answers, dagster_answers
from mini_platform.operations.check_result import CheckResult, Level
from mini_platform.operations.detection import current
from mini_platform.operations.resources import FREE_SPACE, SKEW_SECONDS, disks, existing, skew
from mini_platform.operations.watchdog import looks
from mini_platform.platform import READER_KEY, Platform
from mini_platform.warehouse import embedded
from mini_platform.warehouse.connection import DatabaseAwayError, database_url, engine
from mini_platform.warehouse.frames import frame_tables
from mini_platform.warehouse.granted import excess_privileges, may_own, missing_privileges
from mini_platform.warehouse.initialize import is_initialized
from mini_platform.warehouse.logins import ReadingRefusedError, may_make, reading_engine, try_login
from mini_platform.warehouse.migrations import NewerDatabaseError, refuse_newer
from mini_platform.warehouse.roles import READER_ROLES
from mini_platform.warehouse.schema import all_tables, is_current, undeclared
from mini_platform.warehouse.tls import VERIFY_FULL, link
from mini_platform.warehouse.usable import problems

NOT_SETTINGS = {VARIABLE, "MINI_PLATFORM_FAULT", "MINI_PLATFORM_SUPERVISED"}
"""Other variables: the project, and those that processes of the platform set for each other."""
NAME, LOCK = "mini-platform", "requirements.lock"


def examine() -> Iterator[CheckResult]:
    """Yield the results of all checks."""
    yield from _versions()
    try:
        yield from _sources()
        settings = load_settings()
    except ValidationError as error:
        do = "Correct it where it is set; .env.example describes it."
        for name, why in invalid(error):
            yield CheckResult("settings", "problem", f"{name} is not valid: {why}", do)
        return
    except SourceError as error:
        yield CheckResult("settings", "problem", str(error), "Restore that source, or set the setting elsewhere.")
        return
    yield CheckResult("settings", "ok", f"all are valid; home is {settings.home}, data is {settings.data}")
    platform = Platform()
    try:
        yield from _declarations(platform)
    except DeclarationError as error:
        yield CheckResult("datasets", "problem", str(error), f"Correct the file, or {DATASETS_SETTING}.")
        return
    for check in (_secrets, *channels.CHECKS, _disk, _ports, _watchdog, _https):
        yield from check(settings)
    yield from _database(platform)


def _declarations(platform: Platform) -> Iterator[CheckResult]:
    """Yield the declarations that cannot be used, whatever is in the database, and further modules of datasets likewise."""
    registry = platform.registry
    for module, variable in (("routes", "router"), ("metabase", "DASHBOARDS")):
        registry.own_values(module, variable, object, registry.datasets)
    yield from map(_invalid, platform.invalid)
    if not platform.invalid and not platform.datasets:
        do = "Draft one: mini-platform new NAME --from FILE."
        yield CheckResult("datasets", "warning", f"{registry.place} declares no dataset", do)


def _invalid(declaration: InvalidDeclaration) -> CheckResult:
    do = f"Correct it: until then {declaration.name} is left out. The other datasets are not affected."
    return CheckResult("datasets", "problem", declaration.message.removesuffix("."), do)


def _versions() -> Iterator[CheckResult]:
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        yield CheckResult(
            "versions", "problem", f"Python is {sys.version.split()[0]}", "Use Python 3.11, 3.12 or 3.13."
        )
    origin, requirements = _requirements()
    wrong = {
        str(requirement): f"{requirement.name} {installed or 'is missing'} ({requirement.specifier})"
        for requirement in requirements
        if not (installed := _installed(requirement.name))
        or not requirement.specifier.contains(installed, prereleases=True)
    }
    if wrong:
        do = "make install" if origin == LOCK else f"pip install {shlex.join(wrong)}"
        packages = ", ".join([*wrong.values()][:5])
        yield CheckResult("versions", "problem", f"packages differ from {origin}: {packages}", do)
    else:
        message = f"Python {sys.version.split()[0]}, {len(requirements)} packages as in {origin}"
        yield CheckResult("versions", "ok", message)


def _requirements() -> tuple[str, list[Requirement]]:
    """Return where the packages of the core are named, and these: the project's lock, else what mini-platform requires."""
    path = project().folder / LOCK
    locked = lock.runtime(path.read_text()) if path.exists() else []
    lines = [
        f"{package.name}=={package.version}{f' ; {package.marker}' if package.marker else ''}" for package in locked
    ]
    every = map(Requirement, lines or requires(NAME) or [])
    origin = LOCK if lines else f"the requirements of {NAME} {version(NAME)}"
    return origin, [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sources() -> Iterator[CheckResult]:
    """Yield where each setting comes from, never its value, and names that look like settings but are not.

    Raises:
        SourceError: a source cannot be read.
    """
    yield from _unknown([*os.environ, *dotenv_variables(Settings)])
    by_source = sources()
    yield from _unknown(by_source.vault.resolved)
    places: dict[str, str] = {}
    for source in (*by_source, *local(VaultSettings)):
        for name, item in source.resolved.items():
            if source.setting(name) or name.upper().split("__")[0] in _names(source.settings_cls):
                places.setdefault(name.upper(), item.place)
    for place in sorted(set(places.values())):
        names = sorted(name for name, other in places.items() if other == place)
        yield CheckResult("settings", "ok", f"from {place}: {', '.join(names)}")


def _unknown(variables: Iterable[str]) -> Iterator[CheckResult]:
    """Yield a warning per unknown name that looks like a setting: a misspelt one would be ignored silently."""
    known = [*_names(Settings), *_names(VaultSettings)]
    ours, others = ([name for name in known if name.startswith(PREFIX) is of_ours] for of_ours in (True, False))
    for name in sorted({name.upper() for name in variables} - NOT_SETTINGS):
        head = name.split("__")[0]
        stem = head.removesuffix("_FILE")
        near = difflib.get_close_matches(stem, *((ours, 1) if name.startswith(PREFIX) else (others, 1, 0.9)))
        if head in known or stem in known or not (near or name.startswith(PREFIX)):
            continue
        do = (
            f"Did you mean {near[0]}{'_FILE' if stem != head else ''}?"
            if near
            else "Remove it; .env.example lists all settings."
        )
        yield CheckResult("settings", "warning", f"{name} is not a setting, and is ignored", do)


def _names(settings_cls: type[BaseSettings]) -> Iterator[str]:
    for name, field in settings_cls.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            yield from (str(choice) for choice in alias.choices)
        else:
            yield str(alias) if alias else f"{settings_cls.model_config['env_prefix']}{name}".upper()


def _secrets(settings: Settings) -> Iterator[CheckResult]:
    for name in (*archive.SECRETS, READER_KEY):
        path = settings.home / name
        if path.exists() and path.stat().st_mode & 0o077:
            yield CheckResult("secrets", "problem", f"others may read {path}", f"chmod 600 {path}")


def _disk(settings: Settings) -> Iterator[CheckResult]:
    for of in disks(settings):
        do = FREE_SPACE if of.level else ""
        yield CheckResult("disk", LEVELS[of.level], str(of), do)
    if not os.access(home := existing(settings.home), os.W_OK):
        yield CheckResult(
            "disk", "problem", f"{home} cannot be written", "Make it writable for the user of the platform."
        )


LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")


def _ports(settings: Settings) -> Iterator[CheckResult]:
    """Check that each port is free, or that our own server answers on it."""
    for server, name, port, is_ours in (
        ("Dagster", "dagster_port", settings.dagster_port, dagster_answers),
        ("the API", "api_port", settings.api_port, api_answers),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                if not is_set(name) and not running(settings.home):
                    message = f"port {port} is busy: mini-platform up takes the next free one for {server}"
                    yield CheckResult("ports", "ok", message)
                elif is_ours(settings):
                    yield CheckResult("ports", "ok", f"{server} answers on port {port}")
                else:
                    do = f"Stop it, or set {PREFIX}{name.upper()} to a free port."
                    yield CheckResult(
                        "ports", "problem", f"port {port} of {server} is not available: {error.strerror}", do
                    )
            else:
                yield CheckResult("ports", "ok", f"port {port} is free for {server}")


def _watchdog(settings: Settings) -> Iterator[CheckResult]:
    if running(settings.home) and not looks(settings):
        message, do = (
            "the watchdog has not looked for minutes: nobody notices what stops",
            "See the end of watchdog.log.",
        )
        yield CheckResult("watchdog", "problem", message, do)


def _https(settings: Settings) -> Iterator[CheckResult]:
    if refusal := https.refusal(settings):
        yield CheckResult("encryption", "problem", refusal, "Correct it: the API does not start.")
    elif settings.api_tls_cert:
        yield CheckResult("encryption", "ok", f"the API uses https, with {settings.api_tls_cert}")
    elif settings.in_clear:
        message, _, do = settings.in_clear.partition(". ")
        yield CheckResult("encryption", "warning", message, do)
    else:
        clients = f"proxies at {settings.api_proxies}" if settings.api_proxies else "this machine"
        yield CheckResult("encryption", "ok", f"the API is meant for {clients} only, over http")


def _database(platform: Platform) -> Iterator[CheckResult]:
    settings, known = platform.settings, platform.invalid
    if settings.database_url is None and not embedded.is_running(settings.home):
        yield CheckResult("database", "warning", "the embedded server does not run", "Start it: mini-platform up.")
        return
    database = None
    try:
        database = engine(database_url(settings))
        with database.connect() as conn:
            for check in (_server, _encryption, _clock):
                yield from check(conn)
            reasons = list(problems(database))
            yield from (CheckResult("database", "problem", *reason) for reason in reasons)
            if reasons:
                return
            platform.examine(database)
            yield from (_invalid(declaration) for declaration in platform.invalid if declaration not in known)
            yield from _tables(conn, platform)
            yield from _roles(conn, platform.datasets.values())
            yield from _reading(conn, platform, database)
            yield from _incidents(conn, platform)
    except DatabaseAwayError as error:
        yield CheckResult("database", "problem", str(error), "Start it, or correct DATABASE_URL.")
    except SQLAlchemyError as error:
        message = getattr(error, "orig", None) or error
        yield CheckResult(
            "database", "problem", f"a query failed: {message}", "See the log of the server, and check DATABASE_URL."
        )
    finally:
        if database:
            database.dispose()


def _server(conn: Connection) -> Iterator[CheckResult]:
    yield CheckResult(
        "database", "ok", f"Postgres {conn.scalar(text('SHOW server_version'))} answers; no extension is needed"
    )


def _encryption(conn: Connection) -> Iterator[CheckResult]:
    peer = link(conn)
    state = f"the connection to the database is {f'encrypted ({peer.protocol})' if peer.protocol else 'not encrypted'}"
    if peer.protocol and peer.mode == "verify-full":
        yield CheckResult("encryption", "ok", f"{state}, and the server is verified to be {peer.host}")
    elif peer.is_local:
        yield CheckResult("encryption", "ok", f"{state}, and does not leave this machine")
    else:
        message = f"{state}, and it is not verified that {peer.host} is the server that answers"
        yield CheckResult("encryption", "warning", message, f"Add {VERIFY_FULL} to DATABASE_URL.")


def _clock(conn: Connection) -> Iterator[CheckResult]:
    seconds = skew(conn)
    worst = sum(seconds > bound for bound in SKEW_SECONDS)
    do = "Synchronize both clocks by NTP." if worst else ""
    yield CheckResult("clock", LEVELS[worst], f"the database and this host differ by {seconds:.1f} s", do)


def _tables(conn: Connection, platform: Platform) -> Iterator[CheckResult]:
    datasets = platform.datasets.values()
    try:
        refuse_newer(conn)
    except NewerDatabaseError as error:
        yield CheckResult("tables", "problem", str(error), "See the page Upgrade of the documentation.")
        return
    if is_current(conn, datasets):
        yield CheckResult("tables", "ok", "they match the declarations of the datasets")
    else:
        yield CheckResult(
            "tables",
            "warning",
            "they do not match the declarations of the datasets yet",
            "Update them: mini-platform up.",
        )
    # The tables of an invalid dataset are not declared now, and are to stay.
    if not platform.invalid and (warning := undeclared(conn, datasets)):
        yield CheckResult("tables", "warning", *warning)


def _incidents(conn: Connection, platform: Platform) -> Iterator[CheckResult]:
    """Yield the open incidents of files, sources and datasets, as the overview and the alerts show them."""
    datasets = platform.datasets
    try:
        if not is_current(conn, datasets.values()):
            return
        incidents = [one for one in current(conn, platform, datasets) if one.kind != "declaration_invalid"]
    except ValueError:
        return  # Reported by the check of the inboxes.
    for incident in incidents:
        do = f"{incident.advice} Or close it by its id: mini-platform alerts list."
        yield CheckResult("incidents", incident.level, incident.message, do)
    if not incidents:
        yield CheckResult("incidents", "ok", "no open incidents of files, sources and datasets")


def _roles(conn: Connection, datasets: Collection[Dataset]) -> Iterator[CheckResult]:
    """Check the roles of the database: a single user is enough on one's own machine, but roles must have exact privileges."""
    has_roles = is_initialized(conn)
    if has_roles and may_own(conn):
        user = conn.scalar(text("SELECT session_user"))
        do = "mini-platform db login NAME --role loader, and use it in DATABASE_URL; the owner is for db init only."
        yield CheckResult("roles", "warning", f"the platform runs as {user}, who may change tables and grants", do)
    if not has_roles:
        return
    kinds: tuple[tuple[Level, Callable[..., Iterator[str]]], ...] = (
        ("problem", excess_privileges),
        ("warning", missing_privileges),
    )
    for level, phrases in kinds:
        for phrase in phrases(conn, [*all_tables(datasets), *frame_tables(conn)]):
            yield CheckResult(
                "roles", level, phrase, "Run mini-platform db init to grant what is declared; REVOKE the rest."
            )


def _reading(conn: Connection, platform: Platform, database: Engine) -> Iterator[CheckResult]:
    """Check the logins that the API reads by: each should be a member of one reader role only."""
    seconds, logins = platform.settings.read_seconds, []
    for role in READER_ROLES:
        access = platform.access(role, unchanged=database)
        if not access.own and may_make(conn):
            message = f"the API creates a login that is a member of {role} only when it reads first"
            yield CheckResult("roles", "ok", message)
        elif not access.own:
            name = role.removeprefix("mini_platform_")
            means = f"assuming {role}, which a statement can undo" if access.assumed else "in read-only transactions"
            message = f"the API reads on the login of the platform, {conn.scalar(text('SELECT session_user'))}, {means}"
            yield CheckResult("roles", "warning", message, CREATE_LOGIN.format(name, name.upper()))
        else:
            reading = reading_engine(access, seconds, name="mini_platform_doctor", pool=1)
            try:
                try_login(reading)
            except ReadingRefusedError as error:
                yield CheckResult("roles", "problem", str(error).rstrip("."), ACCEPT_LOGIN)
            else:
                logins.append(str(reading.url.username))
            finally:
                reading.dispose()
    if logins:
        yield CheckResult("roles", "ok", f"the API reads on logins of its own: {' and '.join(logins)}")


CREATE_LOGIN = (
    "As an administrator of the server: mini-platform db init; or mini-platform db login NAME --role {0}, and its URL in "
    "MINI_PLATFORM_{1}_URL."
)
ACCEPT_LOGIN = (
    "Let pg_hba.conf, or the pooler (PgBouncer: auth_query), accept this login with its password, and make it a member of its "
    "role only; or name others in MINI_PLATFORM_READER_URL and MINI_PLATFORM_PERSONAL_URL."
)
