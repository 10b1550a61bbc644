"""Databases that were made before migrations had numbers: what any of them may lack.

Until then a start compared the tables with the declaration, and made what was missing. Columns and tables were added only, so
this makes of each such database, the first and the last, the same.
"""

from mini_platform.warehouse.migrations.migration import Migration

MIGRATION = Migration(
    1,
    "what a database without numbers may lack",
    """
ALTER TABLE ops.files
    ADD COLUMN IF NOT EXISTS queued_at timestamptz,
    ADD COLUMN IF NOT EXISTS set_aside_at timestamptz,
    ADD COLUMN IF NOT EXISTS keys_unique boolean,
    ADD COLUMN IF NOT EXISTS figures jsonb,
    ADD COLUMN IF NOT EXISTS absent_columns text[],
    ADD COLUMN IF NOT EXISTS raw_dropped_at timestamptz,
    ADD COLUMN IF NOT EXISTS erased_at timestamptz,
    ADD COLUMN IF NOT EXISTS rows_erased bigint;
CREATE INDEX IF NOT EXISTS files_loaded ON ops.files (dataset, loaded_at);
CREATE INDEX IF NOT EXISTS files_refused ON ops.files (dataset, name) WHERE status IN ('refused', 'failed');
CREATE INDEX IF NOT EXISTS files_erased ON ops.files (dataset, erased_at) WHERE erased_at IS NOT NULL;

ALTER TABLE analytics.quality_report ADD COLUMN IF NOT EXISTS mean double precision;

CREATE TABLE IF NOT EXISTS ops.checkpoints (
    dataset text NOT NULL,
    source text NOT NULL,
    step bigint NOT NULL,
    crawl bigint NOT NULL,
    target text NOT NULL,
    "position" text,
    whole boolean NOT NULL,
    begun_at timestamptz NOT NULL,
    since timestamptz,
    pages bigint NOT NULL,
    pages_landed bigint NOT NULL,
    "rows" bigint NOT NULL,
    last_started timestamptz NOT NULL,
    last_succeeded timestamptz,
    last_failed timestamptz,
    last_error text,
    succeeded_begun_at timestamptz,
    whole_begun_at timestamptz,
    not_before timestamptz,
    PRIMARY KEY (dataset, source)
);

CREATE TABLE IF NOT EXISTS ops.pages (
    dataset text NOT NULL,
    source text NOT NULL,
    request text NOT NULL,
    crawl bigint NOT NULL,
    page bigint NOT NULL,
    etag text,
    sha256 text NOT NULL,
    rows_sha256 text NOT NULL,
    "rows" bigint NOT NULL,
    next text,
    PRIMARY KEY (dataset, source, request)
);
CREATE INDEX IF NOT EXISTS pages_rows ON ops.pages (dataset, source, rows_sha256);

CREATE TABLE IF NOT EXISTS ops.inboxes (
    dataset text NOT NULL,
    inbox text NOT NULL,
    url text NOT NULL,
    "position" bytea NOT NULL,
    tried_at timestamptz,
    looked_at timestamptz,
    last_error text,
    failing_since timestamptz,
    failures integer DEFAULT 0 NOT NULL,
    next_at timestamptz DEFAULT now() NOT NULL,
    held_by text,
    held_until timestamptz,
    PRIMARY KEY (dataset, inbox)
);

CREATE TABLE IF NOT EXISTS ops.inbox_files (
    dataset text NOT NULL,
    inbox text NOT NULL,
    key bytea NOT NULL,
    seen text NOT NULL,
    bytes bigint NOT NULL,
    seen_at timestamptz NOT NULL,
    still boolean NOT NULL,
    left_alone text,
    retry_at timestamptz,
    tries integer DEFAULT 0 NOT NULL,
    signature text,
    file_id bigint,
    PRIMARY KEY (dataset, inbox, key)
);
CREATE INDEX IF NOT EXISTS inbox_files_waiting ON ops.inbox_files (dataset, inbox, key)
    WHERE still AND signature IS DISTINCT FROM seen;

CREATE TABLE IF NOT EXISTS ops.dropping (sha256 text NOT NULL PRIMARY KEY);

CREATE TABLE IF NOT EXISTS ops.changes (
    dataset text NOT NULL,
    what text NOT NULL,
    mark bigint NOT NULL,
    PRIMARY KEY (dataset, what)
);

CREATE TABLE IF NOT EXISTS ops.api_keys (
    key_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    prefix text NOT NULL UNIQUE,
    sha256 text NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

CREATE TABLE IF NOT EXISTS ops.incidents (
    incident_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,
    evidence text NOT NULL,
    said text NOT NULL,
    advice text NOT NULL,
    link text NOT NULL,
    since timestamptz NOT NULL,
    opened_at timestamptz DEFAULT now() NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    closed_at timestamptz,
    closed_by text
);
ALTER TABLE ops.incidents ADD COLUMN IF NOT EXISTS dataset text;
CREATE UNIQUE INDEX IF NOT EXISTS incidents_open ON ops.incidents (kind, subject) WHERE closed_at IS NULL;
CREATE INDEX IF NOT EXISTS incidents_known ON ops.incidents (kind, subject, evidence);

CREATE TABLE IF NOT EXISTS ops.alerts (
    incident_id bigint NOT NULL,
    event text NOT NULL,
    service text NOT NULL,
    sent_at timestamptz,
    attempts integer DEFAULT 0 NOT NULL,
    next_at timestamptz DEFAULT now() NOT NULL,
    error text,
    PRIMARY KEY (incident_id, event, service)
);
CREATE INDEX IF NOT EXISTS alerts_waiting ON ops.alerts (service, incident_id) WHERE sent_at IS NULL;

CREATE TABLE IF NOT EXISTS ops.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    dataset text,
    subject text,
    details jsonb DEFAULT '{}' NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_subject ON ops.audit (dataset, subject);
CREATE OR REPLACE FUNCTION ops.refuse_change() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''%.% is append-only'', TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = ''restrict_violation''; END';
DROP TRIGGER IF EXISTS append_only ON ops.audit;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ops.audit
    FOR EACH STATEMENT EXECUTE FUNCTION ops.refuse_change();
""",
)
