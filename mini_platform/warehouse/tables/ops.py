"""Tables that belong to no dataset: those of the schema `ops`, and the quality report.

A change of one of them needs a migration that changes existing databases in the same way (`warehouse/migrations/`).
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from mini_platform.warehouse.tables.columns import PERSONAL

SCHEMAS = ("ops", "staging", "production", "quarantine", "analytics")
STATUSES = ("landed", "staged", "loaded", "refused", "failed", "unchanged")
COUNTERS = ("rows_inserted", "rows_updated", "rows_unchanged", "rows_superseded", "rows_rejected")

ops_metadata = MetaData(schema="ops")

files = Table(
    "files",
    ops_metadata,
    Column("file_id", BigInteger, Identity(always=True), primary_key=True, comment="Arrival sequence: the later wins"),
    Column("dataset", Text, nullable=False),
    Column("name", Text, nullable=False, comment="As it arrived"),
    Column("version", Integer, nullable=False, comment="1 for the first bytes under this name, then 2, 3 ..."),
    Column("sha256", Text, nullable=False, comment="Of the bytes; also their name in the raw store"),
    Column("bytes", BigInteger, nullable=False),
    Column("channel", Text, nullable=False, comment="How it came in"),
    Column("arrived_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("queued_at", DateTime(timezone=True), comment="When it was last told to be validated again; NULL: never"),
    Column("status", Text, nullable=False),
    Column("error", Text, comment="Why it was refused or failed, as a sentence"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("leased_by", Text, comment="Run that works on it"),
    Column("leased_until", DateTime(timezone=True)),
    Column("deferred_at", DateTime(timezone=True), comment="Since when it waits for the others: slow, or died alone"),
    Column("run_id", Text, comment="Run that brought it into its status"),
    Column("staged_at", DateTime(timezone=True)),
    Column("loaded_at", DateTime(timezone=True)),
    Column("rows_read", BigInteger),
    *(Column(counter, BigInteger) for counter in COUNTERS),
    Column("rule_counts", JSONB, comment="Broken rule -> rows, from the one validation pass"),
    Column("keys_unique", Boolean, comment="No two valid rows of the file have one key; false where it is not known"),
    Column(
        "figures", JSONB(none_as_null=True), comment="What its columns hold, if it is large: see the quality report"
    ),
    Column("unexpected_columns", ARRAY(Text), comment="Columns in the file that the dataset does not declare"),
    Column("missing_columns", ARRAY(Text), comment="Declared columns that the file may lack, and does"),
    Column("raw_dropped_at", DateTime(timezone=True), comment="When its raw file was removed; NULL while it is kept"),
    Column(
        "erased_at",
        DateTime(timezone=True),
        comment="When a person was erased from it; sha256 and bytes are of the rest",
    ),
    Column("rows_erased", BigInteger, comment="Rows of erased persons; the other figures are those of its last load"),
    Column("same_as", BigInteger, comment="For an arrival of unchanged bytes: the version that they are"),
    Index("files_version", "dataset", "name", "version", unique=True, postgresql_where=text("same_as IS NULL")),
    CheckConstraint(f"status IN {STATUSES}", name="known_status"),
    CheckConstraint(
        f"status <> 'loaded' OR coalesce(rows_read = {' + '.join(COUNTERS)}, false)", name="every_row_accounted_for"
    ),
    Index("files_loaded", "dataset", "loaded_at"),
    Index("files_refused", "dataset", "name", postgresql_where=text("status IN ('refused', 'failed')")),
    Index("files_erased", "dataset", "erased_at", postgresql_where=text("erased_at IS NOT NULL")),
    Index("files_pending", "dataset", "status", postgresql_where=text("status IN ('landed', 'staged')")),
    comment="The ledger: every file that ever arrived, what became of it and of each of its rows",
)

inbox = Table(
    "inbox",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("signature", Text, nullable=False, comment="Inode, size and times when it was last hashed"),
    Column("file_id", BigInteger, nullable=False, comment="The version in the ledger that these bytes are"),
    comment="What stood in the drop folders when last looked at, so that an untouched file is not hashed again",
)

inboxes = Table(
    "inboxes",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column(
        "inbox", Text, primary_key=True, comment="Its name; the channel of its files in the ledger is `inbox:` and this"
    ),
    Column("url", Text, nullable=False, comment="Where it is; it never holds credentials"),
    Column("position", LargeBinary, nullable=False, comment="Name up to which it is listed; empty: not begun"),
    Column("tried_at", DateTime(timezone=True), comment="When it was last asked"),
    Column("looked_at", DateTime(timezone=True), comment="When it was last listed to its end"),
    Column("last_error", Text, comment="Why it cannot be used, as a sentence; NULL if it can"),
    Column("failing_since", DateTime(timezone=True), comment="When it began to fail; NULL if it does not"),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="In a row"),
    Column(
        "next_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="When it is asked again"
    ),
    Column("held_by", Text, comment="Visit that is under way"),
    Column("held_until", DateTime(timezone=True)),
    comment="The remote inboxes, and how they are",
)

inbox_files = Table(
    "inbox_files",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column("inbox", Text, primary_key=True),
    Column("key", LargeBinary, primary_key=True, comment="Name in the inbox, as the server has it"),
    Column("seen", Text, nullable=False, comment="ETag or time, and size, when it was last listed"),
    Column("bytes", BigInteger, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False, comment="When it was first listed like that"),
    Column("still", Boolean, nullable=False, comment="It is there as a whole: two looks saw the same"),
    Column("skip_reason", Text, comment="Why it does not count, or could not be taken or tidied"),
    Column("retry_at", DateTime(timezone=True), comment="When that is tried again; NULL: not before it changes"),
    Column("tries", Integer, nullable=False, server_default=text("0"), comment="That failed, in a row"),
    Column("signature", Text, comment="What `seen` was when it was landed"),
    Column("file_id", BigInteger, comment="The version in the ledger that these bytes are"),
    Index(
        "inbox_files_waiting",
        "dataset",
        "inbox",
        "key",
        postgresql_where=text("still AND signature IS DISTINCT FROM seen"),
    ),
    comment="What stands in the remote inboxes, so that a file is read once, however often it is listed",
)

checkpoints = Table(
    "checkpoints",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column("source", Text, primary_key=True, comment="Name of the API source"),
    Column(
        "step", BigInteger, nullable=False, comment="Counts every change: who meets another one than it left, stops"
    ),
    Column("sync", BigInteger, nullable=False, comment="Number of the sync that is under way, or was the last"),
    Column("target", Text, nullable=False, comment="SHA-256 of where and how the sync asks"),
    Column("position", Text, comment="Page that comes next; NULL where no sync is under way"),
    Column("whole", Boolean, nullable=False, comment="The sync asks for everything, unchanged or not"),
    Column("begun_at", DateTime(timezone=True), nullable=False, comment="When the sync began"),
    Column("since", DateTime(timezone=True), comment="The sync asks for what changed after it; NULL means everything"),
    Column("pages", BigInteger, nullable=False, comment="Of the sync, with those that had not changed"),
    Column("pages_landed", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False, comment="On the pages that were landed"),
    Column("last_started", DateTime(timezone=True), nullable=False, comment="When it was last asked, or asked again"),
    Column("last_succeeded", DateTime(timezone=True), comment="When a sync last came to its end"),
    Column("last_failed", DateTime(timezone=True)),
    Column("last_error", Text, comment="Why the last sync failed, as a sentence; NULL if it did not"),
    Column("succeeded_begun_at", DateTime(timezone=True), comment="When the last sync that succeeded had begun"),
    Column("whole_begun_at", DateTime(timezone=True), comment="The same of the last one that asked for everything"),
    Column("not_before", DateTime(timezone=True), comment="Until then the source asked to be left alone"),
    comment="How far each source is synced; changed in the transactions that write its pages into the ledger",
)

pages = Table(
    "pages",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("request", Text, primary_key=True, comment="SHA-256 of the URL; it may hold what nobody should read"),
    Column("sync", BigInteger, nullable=False, comment="That met it last"),
    Column("page", BigInteger, nullable=False, comment="Its number in that sync"),
    Column("etag", Text),
    Column("sha256", Text, nullable=False, comment="Of the body"),
    Column("rows_sha256", Text, nullable=False, comment="Of its rows alone"),
    Column("rows", BigInteger, nullable=False),
    Column("next", Text, comment="Page that it leads to"),
    Index("pages_rows", "dataset", "source", "rows_sha256"),
    comment="Pages of the last syncs, to ask only for those that changed and to see when pages repeat",
)

pending_deletes = Table(
    "pending_deletes",
    ops_metadata,
    Column("sha256", Text, primary_key=True),
    comment="Raw files that are to be removed from the raw store, written with the change after which none needs them",
)

dirty_groups = Table(
    "dirty_groups",
    ops_metadata,
    Column("mark_id", BigInteger, Identity(always=True), primary_key=True),
    Column("dataset", Text, nullable=False),
    Column("consumer", Text, nullable=False, comment="Who computes it, such as an aggregate after `aggregate:`"),
    Column(
        "group_key",
        JSONB(none_as_null=True),
        comment="Key of the group to compute again; NULL means every group",
        info=PERSONAL,  # The key of a group may be a person.
    ),
    comment="Groups whose rows changed since their consumer computed them, written with the change itself",
)

changes = Table(
    "changes",
    ops_metadata,
    Column("dataset", Text, primary_key=True),
    Column("what", Text, primary_key=True, comment="rows, declaration, or the name of an aggregate after `aggregate:`"),
    Column("mark", BigInteger, nullable=False, comment="Grows with each change, and never comes again"),
    comment="Whether a dataset is as it was, written in each transaction that changes rows, an aggregate or its tables",
)

api_keys = Table(
    "api_keys",
    ops_metadata,
    Column("key_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, comment="What it is for, in the words of who made it"),
    Column("prefix", Text, nullable=False, unique=True, comment="First characters of the key, to tell it by"),
    Column("sha256", Text, nullable=False, unique=True, comment="Of the whole key, which is kept nowhere"),
    Column("scopes", ARRAY(Text), nullable=False, comment="What it may do, such as read, write:DATASET, admin"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), comment="NULL: never"),
    Column("revoked_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True), comment="To the minute"),
    comment="Keys of the HTTP API: only their hashes",
)

sessions = Table(
    "sessions",
    ops_metadata,
    Column("session_id", BigInteger, Identity(always=True), primary_key=True),
    Column("key_id", BigInteger, nullable=False, comment="Key with which it was opened: it ends with it"),
    Column("sha256", Text, nullable=False, unique=True, comment="Of the token in the cookie, which is kept nowhere"),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True), comment="To the minute"),
    Column("ended_at", DateTime(timezone=True), comment="When somebody logged out, or ended it; NULL: open"),
    comment="Sessions of the dashboard: only their hashes",
)

incidents = Table(
    "incidents",
    ops_metadata,
    Column("incident_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False, comment="What sort of thing is wrong, such as file_refused"),
    Column("subject", Text, nullable=False, comment="With what: a dataset, a source, a check, the first id of a file"),
    Column("dataset", Text, comment="Whose; NULL where it is not of one"),
    Column("evidence", Text, nullable=False, comment="By what it was seen last, such as a run: another one counts"),
    Column("message", Text, nullable=False, comment="What is wrong, as a sentence without personal data"),
    Column("advice", Text, nullable=False, comment="What to do about it"),
    Column("link", Text, nullable=False, comment="Page that shows more"),
    Column("since", DateTime(timezone=True), nullable=False, comment="Since when it is wrong"),
    Column("opened_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="First seen"),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="Last seen anew"),
    Column("times", Integer, nullable=False, server_default=text("1"), comment="How often it was seen anew"),
    Column("closed_at", DateTime(timezone=True), comment="NULL while it is open"),
    Column("closed_by", Text, comment="NULL: it went away by itself"),
    Index("incidents_open", "kind", "subject", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("incidents_known", "kind", "subject", "evidence"),
    comment="What went wrong, a row from its beginning to its end however often it is tried again",
)

alerts = Table(
    "alerts",
    ops_metadata,
    Column("incident_id", BigInteger, primary_key=True),
    Column("event", Text, primary_key=True, comment="opened, or recovered"),
    Column("service", Text, primary_key=True, comment="Who is told: its kind and host, and a hash without secrets"),
    Column("sent_at", DateTime(timezone=True), comment="NULL while it waits"),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="That failed"),
    Column("next_at", DateTime(timezone=True), nullable=False, server_default=func.now(), comment="Not tried before"),
    Column("error", Text, comment="Why the last attempt failed"),
    Index("alerts_waiting", "service", "incident_id", postgresql_where=text("sent_at IS NULL")),
    comment="Who was told of which incident",
)

audit = Table(
    "audit",
    ops_metadata,
    Column("audit_id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("actor", Text, nullable=False, comment="Who: a run, a key by its prefix, a user of the operating system"),
    Column("action", Text, nullable=False, comment="What was done, such as landed, loaded, forgot"),
    Column("dataset", Text, comment="Whose; NULL where it is not of one"),
    Column("subject", Text, comment="To what: the id of a file, the prefix of a key"),
    Column("details", JSONB, nullable=False, server_default=text("'{}'"), comment="Figures; no personal data"),
    Index("audit_subject", "dataset", "subject"),
    comment="Who did what, written in the transaction that did it; rows can be added and never changed or removed",
)
for _statement in (
    """
    CREATE OR REPLACE FUNCTION ops.refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''%%.%% is append-only'', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = ''restrict_violation''; END'
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ops.audit
    FOR EACH STATEMENT EXECUTE FUNCTION ops.refuse_change()
    """,
):
    event.listen(audit, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]

migrations = Table(
    "migrations",
    ops_metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    comment="Changes of these tables that were made, in their order",
)

fingerprints = Table(
    "fingerprints",
    ops_metadata,
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    comment="Of the declared tables and selects, to see at a start whether anything was changed",
)

quality_report = Table(
    "quality_report",
    MetaData(),
    Column("run_id", Text, primary_key=True, comment="Run that measured"),
    Column("table_name", Text, primary_key=True, comment="Schema and table that was measured"),
    Column("column_name", Text, primary_key=True, comment="Declared column that was measured"),
    Column("dataset", Text, nullable=False, comment="Dataset of the table"),
    Column(
        "measured_at",
        DateTime(timezone=True),
        nullable=False,
        comment="When it was measured: a large production table only when a fifth of it may have changed",
    ),
    Column("total_rows", BigInteger, nullable=False, comment="Rows that were measured: of staging, those with columns"),
    Column("nulls", BigInteger, nullable=False, comment="Rows where the column is empty"),
    Column("null_rate", Double, nullable=False, comment="nulls / total_rows; 0 in an empty table"),
    Column("out_of_range", JSONB, nullable=False, comment="Rule of the column -> rows that break it"),
    Column("minimum", Text, comment="Smallest value, as text"),
    Column("maximum", Text, comment="Largest value, as text"),
    Column("mean", Double, comment="Mean of the values, where they are numbers"),
    Column("distinct_values", BigInteger, nullable=False, comment="Different values, empty ones aside"),
    Column("duplicates", BigInteger, nullable=False, comment="Rows beyond the first of their key"),
    schema="analytics",
    comment="Quality of staging and production, a row per run, table and column, kept over time",
)


def platform_tables() -> list[Table]:
    """Return every table that belongs to no dataset."""
    return [*ops_metadata.sorted_tables, quality_report]
